//! NOTIFY transmute: who drives sends what is committed, and tells of progress with the batch that makes it.

use crate::error::Result;
use crate::guc;
use crate::pg::waitpoint;
use crate::store::signal;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

thread_local! {
    /// When this process last told of the progress of a migration.
    static TOLD: RefCell<HashMap<String, Instant>> = RefCell::default();
}

/// Sends what waits, at the commit of this transaction, in which there must be nothing else: no lock that anybody waits for.
/// False: nothing waits.
pub fn send() -> Result<bool> {
    if !signal::waiting()? {
        return Ok(false);
    }
    signal::send()?;
    waitpoint::reach("signals_before_commit")?;
    Ok(true)
}

/// Tells of progress with the batch of this transaction, at most so often.
pub fn progress(id: &str) -> Result<()> {
    let Some(interval) = guc::signal_interval() else {
        return Ok(());
    };
    let due = TOLD.with_borrow(|told| told.get(id).is_none_or(|at| at.elapsed() >= interval));
    if due {
        signal::progress(id)?;
        TOLD.with_borrow_mut(|told| told.insert(id.to_string(), Instant::now()));
    }
    Ok(())
}
