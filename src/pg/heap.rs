//! Rows between a table and its shadow: the loop of ATRewriteTable (tablecmds.c) for a range of blocks,
//! for one row, and for a key.

use super::direct;
use super::page::Page;
use super::relation::Table;
use super::row::RowMapper;
use crate::error::Result;
use pgrx::pg_sys;

/// The snapshot that is active; valid inside `xact::with_latest_snapshot`.
#[derive(Clone, Copy)]
pub struct Snapshot(pub(super) pg_sys::Snapshot);

/// Who wrote a row; a number that is not normal where it is frozen.
///
/// # Safety
/// The header of a stored row.
pub(super) unsafe fn writer_of(header: pg_sys::HeapTupleHeader) -> pg_sys::TransactionId {
    // SAFETY: by the contract above: the fields of a stored row, not those of a composite value.
    unsafe {
        let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
        match (*header).t_infomask & frozen == frozen {
            true => pg_sys::FrozenTransactionId,
            false => (*header).t_choice.t_heap.t_xmin,
        }
    }
}

/// Row address, as block and offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tid {
    pub block: u32,
    pub offset: u16,
}

impl Tid {
    pub(super) fn of(pointer: &pg_sys::ItemPointerData) -> Tid {
        Tid {
            block: (u32::from(pointer.ip_blkid.bi_hi) << 16) | u32::from(pointer.ip_blkid.bi_lo),
            offset: pointer.ip_posid,
        }
    }

    /// As the server writes it: `(block,offset)`.
    pub fn of_text(text: &str) -> Option<Tid> {
        let inner = text.strip_prefix('(')?.strip_suffix(')')?;
        let (block, offset) = inner.split_once(',')?;
        Some(Tid {
            block: block.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }

    /// The next address in the same block, and the first of the next block.
    pub(super) fn successors(self) -> [Tid; 2] {
        let next = Tid {
            block: self.block,
            offset: self.offset + 1,
        };
        let next_block = Tid {
            block: self.block + 1,
            offset: 1,
        };
        [next, next_block]
    }

    /// # Safety
    /// The slot holds a stored row.
    pub(super) unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Tid {
        // SAFETY: by the contract above.
        Tid::of(unsafe { &(*slot).tts_tid })
    }

    pub(super) fn pointer(self) -> pg_sys::ItemPointerData {
        pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData {
                bi_hi: (self.block >> 16) as u16,
                bi_lo: (self.block & 0xFFFF) as u16,
            },
            ip_posid: self.offset,
        }
    }
}

/// Rows gathered before one table_multi_insert, as COPY does (copyfrom.c: MAX_BUFFERED_TUPLES, _BYTES).
const MAX_BUFFERED_ROWS: usize = 1000;
const MAX_BUFFERED_BYTES: usize = 65_535;
/// No option: with the free space map, as COPY into a table that is there. Each batch ends its bulk insert state, and
/// pages that it had extended ahead would be lost otherwise (from 16 on, up to 63 a batch).
const INSERT_OPTIONS: i32 = 0;

/// Copies the rows of blocks `from..to`, converted, into the shadow. Returns how many.
/// A row that cannot be converted or that a constraint refuses raises its ERROR: run it in a subtransaction.
pub fn copy_blocks(mapper: &mut RowMapper, from: i64, to: i64, snapshot: Snapshot) -> Result<i64> {
    let mut page = Page::new(mapper.old.0);
    let mut writer = Writer::new();
    let mut rows = 0;
    for block in from..to {
        page.read(block as u32, snapshot);
        let mut next = 0;
        while next < page.rows().len() {
            next = writer.take(mapper, &page, next);
        }
        rows += page.rows().len() as i64;
    }
    writer.finish(mapper);
    mapper.release();
    Ok(rows)
}

/// Addresses of the rows of blocks `from..to`.
pub fn addresses(
    mapper: &mut RowMapper,
    from: i64,
    to: i64,
    snapshot: Snapshot,
) -> Result<Vec<Tid>> {
    let mut page = Page::new(mapper.old.0);
    let mut found = Vec::new();
    for block in from..to {
        page.read(block as u32, snapshot);
        found.extend(page.rows().iter().map(|row| Tid::of(&row.t_self)));
    }
    Ok(found)
}

/// Loads one row of the table by address; false if the snapshot does not see it.
pub fn fetch(mapper: &mut RowMapper, tid: Tid, snapshot: Snapshot) -> bool {
    let mut pointer = tid.pointer();
    // SAFETY: relation open, snapshot active, slot made for the table.
    unsafe {
        pg_sys::table_tuple_fetch_row_version(
            mapper.old.0,
            &mut pointer,
            snapshot.0,
            mapper.old_slot,
        )
    }
}

/// Inserts the mapped row into the shadow with its indexes (ExecSimpleRelationInsert, as logical
/// replication's apply does): constraints and unique indexes raise their ERROR.
pub fn insert_mapped(mapper: &mut RowMapper) {
    // SAFETY: result relation and executor state were made for the shadow by the mapper.
    unsafe {
        pg_sys::ExecSimpleRelationInsert(mapper.result_info, mapper.estate, mapper.new_slot);
    }
    mapper.reset();
}

/// Runs `f` as one statement for triggers: a deferrable unique constraint queues its check, which fires at the end.
pub fn as_statement(f: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: begin and end are balanced; an ERROR between them ends with the (sub)transaction.
    unsafe { pg_sys::AfterTriggerBeginQuery() };
    let result = f();
    if result.is_ok() {
        // SAFETY: as above; without an executor state the server makes its own.
        unsafe { pg_sys::AfterTriggerEndQuery(std::ptr::null_mut()) };
    }
    result
}

/// Address of the row in the table's slot.
pub fn current_tid(mapper: &RowMapper) -> Tid {
    // SAFETY: the slot holds a row of the table.
    unsafe { Tid::of_slot(mapper.old_slot) }
}

/// Deletes the shadow's row that the last `KeyIndex::find` put into the shadow slot.
pub fn delete_found(mapper: &mut RowMapper) {
    // SAFETY: the slot holds a live row of the shadow; nobody else writes the shadow.
    unsafe {
        let mut tid = (*mapper.shadow_slot).tts_tid;
        pg_sys::simple_table_tuple_delete(mapper.new.0, &mut tid, pg_sys::GetActiveSnapshot());
        pg_sys::ExecClearTuple(mapper.shadow_slot);
    }
}

/// Deletes rows of a table at heap level: no trigger, and no question after a replica identity, which a publication
/// FOR ALL TABLES would ask of our work tables.
pub fn delete_rows(table: &Table, tids: &[Tid]) {
    for tid in tids {
        super::xact::check_for_interrupts();
        let mut pointer = tid.pointer();
        // SAFETY: the caller's query saw the rows in this transaction, and nobody else writes the table.
        unsafe { pg_sys::simple_heap_delete(table.0, &mut pointer) }
    }
}

/// The addresses that a query of one ctid column gives.
pub fn tids(sql: &str) -> Result<Vec<Tid>> {
    super::spi::query(sql, &[], |row| {
        Ok(Tid::of(&row.need::<pg_sys::ItemPointerData>(1)?))
    })
}

/// Rows of a table visible to the snapshot.
pub fn count_visible(table: &Table, snapshot: Snapshot) -> Result<i64> {
    let mut page = Page::new(table.0);
    let mut rows = 0;
    for block in 0..page.blocks {
        page.read(block, snapshot);
        rows += page.rows().len() as i64;
    }
    Ok(rows)
}

/// Buffers mapped rows and writes them page-wise.
struct Writer {
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    bytes: usize,
    command: pg_sys::CommandId,
    state: pg_sys::BulkInsertState,
}

impl Writer {
    fn new() -> Writer {
        // SAFETY: inside a transaction that writes.
        unsafe {
            Writer {
                slots: Vec::with_capacity(MAX_BUFFERED_ROWS),
                used: 0,
                bytes: 0,
                command: pg_sys::GetCurrentCommandId(true),
                state: pg_sys::GetBulkInsertState(),
            }
        }
    }

    /// Takes rows of the page, converted, from the row `from` on, until there is enough to write; the next one.
    fn take(&mut self, mapper: &mut RowMapper, page: &Page, from: usize) -> usize {
        let to = (from + MAX_BUFFERED_ROWS - self.used).min(page.rows().len());
        while self.slots.len() < self.used + to - from {
            // SAFETY: the shadow is open; freed by `finish`.
            let slot = unsafe { pg_sys::table_slot_create(mapper.new.0, std::ptr::null_mut()) };
            self.slots.push(slot);
        }
        let free = &self.slots[self.used..];
        let (mapper_ref, bytes_before) = (&*mapper, self.bytes);
        // SAFETY: the slots are made for their tables, and enough of them free; ExecCopySlot forms a tuple of its own, so
        // the per-row memory can go at once. Under the guard only references and numbers are live.
        let (next, bytes) = unsafe {
            direct::guarded(|| {
                let (mut next, mut bytes) = (from, bytes_before);
                for slot in free {
                    if next == to || bytes >= MAX_BUFFERED_BYTES {
                        break;
                    }
                    direct::check_for_interrupts();
                    page.store(next, mapper_ref.old_slot);
                    mapper_ref.map_unguarded();
                    direct::copy_slot(*slot, mapper_ref.new_slot);
                    let tuple = (*slot).cast::<pg_sys::HeapTupleTableSlot>();
                    bytes += (*(*tuple).tuple).t_len as usize;
                    direct::MemoryContextReset(mapper_ref.row_context());
                    next += 1;
                }
                (next, bytes)
            })
        };
        self.used += next - from;
        self.bytes = bytes;
        if self.used == MAX_BUFFERED_ROWS || self.bytes >= MAX_BUFFERED_BYTES {
            self.flush(mapper);
        }
        next
    }

    fn flush(&mut self, mapper: &mut RowMapper) {
        if self.used == 0 {
            return;
        }
        // SAFETY: `used` slots hold tuples of the shadow's shape. table_multi_insert leaks into the
        // current context: that is the per-row one, reset right after.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(mapper.row_context());
            pg_sys::table_multi_insert(
                mapper.new.0,
                self.slots.as_mut_ptr(),
                self.used as i32,
                self.command,
                INSERT_OPTIONS,
                self.state,
            );
            pg_sys::MemoryContextSwitchTo(previous);
            let filled = &self.slots[..self.used];
            direct::guarded(|| filled.iter().for_each(|slot| direct::clear(*slot)));
        }
        mapper.reset();
        self.used = 0;
        self.bytes = 0;
    }

    fn finish(mut self, mapper: &mut RowMapper) {
        self.flush(mapper);
        // SAFETY: everything was made in `new` and `add`.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::FreeBulkInsertState(self.state);
        }
    }
}
