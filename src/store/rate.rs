//! `_transmute.rates`.

use crate::error::Result;
use crate::model::rate::{Rates, LEAST_ROWS};
use crate::pg::spi;

pub fn all() -> Result<Rates> {
    let rows = spi::query_kept(
        "SELECT kind, rows, seconds FROM _transmute.rates",
        &[],
        |row| Ok((row.need::<String>(1)?, row.need(2)?, row.need(3)?)),
    )?;
    Ok(Rates::measured(rows))
}

/// Takes a step that has just been done as a measurement, if it went over enough rows.
pub fn measure(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.rates AS r (kind, rows, seconds) \
         SELECT s.kind, (s.detail->'estimate'->>'rows')::float8, \
           extract(epoch FROM s.finished_at - s.started_at)::float8 FROM _transmute.steps s \
         WHERE s.migration_id = $1 AND s.step = $2 AND (s.detail->'estimate'->>'rows')::float8 >= $3 \
           AND s.finished_at > s.started_at \
         ON CONFLICT (kind) DO UPDATE SET rows = r.rows / 2 + excluded.rows, \
           seconds = r.seconds / 2 + excluded.seconds, measured_at = excluded.measured_at",
        &[migration_id.into(), step.into(), LEAST_ROWS.into()],
    )?;
    Ok(())
}
