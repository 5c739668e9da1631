//! Differences between the supported major versions; no other file spells a version.

use pgrx::pg_sys;

extern "C-unwind" {
    #[link_name = "datumIsEqual"]
    fn datum_is_equal_raw(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
}

/// Whether two values are the same bytes as stored, toast pointers included (datum.c).
///
/// # Safety
/// Both are live values of a type with these attributes.
pub(super) unsafe fn datum_is_equal(
    a: pg_sys::Datum,
    b: pg_sys::Datum,
    by_value: bool,
    length: i32,
) -> bool {
    // SAFETY: by the contract above; it compares memory and raises nothing.
    unsafe { datum_is_equal_raw(a, b, by_value, length) }
}

/// # Safety
/// `desc` is valid, `i` within it.
pub(super) unsafe fn tuple_desc_attr(
    desc: pg_sys::TupleDesc,
    i: usize,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by the contract above.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(desc, i as i32);
        #[cfg(not(feature = "pg18"))]
        return (*desc).attrs.as_ptr().add(i);
    }
}

/// # Safety
/// Relations are open, the snapshot outlives the scan.
pub(super) unsafe fn index_beginscan(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by the contract above.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), keys, 0);
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(heap, index, snapshot, keys, 0);
    }
}

/// # Safety
/// The slot is filled.
pub(super) unsafe fn copy_minimal_tuple(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::MinimalTuple {
    // SAFETY: by the contract above; every slot type has the callback.
    unsafe {
        let copy = (*(*slot).tts_ops)
            .copy_minimal_tuple
            .expect("slot type without copy_minimal_tuple");
        #[cfg(feature = "pg18")]
        return copy(slot, 0);
        #[cfg(not(feature = "pg18"))]
        return copy(slot);
    }
}

/// Virtual generated columns (18) are replaced by their expressions, as ATPrepAlterColumnType does.
///
/// # Safety
/// `expression` refers to `relation` as range table entry 1.
pub(super) unsafe fn expand_generated_columns(
    expression: *mut pg_sys::Node,
    relation: pg_sys::Relation,
) -> *mut pg_sys::Node {
    #[cfg(feature = "pg18")]
    // SAFETY: by the contract above.
    return unsafe { pg_sys::expand_generated_columns_in_expr(expression, relation, 1) };
    #[cfg(not(feature = "pg18"))]
    {
        let _ = relation;
        expression
    }
}

/// Columns of range table entry 1 that `values`, a list of TargetEntry, has are replaced by their values.
///
/// # Safety
/// `expression` is transformed, without sublinks, and reads no row as a whole.
pub(super) unsafe fn replace_columns(
    expression: *mut pg_sys::Node,
    values: *mut pg_sys::List,
) -> *mut pg_sys::Node {
    use pg_sys::ReplaceVarsNoMatchOption::REPLACEVARS_CHANGE_VARNO;
    let nothing = std::ptr::null_mut();
    // SAFETY: by the contract above. The entry itself is looked at for whole rows only.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::ReplaceVarsFromTargetList(
            expression,
            1,
            0,
            nothing,
            values,
            0,
            REPLACEVARS_CHANGE_VARNO,
            1,
            std::ptr::null_mut(),
        );
        #[cfg(not(feature = "pg18"))]
        return pg_sys::ReplaceVarsFromTargetList(
            expression,
            1,
            0,
            nothing,
            values,
            REPLACEVARS_CHANGE_VARNO,
            1,
            std::ptr::null_mut(),
        );
    }
}

/// File number of a relation, and the relcache's record of files new in this transaction, under the
/// names of this version (15 says node where later versions say locator).
pub(super) mod files {
    use pgrx::pg_sys;

    /// # Safety
    /// The relation is open.
    pub unsafe fn assume_new(relation: pg_sys::Relation) {
        // SAFETY: by the contract above.
        unsafe {
            #[cfg(feature = "pg15")]
            pg_sys::RelationAssumeNewRelfilenode(relation);
            #[cfg(not(feature = "pg15"))]
            pg_sys::RelationAssumeNewRelfilelocator(relation);
        }
    }

    /// Whether the relcache says that the relation's file was made in this transaction.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn is_new(relation: pg_sys::Relation) -> bool {
        // SAFETY: by the contract above.
        unsafe {
            #[cfg(feature = "pg15")]
            let first = (*relation).rd_firstRelfilenodeSubid;
            #[cfg(not(feature = "pg15"))]
            let first = (*relation).rd_firstRelfilelocatorSubid;
            first != 0 || (*relation).rd_createSubid != 0
        }
    }

    /// # Safety
    /// The relation is open, and its file is not one made in this transaction.
    pub unsafe fn assume_old(relation: pg_sys::Relation) {
        // SAFETY: by the contract above.
        unsafe {
            (*relation).rd_createSubid = 0;
            #[cfg(feature = "pg15")]
            {
                (*relation).rd_newRelfilenodeSubid = 0;
                (*relation).rd_firstRelfilenodeSubid = 0;
            }
            #[cfg(not(feature = "pg15"))]
            {
                (*relation).rd_newRelfilelocatorSubid = 0;
                (*relation).rd_firstRelfilelocatorSubid = 0;
            }
        }
    }
}

/// ALTER COLUMN … SET EXPRESSION exists since 17.
pub(super) fn is_set_expression(subtype: pg_sys::AlterTableType::Type) -> bool {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    return subtype == pg_sys::AlterTableType::AT_SetExpression;
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    {
        let _ = subtype;
        false
    }
}

/// pg_class.relallfrozen exists since 18.
pub(super) fn swap_all_frozen(
    a: &mut pg_sys::FormData_pg_class,
    b: &mut pg_sys::FormData_pg_class,
) {
    #[cfg(feature = "pg18")]
    std::mem::swap(&mut a.relallfrozen, &mut b.relallfrozen);
    #[cfg(not(feature = "pg18"))]
    let _ = (a, b);
}

/// Whether a clause behind a column is ENFORCED (true) or NOT ENFORCED (false), which exist since 18; `None`: neither.
pub(super) fn enforcement(kind: pg_sys::ConstrType::Type) -> Option<bool> {
    #[cfg(feature = "pg18")]
    return match kind {
        pg_sys::ConstrType::CONSTR_ATTR_ENFORCED => Some(true),
        pg_sys::ConstrType::CONSTR_ATTR_NOT_ENFORCED => Some(false),
        _ => None,
    };
    #[cfg(not(feature = "pg18"))]
    {
        let _ = kind;
        None
    }
}

/// Constraints can be NOT ENFORCED since 18.
pub(super) fn is_enforced(constraint: &pg_sys::Constraint) -> bool {
    #[cfg(feature = "pg18")]
    return constraint.is_enforced;
    #[cfg(not(feature = "pg18"))]
    {
        let _ = constraint;
        true
    }
}

/// Whether NOT NULL is a constraint with a name that can be added NOT VALID and validated later.
pub const NOT_NULL_IS_A_CONSTRAINT: bool = cfg!(feature = "pg18");

/// Installs a signal handler the way the server's own processes do.
///
/// # Safety
/// `handler` is async-signal-safe.
pub(super) unsafe fn signal(number: i32, handler: unsafe extern "C" fn(i32)) {
    // SAFETY: by the contract above; both have the C signature of a handler.
    unsafe {
        let handler: unsafe extern "C-unwind" fn(i32) = std::mem::transmute(handler);
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(number, Some(handler));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(number, Some(handler));
    }
}

/// Runs a started query to its end.
///
/// # Safety
/// The query is started.
pub(super) unsafe fn executor_run(desc: *mut pg_sys::QueryDesc) {
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    // SAFETY: by the contract above.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(desc, forward, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(desc, forward, 0, true);
    }
}

/// Runs a portal to its end, at top level.
///
/// # Safety
/// The portal has been started; the receiver is live.
pub(super) unsafe fn portal_run(portal: pg_sys::Portal, receiver: *mut pg_sys::DestReceiver) {
    // SAFETY: by the contract above; without a place for the tag none is written. i64::MAX is FETCH_ALL.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::PortalRun(
            portal,
            i64::MAX,
            true,
            receiver,
            receiver,
            std::ptr::null_mut(),
        );
        #[cfg(not(feature = "pg18"))]
        pg_sys::PortalRun(
            portal,
            i64::MAX,
            true,
            true,
            receiver,
            receiver,
            std::ptr::null_mut(),
        );
    }
}

/// ALTER COLUMN … SET EXPRESSION, from 17.
pub(super) fn sets_expression(subcommand: pg_sys::AlterTableType::Type) -> bool {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    return subcommand == pg_sys::AlterTableType::AT_SetExpression;
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    {
        let _ = subcommand;
        false
    }
}

/// Expressions of columns (pg_attrdef.h, of which pgrx has no bindings).
pub(super) mod attribute_default {
    use pgrx::pg_sys;

    /// oid of pg_attrdef.
    pub const CATALOG: pg_sys::Oid = pg_sys::Oid::from_u32(2604);

    extern "C-unwind" {
        #[link_name = "GetAttrDefaultOid"]
        fn get_attr_default_oid(relation: pg_sys::Oid, column: pg_sys::AttrNumber) -> pg_sys::Oid;
        #[link_name = "RemoveAttrDefault"]
        fn remove_attr_default(
            relation: pg_sys::Oid,
            column: pg_sys::AttrNumber,
            behavior: pg_sys::DropBehavior::Type,
            complain: bool,
            internal: bool,
        );
    }

    /// InvalidOid: it has none.
    ///
    /// # Safety
    /// Inside a transaction.
    pub unsafe fn oid(relation: pg_sys::Oid, column: i16) -> pg_sys::Oid {
        // SAFETY: by the contract above; the guard turns an ERROR into a panic at this frame.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| get_attr_default_oid(relation, column)) }
    }

    /// # Safety
    /// The relation is locked; nothing depends on the expression.
    pub unsafe fn remove(relation: pg_sys::Oid, column: i16) {
        // SAFETY: by the contract above; the guard turns an ERROR into a panic at this frame.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                remove_attr_default(
                    relation,
                    column,
                    pg_sys::DropBehavior::DROP_RESTRICT,
                    false,
                    true,
                );
            });
        }
    }
}

/// Walks a raw parse tree: raw_expression_tree_walker, a macro over another name since 16.
///
/// # Safety
/// `node` is a node of the raw parser, `context` what `walker` expects.
pub(super) unsafe fn walk_raw_tree(
    node: *mut pg_sys::Node,
    walker: Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool>,
    context: *mut std::ffi::c_void,
) -> bool {
    #[cfg(not(feature = "pg15"))]
    // SAFETY: by the contract above.
    return unsafe { pg_sys::raw_expression_tree_walker_impl(node, walker, context) };
    #[cfg(feature = "pg15")]
    {
        extern "C-unwind" {
            fn raw_expression_tree_walker(
                node: *mut pg_sys::Node,
                walker: Option<
                    unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool,
                >,
                context: *mut std::ffi::c_void,
            ) -> bool;
        }
        // SAFETY: by the contract above; the guard turns an ERROR into a panic at this frame.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| raw_expression_tree_walker(node, walker, context))
        }
    }
}

/// 15 and 16 can be told to vacuum rows that an old snapshot still sees, and then to raise an ERROR where it looks
/// (TestForOldSnapshot).
///
/// # Safety
/// Inside `direct::guarded`; the page is locked.
#[inline(always)]
pub(super) unsafe fn test_for_old_snapshot(
    snapshot: pg_sys::Snapshot,
    relation: pg_sys::Relation,
    page: *const pg_sys::PageHeaderData,
) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: by the contract above.
    unsafe {
        extern "C-unwind" {
            fn TestForOldSnapshot_impl(snapshot: pg_sys::Snapshot, relation: pg_sys::Relation);
        }
        if pg_sys::old_snapshot_threshold >= 0 {
            let (page, taken) = ((*page).pd_lsn, (*snapshot).lsn);
            if taken != 0 && (u64::from(page.xlogid) << 32 | u64::from(page.xrecoff)) > taken {
                TestForOldSnapshot_impl(snapshot, relation);
            }
        }
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    let _ = (snapshot, relation, page);
}

/// Whether a row is to be checked by ExecConstraints even where no NOT NULL column is NULL.
///
/// # Safety
/// `constraints` is of an open relation.
pub(super) unsafe fn checks_values(constraints: *const pg_sys::TupleConstr) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        #[cfg(feature = "pg18")]
        return (*constraints).num_check > 0 || (*constraints).has_generated_virtual;
        #[cfg(not(feature = "pg18"))]
        return (*constraints).num_check > 0;
    }
}

/// GRANT and REVOKE lock the relations that they name: seen on 18, not on 15.
pub(super) const GRANT_LOCKS: bool = cfg!(feature = "pg18");

/// Null when there is no WAL writer. Calls nothing: a signal handler may ask.
///
/// # Safety
/// In a process that is attached to shared memory.
pub(super) unsafe fn wal_writer_latch() -> *mut pg_sys::Latch {
    // SAFETY: the header of the process array lives as long as shared memory; the field is one word.
    unsafe {
        let header = pg_sys::ProcGlobal;
        #[cfg(feature = "pg18")]
        {
            // INVALID_PROC_NUMBER is negative.
            let Ok(number) = usize::try_from((*header).walwriterProc) else {
                return std::ptr::null_mut();
            };
            &raw mut (*(*header).allProcs.add(number)).procLatch
        }
        #[cfg(not(feature = "pg18"))]
        {
            (*header).walwriterLatch
        }
    }
}

/// Whether an UPDATE has no RETURNING.
pub(super) fn returns_nothing(update: &pg_sys::UpdateStmt) -> bool {
    #[cfg(feature = "pg18")]
    return update.returningClause.is_null();
    #[cfg(not(feature = "pg18"))]
    return update.returningList.is_null();
}

/// What a plan has to be allowed of one relation.
pub(super) struct Permission {
    pub relation: pg_sys::Oid,
    pub required: pg_sys::AclMode,
    pub selected: *const pg_sys::Bitmapset,
    pub inserted: *const pg_sys::Bitmapset,
    pub updated: *const pg_sys::Bitmapset,
}

/// Goes over what a plan uses, views by which it came included.
///
/// # Safety
/// `plan` is a planned statement.
pub(super) unsafe fn for_each_permission(
    plan: *const pg_sys::PlannedStmt,
    mut f: impl FnMut(&Permission),
) {
    // SAFETY: by the contract above; entries are of the type of their list.
    unsafe {
        #[cfg(feature = "pg15")]
        let list = (*plan).rtable;
        #[cfg(not(feature = "pg15"))]
        let list = (*plan).permInfos;
        for i in 0..pg_sys::list_length(list) {
            #[cfg(feature = "pg15")]
            let info = &*pg_sys::list_nth(list, i).cast::<pg_sys::RangeTblEntry>();
            #[cfg(not(feature = "pg15"))]
            let info = &*pg_sys::list_nth(list, i).cast::<pg_sys::RTEPermissionInfo>();
            if info.requiredPerms != 0 {
                f(&Permission {
                    relation: info.relid,
                    required: info.requiredPerms,
                    selected: info.selectedCols,
                    inserted: info.insertedCols,
                    updated: info.updatedCols,
                });
            }
        }
    }
}

/// Whether an INSERT of the raw parser has RETURNING.
pub fn insert_returns(insert: &pg_sys::InsertStmt) -> bool {
    #[cfg(feature = "pg18")]
    return !insert.returningClause.is_null();
    #[cfg(not(feature = "pg18"))]
    return !insert.returningList.is_null();
}
