//! Stops the extension at a named point of its code.
//!
//! A library compiled with feature `waitpoints` takes, at a point, a shared advisory lock whose key is the point's name, and
//! gives it back at once. Whoever holds that key exclusively stops the code exactly there – and every tool that
//! shows locks, the isolation tester too, sees an ordinary wait.

use std::time::Duration;

use crate::wait::wait_until_seen;
use crate::{Database, Session};

/// The first half of the key, the same in `src/pg/waitpoint.rs`; the second is hashtext(name).
const CLASS: i32 = 74616;

/// Holds waitpoints in one database; what is held is released when it goes.
pub struct Waitpoints {
    session: Session,
}

impl Waitpoints {
    #[track_caller]
    pub fn of(database: &Database<'_>) -> Waitpoints {
        Waitpoints {
            session: database.connect(),
        }
    }

    /// From now on, code that comes to the point waits there.
    #[track_caller]
    pub fn hold(&mut self, name: &str) {
        self.session.query_one(
            "SELECT pg_advisory_lock($1, hashtext($2))",
            &[&CLASS, &name],
        );
    }

    /// Lets go on what waits there, and what comes later.
    #[track_caller]
    pub fn release(&mut self, name: &str) {
        let row = self.session.query_one(
            "SELECT pg_advisory_unlock($1, hashtext($2))",
            &[&CLASS, &name],
        );
        assert!(row.get::<_, bool>(0), "waitpoint {name} was not held");
    }

    /// Processes that stand at the point.
    #[track_caller]
    pub fn waiting(&mut self, name: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_locks
                    WHERE locktype = 'advisory' AND NOT granted AND objsubid = 2
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND classid::bigint = $1 AND objid::bigint = hashtext($2)::bigint & 4294967295
                    ORDER BY pid";
        self.session
            .query(sql, &[&i64::from(CLASS), &name])
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Waits until somebody stands at the point; who.
    #[track_caller]
    pub fn wait_reached(&mut self, name: &str, deadline: Duration) -> i32 {
        wait_until_seen(&format!("someone at waitpoint {name}"), deadline, || {
            let waiting = self.waiting(name);
            waiting.first().copied().ok_or_else(|| {
                self.session.lines(
                    "SELECT pid, backend_type, state, wait_event_type, wait_event, left(query, 80)
                       FROM pg_stat_activity WHERE datname = current_database() ORDER BY pid",
                )
            })
        })
    }
}
