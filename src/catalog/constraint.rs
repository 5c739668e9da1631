//! The constraints of a table.

use crate::error::Result;
use crate::pg::constraint as pg_constraint;
use crate::pg::{spi, Oid};
use std::collections::HashSet;

/// One constraint.
#[derive(Debug, Clone)]
pub struct Constraint {
    pub name: String,
    /// pg_constraint.contype.
    pub kind: char,
    /// Names of the columns that it is about.
    pub columns: Vec<String>,
    /// The table that a foreign key points at.
    pub references: Option<Oid>,
}

/// The constraints of a table, oldest first.
pub fn list(table: Oid) -> Result<Vec<Constraint>> {
    spi::query_kept(
        "SELECT conname::text, contype::text, nullif(confrelid, 0), ARRAY( \
           SELECT a.attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, place) \
           JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.number ORDER BY k.place) \
         FROM pg_constraint WHERE conrelid = $1 AND contype <> 't' ORDER BY pg_constraint.oid",
        &[table.into()],
        |row| {
            Ok(Constraint {
                name: row.need(1)?,
                kind: row.need::<String>(2)?.chars().next().unwrap_or('?'),
                references: row.get(3)?,
                columns: row.need(4)?,
            })
        },
    )
}

/// The name that the server would choose for a constraint without one (ChooseConstraintName): the first that no
/// constraint of the schema has, and none of `taken`.
pub fn choose_name(
    schema: &str,
    table: &str,
    addition: Option<&str>,
    label: &str,
    taken: &HashSet<String>,
) -> Result<String> {
    let mut number = 0;
    loop {
        let suffix = match number {
            0 => label.to_string(),
            _ => format!("{label}{number}"),
        };
        let name = pg_constraint::object_name(table, addition, &suffix)?;
        let exists: Option<bool> = spi::value_kept(
            "SELECT EXISTS (SELECT FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace \
             WHERE c.conname = $2::name AND n.nspname = $1::name)",
            &[schema.into(), name.as_str().into()],
        )?;
        if exists != Some(true) && !taken.contains(&name) {
            return Ok(name);
        }
        number += 1;
    }
}
