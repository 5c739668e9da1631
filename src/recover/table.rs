//! A table that is dropped: moved out of sight with everything on it, later dropped.

use super::require_unused;
use crate::catalog::relation::{self, Relation};
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{expand, lock, require_free};
use crate::store::{artifact, audit_event};

/// Moves the table into a schema of ours that nobody else may use. It keeps its owner and privileges. Its own foreign
/// keys go: hidden rows must not hold rows of other tables.
pub fn hide(migration_id: &str, table: &Relation) -> Result<()> {
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    let mut locked = vec![table.oid];
    locked.extend(foreign_keys(table.oid)?.into_iter().map(|f| f.1));
    lock::acquire(&locked, LockMode::AccessExclusive, &table.name.to_string())?;
    require_unused(&[table.oid], &[], &table.name.to_string())?;

    let schema = format!("_transmute_{}_old", expand::free_id()?);
    spi::execute(&format!("CREATE SCHEMA {}", quote_ident(&schema)), &[])?;
    for (name, _) in foreign_keys(table.oid)? {
        utility::run(&format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            table.name,
            quote_ident(&name)
        ))?;
    }
    utility::run(&format!(
        "ALTER TABLE {} SET SCHEMA {}",
        table.name,
        quote_ident(&schema)
    ))?;
    let physical = QualifiedName::new(&schema, &table.name.name);
    artifact::insert(
        migration_id,
        &table.name.to_string(),
        &physical,
        relation::get(table.oid)?.rows,
    )?;
    waitpoint::reach("hide_before_commit")
}

/// Foreign keys of the table: name, and the table they point at.
fn foreign_keys(table: Oid) -> Result<Vec<(String, Oid)>> {
    spi::query(
        "SELECT conname::text, confrelid FROM pg_constraint WHERE conrelid = $1 AND contype = 'f' ORDER BY 1",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}
