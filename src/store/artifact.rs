//! `_transmute.artifacts`.

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::pg::spi;

/// Records the old rows of a finished rewrite; they expire after the migration's keep_artifacts.
pub fn insert(migration_id: &str, source: &str, physical: &QualifiedName, rows: f64) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.artifacts (migration_id, kind, source, physical_schema, physical_name, \
           row_estimate, bytes, created_at, expires_at) \
         SELECT $1, 'table', $2, $3::name, $4::name, $5, 0, n.now, n.now + keep_artifacts \
         FROM _transmute.migrations, (SELECT clock_timestamp() AS now OFFSET 0) n WHERE id = $1",
        &[
            migration_id.into(),
            source.into(),
            physical.schema.as_str().into(),
            physical.name.as_str().into(),
            rows.into(),
        ],
    )?;
    Ok(())
}

/// Sizes are measured after the swap, outside its lock.
pub fn measure(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET bytes = coalesce(pg_total_relation_size( \
           to_regclass(format('%I.%I', physical_schema, physical_name))), 0) \
         WHERE migration_id = $1 AND dropped_at IS NULL",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// One artifact that is over its time: id, migration, work schema. Only the conductor asks, and there is one.
pub fn expired() -> Result<Option<(i64, String, String)>> {
    spi::first(
        "SELECT id, migration_id, physical_schema::text FROM _transmute.artifacts \
         WHERE dropped_at IS NULL AND expires_at <= clock_timestamp() ORDER BY id LIMIT 1",
        &[],
        |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
    )
}

pub fn set_dropped(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET dropped_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}
