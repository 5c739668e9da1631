//! The shadow's side of the check: its rows in the order in which they are stored, which is that of the copy.

use super::computed::Computed;
use super::heap::{Snapshot, Tid};
use super::page::Page;
use crate::model::stored;

/// Rows of the shadow that may be in between: their rows of the table have moved, or are gone, since the copy.
const LOOK_AHEAD: usize = 4;
/// Pages of the shadow without a row that may be in between.
const EMPTY_PAGES: usize = 16;

/// Where the shadow's row for the table's next row is expected.
pub(super) struct Follower {
    page: Page,
    snapshot: Snapshot,
    /// The block that `page` has read, and the row in it that is next.
    block: Option<u32>,
    next: usize,
    /// A row that is the last one now, wherever it is.
    sought: Option<Tid>,
}

impl Follower {
    pub(super) fn new(page: Page, snapshot: Snapshot) -> Follower {
        Follower {
            page,
            snapshot,
            block: None,
            next: 0,
            sought: None,
        }
    }

    fn load(&mut self, block: u32) {
        if self.block != Some(block) {
            self.block = None;
            self.page.read(block, self.snapshot);
            self.block = Some(block);
        }
        self.next = 0;
    }

    pub(super) fn seek(&mut self, last: Option<Tid>) {
        self.sought = last;
    }

    /// The row before the next one.
    pub(super) fn last(&self) -> Option<Tid> {
        let before = self.next.checked_sub(1);
        self.sought.or_else(|| match before {
            Some(n) => self.page.tid(n),
            None => self.block.map(|block| Tid { block, offset: 0 }),
        })
    }

    /// The number of the next row in the page, which is read now; `None`: there is no next row nearby.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if let Some(last) = self.sought.take() {
            self.load(last.block);
            let rows = self.page.rows();
            self.next = rows.partition_point(|row| Tid::of(&row.t_self).offset <= last.offset);
        }
        if self.next < self.page.rows().len() {
            return Some(self.next);
        }
        self.next_page()
    }

    fn next_page(&mut self) -> Option<usize> {
        let first = self.block? + 1;
        for block in (first..self.page.blocks).take(EMPTY_PAGES) {
            self.load(block);
            if !self.page.rows().is_empty() {
                return Some(0);
            }
        }
        None
    }

    /// Whether row `n` of a page of the table is, converted, the next row of the shadow or one soon behind it.
    /// A `false` says nothing.
    pub(super) fn proves(&mut self, page: &Page, n: usize, computed: &Computed) -> bool {
        let Some(values) = computed.values(n) else {
            return false;
        };
        let (Some((old, _)), Some(first)) = (page.stored(n), self.next()) else {
            return false;
        };
        for candidate in first..first + LOOK_AHEAD {
            let Some((new, is_out_of_line)) = self.page.stored(candidate) else {
                return false;
            };
            if !is_out_of_line && stored::equal(&computed.columns, old, new, values) {
                self.next = candidate + 1;
                return true;
            }
        }
        false
    }
}
