//! `_transmute.hand_batches`: how far the batches of hand-written phases are.

use crate::error::Result;
use crate::pg::spi;

/// The size of a batch; `None`: no hand-written phases.
pub fn size(migration_id: &str) -> Result<Option<i32>> {
    spi::value(
        "SELECT (phases ->> 'batch_size')::integer FROM _transmute.migrations WHERE id = $1",
        &[migration_id.into()],
    )
}

/// Counts a batch; committed with its rows.
pub fn advance(migration_id: &str, step: i32, rows: i64, busy_ms: f64, last: bool) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.hand_batches AS b (migration_id, step, rows_done, batches, busy_ms, updated_at, finished_at) \
         VALUES ($1, $2, $3, 1, $4, clock_timestamp(), CASE WHEN $5 THEN clock_timestamp() END) \
         ON CONFLICT (migration_id, step) DO UPDATE SET rows_done = b.rows_done + excluded.rows_done, \
           batches = b.batches + 1, busy_ms = b.busy_ms + excluded.busy_ms, updated_at = excluded.updated_at, \
           finished_at = excluded.finished_at",
        &[
            migration_id.into(),
            step.into(),
            rows.into(),
            busy_ms.into(),
            last.into(),
        ],
    )?;
    Ok(())
}

pub fn delete(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.hand_batches WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}
