//! What ALTER refuses to work around: taken away before it and put back after it, in the same transaction.

use crate::catalog::partition::Member;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::pg::spi;
use crate::pg::Oid;
use crate::store::rewrite::ToValidate;

/// One object, from `_transmute.dependents`.
#[derive(Debug, Clone)]
pub struct Dependent {
    /// 1: uses the table itself; greater than that of every dependent it uses.
    pub depth: i32,
    pub kind: String,
    pub object: Oid,
    pub identity: String,
    /// The relation besides the table that has to be locked for it, if there is one.
    pub relation: Option<Oid>,
    /// The name, where it is a constraint.
    pub constraint: Option<String>,
    drop_sql: Vec<String>,
    pub create_sql: Vec<String>,
}

impl Dependent {
    /// A foreign key or publication entry of the table itself: goes with its column.
    pub fn belongs_to(&self, table: &Relation) -> bool {
        self.is_of(&table.name.to_string())
    }

    /// The same of one of a tree.
    pub fn belongs_to_one_of(&self, tree: &[Member]) -> bool {
        tree.iter().any(|member| self.is_of(&member.name))
    }

    fn is_of(&self, table: &str) -> bool {
        self.kind.starts_with("publication")
            // Before 18 that of a partitioned table is none that can be put back; it is one that goes.
            || self.identity.starts_with("table constraint ")
                && self.identity.ends_with(&format!(" on {table}"))
    }
}

/// Dependents of these columns, outermost first (a view on a view before that view). Views of versions are the swap's own business.
pub fn list(table: Oid, columns: &[i16]) -> Result<Vec<Dependent>> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    spi::query_kept(
        "SELECT kind, identity, relation_oid, coalesce(drop_sql, '{}'), coalesce(create_sql, '{}'), depth, object_oid, \
           constraint_name FROM _transmute.dependents($1, $2) d \
         WHERE NOT EXISTS (SELECT FROM _transmute.version_views v WHERE d.object_oid IN (v.view, v.rows_view) AND d.kind = 'view') \
         ORDER BY depth DESC, kind, identity",
        &[table.into(), columns.to_vec().into()],
        |row| {
            Ok(Dependent {
                kind: row.need(1)?,
                identity: row.need(2)?,
                relation: row.get::<Oid>(3)?.filter(|o| o.to_u32() != 0),
                drop_sql: row.need(4)?,
                create_sql: row.need(5)?,
                depth: row.need(6)?,
                object: row.need(7)?,
                constraint: row.get(8)?,
            })
        },
    )
}

/// The dependents of several tables, each once, outermost first.
pub fn merged(lists: impl IntoIterator<Item = Vec<Dependent>>) -> Vec<Dependent> {
    let mut all: Vec<Dependent> = Vec::new();
    for dependent in lists.into_iter().flatten() {
        match all
            .iter_mut()
            .find(|d| d.kind == dependent.kind && d.object == dependent.object)
        {
            Some(known) => known.depth = known.depth.max(dependent.depth),
            None => all.push(dependent),
        }
    }
    all.sort_by(|a, b| (b.depth, &a.kind, &a.identity).cmp(&(a.depth, &b.kind, &b.identity)));
    all
}

/// Changes when one of them is changed: their SQL is written down before the lock of the swap, and used in it.
pub fn stamps(dependents: &[Dependent]) -> Result<String> {
    let objects: Vec<Oid> = dependents.iter().map(|d| d.object).collect();
    Ok(spi::value_kept::<String>(
        include_str!("../../sql/query/stamps.sql"),
        &[objects.into()],
    )?
    .unwrap_or_default())
}

/// Under the lock, where nobody can change them any more.
pub fn require_unchanged(dependents: &[Dependent], before: &str, what: &str) -> Result<()> {
    if stamps(dependents)? == before {
        return Ok(());
    }
    Err(Error::LockNotAvailable {
        relation: what.to_string(),
        detail: "Something that depends on it was changed while the lock was waited for.".into(),
    })
}

pub fn name_of(relation: Oid) -> Result<QualifiedName> {
    spi::first_kept(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = $1",
        &[relation.into()],
        |row| Ok(QualifiedName::new(row.need::<String>(1)?, row.need::<String>(2)?)),
    )?
    .ok_or_else(|| Error::Bug(format!("relation {} is gone", relation.to_u32())))
}

/// Refuses what cannot be put back.
pub fn require_supported(table: &Relation, dependents: &[Dependent]) -> Result<()> {
    let unsupported: Vec<&str> = dependents
        .iter()
        .filter(|d| d.kind == "unsupported")
        .map(|d| d.identity.as_str())
        .collect();
    if unsupported.is_empty() {
        return Ok(());
    }
    Err(Error::Unsupported {
        problem: "objects depend on the changed columns that cannot be put back by themselves"
            .into(),
        detail: format!("On {}: {}.", table.name, unsupported.join(", ")),
        hint: "Drop them before the migration and make them again after it.".into(),
    })
}

pub fn drop_all(dependents: &[Dependent]) -> Result<()> {
    for sql in dependents.iter().flat_map(|d| &d.drop_sql) {
        spi::execute(sql, &[])?;
    }
    Ok(())
}

pub fn create_all(dependents: &[Dependent]) -> Result<()> {
    for sql in dependents.iter().rev().flat_map(|d| &d.create_sql) {
        spi::execute(sql, &[])?;
    }
    Ok(())
}

/// A foreign key of a table, as `foreign_keys` lists it.
pub fn to_validate(table: Oid, name: Option<String>) -> Result<ToValidate> {
    Ok(ToValidate {
        table: spi::value_kept("SELECT $1::regclass::text", &[table.into()])?
            .ok_or_else(|| Error::Bug("a table without a name".into()))?,
        name: name.ok_or_else(|| Error::Bug("an added foreign key without a name".into()))?,
    })
}

/// Foreign keys from and to the table with this validity: owning table, quoted, and name.
pub fn foreign_keys(table: Oid, validated: bool) -> Result<Vec<ToValidate>> {
    spi::query_kept(
        "SELECT conrelid::regclass::text, conname::text FROM pg_constraint \
         WHERE contype = 'f' AND conparentid = 0 AND $1 IN (conrelid, confrelid) AND convalidated = $2 \
         ORDER BY 1, 2",
        &[table.into(), validated.into()],
        |row| {
            Ok(ToValidate {
                table: row.need(1)?,
                name: row.need(2)?,
            })
        },
    )
}
