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
use std::ptr;

/// How often we think of them.
const EVERY_NS: libc::c_long = 1_000_000;
/// What we write before the WAL writer is woken; more often, commits would wait for its flushes instead.
const PIECE_BYTES: u64 = 512 * 1024;
/// The server has no use for it. Its own timeouts would not do: each of them sets the latch of the process, so that none
/// would sleep any more.
const SIGNAL: c_int = libc::SIGPROF;

/// The server's own, unguarded: what a signal handler calls must neither jump nor allocate.
mod raw {
    use super::pg_sys;

    extern "C" {
        pub fn SetLatch(latch: *mut pg_sys::Latch);
    }
}

thread_local! {
    /// The timer of this process, once it has one.
    static TIMER: Cell<Option<libc::timer_t>> = const { Cell::new(None) };
    /// How many want it now.
    static HEEDING: Cell<usize> = const { Cell::new(0) };
    /// `wal_bytes` of this process when it last woke the WAL writer.
    static WOKEN_AT: Cell<u64> = const { Cell::new(0) };
}

/// While one lives the WAL writer does not rest, and this process yields.
#[must_use]
pub struct Heeding(());

/// In a process of the server, which has one thread.
pub fn heed() -> Heeding {
    if HEEDING.replace(HEEDING.get() + 1) == 0 {
        if TIMER.get().is_none() {
            TIMER.set(make_timer());
        }
        set_timer(EVERY_NS);
    }
    Heeding(())
}

impl Drop for Heeding {
    fn drop(&mut self) {
        HEEDING.set(HEEDING.get() - 1);
        if HEEDING.get() == 0 {
            set_timer(0);
        }
    }
}

/// `None` where the system gives none: then we are only a worse neighbour.
fn make_timer() -> Option<libc::timer_t> {
    // SAFETY: structures of C that are valid when zeroed, filled in as sigaction(2) and timer_create(2) say; the handler
    // is there before the first signal.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = look_up as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = SIGNAL;
        let mut timer: libc::timer_t = ptr::null_mut();
        let made = libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) == 0
            && libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0;
        made.then_some(timer)
    }
}

/// Every so many nanoseconds; 0: not at all.
fn set_timer(every_ns: libc::c_long) {
    let every = libc::timespec {
        tv_sec: 0,
        tv_nsec: every_ns,
    };
    let spec = libc::itimerspec {
        it_interval: every,
        it_value: every,
    };
    if let Some(timer) = TIMER.get() {
        // SAFETY: a timer of this process.
        unsafe { libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()) };
    }
}

/// The signal handler.
extern "C" fn look_up(_signal: c_int) {
    // SAFETY: errno and a counter of this process; shared memory that lives as long as it does; SetLatch is made for signal
    // handlers.
    unsafe {
        let errno = *libc::__errno_location();
        let written = (&raw const pg_sys::pgWalUsage.wal_bytes).read();
        if written.wrapping_sub(WOKEN_AT.get()) >= PIECE_BYTES {
            WOKEN_AT.set(written);
            let latch = compat::wal_writer_latch();
            if !latch.is_null() {
                raw::SetLatch(latch);
            }
        }
        std::thread::yield_now();
        *libc::__errno_location() = errno;
    }
}
