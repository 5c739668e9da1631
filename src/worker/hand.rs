//! Parallel copy: each hand takes a lane, copies a batch, commits, takes the next.

use super::conductor::{record_failure, transaction};
use super::{available, HAND};
use crate::backfill::{batch::give_way, pace};
use crate::engine::{rewriting, signals, tick};
use crate::error::Result;
use crate::guc;
use crate::pg::{activity, dml, neighbours, process, Datum, Oid};
use crate::rewrite::copy::{self, Copied};
use crate::store::{migration, node, progress, rewrite};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

thread_local! {
    /// Shadows this conductor has started hands for.
    static STARTED: RefCell<HashSet<Oid>> = RefCell::new(HashSet::new());
}

/// Starts the hands of a migration's copy, once a rewrite. Fewer than wished for is no error: the conductor copies too.
pub fn start_missing(id: &str) -> Result<()> {
    let wished = guc::max_parallel_backfill() - 1;
    if wished < 1 || !available() {
        return Ok(());
    }
    for rewrite in rewrite::list(id)? {
        let copying =
            !rewrite.deduplicated && progress::unfinished(progress::Of::Rewrite(rewrite.id))? > 1;
        if copying && STARTED.with_borrow_mut(|s| s.insert(rewrite.shadow)) {
            for _ in 0..wished {
                let started = BackgroundWorkerBuilder::new(HAND)
                    .set_type(HAND)
                    .set_library("transmute")
                    .set_function("transmute_hand_main")
                    .set_argument(activity::database().into_datum())
                    .set_extra(&rewrite.id.to_string())
                    .enable_spi_access()
                    .load_dynamic();
                if started.is_err() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Entry point, by name from the server: the argument is the database's oid, the extra data the rewrite's id.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_hand_main(arg: Datum) {
    process::install_signal_handlers();
    process::connect(Some(Oid::from(arg.value() as u32)));
    let Ok(rewrite_id) = pgrx::bgworkers::BackgroundWorker::get_extra().parse::<i64>() else {
        process::exit(0);
    };
    let _ = transaction(|| node::announce("hand"));
    while let Some(pause) = batch(rewrite_id) {
        activity::idle();
        process::wait(pause.as_millis().max(1) as i64);
    }
    let _ = transaction(node::leave);
    process::exit(0);
}

/// One batch; how long to sleep, `None` when this hand is not needed any more.
fn batch(rewrite_id: i64) -> Option<Duration> {
    activity::running(&format!("transmute: copying, rewrite {rewrite_id}"));
    let mut driven = None;
    let result = transaction(|| {
        let Some(rewrite) = rewrite::get(rewrite_id)? else {
            return Ok(None);
        };
        let migration = migration::get(&rewrite.migration_id)?;
        driven = Some((migration.id.clone(), migration::resumed_us(&migration.id)?));
        if !tick::may_copy(&migration) || rewrite.deduplicated {
            return Ok(None);
        }
        give_way()?;
        if let Some(held) = pace::held(&migration.id, rewrite.relation)? {
            return Ok(Some(held.pause)); // the conductor says why
        }
        let work = rewriting::work_of(&migration, rewrite)?;
        let _heeding = neighbours::heed();
        let wal_before = dml::wal_written();
        Ok(match copy::batch(&work)? {
            Copied::Batch(busy_ms) => {
                signals::progress(&migration.id)?;
                let wal = dml::wal_written().saturating_sub(wal_before);
                Some(pace::rest(&migration.id, busy_ms, wal))
            }
            Copied::All | Copied::Others => None,
        })
    });
    match (result, driven) {
        (Ok(pause), _) => pause,
        (Err(error), Some((id, resumed_us))) => {
            // The conductor decides what becomes of the migration.
            let _ = record_failure(&id, &error, Some(resumed_us));
            None
        }
        (Err(_), None) => None,
    }
}
