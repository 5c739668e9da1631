//! What pg_stat_activity and the cumulative statistics see of our processes.

use pgrx::pg_sys;
use std::ffi::CString;

/// Shows `what` as the running query of this process.
pub fn running(what: &str) {
    if let Ok(text) = CString::new(what) {
        // SAFETY: the text is copied by the server.
        unsafe {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr())
        }
    }
}

/// Shows this process as idle, and hands its statistics over.
pub fn idle() {
    // SAFETY: outside a transaction, as the server's own loops do it.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
}

/// Process id of this backend.
pub fn pid() -> i32 {
    // SAFETY: plain read.
    unsafe { pg_sys::MyProcPid }
}

/// oid of the database this process is connected to.
pub fn database() -> pg_sys::Oid {
    // SAFETY: plain read.
    unsafe { pg_sys::MyDatabaseId }
}
