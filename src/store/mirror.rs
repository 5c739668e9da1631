//! `_transmute.mirrors`.

use crate::error::Result;
use crate::pg::spi;
use crate::pg::Oid;

#[derive(Debug, Clone)]
pub struct Mirror {
    pub matview: Oid,
    pub mirror: Oid,
    pub relfilenode: Oid,
    pub writes: i64,
    pub definition: String,
    pub age_seconds: f64,
}

pub fn list(migration_id: &str) -> Result<Vec<Mirror>> {
    spi::query(
        "SELECT matview, mirror, relfilenode, writes, definition, \
           extract(epoch FROM clock_timestamp() - built_at)::float8 \
         FROM _transmute.mirrors WHERE migration_id = $1 ORDER BY matview",
        &[migration_id.into()],
        |row| {
            Ok(Mirror {
                matview: row.need(1)?,
                mirror: row.need(2)?,
                relfilenode: row.need(3)?,
                writes: row.need(4)?,
                definition: row.need(5)?,
                age_seconds: row.need(6)?,
            })
        },
    )
}

/// `build_ms`: how long all of them took.
pub fn insert(migration_id: &str, mirror: &Mirror, build_ms: f64) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.mirrors (migration_id, matview, mirror, relfilenode, writes, definition, build_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            migration_id.into(),
            mirror.matview.into(),
            mirror.mirror.into(),
            mirror.relfilenode.into(),
            mirror.writes.into(),
            mirror.definition.as_str().into(),
            build_ms.into(),
        ],
    )?;
    Ok(())
}

pub fn delete_all(migration_id: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.mirrors WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}
