//! A column that is dropped: hidden behind a name of ours, later dropped.

use super::require_unused;
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{derived, quote_ident};
use crate::pg::identity::{self, Session};
use crate::pg::naming::HIDDEN;
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{lock, require_free};
use crate::store::{artifact, audit_event};

/// Gives the column a name of ours. What plain DROP COLUMN takes along – indexes, constraints, statistics – goes now: it
/// would bind writers who do not know the column.
pub fn hide(migration_id: &str, table: &Relation, name: &str) -> Result<()> {
    let Some(number) = column::list(table.oid)?
        .iter()
        .find(|c| !c.dropped && c.name == name)
        .map(|c| c.number)
    else {
        return Err(Error::UndefinedObject {
            problem: "a column that is to be dropped is gone".into(),
            detail: format!("{} has no column \"{name}\".", table.name),
            hint: "Somebody dropped or renamed it: undo that, then transmute.resume(id, reason)."
                .into(),
        });
    };
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    let partners = parts(table.oid, number)?
        .into_iter()
        .filter_map(|(_, partner)| partner);
    let mut locked = vec![table.oid];
    locked.extend(partners);
    lock::acquire(&locked, LockMode::AccessExclusive, &table.name.to_string())?;
    require_unused(&[table.oid], &[number], &table.name.to_string())?;

    let artifact = artifact::insert_column(migration_id, table, name)?;
    let hidden = derived(&format!("{HIDDEN}{artifact}_"), name);
    artifact::set_column(artifact, &hidden)?;
    let parts = parts(table.oid, number)?;
    identity::as_role(table.owner, &Session::own(), || {
        for (sql, _) in &parts {
            utility::run(sql)?;
        }
        utility::run(&format!(
            "ALTER TABLE {} RENAME COLUMN {} TO {}",
            table.name,
            quote_ident(name),
            quote_ident(&hidden)
        ))
    })?;
    waitpoint::reach("hide_before_commit")
}

/// What goes with the column: SQL, and the other table that it locks.
fn parts(table: Oid, number: i16) -> Result<Vec<(String, Option<Oid>)>> {
    spi::query(
        include_str!("../../sql/query/column_parts.sql"),
        &[table.into(), number.into()],
        |row| Ok((row.need(1)?, row.get(2)?)),
    )
}

/// Drops a hidden column for good, if it is still there under that name. False: it was not, or it has a new user.
pub fn drop_hidden(hidden: &str) -> Result<bool> {
    let found: Option<Oid> = spi::value(
        "SELECT attrelid FROM pg_attribute WHERE attname = $1::name AND attnum > 0 AND NOT attisdropped LIMIT 1",
        &[hidden.into()],
    )?;
    let Some(oid) = found else {
        return Ok(false);
    };
    let table = relation::get(oid)?;
    lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!(
            "ALTER TABLE {} DROP COLUMN {}",
            table.name,
            quote_ident(hidden)
        ))
    })?;
    Ok(true)
}
