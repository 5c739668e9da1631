//! Rows by key: lookups through a unique index, and the key log that the capture trigger fills.

use super::heap::{Snapshot, Tid};
use super::relation::{LockMode, Table};
use super::row::RowMapper;
use crate::error::{Error, Result};
use crate::model::address;
use pgrx::pg_sys;
use std::collections::HashSet;

/// A unique btree index and how to look a key up in it; of a table without a key there is none, and rows are fetched by their
/// address.
///
/// Built and used inside one (sub)transaction, like the mapper.
pub struct KeyIndex {
    heap: pg_sys::Relation,
    /// Null, as the scan: by address.
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    keys: Vec<pg_sys::ScanKeyData>,
    /// Heap attribute indexes (from 0) of the key columns, in index order.
    columns: Vec<usize>,
    snapshot: pg_sys::Snapshot,
    /// Where the last row was found, and the heap's blocks: rows were copied in the table's order, so the next
    /// one is most likely right behind it.
    last: Option<Tid>,
    has_followed: bool,
    blocks: u32,
}

impl KeyIndex {
    /// The index `index` of the table (`shadow` false) or of the shadow (true); InvalidOid: the table's rows by address.
    pub fn open(
        mapper: &RowMapper,
        index: pg_sys::Oid,
        shadow: bool,
        snapshot: Option<Snapshot>,
    ) -> Result<KeyIndex> {
        let heap = if shadow { mapper.new.0 } else { mapper.old.0 };
        // SAFETY: the heap is open; operator lookups follow build_replindex_scan_key (execReplication.c).
        unsafe {
            // The dirty-free "self" snapshot sees this transaction's own changes up to now: only right
            // for the shadow, which nobody else writes.
            let snapshot = match snapshot {
                Some(snapshot) => snapshot.0,
                None => &raw mut pg_sys::SnapshotSelfData,
            };
            let by_address = KeyIndex {
                heap,
                index: std::ptr::null_mut(),
                scan: std::ptr::null_mut(),
                keys: Vec::new(),
                columns: Vec::new(),
                snapshot,
                last: None,
                has_followed: false,
                blocks: pg_sys::RelationGetNumberOfBlocksInFork(
                    heap,
                    pg_sys::ForkNumber::MAIN_FORKNUM,
                ),
            };
            if index == pg_sys::InvalidOid {
                return Ok(by_address);
            }
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
            let form = &*(*index).rd_index;
            let count = form.indnkeyatts as usize;
            let (mut keys, mut columns) = (Vec::new(), Vec::new());
            for i in 0..count {
                let family = *(*index).rd_opfamily.add(i);
                let input = *(*index).rd_opcintype.add(i);
                let operator = pg_sys::get_opfamily_member(
                    family,
                    input,
                    input,
                    pg_sys::BTEqualStrategyNumber as i16,
                );
                if operator == pg_sys::InvalidOid {
                    return Err(Error::Bug(
                        "a key index without an equality operator".into(),
                    ));
                }
                let mut key = pg_sys::ScanKeyData::default();
                pg_sys::ScanKeyInit(
                    &mut key,
                    (i + 1) as i16,
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::get_opcode(operator),
                    pg_sys::Datum::from(0),
                );
                key.sk_collation = *(*index).rd_indcollation.add(i);
                keys.push(key);
                columns.push((form.indkey.values.as_slice(count)[i] - 1) as usize);
            }
            let mut found = by_address;
            found.scan = super::compat::index_beginscan(heap, index, snapshot, count as i32);
            found.index = index;
            found.keys = keys;
            found.columns = columns;
            Ok(found)
        }
    }

    /// Whether the row behind the last one found is the mapped row, every column and so the key too. It spares the
    /// way through the index; a `false` says nothing.
    pub fn follows(&mut self, mapper: &mut RowMapper) -> bool {
        self.has_followed = self.is_next(mapper);
        self.has_followed
    }

    /// Whether the row found last was found by `follows`.
    pub(super) fn has_followed(&self) -> bool {
        self.has_followed
    }

    /// Where a row was found last.
    pub(super) fn last(&self) -> Option<Tid> {
        self.last
    }

    /// Somebody else found rows meanwhile, the last one here.
    pub(super) fn expect_behind(&mut self, last: Option<Tid>) {
        self.last = last;
    }

    fn is_next(&mut self, mapper: &mut RowMapper) -> bool {
        let Some(last) = self.last else {
            return false;
        };
        for tid in last.successors() {
            if tid.block >= self.blocks {
                return false;
            }
            let mut pointer = tid.pointer();
            // SAFETY: heap open, snapshot active, slot made for the shadow; an offset beyond the page's last
            // is "not found" (heap_fetch).
            let found = unsafe {
                pg_sys::table_tuple_fetch_row_version(
                    self.heap,
                    &mut pointer,
                    self.snapshot,
                    mapper.shadow_slot,
                )
            };
            if found {
                let equal = mapper.equals_shadow_slot();
                self.last = equal.then_some(tid);
                return equal;
            }
        }
        self.last = None;
        false
    }

    /// Finds the row whose key columns equal those of `key`; it is put into `into`.
    fn find(
        &mut self,
        key: *mut pg_sys::TupleTableSlot,
        into: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        // SAFETY: `key` has the heap's shape and its key columns, or its address, are set.
        unsafe {
            if self.index.is_null() {
                let mut pointer = (*key).tts_tid;
                // Logged in a file that was longer.
                if Tid::of(&pointer).block >= self.blocks {
                    return false;
                }
                return pg_sys::table_tuple_fetch_row_version(
                    self.heap,
                    &mut pointer,
                    self.snapshot,
                    into,
                );
            }
            for (scan_key, column) in self.keys.iter_mut().zip(&self.columns) {
                if *(*key).tts_isnull.add(*column) {
                    return false;
                }
                scan_key.sk_argument = *(*key).tts_values.add(*column);
            }
            pg_sys::index_rescan(
                self.scan,
                self.keys.as_mut_ptr(),
                self.keys.len() as i32,
                std::ptr::null_mut(),
                0,
            );
            pg_sys::index_getnext_slot(self.scan, pg_sys::ScanDirection::ForwardScanDirection, into)
        }
    }

    /// The shadow's row with the key of the mapped row, into the shadow slot.
    pub fn find_mapped(&mut self, mapper: &mut RowMapper) -> bool {
        debug_assert!(self.heap == mapper.new.0);
        let found = self.find(mapper.new_slot, mapper.shadow_slot);
        // SAFETY: a found row is in the slot.
        self.last = found.then(|| unsafe { Tid::of_slot(mapper.shadow_slot) });
        found
    }

    /// The shadow's row with the key that `key` (old shape) is converted to.
    pub fn find_converted(&mut self, mapper: &mut RowMapper, key: &LoggedKey) -> bool {
        let columns = self.columns.clone();
        let slot = key.slot(mapper);
        mapper.map_columns(slot, &columns);
        let found = self.find(mapper.new_slot, mapper.shadow_slot);
        mapper.reset();
        found
    }

    /// The table's row with the key `key`, into the table's slot.
    pub fn find_logged(&mut self, mapper: &mut RowMapper, key: &LoggedKey) -> bool {
        debug_assert!(self.heap == mapper.old.0);
        let slot = key.slot(mapper);
        self.find(slot, mapper.old_slot)
    }
}

impl Drop for KeyIndex {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.index.is_null() {
            // SAFETY: opened in `open`.
            unsafe {
                pg_sys::index_endscan(self.scan);
                pg_sys::index_close(self.index, pg_sys::NoLock as i32);
            }
        }
    }
}

/// Distinct keys of the key log as one snapshot sees it.
pub struct KeyLog {
    pub keys: Vec<LoggedKey>,
    /// The marker of a TRUNCATE is among them.
    pub truncated: bool,
    /// Log rows read, duplicates included.
    pub entries: i64,
    /// The oldest transaction that has written one of them, 64 bit.
    pub oldest_writer: u64,
    tids: Vec<Tid>,
}

/// One key, as a minimal tuple of the log's shape; words, so that it is aligned as the server wants.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LoggedKey {
    words: Vec<u64>,
    columns: std::rc::Rc<Shape>,
}

/// How log columns map to the table's.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    desc: usize,
    /// Attribute numbers in the table, in log column order.
    columns: Vec<i16>,
}

impl LoggedKey {
    /// A virtual row of the table's shape with just the key set; valid until the mapper's next reset
    /// of its key slot.
    fn slot(&self, mapper: &mut RowMapper) -> *mut pg_sys::TupleTableSlot {
        mapper.key_slot(
            self.columns.desc as pg_sys::TupleDesc,
            &self.words,
            &self.columns.columns,
        )
    }

    /// Appends the key to a table of the log's shape.
    pub fn append_to(&self, table: &Table) {
        // SAFETY: the words are a minimal tuple of exactly that shape; the server copies what it stores.
        unsafe {
            let tuple = self
                .words
                .as_ptr()
                .cast_mut()
                .cast::<pg_sys::MinimalTupleData>();
            let slot =
                pg_sys::MakeSingleTupleTableSlot((*table.0).rd_att, &pg_sys::TTSOpsMinimalTuple);
            pg_sys::ExecStoreMinimalTuple(tuple, slot, false);
            pg_sys::simple_table_tuple_insert(table.0, slot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }

    /// The values of its columns, as text.
    pub fn values(&self, mapper: &mut RowMapper) -> Vec<String> {
        let slot = self.slot(mapper);
        mapper.values_of(slot, &self.columns.columns)
    }

    /// `(columns)=(values)` for messages.
    pub fn text(&self, mapper: &mut RowMapper) -> String {
        let slot = self.slot(mapper);
        mapper.text_of(slot, &self.columns.columns)
    }
}

impl KeyLog {
    /// Reads the log: `columns` are the table's attribute numbers in log column order.
    pub fn read(log: &Table, columns: &[i16], snapshot: Snapshot) -> Result<KeyLog> {
        // SAFETY: the log is open, the snapshot active; each tuple is copied out of its slot.
        unsafe {
            let desc = pg_sys::CreateTupleDescCopy((*log.0).rd_att);
            let shape = std::rc::Rc::new(Shape {
                desc: desc as usize,
                columns: columns.to_vec(),
            });
            let slot = pg_sys::table_slot_create(log.0, std::ptr::null_mut());
            let plain = pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsVirtual);
            let scan = pg_sys::table_beginscan(log.0, snapshot.0, 0, std::ptr::null_mut());
            let mut seen: HashSet<Vec<u64>> = HashSet::new();
            let mut result = KeyLog {
                keys: Vec::new(),
                truncated: false,
                entries: 0,
                tids: Vec::new(),
                oldest_writer: u64::MAX,
            };
            while pg_sys::table_scan_getnextslot(
                scan,
                pg_sys::ScanDirection::ForwardScanDirection,
                slot,
            ) {
                super::xact::check_for_interrupts();
                result.entries += 1;
                result.tids.push(Tid::of_slot(slot));
                let stored = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
                let writer = super::outdated::full_xid(super::heap::writer_of((*stored).t_data));
                result.oldest_writer = result.oldest_writer.min(writer);
                pg_sys::slot_getallattrs(slot);
                if *(*slot).tts_isnull {
                    result.truncated = true;
                    continue;
                }
                // Formed anew from the values: hint bits of the stored header must not make keys differ.
                pg_sys::ExecClearTuple(plain);
                for i in 0..shape.columns.len() {
                    *(*plain).tts_values.add(i) = *(*slot).tts_values.add(i);
                    *(*plain).tts_isnull.add(i) = *(*slot).tts_isnull.add(i);
                }
                pg_sys::ExecStoreVirtualTuple(plain);
                let tuple = super::compat::copy_minimal_tuple(plain);
                let length = (*tuple).t_len as usize;
                let mut words = vec![0u64; length.div_ceil(8)];
                std::ptr::copy_nonoverlapping(
                    tuple.cast::<u8>(),
                    words.as_mut_ptr().cast::<u8>(),
                    length,
                );
                pg_sys::pfree(tuple.cast());
                if seen.insert(words.clone()) {
                    result.keys.push(LoggedKey {
                        words,
                        columns: shape.clone(),
                    });
                }
            }
            pg_sys::table_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::ExecDropSingleTupleTableSlot(plain);
            Ok(result)
        }
    }

    /// Removes the log rows that were read. Nobody else deletes from the log.
    pub fn forget(&self, log: &Table) {
        for tid in &self.tids {
            super::xact::check_for_interrupts();
            let mut pointer = tid.pointer();
            // SAFETY: the row was visible to the snapshot of `read` in this transaction.
            unsafe { pg_sys::simple_heap_delete(log.0, &mut pointer) }
        }
    }
}

/// A column of the key of the row in a slot; the address points into the slot.
///
/// # Safety
/// The slot holds a stored row that has a column of this number.
#[inline(always)]
pub(super) unsafe fn key_value(
    slot: *mut pg_sys::TupleTableSlot,
    number: i16,
) -> (pg_sys::Datum, bool) {
    // SAFETY: by the contract above.
    unsafe {
        if number == address::NUMBER {
            return (pg_sys::Datum::from(&raw mut (*slot).tts_tid), false);
        }
        let mut is_null = false;
        let value = pg_sys::slot_getattr(slot, i32::from(number), &mut is_null);
        (value, is_null)
    }
}

/// Appends the key of the row in the mapper's table slot to the log (repair).
pub fn log_key(log: &Table, mapper: &mut RowMapper, columns: &[i16]) {
    // SAFETY: the slot holds a row of the table; the log's columns have the key columns' types.
    unsafe {
        pg_sys::slot_getallattrs(mapper.old_slot);
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        for number in columns {
            let (value, is_null) = key_value(mapper.old_slot, *number);
            values.push(value);
            nulls.push(is_null);
        }
        let tuple =
            pg_sys::heap_form_tuple((*log.0).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(log.0, tuple);
        pg_sys::heap_freetuple(tuple);
    }
}

/// Appends one key, converted, to `into`, a table of the shape of the shadow's key columns.
/// A key that cannot be converted raises its ERROR (and cannot be in the shadow).
pub fn write_converted(into: &Table, mapper: &mut RowMapper, key: &LoggedKey, columns: &[usize]) {
    let slot = key.slot(mapper);
    mapper.map_columns(slot, columns);
    // SAFETY: the new slot holds the converted key columns; `into` has exactly their types, in order.
    unsafe {
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        for i in columns {
            values.push(*(*mapper.new_slot).tts_values.add(*i));
            nulls.push(*(*mapper.new_slot).tts_isnull.add(*i));
        }
        let tuple =
            pg_sys::heap_form_tuple((*into.0).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(into.0, tuple);
        pg_sys::heap_freetuple(tuple);
    }
    mapper.reset();
}

/// Opens the log for reading and deleting.
pub fn open_log(oid: pg_sys::Oid) -> Table {
    Table::open(oid, LockMode::RowExclusive)
}
