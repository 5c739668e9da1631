//! One at a time: calls that begin migrations, or take them back, hold an advisory lock until their transaction ends.

use crate::error::Result;
use crate::guc;
use crate::pg::{spi, xact};

/// Runs `f` when nobody else is at it; who has to wait is told for whom. What the other one has committed is seen.
pub fn one_at_a_time<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(lock) = guc::lock_id() else {
        return f();
    };
    if try_lock(lock)? {
        return f();
    }
    match holder(lock)? {
        Some(holder) => pgrx::notice!("waiting for {holder}"),
        None => pgrx::notice!("waiting for another session, which is about to end its transaction"),
    }
    spi::execute("SELECT pg_advisory_xact_lock($1)", &[lock.into()])?;
    xact::with_latest_snapshot(|_| f())
}

fn try_lock(lock: i64) -> Result<bool> {
    Ok(spi::value::<bool>("SELECT pg_try_advisory_xact_lock($1)", &[lock.into()])? == Some(true))
}

/// Who has it, for people.
fn holder(lock: i64) -> Result<Option<String>> {
    spi::first(
        "SELECT a.pid, a.usename::text, a.application_name, a.state FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.mode = 'ExclusiveLock' \
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
           AND l.classid::int8 = $1 >> 32 AND l.objid::int8 = $1 & 4294967295 LIMIT 1",
        &[lock.into()],
        |row| {
            Ok(format!(
                "pid {}, user \"{}\", application \"{}\" ({}), which has lock {lock} (transmute.lock_id)",
                row.need::<i32>(1)?,
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<String>(3)?.unwrap_or_default(),
                row.get::<String>(4)?.unwrap_or_default()
            ))
        },
    )
}
