//! One batch: the statement over a range of the list, one transaction, with the cursor in it.

use super::range::{self, Range};
use super::{dead_letter, Work};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::throttle::BatchSizer;
use crate::pg::heap::Snapshot;
use crate::pg::xact::{self, End};
use crate::pg::{dml, identity, neighbours, spi, utility, waitpoint};
use crate::rewrite::halving;
use crate::store::progress::{self, Done, Of};
use std::ffi::CString;
use std::time::Instant;

/// 1 to 1024 blocks of keys (some 230,000 rows) a batch.
const MIN_BLOCKS: u32 = 1;
const MAX_BLOCKS: u32 = 1024;
/// Rows that moved are found by their key, so many in one plan: more, and the planner would rather read the table.
const PLACES_AT_ONCE: usize = 200;

/// What there is to do next.
#[derive(Debug, PartialEq)]
pub enum Worked {
    /// A batch is done; it took so long, milliseconds, and wrote so much WAL, bytes.
    Batch { rows: i64, busy_ms: f64, wal: u64 },
    /// Every lane is at its end.
    All,
    /// The rest is in other hands.
    Others,
}

/// Works on one range of a free lane and moves its cursor in the same transaction.
pub fn run(work: &Work) -> Result<Worked> {
    range::require_list(work)?;
    let of = Of::Backfill(work.backfill.id);
    let Some(lane) = progress::claim(of)? else {
        return Ok(match progress::unfinished(of)? {
            0 => Worked::All,
            _ => Worked::Others,
        });
    };
    let _heeding = neighbours::heed();
    let (started, wal_before) = (Instant::now(), dml::wal_written());
    let end = (lane.next_block + i64::from(lane.batch_blocks)).min(lane.end_block);
    let blocks: Vec<i64> = (lane.next_block..end).collect();
    let rows = xact::with_latest_snapshot(|snapshot| {
        let mut rows = 0;
        let mut refused = Vec::new();
        halving::run(
            &blocks,
            &mut |part| {
                let range = range::of_blocks(work, part[0], part[part.len() - 1] + 1)?;
                rows += listed(work, &range, snapshot)?;
                Ok(())
            },
            &mut |block, _| {
                refused.push(*block);
                Ok(())
            },
        )?;
        for block in refused {
            rows += row_by_row(work, block, snapshot)?;
        }
        Ok(rows)
    })?;
    waitpoint::reach("batch_before_commit")?;
    let busy_ms = started.elapsed().as_secs_f64() * 1000.0;
    let sizer = BatchSizer {
        target_ms: guc::batch_target_ms(),
        min_blocks: MIN_BLOCKS,
        max_blocks: MAX_BLOCKS,
    };
    let done = Done {
        next_block: end,
        rows,
        blocks: blocks.len() as i64,
        busy_ms,
        next_size: sizer.next_after(lane.last, blocks.len() as u32, busy_ms),
    };
    progress::advance(of, lane.lane, done)?;
    Ok(Worked::Batch {
        rows,
        busy_ms,
        wal: dml::wal_written().saturating_sub(wal_before),
    })
}

/// The statement over the listed rows: those that lie where they lay, in one pass over these blocks, then the others by
/// their key.
///
/// A row is met once. INSERT … SELECT: both read the same snapshot, in which the row is either here or there. UPDATE,
/// DELETE: the second leaves out what the first has written. It takes those that moved before the snapshot, and those that
/// another transaction changed after it: when their lock was waited for, the first found the new version in another block
/// and let go.
fn listed(work: &Work, range: &Range, snapshot: Snapshot) -> Result<i64> {
    let ours = work.changes_driver.then(dml::current_xid);
    let mut rows = piece(work, &range.in_place(work), snapshot)?;
    if rows == range.keys {
        return Ok(rows);
    }
    let moved = to_c(&range.moved(work, ours))?;
    let places: Vec<String> = work
        .as_owner(|| spi::rows_in_active_snapshot(&moved, 0))?
        .into_iter()
        .flatten()
        .collect();
    for some in places.chunks(PLACES_AT_ONCE) {
        rows += match ours {
            None => piece(work, &range.elsewhere(work, some), snapshot)?,
            Some(ours) => xact::with_latest_snapshot(|now| {
                piece(work, &range::not_ours(work, some, ours), now)
            })?,
        };
    }
    Ok(rows)
}

/// A block with a row that is refused: its rows in halves, those that fail alone to dead letters.
fn row_by_row(work: &Work, block: i64, snapshot: Snapshot) -> Result<i64> {
    let listed = range::rows_of_block(work, block)?;
    let mut rows = 0;
    halving::run(
        &listed,
        &mut |part| {
            let places: Vec<String> = part.iter().map(|(place, _)| place.clone()).collect();
            rows += piece(work, &range::in_places(work, &places), snapshot)?;
            Ok(())
        },
        &mut |(place, key), error| dead_letter::record(work, place, key, &error),
    )?;
    Ok(rows)
}

/// The statement over the rows that `condition` leaves. What would be checked at the commit is checked here, where it
/// can still be said which rows fail.
fn piece(work: &Work, condition: &str, snapshot: Snapshot) -> Result<i64> {
    work.as_owner(|| {
        utility::run("SET CONSTRAINTS ALL IMMEDIATE")?;
        dml::run_where(&work.sql, condition, snapshot)
    })
}

/// In a batch it is we who give way, never the application: no row is waited for longer than transmute.lock_timeout, and
/// a deadlock is ours to lose.
pub fn give_way() -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    identity::set_for_transaction("lock_timeout", &timeout.to_string())?;
    identity::set_for_transaction("deadlock_timeout", &format!("{}ms", (timeout / 2).max(1)))
}

/// The row at one place of the list alone; the error when the data refuses it.
pub(super) fn one(work: &Work, place: &str) -> Result<Option<Error>> {
    let condition = range::in_places(work, &[place.to_string()]);
    let tried = xact::with_latest_snapshot(|snapshot| {
        match xact::subtransaction(End::Keep, || piece(work, &condition, snapshot)) {
            Ok(_) => Ok(None),
            Err(error) if halving::is_data_error(&error) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    })?;
    Ok(tried)
}

fn to_c(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::Bug("a query holds a NUL".into()))
}
