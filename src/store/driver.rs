//! `_transmute.drivers`.

use crate::error::Result;
use crate::pg::{activity, spi};

pub fn insert(migration_id: &str) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.drivers (migration_id) VALUES ($1)",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// Makes this transaction the only one that drives the migration; false at once when another one does, or it is gone.
pub fn try_lock(migration_id: &str) -> Result<bool> {
    let before = spi::write_first(
        "SELECT pid, backend_start IS NOT DISTINCT FROM \
           (SELECT a.backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a) \
         FROM _transmute.drivers WHERE migration_id = $1 FOR UPDATE SKIP LOCKED",
        &[migration_id.into()],
        |row| Ok((row.get::<i32>(1)?, row.need::<bool>(2)?)),
    )?;
    match before {
        None => return Ok(false),
        Some((Some(pid), true)) if pid == activity::pid() => {}
        Some(_) => take_over(migration_id)?,
    }
    Ok(true)
}

/// Says who drives from now on: for people, the lock is the claim.
fn take_over(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.drivers d SET pid = a.pid, backend_start = a.backend_start, since = clock_timestamp() \
         FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a WHERE d.migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// As `try_lock`, but waits for whoever drives it, as long as lock_timeout allows.
pub fn lock(migration_id: &str) -> Result<()> {
    spi::write_first(
        "SELECT true FROM _transmute.drivers WHERE migration_id = $1 FOR UPDATE",
        &[migration_id.into()],
        |row| row.need::<bool>(1),
    )?;
    Ok(())
}

/// The process that drives the migration now: the holder of the transaction that has locked the row.
pub fn pid(migration_id: &str) -> Result<Option<i32>> {
    spi::first(
        "SELECT l.pid FROM _transmute.drivers d JOIN pg_locks l ON l.transactionid = d.xmax \
         WHERE d.migration_id = $1 AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
           AND l.pid <> pg_backend_pid()",
        &[migration_id.into()],
        |row| row.need(1),
    )
}
