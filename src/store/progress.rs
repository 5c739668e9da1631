//! `_transmute.progress`, `_transmute.batches` and `_transmute.fills`: the cursors of the copy, of data
//! statements that run in batches, and of rules that fill columns.

use crate::error::Result;
use crate::pg::spi;

/// Whose cursors.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    Rewrite(i64),
    Backfill(i64),
    Rule(i64),
}

impl Of {
    /// Table, its column, value.
    fn parts(self) -> (&'static str, &'static str, i64) {
        match self {
            Of::Rewrite(id) => ("_transmute.progress", "rewrite_id", id),
            Of::Backfill(id) => ("_transmute.batches", "backfill_id", id),
            Of::Rule(id) => ("_transmute.fills", "rule_id", id),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Lane {
    pub lane: i32,
    pub next_block: i64,
    pub end_block: i64,
    pub batch_blocks: i32,
    /// Blocks and milliseconds of the batch before.
    pub last: Option<(u32, f64)>,
}

/// Cuts `0..end_block` into `lanes` lanes.
pub fn insert(of: Of, end_block: i64, lanes: i64, batch_blocks: i32) -> Result<()> {
    let (table, column, id) = of.parts();
    spi::execute(
        &format!(
            "INSERT INTO {table} ({column}, lane, first_block, next_block, end_block, batch_blocks) \
             SELECT $1, n, $2 * n / $3, $2 * n / $3, $2 * (n + 1) / $3, $4 FROM generate_series(0, $3 - 1) AS n"
        ),
        &[id.into(), end_block.into(), lanes.into(), batch_blocks.into()],
    )?;
    Ok(())
}

pub fn delete(of: Of) -> Result<()> {
    let (table, column, id) = of.parts();
    spi::execute(
        &format!("DELETE FROM {table} WHERE {column} = $1"),
        &[id.into()],
    )?;
    Ok(())
}

/// An unfinished lane that no other hand holds, locked until the transaction ends.
pub fn claim(of: Of) -> Result<Option<Lane>> {
    let (table, column, id) = of.parts();
    spi::write_first(
        &format!(
            "SELECT lane, next_block, end_block, batch_blocks, last_blocks, last_ms FROM {table} \
             WHERE {column} = $1 AND next_block < end_block ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED"
        ),
        &[id.into()],
        |row| {
            Ok(Lane {
                lane: row.need(1)?,
                next_block: row.need(2)?,
                end_block: row.need(3)?,
                batch_blocks: row.need(4)?,
                last: row
                    .get::<i32>(5)?
                    .zip(row.get::<f64>(6)?)
                    .map(|(blocks, ms)| (blocks.max(0) as u32, ms)),
            })
        },
    )
}

/// Lanes that are not at their end, held by another hand or not.
pub fn unfinished(of: Of) -> Result<i64> {
    let (table, column, id) = of.parts();
    Ok(spi::value::<i64>(
        &format!("SELECT count(*) FROM {table} WHERE {column} = $1 AND next_block < end_block"),
        &[id.into()],
    )?
    .unwrap_or(0))
}

/// What a batch did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub next_block: i64,
    pub rows: i64,
    /// Blocks of the batch.
    pub blocks: i64,
    pub busy_ms: f64,
    /// Blocks of the next one.
    pub next_size: u32,
}

/// Moves the cursor; committed with the batch's rows.
pub fn advance(of: Of, lane: i32, done: Done) -> Result<()> {
    let (table, column, id) = of.parts();
    spi::execute(
        &format!(
            "UPDATE {table} SET next_block = $3, rows_done = rows_done + $4, batch_blocks = $5, \
               busy_ms = busy_ms + $6, batches = batches + 1, updated_at = clock_timestamp(), \
               last_blocks = $7, last_ms = $6 \
             WHERE {column} = $1 AND lane = $2"
        ),
        &[
            id.into(),
            lane.into(),
            done.next_block.into(),
            done.rows.into(),
            (done.next_size as i32).into(),
            done.busy_ms.into(),
            (done.blocks as i32).into(),
        ],
    )?;
    Ok(())
}
