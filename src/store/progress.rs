//! `_transmute.progress`: the cursor of the copy.

use crate::error::Result;
use crate::pg::spi;

#[derive(Debug, Clone)]
pub struct Lane {
    pub lane: i32,
    pub next_block: i64,
    pub end_block: i64,
    pub batch_blocks: i32,
}

/// Cuts `0..end_block` into `lanes` lanes.
pub fn insert(rewrite_id: i64, end_block: i64, lanes: i64, batch_blocks: i32) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.progress (rewrite_id, lane, first_block, next_block, end_block, batch_blocks) \
         SELECT $1, n, $2 * n / $3, $2 * n / $3, $2 * (n + 1) / $3, $4 FROM generate_series(0, $3 - 1) AS n",
        &[rewrite_id.into(), end_block.into(), lanes.into(), batch_blocks.into()],
    )?;
    Ok(())
}

pub fn delete(rewrite_id: i64) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.progress WHERE rewrite_id = $1",
        &[rewrite_id.into()],
    )?;
    Ok(())
}

/// An unfinished lane that no other hand holds, locked until the transaction ends.
pub fn claim(rewrite_id: i64) -> Result<Option<Lane>> {
    spi::write_first(
        "SELECT lane, next_block, end_block, batch_blocks FROM _transmute.progress \
         WHERE rewrite_id = $1 AND next_block < end_block ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED",
        &[rewrite_id.into()],
        |row| {
            Ok(Lane {
                lane: row.need(1)?,
                next_block: row.need(2)?,
                end_block: row.need(3)?,
                batch_blocks: row.need(4)?,
            })
        },
    )
}

/// Lanes that are not at their end, held by another hand or not.
pub fn unfinished(rewrite_id: i64) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM _transmute.progress WHERE rewrite_id = $1 AND next_block < end_block",
        &[rewrite_id.into()],
    )?
    .unwrap_or(0))
}

/// Moves the cursor; committed with the batch's rows.
pub fn advance(
    rewrite_id: i64,
    lane: i32,
    next_block: i64,
    rows: i64,
    blocks: i32,
    busy_ms: f64,
) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.progress SET next_block = $3, rows_done = rows_done + $4, batch_blocks = $5, \
           busy_ms = busy_ms + $6, batches = batches + 1, updated_at = clock_timestamp() \
         WHERE rewrite_id = $1 AND lane = $2",
        &[
            rewrite_id.into(),
            lane.into(),
            next_block.into(),
            rows.into(),
            blocks.into(),
            busy_ms.into(),
        ],
    )?;
    Ok(())
}
