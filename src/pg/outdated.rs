//! Statements whose snapshot is older than what a swap brought into their table: they would miss rows, and are refused
//! as the server refuses a write that comes too late (40001), where the library is preloaded.
//!
//! Only REPEATABLE READ and SERIALIZABLE transactions have such snapshots: all others pass after one comparison. For them the
//! row of pg_class says whether the table was changed after the snapshot; only then what the swap left is looked up.

use crate::error::{Error, Result};
use crate::model::xid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;

/// What a drain brought over: by which transaction, and the oldest transaction of those that had written it. 64 bit.
#[derive(Clone, Copy, Debug)]
pub struct BroughtOver {
    pub by: u64,
    pub oldest: u64,
}

/// The drains of each swap that a table has seen, with the names of the migrations.
pub type Look = fn(relation: pg_sys::Oid) -> Result<Vec<(String, Vec<BroughtOver>)>>;

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;
static mut LOOK: Option<Look> = None;

thread_local! {
    /// What is looked up here is no statement of an application.
    static IS_LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// Ends with its scope, also when an ERROR passes.
struct Looking;

impl Looking {
    fn begin() -> Looking {
        IS_LOOKING.set(true);
        Looking
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        IS_LOOKING.set(false);
    }
}

/// Only while shared_preload_libraries are loaded.
pub fn init(look: Look) {
    // SAFETY: called once, in the postmaster, before anything runs.
    unsafe {
        LOOK = Some(look);
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(hook);
    }
}

/// The 64 bit number of a transaction of the last two thousand million; 0 for one whose rows are frozen.
pub fn full_xid(xid: pg_sys::TransactionId) -> u64 {
    // SAFETY: plain read of shared memory.
    let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
    xid::full(next, xid.into_inner())
}

extern "C-unwind" {
    /// The server's own, without pgrx's guard: see `hook`.
    #[link_name = "standard_ExecutorStart"]
    fn unguarded_executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

/// Every plan of every session comes by here. An ERROR of what runs below passes over this frame as the server raised it.
///
/// # Safety
/// Called by the server as its ExecutorStart hook.
unsafe extern "C-unwind" fn hook(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: arguments are passed on as they came. PREVIOUS is set before the hook is; no value with a destructor lives in
    // this frame.
    unsafe {
        if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
            && flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 == 0
        {
            require_plan(query);
        }
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => unguarded_executor_start(query, flags),
        }
    }
}

/// # Safety
/// `query` is about to be started.
#[pg_guard]
unsafe extern "C-unwind" fn require_plan(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by the contract above; the plan's range table has what is read, partitions included, all of it locked.
    unsafe {
        let plan = (*query).plannedstmt;
        let inserts = (*plan).commandType == pg_sys::CmdType::CMD_INSERT;
        for i in 0..pg_sys::list_length((*plan).rtable) {
            let entry = pg_sys::list_nth((*plan).rtable, i).cast::<pg_sys::RangeTblEntry>();
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            // What is only inserted into is not read.
            if inserts && pg_sys::list_member_int((*plan).resultRelations, i + 1) {
                continue;
            }
            if let Err(error) = require((*entry).relid, (*query).snapshot) {
                raise(error);
            }
        }
    }
}

/// As for a plan, for COPY of a relation, which reads it without one.
///
/// # Safety
/// Inside a transaction that has locked the relation.
pub(super) unsafe fn require_for_copy(relation: pg_sys::Oid) {
    // SAFETY: by the contract above; where the transaction has one snapshot for all, it is that.
    unsafe {
        if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
            && relation != pg_sys::InvalidOid
        {
            if let Err(error) = require(relation, pg_sys::GetTransactionSnapshot()) {
                raise(error);
            }
        }
    }
}

fn raise(error: Error) -> ! {
    super::ErrorReport::from(error).report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// # Safety
/// Inside a transaction; `snapshot` is valid.
unsafe fn require(relation: pg_sys::Oid, snapshot: pg_sys::Snapshot) -> Result<()> {
    // SAFETY: by the contract above. LOOK is set in the postmaster and never again.
    unsafe {
        let Some(look) = LOOK else {
            return Ok(()); // not preloaded
        };
        if IS_LOOKING.get() || !is_younger(relation, snapshot) || !locks_our_table() {
            return Ok(());
        }
        let _looking = Looking::begin();
        for (migration, drains) in look(relation)? {
            if drains.iter().any(|drain| misses(drain, snapshot)) {
                let name = pg_sys::get_rel_name(relation);
                let name = match name.is_null() {
                    true => String::new(),
                    false => std::ffi::CStr::from_ptr(name)
                        .to_string_lossy()
                        .into_owned(),
                };
                return Err(Error::Outdated {
                    relation: name,
                    migration,
                });
            }
        }
        Ok(())
    }
}

/// The table that is looked at, locked: false where there is none, and where its name is somebody else's, who would be read as a
/// superuser, or fail. An extension older than this library has no such column.
///
/// # Safety
/// As `require`.
unsafe fn locks_our_table() -> bool {
    // SAFETY: catalog look-ups inside a transaction. What is ours under the lock stays ours.
    unsafe {
        let is_ours = |oid| {
            let extension = pg_sys::get_extension_oid(c"transmute".as_ptr(), true);
            extension != pg_sys::InvalidOid
                && pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, oid) == extension
                && pg_sys::get_rel_relkind(oid) as u8 == pg_sys::RELKIND_RELATION
                && pg_sys::get_attnum(oid, c"brought_over".as_ptr()) > 0
        };
        let namespace = pg_sys::get_namespace_oid(c"_transmute".as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return false;
        }
        let oid = pg_sys::get_relname_relid(c"rewrites".as_ptr(), namespace);
        if oid == pg_sys::InvalidOid || !is_ours(oid) {
            return false;
        }
        pg_sys::LockRelationOid(oid, pg_sys::AccessShareLock as i32);
        let is_still =
            pg_sys::get_relname_relid(c"rewrites".as_ptr(), namespace) == oid && is_ours(oid);
        if !is_still {
            pg_sys::UnlockRelationOid(oid, pg_sys::AccessShareLock as i32);
        }
        is_still
    }
}

/// Whether somebody changed the relation itself after the snapshot.
///
/// # Safety
/// As `require`.
unsafe fn is_younger(relation: pg_sys::Oid, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: by the contract above; the tuple is released after it is read.
    unsafe {
        if relation.to_u32() < pg_sys::FirstNormalObjectId
            || snapshot.is_null()
            || (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC
        {
            return false;
        }
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relation),
        );
        if tuple.is_null() {
            return false;
        }
        let xmin = super::heap::writer_of((*tuple).t_data);
        pg_sys::ReleaseSysCache(tuple);
        full_xid(xmin) != 0 && pg_sys::XidInMVCCSnapshot(xmin, snapshot)
    }
}

/// Whether the snapshot sees a write, and not the drain that brought it over. Where it cannot be told: yes.
///
/// # Safety
/// `snapshot` is an MVCC snapshot.
unsafe fn misses(drain: &BroughtOver, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: by the contract above. Numbers below the snapshot's xmin had ended, and are not compared in 32 bits.
    unsafe {
        let by = pg_sys::TransactionId::from(drain.by as u32);
        drain.oldest < full_xid((*snapshot).xmax)
            && drain.by >= full_xid((*snapshot).xmin)
            && pg_sys::XidInMVCCSnapshot(by, snapshot)
    }
}
