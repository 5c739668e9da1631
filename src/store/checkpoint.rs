//! `_transmute.checkpoints`.

use crate::error::Result;
use crate::pg::spi;

/// One checkpoint at a time: what another call has recorded has committed when this returns.
pub fn lock() -> Result<()> {
    spi::execute(
        "LOCK TABLE _transmute.checkpoints IN SHARE ROW EXCLUSIVE MODE",
        &[],
    )?;
    Ok(())
}

/// Records a release, with the migrations that have finished by now.
pub fn insert(version: &str, description: &str) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.checkpoints (version, description, finished) \
         SELECT $1, $2, coalesce(array_agg(m.id ORDER BY m.seq), '{}') \
         FROM _transmute.migrations m WHERE m.state = 'FINISHED' AND NOT m.taken_back AND m.undone_at IS NULL",
        &[version.into(), description.into()],
    )?;
    Ok(())
}

/// The release that the database is at; `None`: none was recorded.
pub fn current() -> Result<Option<String>> {
    Ok(spi::query(
        "SELECT version FROM _transmute.checkpoints ORDER BY id DESC LIMIT 1",
        &[],
        |row| row.need(1),
    )?
    .into_iter()
    .next())
}

/// Version and number of every checkpoint, newest first.
pub fn all() -> Result<Vec<(String, i64)>> {
    spi::query(
        "SELECT version, id FROM _transmute.checkpoints ORDER BY id DESC",
        &[],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// Migrations that had finished at a checkpoint.
pub fn finished(id: i64) -> Result<Vec<String>> {
    Ok(spi::value(
        "SELECT finished FROM _transmute.checkpoints WHERE id = $1",
        &[id.into()],
    )?
    .unwrap_or_default())
}
