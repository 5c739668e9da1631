//! Getting a strong lock without making anybody wait: look first, queue briefly, come back later.

use crate::catalog::blocker;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::identity;
use crate::pg::relation::{self, LockMode};
use crate::pg::Oid;

/// Locks `relations` in this order until the transaction ends. While a long transaction holds a conflicting lock
/// the lock is not asked for at all: whoever queues behind a waiting strong lock waits with it.
pub fn acquire(relations: &[Oid], mode: LockMode, what: &str) -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    blocker::look_anew()?;
    let holders = blocker::of_lock(relations, mode, timeout)?;
    if !holders.is_empty() {
        return Err(Error::LockNotAvailable {
            relation: what.to_string(),
            detail: format!("Held by {}.", holders.join(", ")),
        });
    }
    identity::set_for_transaction("lock_timeout", &timeout.to_string())?;
    // Half of it: a conflicting autovacuum is cancelled by the server's deadlock check while we still wait, and in
    // a true deadlock it is we who give way.
    identity::set_for_transaction("deadlock_timeout", &format!("{}ms", (timeout / 2).max(1)))?;
    for oid in relations {
        relation::lock(*oid, mode)?;
    }
    Ok(())
}
