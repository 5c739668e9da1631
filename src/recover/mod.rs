//! Soft drops: what a script drops is hidden first, kept as an artifact, and really dropped when that expires.

pub mod column;
pub mod table;

use crate::error::{Error, Result};
use crate::pg::spi;
use crate::pg::Oid;

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
