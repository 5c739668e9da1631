//! Waiting for a condition, never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cluster;

/// Often enough that a test loses nothing, seldom enough that the server has the processor.
const POLL: Duration = Duration::from_millis(20);

/// Long enough for a loaded two-core machine; a test that gets there has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it answers. When the deadline passes, panics with what was waited for and the end of the servers'
/// logs. Put what you see into `probe`'s own state, or use [`crate::Session::wait_for`], which reports the last value.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    wait_until_seen(what, deadline, || probe().ok_or("no answer"))
}

/// The same for a probe that says what it saw instead: `Err(last value)` is part of the failure's message.
#[track_caller]
pub fn wait_until_seen<T, V: std::fmt::Debug>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, V>,
) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() >= deadline => {
                panic!(
                    "waited {deadline:?} for {what}; last seen: {last:?}\n{}",
                    cluster::log_tails(40)
                )
            }
            Err(_) => sleep(POLL),
        }
    }
}
