//! Pages of a heap, read one after the other: the rows of each that a snapshot sees, as heap_prepare_pagescan (heapgetpage
//! before 17) finds them, without a scan's work for every single row.

use super::direct;
use super::heap::{Snapshot, Tid};
use crate::model::stored::Row;
use pgrx::pg_sys;

const NONE: pg_sys::Buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
const HEADER_BYTES: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);
const POINTER_BYTES: usize = std::mem::size_of::<pg_sys::ItemIdData>();
const BITMAP_OFFSET: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// MaxHeapTuplesPerPage: each has a header of 23 bytes, rounded up.
const MAX_ROWS: usize = (pg_sys::BLCKSZ as usize - HEADER_BYTES) / (24 + POINTER_BYTES);
/// As initscan (heapam.c): what is larger than a quarter of the buffers goes through a ring, so that reading it does not
/// drive out the application's pages.
const RING_SHARE: u32 = 4;

/// One page at a time, pinned; its rows stay where they are until the next `read`.
///
/// Built and used inside one (sub)transaction: the pin belongs to its resource owner.
pub(super) struct Page {
    relation: pg_sys::Relation,
    strategy: pg_sys::BufferAccessStrategy,
    buffer: pg_sys::Buffer,
    /// Blocks of the relation when the reader was made.
    pub(super) blocks: u32,
    rows: Vec<pg_sys::HeapTupleData>,
}

impl Page {
    /// A reader of an open heap, which stays open longer than the reader lives.
    pub(super) fn new(relation: pg_sys::Relation) -> Page {
        // SAFETY: the relation is open and locked; the strategy is freed in Drop.
        unsafe {
            let blocks =
                pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            let strategy = if blocks > pg_sys::NBuffers as u32 / RING_SHARE {
                pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD)
            } else {
                std::ptr::null_mut()
            };
            Page {
                relation,
                strategy,
                buffer: NONE,
                blocks,
                rows: Vec::with_capacity(MAX_ROWS),
            }
        }
    }

    /// Reads a block that the relation has; cancel and terminate requests are answered here.
    pub(super) fn read(&mut self, block: u32, snapshot: Snapshot) {
        self.rows.clear();
        let rows = self.rows.as_mut_ptr();
        let held = self.buffer;
        self.buffer = NONE;
        // SAFETY: the relation is open, the snapshot active. Under the guard only pointers and numbers are live; what is
        // found is written into spare room of `rows`, never more than MAX_ROWS. Row pointers and rows of a page that the
        // server checked are within it.
        let (buffer, count) = unsafe {
            direct::guarded(|| {
                direct::check_for_interrupts();
                if held != NONE {
                    direct::ReleaseBuffer(held);
                }
                let buffer = direct::ReadBufferExtended(
                    self.relation,
                    pg_sys::ForkNumber::MAIN_FORKNUM,
                    block,
                    pg_sys::ReadBufferMode::RBM_NORMAL,
                    self.strategy,
                );
                direct::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
                let count = self.visible(buffer, block, snapshot, rows);
                direct::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
                (buffer, count)
            })
        };
        self.buffer = buffer;
        // SAFETY: that many were written.
        unsafe { self.rows.set_len(count) }
    }

    /// # Safety
    /// Inside `direct::guarded`; the buffer is pinned and locked, `rows` has room for MAX_ROWS.
    unsafe fn visible(
        &self,
        buffer: pg_sys::Buffer,
        block: u32,
        snapshot: Snapshot,
        rows: *mut pg_sys::HeapTupleData,
    ) -> usize {
        // SAFETY: by the contract above; our tables are never temporary, whose buffers have negative numbers.
        unsafe {
            let page = pg_sys::BufferBlocks
                .add((buffer as usize - 1).wrapping_mul(pg_sys::BLCKSZ as usize));
            let header = page.cast::<pg_sys::PageHeaderData>();
            super::compat::test_for_old_snapshot(snapshot.0, self.relation, header);
            let all_visible = u32::from((*header).pd_flags) & pg_sys::PD_ALL_VISIBLE != 0
                && !(*snapshot.0).takenDuringRecovery;
            let pointers =
                usize::from((*header).pd_lower).saturating_sub(HEADER_BYTES) / POINTER_BYTES;
            let first = page.add(HEADER_BYTES).cast::<pg_sys::ItemIdData>();
            let mut count = 0;
            for i in 0..pointers.min(MAX_ROWS) {
                let pointer = &*first.add(i);
                if pointer.lp_flags() != pg_sys::LP_NORMAL {
                    continue;
                }
                let row = rows.add(count);
                row.write(pg_sys::HeapTupleData {
                    t_len: pointer.lp_len(),
                    t_self: Tid {
                        block,
                        offset: i as u16 + 1,
                    }
                    .pointer(),
                    t_tableOid: (*self.relation).rd_id,
                    t_data: page.add(pointer.lp_off() as usize).cast(),
                });
                if all_visible || direct::HeapTupleSatisfiesVisibility(row, snapshot.0, buffer) {
                    count += 1;
                }
            }
            count
        }
    }

    pub(super) fn rows(&self) -> &[pg_sys::HeapTupleData] {
        &self.rows
    }

    /// Where row `n` is, as a value of type tid.
    ///
    /// # Safety
    /// There is a row `n`, and the result is gone before this reader reads on or goes.
    pub(super) unsafe fn address(&self, n: usize) -> &'static [u8] {
        // SAFETY: by the contract above; `rows` has room for all rows of a page, so that they stay where they are.
        unsafe {
            let address = &raw const (*self.rows.as_ptr().add(n)).t_self;
            std::slice::from_raw_parts(
                address.cast::<u8>(),
                std::mem::size_of::<pg_sys::ItemPointerData>(),
            )
        }
    }

    /// Puts row `n` into a slot made for the relation.
    ///
    /// # Safety
    /// Inside `direct::guarded`; there is a row `n`. The slot is cleared before this reader reads on or goes.
    pub(super) unsafe fn store(&self, n: usize, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the contract above; the server does not write to the tuple.
        unsafe {
            let row = self.rows.as_ptr().add(n).cast_mut();
            direct::ExecStoreBufferHeapTuple(row, slot, self.buffer);
        }
    }

    /// Row `n` as bytes, and whether any value of it is out of line.
    pub(super) fn stored(&self, n: usize) -> Option<(Row<'_>, bool)> {
        let row = self.rows.get(n)?;
        // SAFETY: the tuple lies in a page that is pinned; nobody writes to the part behind its transaction fields, and its
        // header says how long everything is (HeapTupleHeaderGetNatts, BITMAPLEN).
        unsafe {
            let header = &*row.t_data;
            let mask = u32::from(header.t_infomask);
            let attributes = (u32::from(header.t_infomask2) & pg_sys::HEAP_NATTS_MASK) as usize;
            let start = usize::from(header.t_hoff);
            let bytes = std::slice::from_raw_parts(row.t_data.cast::<u8>(), row.t_len as usize);
            let nulls = match mask & pg_sys::HEAP_HASNULL {
                0 => None,
                _ => Some(bytes.get(BITMAP_OFFSET..BITMAP_OFFSET + attributes.div_ceil(8))?),
            };
            let row = Row {
                attributes,
                nulls,
                data: bytes.get(start..)?,
            };
            Some((row, mask & pg_sys::HEAP_HASEXTERNAL != 0))
        }
    }

    pub(super) fn tid(&self, n: usize) -> Option<Tid> {
        self.rows.get(n).map(|row| Tid::of(&row.t_self))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // the abort that follows gives the pin back
        }
        // SAFETY: pinned and made by this reader.
        unsafe {
            if self.buffer != NONE {
                pg_sys::ReleaseBuffer(self.buffer);
            }
            if !self.strategy.is_null() {
                pg_sys::FreeAccessStrategy(self.strategy);
            }
        }
    }
}
