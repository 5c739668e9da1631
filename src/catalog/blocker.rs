//! Who is in the way.

use crate::error::Result;
use crate::pg::relation::LockMode;
use crate::pg::spi;
use crate::pg::Oid;

/// pg_stat_activity is read once a transaction and kept; this makes the next look a new one.
pub fn look_anew() -> Result<()> {
    spi::query("SELECT pg_stat_clear_snapshot()", &[], |_| Ok(()))?;
    Ok(())
}

/// Long-running holders of conflicting locks, described for people; empty: none.
pub fn of_lock(relations: &[Oid], mode: LockMode, older_than_ms: i32) -> Result<Vec<String>> {
    spi::query(
        include_str!("../../sql/query/blockers.sql"),
        &[
            relations.to_vec().into(),
            mode.conflicts().into(),
            older_than_ms.into(),
        ],
        |row| row.need(1),
    )
}

/// A session that was ended because it held a lock and did nothing.
#[derive(Debug, Clone)]
pub struct Ended {
    pub pid: i32,
    pub user: String,
    pub application: String,
    pub idle_seconds: i32,
}

/// Ends who holds a conflicting lock and has been idle in the transaction for longer than `idle` (interval text).
pub fn end_idle(relations: &[Oid], mode: LockMode, idle: &str) -> Result<Vec<Ended>> {
    let found = spi::query(
        include_str!("../../sql/query/idle_blockers.sql"),
        &[
            relations.to_vec().into(),
            mode.conflicts().into(),
            idle.into(),
        ],
        |row| {
            let ended = Ended {
                pid: row.need(1)?,
                user: row.need(2)?,
                application: row.get::<String>(3)?.unwrap_or_default(),
                idle_seconds: row.need(4)?,
            };
            Ok(row.need::<bool>(5)?.then_some(ended))
        },
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// How many of these transactions (pid@start) are still running.
pub fn still_running(transactions: &[String]) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM pg_stat_activity a \
         WHERE a.pid || '@' || extract(epoch FROM a.xact_start) = ANY ($1)",
        &[transactions.to_vec().into()],
    )?
    .unwrap_or(0))
}

/// Transactions whose snapshot may be older than transaction `xid` (64 bit, decimal), as pid@start.
pub fn old_snapshots(xid: &str) -> Result<Vec<String>> {
    spi::query(
        include_str!("../../sql/query/old_snapshots.sql"),
        &[xid.into()],
        |row| row.need(1),
    )
}

/// Who keeps a process waiting, described for people and without a time that changes all the while; empty: nobody.
pub fn of_process(pid: i32) -> Result<Vec<String>> {
    spi::query(
        include_str!("../../sql/query/blockers_of_process.sql"),
        &[pid.into()],
        |row| row.need(1),
    )
}
