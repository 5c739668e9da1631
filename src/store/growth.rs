//! `_transmute.growth`.

use crate::error::Result;
use crate::pg::spi;
use crate::pg::Oid;

/// What a table has grown to; the first time it is what it was before.
pub fn note(migration_id: &str, relation: Oid, bytes: i64) -> Result<()> {
    // A small change is not worth a write.
    spi::execute(
        "INSERT INTO _transmute.growth AS g (migration_id, relation, bytes_before, bytes) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (migration_id, relation) DO UPDATE SET bytes = excluded.bytes \
         WHERE abs(g.bytes - excluded.bytes) * 100 > g.bytes",
        &[migration_id.into(), relation.into(), bytes.into()],
    )?;
    Ok(())
}

pub fn note_vacuum(migration_id: &str, relation: Oid) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.growth SET vacuums = vacuums + 1, vacuumed_at = clock_timestamp() \
         WHERE migration_id = $1 AND relation = $2",
        &[migration_id.into(), relation.into()],
    )?;
    Ok(())
}

/// What was measured in a former run says nothing of the next one.
pub fn forget(migration_id: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.growth WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}
