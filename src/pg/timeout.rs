//! A time after which what runs is interrupted, as the setting statement_timeout does it; in workers too, which have none.

use pgrx::pg_sys;
use std::time::Duration;

/// STATEMENT_TIMEOUT of utils/timeout.h, the same in every version we build for.
const STATEMENT_TIMEOUT: i32 = 3;

/// utils/timeout.h; not in the bindings. They raise an error only if the kernel refuses a timer.
mod server {
    extern "C" {
        pub fn enable_timeout_after(id: i32, milliseconds: i32);
        pub fn enable_timeout_at(id: i32, time: i64);
        pub fn disable_timeout(id: i32, keep_indicator: bool);
        pub fn get_timeout_active(id: i32) -> bool;
        pub fn get_timeout_indicator(id: i32, reset: bool) -> bool;
        pub fn get_timeout_finish_time(id: i32) -> i64;
    }
}

/// Puts the session's own timeout back, however what ran has ended.
struct Armed {
    before: Option<i64>,
}

impl Drop for Armed {
    fn drop(&mut self) {
        // SAFETY: timers of this process; the calls allocate nothing and raise nothing for a known timeout.
        unsafe {
            server::disable_timeout(STATEMENT_TIMEOUT, true);
            if server::get_timeout_indicator(STATEMENT_TIMEOUT, true) {
                // It came when there was nothing to interrupt any more.
                pg_sys::QueryCancelPending = 0;
            }
            if let Some(time) = self.before {
                server::enable_timeout_at(STATEMENT_TIMEOUT, time);
            }
        }
    }
}

/// Runs `f`; after `limit` it is interrupted (57014), sooner where the session's own timeout says so.
pub fn within<T>(limit: Duration, f: impl FnOnce() -> T) -> T {
    let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: as in `drop`; the timeout is registered in every process that is connected to a database.
    let _armed = unsafe {
        let now = pg_sys::GetCurrentTimestamp();
        let before = server::get_timeout_active(STATEMENT_TIMEOUT)
            .then(|| server::get_timeout_finish_time(STATEMENT_TIMEOUT));
        if before.is_none_or(|time| time > now + i64::from(milliseconds) * 1000) {
            server::enable_timeout_after(STATEMENT_TIMEOUT, milliseconds);
        }
        Armed { before }
    };
    f()
}
