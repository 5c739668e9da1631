//! Dead rows of tables, and who keeps them.

use crate::error::Result;
use crate::model::growth::Rows;
use crate::pg::spi;
use crate::pg::Oid;

/// A table, or one leaf of a partitioned one.
pub struct Part {
    /// Qualified and quoted.
    pub name: String,
    pub rows: Rows,
    pub bytes: i64,
    /// How often it was vacuumed by hand, as we do.
    pub vacuums: i64,
}

/// Those of a table, most dead rows first.
pub fn parts(relation: Oid) -> Result<Vec<Part>> {
    spi::query(
        include_str!("../../sql/query/dead_rows.sql"),
        &[relation.into()],
        |row| {
            Ok(Part {
                name: row.need(2)?,
                rows: Rows {
                    live: row.need(3)?,
                    dead: row.need(4)?,
                },
                bytes: row.need(5)?,
                vacuums: row.need(6)?,
            })
        },
    )
}

/// Whose snapshot is the oldest, for people.
pub fn horizon() -> Result<Option<String>> {
    spi::first(include_str!("../../sql/query/horizon.sql"), &[], |row| {
        row.need(1)
    })
}

/// What autovacuum rests after each piece, milliseconds: ours rests as long.
pub fn cost_delay_ms() -> Result<f64> {
    Ok(spi::value::<f64>(
        "SELECT setting::float8 FROM pg_settings \
         WHERE name IN ('autovacuum_vacuum_cost_delay', 'vacuum_cost_delay') AND setting::float8 >= 0 ORDER BY name LIMIT 1",
        &[],
    )?
    .unwrap_or(0.0))
}
