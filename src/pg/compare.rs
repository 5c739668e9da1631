//! Rows of the table, converted, against the rows that the shadow has stored: the loop of the check.
//!
//! The shadow was filled in the table's order, so both are read side by side, page by page, and nearly every row is where
//! it is expected: `model::stored` then compares bytes with bytes. Whatever is not plain bytes, or not there, is looked for
//! by the key, and compared by the server's functions.

use super::computed::Computed;
use super::direct;
use super::follower::Follower;
use super::heap::{self, Snapshot, Tid};
use super::key::KeyIndex;
use super::page::Page;
use super::row::{attribute, RowMapper};
use crate::error::Result;

/// A column of the shadow as the check compares it.
pub(super) struct Compared {
    pub(super) attribute: usize,
    by_value: bool,
    length: i32,
}

/// What `compare` says of one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Equal,
    Missing,
    Different,
}

/// Looks the mapped row up in the shadow and compares every column whose value is determined by the
/// old row (not those of volatile expressions).
pub fn compare(mapper: &mut RowMapper, index: &mut KeyIndex) -> Verdict {
    let verdict = if index.follows(mapper) {
        Verdict::Equal
    } else if !index.find_mapped(mapper) {
        Verdict::Missing
    } else if mapper.equals_shadow_slot() {
        Verdict::Equal
    } else {
        Verdict::Different
    };
    mapper.reset();
    verdict
}

/// Compares every row of blocks `from..to`; how many there are, and the addresses of those that are not equal.
/// A row that cannot be converted raises its ERROR.
pub fn compare_blocks(
    mapper: &mut RowMapper,
    index: &mut KeyIndex,
    from: i64,
    to: i64,
    snapshot: Snapshot,
) -> Result<(i64, Vec<Tid>)> {
    let (mut rows, mut unequal) = (0, Vec::new());
    let mut page = Page::new(mapper.old.0);
    let mut computed = Computed::new(mapper);
    let mut follower = Follower::new(Page::new(mapper.new.0), snapshot);
    let mut was_proven = false;
    for block in from..to {
        page.read(block as u32, snapshot);
        rows += page.rows().len() as i64;
        computed.evaluate(mapper, &page);
        for n in 0..page.rows().len() {
            if follower.proves(&page, n, &computed) {
                was_proven = true;
                continue;
            }
            if was_proven {
                index.expect_behind(follower.last());
            }
            was_proven = false;
            mapper.load(&page, n);
            if compare(mapper, index) != Verdict::Equal {
                unequal.push(heap::current_tid(mapper));
            } else if index.has_followed() {
                // Two rows in a row are elsewhere: the order goes on there. One may have moved by itself.
                follower.seek(index.last());
            }
        }
    }
    mapper.release();
    Ok((rows, unequal))
}

impl RowMapper {
    pub(super) fn compared_columns(&self) -> Vec<Compared> {
        let is_volatile = |i: usize| self.computed.iter().any(|c| c.attribute == i && c.volatile);
        (0..self.new_width)
            .filter(|i| !self.dropped.contains(i) && !is_volatile(*i))
            .map(|i| {
                // SAFETY: the shadow is open; `i` is within the descriptor.
                let column = unsafe { attribute((*self.new.0).rd_att, i) };
                Compared {
                    attribute: i,
                    by_value: column.attbyval,
                    length: i32::from(column.attlen),
                }
            })
            .collect()
    }

    /// Row `n` of a page of the table, into the table's slot.
    fn load(&mut self, page: &Page, n: usize) {
        // SAFETY: the slot is made for the table; there is such a row; the slot is cleared by `release`.
        unsafe {
            direct::guarded(|| {
                page.store(n, self.old_slot);
                self.map_unguarded();
            });
        }
    }

    /// Whether the mapped row and the stored row of the shadow are the same, byte image by byte image.
    pub(super) fn equals_shadow_slot(&self) -> bool {
        // SAFETY: both slots hold rows of the shadow's shape; values of types by value are compared as words, which is
        // what datum_image_eq does with them. Under the guard only references and plain values are live.
        unsafe {
            direct::guarded(|| {
                direct::get_all_attributes(self.shadow_slot);
                let (a, b) = (self.new_slot, self.shadow_slot);
                self.compared.iter().all(|column| {
                    let i = column.attribute;
                    let (a_null, b_null) = (*(*a).tts_isnull.add(i), *(*b).tts_isnull.add(i));
                    if a_null || b_null {
                        return a_null == b_null;
                    }
                    let (a, b) = (*(*a).tts_values.add(i), *(*b).tts_values.add(i));
                    match column.by_value {
                        true => a.value() == b.value(),
                        false => direct::datum_image_eq(a, b, false, column.length),
                    }
                })
            })
        }
    }
}
