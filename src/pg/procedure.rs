//! A procedure in C's calling convention that commits on its way, as PL/pgSQL's do.

use crate::error::{Error, Result};
use pgrx::pg_sys;

/// How a procedure was called.
pub use pgrx::pg_sys::FunctionCallInfo as Call;

extern "C-unwind" {
    #[link_name = "EnsurePortalSnapshotExists"]
    fn ensure_portal_snapshot_exists();
}

/// Runs `f`, which may commit where the caller of the procedure allows it: not in a transaction block, not from a function.
pub fn run<T>(call: Call, f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: `call` is what the server called the procedure with; CALL passes a CallContext. Connected and finished in
    // balance; an ERROR or an Err, which is raised next, is cleaned up by the server.
    unsafe {
        let context = (*call).context;
        let atomic = context.is_null()
            || (*context).type_ != pg_sys::NodeTag::T_CallContext
            || (*context.cast::<pg_sys::CallContext>()).atomic;
        let options = if atomic { 0 } else { pg_sys::SPI_OPT_NONATOMIC };
        if pg_sys::SPI_connect_ext(options as i32) != pg_sys::SPI_OK_CONNECT as i32 {
            return Err(Error::Bug("SPI_connect_ext failed".into()));
        }
        if !atomic && pg_sys::XactIsoLevel != pg_sys::XACT_READ_COMMITTED as i32 {
            commit(); // nothing but a snapshot that would be too old behind a lock
        }
        let result = f()?;
        pg_sys::SPI_finish();
        Ok(result)
    }
}

/// Commits and begins anew, READ COMMITTED whatever the session is used to; no snapshot is held afterwards. An ERROR (2D000)
/// where `run` says it may not.
pub fn commit() {
    // SAFETY: connected by `run`; no subtransaction and no scope of an identity is open. The level is set where SET TRANSACTION
    // may: before the transaction has a snapshot.
    unsafe {
        pg_sys::SPI_commit();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
    }
}

/// Gives the statements that follow, up to the next commit, the snapshot that a procedure's statements have.
pub fn begin_statement() {
    // SAFETY: inside a transaction with an active portal; the guard turns an ERROR into a panic at this frame.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| ensure_portal_snapshot_exists()) }
}
