//! What the server is under, and whether data work waits for it: readings in, decision out.

use std::collections::VecDeque;

/// Longest rest that the WAL rate asks for after one batch: a limit that is far too low slows the work down, it does not
/// stop it.
const MAX_WAL_PAUSE_MS: f64 = 60_000.0;
/// Positions remembered; with one every half second the last half hour.
const MAX_SAMPLES: usize = 4096;

/// Limits of the settings; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub active_sessions: Option<i64>,
    pub replica_lag_ms: Option<i64>,
    pub slot_retention_bytes: Option<i64>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// Client sessions that run a statement.
    pub active_sessions: i64,
    /// The replica that is farthest behind, and by how much.
    pub replica: Option<(String, i64)>,
    /// The replication slot that keeps most WAL, and how many bytes.
    pub slot: Option<(String, i64)>,
    /// Sessions that wait for a lock on the table.
    pub lock_waiters: i64,
}

/// Why data work waits now, for people; `None`: it goes on.
pub fn hold(limits: &Limits, readings: &Readings) -> Option<String> {
    if let (Some(limit), Some((name, lag))) = (limits.replica_lag_ms, &readings.replica) {
        if *lag > limit {
            return Some(format!(
                "the replica {name}, {:.1} s behind, more than transmute.max_replica_lag",
                *lag as f64 / 1000.0
            ));
        }
    }
    if let (Some(limit), Some((name, bytes))) = (limits.slot_retention_bytes, &readings.slot) {
        if *bytes > limit {
            return Some(format!(
                "the replication slot {name}, which keeps {} MB of WAL, more than transmute.max_slot_retention",
                bytes >> 20
            ));
        }
    }
    if let Some(limit) = limits.active_sessions {
        if readings.active_sessions > limit {
            return Some(format!(
                "the load: {} active sessions, more than transmute.max_load = {limit}",
                readings.active_sessions
            ));
        }
    }
    (readings.lock_waiters > 0).then(|| {
        format!(
            "{} sessions that wait for a lock on the table",
            readings.lock_waiters
        )
    })
}

/// How long to rest after a batch that took `busy_ms` and wrote `bytes` of WAL, so that `processes` of them together write
/// at most `bytes_per_second`; at most a minute.
pub fn wal_pause_ms(bytes: u64, busy_ms: f64, bytes_per_second: f64, processes: i32) -> u64 {
    if bytes_per_second.is_nan() || bytes_per_second <= 0.0 {
        return 0;
    }
    let share = bytes_per_second / f64::from(processes.max(1));
    let due_ms = bytes as f64 / share * 1000.0;
    (due_ms - busy_ms.max(0.0))
        .clamp(0.0, MAX_WAL_PAUSE_MS)
        .ceil() as u64
}

/// When which WAL position was the end, to tell how old a replica's position is. What a replica reports itself stands still
/// when its replay does.
#[derive(Clone, Debug, Default)]
pub struct LagTracker(VecDeque<(i64, u64)>);

impl LagTracker {
    /// The end of the WAL is `position` at `now_ms`. Times and positions never go back.
    pub fn note(&mut self, now_ms: i64, position: u64) {
        match self.0.back_mut() {
            // Nothing was written: the position is still the end.
            Some(last) if last.1 >= position => last.0 = last.0.max(now_ms),
            _ => self.0.push_back((now_ms, position)),
        }
        if self.0.len() > MAX_SAMPLES {
            self.0.pop_front();
        }
    }

    /// How long ago `position` was the end: 0 where it still is, or nothing is known. Where it is older than what is
    /// remembered, the age of that.
    pub fn lag_ms(&self, now_ms: i64, position: u64) -> i64 {
        match self.0.back() {
            Some(last) if last.1 > position => {}
            _ => return 0,
        }
        let behind = self.0.partition_point(|(_, known)| *known <= position);
        let since = match behind {
            0 => self.0[0].0,
            n => self.0[n - 1].0,
        };
        (now_ms - since).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_limit_holds_by_itself_and_says_so() {
        let readings = Readings {
            active_sessions: 5,
            replica: Some(("far".into(), 2_500)),
            slot: Some(("cdc".into(), 3 << 20)),
            lock_waiters: 0,
        };
        let none = Limits::default();
        assert_eq!(hold(&none, &readings), None);
        let lag = Limits {
            replica_lag_ms: Some(2_000),
            ..none
        };
        assert!(hold(&lag, &readings)
            .unwrap()
            .starts_with("the replica far, 2.5 s behind"));
        let load = Limits {
            active_sessions: Some(4),
            ..none
        };
        assert!(hold(&load, &readings)
            .unwrap()
            .starts_with("the load: 5 active"));
        let at_the_limit = Limits {
            active_sessions: Some(5),
            replica_lag_ms: Some(2_500),
            slot_retention_bytes: Some(3 << 20),
        };
        assert_eq!(hold(&at_the_limit, &readings), None);
        let slot = Limits {
            slot_retention_bytes: Some((3 << 20) - 1),
            ..none
        };
        assert!(hold(&slot, &readings)
            .unwrap()
            .starts_with("the replication slot cdc, which keeps 3 MB"));
        let waiters = Readings {
            lock_waiters: 1,
            ..Readings::default()
        };
        assert!(hold(&none, &waiters).is_some());
    }

    #[test]
    fn a_replica_that_stands_still_falls_behind_and_recovers() {
        let mut tracker = LagTracker::default();
        assert_eq!(tracker.lag_ms(0, 0), 0);
        tracker.note(0, 100);
        tracker.note(1_000, 100);
        tracker.note(2_000, 200);
        assert_eq!(tracker.lag_ms(2_000, 200), 0);
        assert_eq!(tracker.lag_ms(3_000, 100), 2_000);
        tracker.note(3_000, 300);
        assert_eq!(tracker.lag_ms(9_000, 200), 7_000);
        // Older than all that is remembered: at least the age of that.
        assert_eq!(tracker.lag_ms(9_000, 50), 8_000);
        assert_eq!(tracker.lag_ms(9_000, 300), 0);
    }

    proptest! {
        #[test]
        fn the_wal_rate_is_kept_and_the_rest_bounded(
            bytes in 0u64..1 << 40, busy in 0.0..100_000.0f64, rate in 1.0..1e10f64, processes in 1i32..64,
        ) {
            let pause = wal_pause_ms(bytes, busy, rate, processes);
            prop_assert!(pause as f64 <= MAX_WAL_PAUSE_MS);
            let allowed = rate / f64::from(processes) * (busy + pause as f64) / 1000.0;
            prop_assert!(bytes as f64 <= allowed * 1.000_001 + 1.0 || pause as f64 == MAX_WAL_PAUSE_MS);
            // A batch that wrote less rests no longer, and one that wrote nothing not at all.
            prop_assert!(wal_pause_ms(bytes / 2, busy, rate, processes) <= pause);
            prop_assert_eq!(wal_pause_ms(0, busy, rate, processes), 0);
            prop_assert_eq!(wal_pause_ms(bytes, busy, 0.0, processes), 0);
        }

        #[test]
        fn lag_is_never_more_than_the_time_observed(
            steps in proptest::collection::vec((0i64..5_000, 0u64..100), 1..50), replayed in 0u64..5_000,
        ) {
            let mut tracker = LagTracker::default();
            let (mut now, mut end) = (0, 0);
            for (ms, bytes) in steps {
                now += ms;
                end += bytes;
                tracker.note(now, end);
            }
            let lag = tracker.lag_ms(now, replayed);
            prop_assert!((0..=now).contains(&lag));
            // Whoever has replayed more is not farther behind, and who has replayed all is not behind.
            prop_assert!(tracker.lag_ms(now, replayed + 1) <= lag);
            prop_assert_eq!(tracker.lag_ms(now, end), 0);
        }
    }
}
