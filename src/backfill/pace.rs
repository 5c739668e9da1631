//! When the next batch may begin, of data statements and of the copy alike: what the settings leave it of the server.

use crate::catalog::{blocker, pressure};
use crate::error::Result;
use crate::guc;
use crate::model::pressure::{hold, wal_pause_ms, LagTracker, Limits, Readings};
use crate::model::throttle;
use crate::pg::Oid;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often the server is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What this process knows of its own pace.
#[derive(Default)]
struct Pace {
    /// A rest after the last batch, and whether it is for the sake of the WAL rate; by migration.
    rests: HashMap<String, (Instant, bool)>,
    /// When the server was last looked at, for which table, and what was found.
    looked: Option<(Instant, u32, Option<String>)>,
    began: Option<Instant>,
    wal: LagTracker,
}

thread_local! {
    static PACE: RefCell<Pace> = RefCell::new(Pace::default());
}

/// A wait before the next batch.
#[derive(Debug)]
pub struct Held {
    pub pause: Duration,
    /// For people; `None`: it is only the rest that `transmute.backfill_duty` asks for.
    pub reason: Option<String>,
}

/// Whether the next batch has to wait.
pub fn held(migration_id: &str, relation: Oid) -> Result<Option<Held>> {
    let rest = PACE.with_borrow(|pace| pace.rests.get(migration_id).copied());
    if let Some((until, for_wal)) = rest {
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(Some(Held {
                pause: left.min(LOOK),
                reason: for_wal.then(|| "the WAL rate, transmute.max_wal_rate".into()),
            }));
        }
    }
    let reason = look(relation)?;
    Ok(reason.map(|reason| Held {
        pause: LOOK,
        reason: Some(reason),
    }))
}

/// Notes a batch: how long to rest after it.
pub fn rest(migration_id: &str, busy_ms: f64, wal_bytes: u64) -> Duration {
    let by_duty = throttle::pause_ms(busy_ms, guc::backfill_duty());
    let by_wal = guc::max_wal_rate().map_or(0, |rate| {
        wal_pause_ms(wal_bytes, busy_ms, rate, guc::max_parallel_backfill())
    });
    let pause = Duration::from_millis(by_duty.max(by_wal));
    PACE.with_borrow_mut(|pace| {
        let until = Instant::now() + pause;
        pace.rests
            .insert(migration_id.to_string(), (until, by_wal > by_duty));
    });
    pause
}

/// Reads what the limits are about, not more often than every half second.
fn look(relation: Oid) -> Result<Option<String>> {
    let known = PACE.with_borrow(|pace| {
        pace.looked
            .as_ref()
            .filter(|(at, table, _)| at.elapsed() < LOOK && *table == relation.to_u32())
            .map(|(_, _, reason)| reason.clone())
    });
    if let Some(reason) = known {
        return Ok(reason);
    }
    let limits = Limits {
        active_sessions: guc::max_load(),
        replica_lag_ms: guc::max_replica_lag_ms(),
        slot_retention_bytes: guc::max_slot_retention(),
    };
    let mut readings = Readings {
        lock_waiters: pressure::lock_waiters(relation)?,
        ..Readings::default()
    };
    if limits.active_sessions.is_some() {
        blocker::look_anew()?;
        readings.active_sessions = pressure::active_sessions()?;
    }
    if limits.replica_lag_ms.is_some() {
        let (end, replicas) = (pressure::wal_end()?, pressure::replicas()?);
        readings.replica = PACE.with_borrow_mut(|pace| {
            let began = *pace.began.get_or_insert_with(Instant::now);
            let now = began.elapsed().as_millis() as i64;
            pace.wal.note(now, end);
            replicas
                .into_iter()
                .map(|(name, replayed)| (name, pace.wal.lag_ms(now, replayed)))
                .max_by_key(|(_, lag)| *lag)
        });
    }
    if limits.slot_retention_bytes.is_some() {
        readings.slot = pressure::slot()?;
    }
    let reason = hold(&limits, &readings);
    PACE.with_borrow_mut(|pace| {
        pace.looked = Some((Instant::now(), relation.to_u32(), reason.clone()));
    });
    Ok(reason)
}
