//! `_transmute.hand_batches`: how far the batches of hand-written phases and of copies are.

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

/// Where a copy is.
#[derive(Debug, Default)]
pub struct Position {
    /// Key of the last row that was met.
    pub key: Option<Vec<String>>,
    /// It has met its last row.
    pub at_end: bool,
    /// Seconds since refused rows were last tried again; `None`: never, or somebody asks for it.
    pub since_retry: Option<f64>,
}

pub fn position(migration_id: &str, step: i32) -> Result<Position> {
    Ok(spi::first(
        "SELECT position, finished_at IS NOT NULL, abs(extract(epoch FROM clock_timestamp() - retried_at))::float8 \
         FROM _transmute.hand_batches WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into()],
        |row| {
            Ok(Position {
                key: row.get(1)?,
                at_end: row.need(2)?,
                since_retry: row.get(3)?,
            })
        },
    )?
    .unwrap_or_default())
}

pub fn set_position(migration_id: &str, step: i32, key: &[String]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.hand_batches SET position = $3 WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), key.to_vec().into()],
    )?;
    Ok(())
}

/// Counts rows that were refused before and are written now.
pub fn set_retried(migration_id: &str, step: i32, rows: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.hand_batches SET retried_at = clock_timestamp(), rows_done = rows_done + $3 \
         WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into(), rows.into()],
    )?;
    Ok(())
}

/// What is refused is tried at the next look.
pub fn ask_retry(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.hand_batches SET retried_at = NULL \
         WHERE migration_id = $1 AND step = $2 AND retried_at IS NOT NULL",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}
