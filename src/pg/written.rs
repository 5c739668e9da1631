//! Where the library is not preloaded: a migration's own triggers tell who writes the old shape. A row of
//! `_transmute.written`, at most one a second, table and session, in the transaction of the statement; it has no index to keep.

use pgrx::pg_sys;
use std::cell::RefCell;

const EVERY_US: i64 = 1_000_000;
/// Tables that a session remembers to have told of.
const MAX_TOLD: usize = 64;
const COLUMNS: usize = 4;

/// What this session has told.
#[derive(Clone, Copy)]
struct Told {
    table: u32,
    at_us: i64,
    /// The (sub)transaction that told it: when that is undone, nothing was told.
    xid: pg_sys::TransactionId,
}

thread_local! {
    static TOLD: RefCell<Vec<Told>> = const { RefCell::new(Vec::new()) };
}

/// A statement of this session writes the old shape of `relation`. Where the executor's hook counts it nothing is to be told.
///
/// # Safety
/// In a transaction, outside of any guard of C code.
pub(super) unsafe fn tell(relation: pg_sys::Oid) {
    if super::slots::preloaded() {
        return;
    }
    let table = relation.to_u32();
    // SAFETY: plain reads of this session; by the contract above. Whoever writes has a number of its own.
    unsafe {
        let at_us = pg_sys::GetCurrentStatementStartTimestamp();
        if !is_told(table, at_us) {
            append(relation, at_us);
            let xid = pg_sys::GetCurrentTransactionId();
            remember(Told { table, at_us, xid });
        }
    }
}

fn is_told(table: u32, now_us: i64) -> bool {
    let told = TOLD.with_borrow(|told| told.iter().find(|t| t.table == table).copied());
    told.is_some_and(|told| {
        // SAFETY: the number is that of a transaction of this session, of this second.
        let stands = || unsafe {
            pg_sys::TransactionIdIsCurrentTransactionId(told.xid)
                || pg_sys::TransactionIdDidCommit(told.xid)
        };
        (told.at_us..told.at_us + EVERY_US).contains(&now_us) && stands()
    })
}

fn remember(one: Told) {
    TOLD.with_borrow_mut(|told| {
        told.retain(|t| t.table != one.table);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        told.push(one);
    });
}

/// # Safety
/// As `tell`.
unsafe fn append(relation: pg_sys::Oid, now: i64) {
    // SAFETY: what the name means is locked before it is looked at; without it, in a restored copy, nobody asks.
    unsafe {
        let namespace = pg_sys::get_namespace_oid(c"_transmute".as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return;
        }
        let oid = pg_sys::get_relname_relid(c"written".as_ptr(), namespace);
        let table = pg_sys::try_table_open(oid, pg_sys::RowExclusiveLock as i32);
        if table.is_null() {
            return;
        }
        if (*(*table).rd_att).natts as usize == COLUMNS {
            let name = match pg_sys::application_name.is_null() {
                true => c"".as_ptr(),
                false => pg_sys::application_name.cast_const(),
            };
            let mut values = [
                pg_sys::Datum::from(relation),
                pg_sys::Datum::from(pg_sys::GetSessionUserId()),
                pg_sys::Datum::from(pg_sys::cstring_to_text(name)),
                pg_sys::Datum::from(now),
            ];
            let mut nulls = [false; COLUMNS];
            let tuple =
                pg_sys::heap_form_tuple((*table).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::simple_heap_insert(table, tuple);
            pg_sys::heap_freetuple(tuple);
        }
        pg_sys::table_close(table, pg_sys::NoLock as i32);
    }
}
