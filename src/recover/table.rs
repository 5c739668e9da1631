//! A table that is dropped: moved out of sight with everything on it, later dropped.

use super::require_unused;
use crate::catalog::partition;
use crate::catalog::relation::{self, Relation};
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{expand, lock, require_free};
use crate::store::{artifact, audit_event};

/// Moves the table, with its partitions, into a schema of ours that nobody else may use. It keeps its owner and privileges. Its own foreign
/// keys go: hidden rows must not hold rows of other tables.
pub fn hide(migration_id: &str, table: &Relation) -> Result<()> {
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    let members = partition::tree(table.oid)?;
    let mut locked: Vec<Oid> = members.iter().map(|m| m.oid).collect();
    for member in &members {
        locked.extend(foreign_keys(member.oid)?.into_iter().map(|f| f.partner));
    }
    lock::acquire(&locked, LockMode::AccessExclusive, &table.name.to_string())?;
    require_unused(&[table.oid], &[], &table.name.to_string())?;

    let schema = format!("_transmute_{}_old", expand::free_id()?);
    spi::execute(&format!("CREATE SCHEMA {}", quote_ident(&schema)), &[])?;
    for member in &members {
        for key in foreign_keys(member.oid)?.iter().filter(|k| k.is_own) {
            utility::run(&format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                member.name,
                quote_ident(&key.name)
            ))?;
        }
    }
    for member in &members {
        utility::run(&format!(
            "ALTER TABLE {} SET SCHEMA {}",
            member.name,
            quote_ident(&schema)
        ))?;
    }
    let physical = QualifiedName::new(&schema, &table.name.name);
    artifact::insert(
        migration_id,
        &table.name.to_string(),
        &physical,
        relation::get(table.oid)?.rows,
    )?;
    waitpoint::reach("hide_before_commit")
}

/// Moves a hidden table back to where it was. Its own foreign keys are the business of whoever asks.
pub fn show(migration_id: &str, table: &Relation, shown: &QualifiedName) -> Result<()> {
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    super::take_out(migration_id, &table.name, None)?;
    utility::run(&format!(
        "ALTER TABLE {} SET SCHEMA {}",
        table.name,
        quote_ident(&shown.schema)
    ))?;
    spi::execute(
        &format!("DROP SCHEMA {}", quote_ident(&table.name.schema)),
        &[],
    )?;
    waitpoint::reach("recover_before_commit")
}

/// Old rows are written by nobody: no default of theirs keeps a sequence from being dropped with its table.
pub fn forget_sequences(table: Oid) -> Result<()> {
    let columns: Vec<String> = spi::query(
        "SELECT quote_ident(a.attname) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
         WHERE d.adrelid = $1 AND EXISTS (SELECT FROM pg_depend p JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S' \
           WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass)",
        &[table.into()],
        |row| row.need(1),
    )?;
    if columns.is_empty() {
        return Ok(());
    }
    let table = relation::get(table)?;
    identity::as_role(table.owner, &Session::own(), || {
        columns.iter().try_for_each(|column| {
            utility::run(&format!(
                "ALTER TABLE {} ALTER COLUMN {column} DROP DEFAULT",
                table.name
            ))
        })
    })
}

/// A foreign key of a table.
pub struct ForeignKey {
    pub name: String,
    /// The table it points at.
    pub partner: Oid,
    /// It is not what a key of a parent, or one to a partitioned table, is made of.
    pub is_own: bool,
}

pub fn foreign_keys(table: Oid) -> Result<Vec<ForeignKey>> {
    spi::query(
        "SELECT conname::text, confrelid, conparentid = 0 FROM pg_constraint WHERE conrelid = $1 AND contype = 'f' ORDER BY 1",
        &[table.into()],
        |row| {
            Ok(ForeignKey {
                name: row.need(1)?,
                partner: row.need(2)?,
                is_own: row.need(3)?,
            })
        },
    )
}

/// A name that two tables or indexes of a partition tree have, in different schemas: they cannot be hidden in one.
pub fn name_taken_twice(members: &[Oid]) -> Result<Option<String>> {
    spi::first(
        "SELECT quote_ident(c.relname) FROM pg_class c \
         WHERE c.oid = ANY ($1) OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY ($1)) \
         GROUP BY c.relname HAVING count(*) > 1 LIMIT 1",
        &[members.to_vec().into()],
        |row| row.need(1),
    )
}
