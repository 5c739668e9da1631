//! `_transmute.preflights`.

use crate::error::Result;
use crate::model::admission::Preflight;
use crate::pg::spi;

/// Keeps the verdict of a preflight in place of the one before.
pub fn record(migration_id: &str, plan_checksum: &str, failed: &[String]) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.preflights (migration_id, plan_checksum, failed) VALUES ($1, $2, $3) \
         ON CONFLICT (migration_id) DO UPDATE SET plan_checksum = excluded.plan_checksum, \
           failed = excluded.failed, made_at = excluded.made_at",
        &[
            migration_id.into(),
            plan_checksum.into(),
            failed.to_vec().into(),
        ],
    )?;
    Ok(())
}

/// The last one; `None`: none was made.
pub fn last(migration_id: &str, plan_checksum: &str) -> Result<Option<Preflight>> {
    spi::first(
        "SELECT plan_checksum = $2, extract(epoch FROM clock_timestamp() - made_at)::bigint, failed \
         FROM _transmute.preflights WHERE migration_id = $1",
        &[migration_id.into(), plan_checksum.into()],
        |row| {
            Ok(Preflight {
                of_this_plan: row.need(1)?,
                age_seconds: row.need(2)?,
                failed: row.need(3)?,
            })
        },
    )
}
