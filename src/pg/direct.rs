//! The server's functions as they are, for loops over rows: pgrx guards each call of its own with a sigsetjmp, which is a
//! quarter of what such a loop costs. Here one guard holds for the whole loop.
//!
//! An ERROR jumps to the guard over all frames between. So in these frames, from the closure that `guarded` gets down to the
//! call, nothing may be live that has a destructor, and nothing may panic: they move pointers and plain values only, and
//! what they gather is owned by the frame that calls `guarded`.

use pgrx::pg_sys;

extern "C-unwind" {
    pub(super) fn ReadBufferExtended(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        mode: pg_sys::ReadBufferMode::Type,
        strategy: pg_sys::BufferAccessStrategy,
    ) -> pg_sys::Buffer;
    pub(super) fn LockBuffer(buffer: pg_sys::Buffer, mode: i32);
    pub(super) fn ReleaseBuffer(buffer: pg_sys::Buffer);
    pub(super) fn HeapTupleSatisfiesVisibility(
        tuple: pg_sys::HeapTuple,
        snapshot: pg_sys::Snapshot,
        buffer: pg_sys::Buffer,
    ) -> bool;
    pub(super) fn ExecStoreBufferHeapTuple(
        tuple: pg_sys::HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        buffer: pg_sys::Buffer,
    ) -> *mut pg_sys::TupleTableSlot;
    pub(super) fn ExecConstraints(
        relation: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    );
    pub(super) fn MemoryContextReset(context: pg_sys::MemoryContext);
    pub(super) fn datum_image_eq(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: i32,
    ) -> bool;
    pub(super) fn datumIsEqual(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
    pub(super) fn heap_modify_tuple_by_cols(
        tuple: pg_sys::HeapTuple,
        desc: pg_sys::TupleDesc,
        count: std::ffi::c_int,
        columns: *const std::ffi::c_int,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    ) -> pg_sys::HeapTuple;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: i32);
    fn ProcessInterrupts();
}

/// Runs `f`, in which the functions above may raise an ERROR: it comes out of here as pgrx raises it elsewhere.
///
/// # Safety
/// `f` keeps to the rule at the head of this file, beside what each call asks for.
pub(super) unsafe fn guarded<T: Copy, F: FnOnce() -> T>(f: F) -> T {
    const { assert!(!std::mem::needs_drop::<F>(), "captured by reference only") };
    // SAFETY: by the contract above.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(f) }
}

/// CHECK_FOR_INTERRUPTS.
///
/// # Safety
/// Inside `guarded`.
#[inline(always)]
pub(super) unsafe fn check_for_interrupts() {
    // SAFETY: a flag that signal handlers set; by the contract above.
    unsafe {
        if (&raw const pg_sys::InterruptPending).read_volatile() != 0 {
            ProcessInterrupts();
        }
    }
}

/// slot_getallattrs.
///
/// # Safety
/// Inside `guarded`; the slot is filled.
#[inline(always)]
pub(super) unsafe fn get_all_attributes(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by the contract above.
    unsafe {
        let attributes = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < attributes {
            slot_getsomeattrs_int(slot, attributes);
        }
    }
}

/// ExecClearTuple.
///
/// # Safety
/// Inside `guarded`.
#[inline(always)]
pub(super) unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by the contract above; every kind of slot has the callback.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
    }
}

/// ExecCopySlot.
///
/// # Safety
/// Inside `guarded`; both slots have the same shape, `from` is filled.
#[inline(always)]
pub(super) unsafe fn copy_slot(to: *mut pg_sys::TupleTableSlot, from: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by the contract above; every kind of slot has the callback.
    unsafe {
        if let Some(copy) = (*(*to).tts_ops).copyslot {
            copy(to, from);
        }
    }
}

/// ExecStoreVirtualTuple.
///
/// # Safety
/// The slot is a virtual one, cleared, with all its values set.
#[inline(always)]
pub(super) unsafe fn store_virtual(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by the contract above.
    unsafe {
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*slot).tts_nvalid = (*(*slot).tts_tupleDescriptor).natts as i16;
    }
}

/// ExecEvalExprSwitchContext: the value, and whether it is NULL.
///
/// # Safety
/// Inside `guarded`; the expression is prepared, the context's tuples are set.
#[inline(always)]
pub(super) unsafe fn evaluate(
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
) -> (pg_sys::Datum, bool) {
    // SAFETY: by the contract above; ExecInitExpr gives every expression its function.
    unsafe {
        let previous = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*context).ecxt_per_tuple_memory;
        let mut is_null = false;
        let value = match (*state).evalfunc {
            Some(evaluate) => evaluate(state, context, &mut is_null),
            None => pg_sys::Datum::null(),
        };
        pg_sys::CurrentMemoryContext = previous;
        (value, is_null)
    }
}

/// slot_getsomeattrs.
///
/// # Safety
/// Inside `guarded`; the slot is filled and has that many attributes.
#[inline(always)]
pub(super) unsafe fn get_attributes(slot: *mut pg_sys::TupleTableSlot, attributes: i32) {
    // SAFETY: by the contract above.
    unsafe {
        if i32::from((*slot).tts_nvalid) < attributes {
            slot_getsomeattrs_int(slot, attributes);
        }
    }
}
