//! Transactions of the workers, and subtransactions anywhere.

use super::error::{catch, ServerError};
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Runs `f` in a transaction of its own: commit on `Ok`, abort on `Err` or on a server ERROR, which
/// comes back as a value so that the worker lives on.
///
/// Only for background workers, outside any transaction.
pub fn run<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: called by a worker outside a transaction; start, body and commit run under one catch,
    // and an abort follows whatever was caught, so the transaction state is balanced.
    let caught = catch(|| unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = f();
        if result.is_ok() {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        result
    });
    match caught {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            // SAFETY: the transaction started above is still open.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(error)
        }
        Err(error) => {
            // SAFETY: as above; AbortCurrentTransaction is a no-op when nothing is open.
            unsafe {
                pg_sys::AbortCurrentTransaction();
                pg_sys::FlushErrorState();
            }
            Err(Error::Server(error))
        }
    }
}

/// How a subtransaction ends when its body succeeds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Keep,
    Undo,
}

/// Runs `f` in a subtransaction. A server ERROR or an `Err` undoes it; `Ok` keeps it, or undoes it
/// too where `end` says so (to try a statement and look at what it did).
pub fn subtransaction<T>(end: End, f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the pattern of plpgsql's exec_stmt_block: remember context and owner, begin, run,
    // release or roll back, restore both.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let caught: std::result::Result<Result<T>, ServerError> = catch(f);
        let result = match caught {
            Ok(result) => result,
            Err(error) => {
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::FlushErrorState();
                Err(Error::Server(error))
            }
        };
        if result.is_ok() && end == End::Keep {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// Makes what this transaction did so far visible to its own next command.
pub fn command_counter_increment() {
    // SAFETY: called inside a transaction.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// Answers cancel and terminate requests; call in every loop over rows.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Lets a latest snapshot be the active one while `f` runs, and gives it to `f`.
pub fn with_latest_snapshot<T>(f: impl FnOnce(super::heap::Snapshot) -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction; pushed and popped in balance (an ERROR aborts the transaction,
    // which pops it).
    unsafe {
        let latest = match pg_sys::IsInParallelMode() {
            // The only one that the server takes anew there; copied when it is pushed.
            true => pg_sys::GetNonHistoricCatalogSnapshot(pg_sys::InvalidOid),
            false => pg_sys::GetLatestSnapshot(),
        };
        pg_sys::PushActiveSnapshot(latest);
        let result = f(super::heap::Snapshot(pg_sys::GetActiveSnapshot()));
        if result.is_ok() {
            pg_sys::PopActiveSnapshot();
        }
        result
    }
}
