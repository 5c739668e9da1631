//! Stop everything, and change what may be changed while it runs.

use super::{call, need};
use crate::engine::emergency;
use crate::pg::ErrorReport;
use pgrx::prelude::*;
use pgrx::JsonB;

#[pg_extern(volatile, parallel_unsafe)]
fn emergency_stop(reason: Option<&str>) -> std::result::Result<i64, ErrorReport> {
    call(|caller| {
        let count = emergency::stop(need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(count)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn resume_all(reason: Option<&str>) -> std::result::Result<i64, ErrorReport> {
    call(|caller| {
        let count = emergency::resume(need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(count)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(
    clippy::too_many_arguments,
    reason = "the SQL signature: all have names and defaults"
)]
fn tune(
    id: Option<&str>,
    reason: Option<&str>,
    batch_target_ms: default!(Option<i32>, "NULL"),
    backfill_duty: default!(Option<i32>, "NULL"),
    max_parallel_backfill: default!(Option<i32>, "NULL"),
    max_wal_rate: default!(Option<i32>, "NULL"),
    max_replica_lag: default!(Option<i32>, "NULL"),
    max_load: default!(Option<i32>, "NULL"),
    max_slot_retention: default!(Option<i32>, "NULL"),
    max_growth: default!(Option<i32>, "NULL"),
    reset: default!(Option<bool>, "false"),
) -> std::result::Result<JsonB, ErrorReport> {
    call(|caller| {
        let changes = [
            ("batch_target_ms", batch_target_ms),
            ("backfill_duty", backfill_duty),
            ("max_parallel_backfill", max_parallel_backfill),
            ("max_wal_rate", max_wal_rate),
            ("max_replica_lag", max_replica_lag),
            ("max_load", max_load),
            ("max_slot_retention", max_slot_retention),
            ("max_growth", max_growth),
        ];
        let (id, reason) = (need("id", id)?, need("reason", reason)?);
        let tuned = emergency::tune(id, reason, &changes, need("reset", reset)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(JsonB(serde_json::to_value(tuned)?))
    })
}
