//! `_transmute.drivers`.

use crate::error::Result;
use crate::pg::spi;

pub fn insert(migration_id: &str) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.drivers (migration_id) VALUES ($1)",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// Makes this transaction the only one that drives the migration; false at once when another one does, or it is gone.
pub fn try_lock(migration_id: &str) -> Result<bool> {
    Ok(spi::write_first(
        "SELECT true FROM _transmute.drivers WHERE migration_id = $1 FOR UPDATE SKIP LOCKED",
        &[migration_id.into()],
        |row| row.need::<bool>(1),
    )? == Some(true))
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
