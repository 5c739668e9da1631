//! Getting a strong lock without making anybody wait: look first, ask without queueing, queue for moments only, come back later.

use crate::catalog::blocker;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::identity;
use crate::pg::relation::{self, LockMode};
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Longest time in the lock queue at once, for others wait behind us: enough for the statements in flight to end.
const QUEUE_MS: i32 = 10;
/// Tries without queueing between two times in the queue.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    /// What this process asked for last and did not get.
    static WANTED: RefCell<Option<(Vec<Oid>, LockMode)>> = const { RefCell::new(None) };
}

/// What was asked for last and not given, once: whoever records the failure may end who is in the way.
pub fn take_wanted() -> Option<(Vec<Oid>, LockMode)> {
    WANTED.take()
}

/// Locks `relations` in this order until the transaction ends, all or none. While a long transaction holds a conflicting lock
/// the lock is not asked for at all: whoever queues behind a waiting strong lock waits with it.
pub fn acquire(relations: &[Oid], mode: LockMode, what: &str) -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    blocker::look_anew()?;
    refuse_if_held(relations, mode, what, timeout)?;
    let slice = QUEUE_MS.min(timeout);
    identity::set_for_transaction("lock_timeout", &slice.to_string())?;
    // Half of it: a conflicting autovacuum is cancelled by the server's deadlock check while we still wait, and in
    // a true deadlock it is we who give way.
    identity::set_for_transaction("deadlock_timeout", &format!("{}ms", (slice / 2).max(1)))?;
    let give_up = Instant::now() + Duration::from_millis(timeout as u64);
    let mut tries = 0;
    loop {
        tries += 1;
        let got = match tries % LOOKS {
            0 => queued(relations, mode)?,
            _ => at_once(relations, mode)?,
        };
        if got {
            // What follows may wait for locks of its own as long as is allowed.
            return identity::set_for_transaction("lock_timeout", &timeout.to_string());
        }
        if Instant::now() >= give_up {
            blocker::look_anew()?;
            refuse_if_held(relations, mode, what, 0)?;
            return Err(not_granted(
                relations,
                mode,
                what,
                "Others came first.".into(),
            ));
        }
        xact::check_for_interrupts();
        std::thread::sleep(PAUSE);
    }
}

fn refuse_if_held(relations: &[Oid], mode: LockMode, what: &str, older_than_ms: i32) -> Result<()> {
    let holders = blocker::of_lock(relations, mode, older_than_ms)?;
    match holders.is_empty() {
        true => Ok(()),
        false => {
            let detail = format!("Held by {}.", holders.join(", "));
            Err(not_granted(relations, mode, what, detail))
        }
    }
}

fn not_granted(relations: &[Oid], mode: LockMode, what: &str, detail: String) -> Error {
    WANTED.set(Some((relations.to_vec(), mode)));
    Error::LockNotAvailable {
        relation: what.to_string(),
        detail,
    }
}

/// All of them without standing in any queue; what it got is let go of again where one is taken.
fn at_once(relations: &[Oid], mode: LockMode) -> Result<bool> {
    let tried = xact::subtransaction(End::Keep, || {
        for oid in relations {
            if !relation::try_lock(*oid, mode)? {
                return Err(Error::LockNotAvailable {
                    relation: String::new(),
                    detail: String::new(),
                });
            }
        }
        Ok(())
    });
    granted(tried)
}

/// One after the other, each for a moment in its queue.
fn queued(relations: &[Oid], mode: LockMode) -> Result<bool> {
    granted(xact::subtransaction(End::Keep, || {
        for oid in relations {
            relation::lock(*oid, mode)?;
        }
        Ok(())
    }))
}

fn granted(tried: Result<()>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(e) if e.sqlstate_text() == "55P03" => Ok(false),
        Err(e) => Err(e),
    }
}
