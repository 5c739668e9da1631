//! What ALTER refuses to work around: taken away before it and put back after it, in the same transaction.

use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::pg::spi;
use crate::pg::Oid;
use crate::store::rewrite::ToValidate;

/// One object, from `_transmute.dependents`.
#[derive(Debug, Clone)]
pub struct Dependent {
    pub kind: String,
    pub identity: String,
    /// The relation besides the table that has to be locked for it, if there is one.
    pub relation: Option<Oid>,
    /// The name, where it is a constraint.
    pub constraint: Option<String>,
    depth: i32,
    drop_sql: Vec<String>,
    create_sql: Vec<String>,
}

impl Dependent {
    /// A foreign key or publication entry of the table itself: goes with its column.
    pub fn belongs_to(&self, table: &Relation) -> bool {
        self.kind.starts_with("publication")
            || self.kind == "foreign_key" && self.identity.ends_with(&format!(" on {}", table.name))
    }
}

/// Dependents of these columns, outermost first (a view on a view before that view).
pub fn list(table: Oid, columns: &[i16]) -> Result<Vec<Dependent>> {
    spi::query(
        "SELECT kind, identity, relation_oid, coalesce(drop_sql, '{}'), coalesce(create_sql, '{}'), depth, \
           constraint_name FROM _transmute.dependents($1, $2) ORDER BY depth DESC, kind, identity",
        &[table.into(), columns.to_vec().into()],
        |row| {
            Ok(Dependent {
                kind: row.need(1)?,
                identity: row.need(2)?,
                relation: row.get::<Oid>(3)?.filter(|o| o.to_u32() != 0),
                drop_sql: row.need(4)?,
                create_sql: row.need(5)?,
                depth: row.need(6)?,
                constraint: row.get(7)?,
            })
        },
    )
}

/// Dependents of several tables, each once, outermost first. What uses another one is in every list that has that one, and
/// deeper there, so its greatest depth is deeper.
pub fn merged(dependents: Vec<Dependent>) -> Vec<Dependent> {
    let mut result: Vec<Dependent> = Vec::new();
    for one in dependents {
        match result
            .iter_mut()
            .find(|d| d.kind == one.kind && d.identity == one.identity)
        {
            Some(known) => known.depth = known.depth.max(one.depth),
            None => result.push(one),
        }
    }
    result.sort_by_key(|d| -d.depth);
    result
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

/// Foreign keys from and to the table with this validity: owning table, quoted, and name.
pub fn foreign_keys(table: Oid, validated: bool) -> Result<Vec<ToValidate>> {
    spi::query(
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
