//! What a long piece of work owes the sessions beside it.
//!
//! A commit of the application flushes everything before it, ours included. Between two rounds of the WAL writer
//! (wal_writer_delay) a copy leaves tens of megabytes, which the next commit then waits for. Woken for
//! each piece, the WAL writer flushes it beside everybody. And whoever waits for the processor that we keep busy
//! gets it now, not at the end of our time slice.

use super::compat;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

/// How often we think of them.
const EVERY_MS: c_int = 1;
/// What we write before the WAL writer is woken; more often, commits would wait for its flushes instead.
const PIECE_BYTES: u64 = 512 * 1024;

/// The server's own, unguarded: what a signal handler calls must neither jump nor allocate.
mod raw {
    use super::{c_int, pg_sys};

    extern "C" {
        pub fn RegisterTimeout(id: c_int, handler: extern "C" fn()) -> c_int;
        pub fn enable_timeout_every(id: c_int, first: pg_sys::TimestampTz, delay_ms: c_int);
        pub fn disable_timeout(id: c_int, keep_indicator: bool);
        pub fn SetLatch(latch: *mut pg_sys::Latch);
    }
}

thread_local! {
    /// The timer of this process, once it has one.
    static TIMER: Cell<Option<c_int>> = const { Cell::new(None) };
    /// How many want it now.
    static HEEDING: Cell<usize> = const { Cell::new(0) };
    /// `wal_bytes` of this process when it last woke the WAL writer.
    static WOKEN_AT: Cell<u64> = const { Cell::new(0) };
}

/// While one lives the WAL writer does not rest, and this process yields.
#[must_use]
pub struct Heeding {
    timer: c_int,
}

/// In a process of the server that can take timeouts, which every backend and worker can.
pub fn heed() -> Heeding {
    let timer = TIMER.get().unwrap_or_else(|| {
        // SAFETY: the process has initialised its timeouts at its start; one of the few free ones is taken, once.
        let timer = unsafe { raw::RegisterTimeout(compat::USER_TIMEOUT, look_up) };
        TIMER.set(Some(timer));
        timer
    });
    if HEEDING.replace(HEEDING.get() + 1) == 0 {
        // SAFETY: a registered timer.
        unsafe { raw::enable_timeout_every(timer, pg_sys::GetCurrentTimestamp(), EVERY_MS) };
    }
    Heeding { timer }
}

impl Drop for Heeding {
    fn drop(&mut self) {
        HEEDING.set(HEEDING.get() - 1);
        if HEEDING.get() == 0 {
            // SAFETY: a registered timer.
            unsafe { raw::disable_timeout(self.timer, false) };
        }
    }
}

/// Runs in a signal handler.
extern "C" fn look_up() {
    // SAFETY: a counter of this process; shared memory that lives as long as it does; SetLatch is made for signal handlers.
    unsafe {
        let written = (&raw const pg_sys::pgWalUsage.wal_bytes).read();
        if written - WOKEN_AT.get() >= PIECE_BYTES {
            WOKEN_AT.set(written);
            let latch = compat::wal_writer_latch();
            if !latch.is_null() {
                raw::SetLatch(latch);
            }
        }
        std::thread::yield_now();
    }
}
