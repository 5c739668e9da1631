//! What the server is under.

use crate::error::Result;
use crate::pg::spi;
use crate::pg::Oid;

/// Client sessions that run a statement now; ours are background workers, or this one.
pub fn active_sessions() -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' \
           AND pid <> pg_backend_pid()",
        &[],
    )?
    .unwrap_or(0))
}

/// Sessions that wait for a lock on a table.
pub fn lock_waiters(relation: Oid) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted AND relation = $1 \
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        &[relation.into()],
    )?
    .unwrap_or(0))
}

/// The end of the WAL now, in bytes.
pub fn wal_end() -> Result<u64> {
    Ok(
        spi::value::<i64>("SELECT (pg_current_wal_lsn() - '0/0')::bigint", &[])?.unwrap_or(0)
            as u64,
    )
}

/// The replication slot that keeps most WAL from being removed, and how many bytes.
pub fn slot() -> Result<Option<(String, i64)>> {
    spi::first(
        "SELECT slot_name::text, (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots \
         WHERE restart_lsn IS NOT NULL AND wal_status <> 'lost' ORDER BY restart_lsn LIMIT 1",
        &[],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// Replicas that are connected, by name, and what they have replayed, in bytes.
pub fn replicas() -> Result<Vec<(String, u64)>> {
    spi::query(
        "SELECT coalesce(nullif(application_name, ''), pid::text), (replay_lsn - '0/0')::bigint \
         FROM pg_stat_replication WHERE replay_lsn IS NOT NULL",
        &[],
        |row| Ok((row.need(1)?, row.need::<i64>(2)? as u64)),
    )
}
