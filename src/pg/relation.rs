//! Open relations and the locks on them.

use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Lock modes by the names the documentation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    AccessShare,
    RowExclusive,
    ShareRowExclusive,
    AccessExclusive,
}

impl LockMode {
    fn number(self) -> i32 {
        (match self {
            LockMode::AccessShare => pg_sys::AccessShareLock,
            LockMode::RowExclusive => pg_sys::RowExclusiveLock,
            LockMode::ShareRowExclusive => pg_sys::ShareRowExclusiveLock,
            LockMode::AccessExclusive => pg_sys::AccessExclusiveLock,
        }) as i32
    }

    /// As pg_locks.mode spells it.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::AccessShare => "AccessShareLock",
            LockMode::RowExclusive => "RowExclusiveLock",
            LockMode::ShareRowExclusive => "ShareRowExclusiveLock",
            LockMode::AccessExclusive => "AccessExclusiveLock",
        }
    }
}

/// An open table; closed when dropped, its lock is kept until the transaction ends.
pub struct Table(pub(super) pg_sys::Relation);

impl Table {
    /// Opens and locks; an ERROR if it is gone or lock_timeout passes.
    pub fn open(oid: pg_sys::Oid, mode: LockMode) -> Table {
        // SAFETY: inside a transaction; the reference is given back in Drop.
        Table(unsafe { pg_sys::table_open(oid, mode.number()) })
    }

    /// Heap blocks now.
    pub fn blocks(&self) -> i64 {
        // SAFETY: the relation is open and locked.
        i64::from(unsafe {
            pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM)
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // While an ERROR unwinds, the resource owner closes it: leave the server's state alone then.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; NoLock keeps the lock to the end of the transaction.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as i32) }
        }
    }
}

/// Locks a relation until the end of the transaction, under the lock_timeout in force.
pub fn lock(oid: pg_sys::Oid, mode: LockMode) -> Result<()> {
    // SAFETY: inside a transaction. LockRelationOid also takes in pending invalidations.
    unsafe {
        pg_sys::LockRelationOid(oid, mode.number());
        let name = pg_sys::get_rel_name(oid);
        if name.is_null() {
            return Err(Error::UndefinedObject {
                problem: "the table is gone".into(),
                detail: format!("Relation {} was dropped while the migration worked on it.", oid.to_u32()),
                hint: "transmute.rollback(id, reason) clears the migration up.".into(),
            });
        }
    }
    Ok(())
}
