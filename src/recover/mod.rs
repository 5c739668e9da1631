//! Soft drops: what a script drops is hidden first, kept as an artifact, and really dropped when that expires.

pub mod column;
pub mod table;

use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::spi;
use crate::pg::Oid;
use crate::store::artifact;
use crate::store::audit_event::{self, Act};

/// Refuses what plain DROP … RESTRICT refuses: others use these tables, or these columns of the one table.
pub fn require_unused(tables: &[Oid], columns: &[i16], what: &str) -> Result<()> {
    let users: Vec<String> = spi::query(
        include_str!("../../sql/query/drop_users.sql"),
        &[tables.to_vec().into(), columns.to_vec().into()],
        |row| row.need(1),
    )?;
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::DependentObjects {
        problem: match columns.is_empty() {
            true => "other objects depend on a table that is dropped".into(),
            false => "other objects depend on a column that is dropped".into(),
        },
        detail: format!("On {what}: {}.", users.join(", ")),
        hint: "Drop or change them first; CASCADE is not done online.".into(),
    })
}

/// What was hidden is an artifact no more.
pub fn take_out(migration_id: &str, table: &QualifiedName, column: Option<&str>) -> Result<()> {
    let Some((id, source)) = artifact::take_out(table, column)? else {
        return Err(not_kept(table, column));
    };
    audit_event::append(Act {
        migration_id: Some(migration_id),
        event: "artifact recovered",
        detail: Some(serde_json::json!({ "artifact": id, "source": source })),
        ..Act::default()
    })?;
    Ok(())
}

/// Refuses to show a hidden column whose time is over.
pub fn require_kept(table: &QualifiedName, column: &str) -> Result<()> {
    match artifact::is_kept(column)? {
        true => Ok(()),
        false => Err(not_kept(table, Some(column))),
    }
}

fn not_kept(table: &QualifiedName, column: Option<&str>) -> Error {
    let what = match column {
        Some(column) => format!("{table}.{}", quote_ident(column)),
        None => table.to_string(),
    };
    Error::Prerequisite {
        problem: "what was dropped is not kept any more".into(),
        detail: format!("{what} is no artifact."),
        hint: "SELECT * FROM transmute.artifacts shows what is kept.".into(),
    }
}
