//! The extension itself as an object of the database that can be locked.

use pgrx::pg_sys;

const NAME: &std::ffi::CStr = c"transmute";

/// Keeps it in the database until the transaction ends; false where there is none. DROP EXTENSION takes its lock before any
/// other: a process of ours that asks for this first never holds a table that a drop wants while it waits for one that a drop has.
pub fn keep() -> bool {
    lock(pg_sys::AccessShareLock)
}

/// As DROP EXTENSION will: nobody else keeps it, and who comes waits. False where there is none.
pub fn take() -> bool {
    lock(pg_sys::AccessExclusiveLock)
}

fn lock(mode: u32) -> bool {
    // SAFETY: catalog look-ups and a lock inside a transaction, which releases it. What has been locked is looked at again: it
    // may have gone while we waited.
    unsafe {
        loop {
            let extension = pg_sys::get_extension_oid(NAME.as_ptr(), true);
            if extension == pg_sys::InvalidOid {
                return false;
            }
            pg_sys::LockDatabaseObject(
                pg_sys::ExtensionRelationId,
                extension,
                0,
                mode as pg_sys::LOCKMODE,
            );
            if pg_sys::get_extension_oid(NAME.as_ptr(), true) == extension {
                return true;
            }
            pg_sys::UnlockDatabaseObject(
                pg_sys::ExtensionRelationId,
                extension,
                0,
                mode as pg_sys::LOCKMODE,
            );
        }
    }
}
