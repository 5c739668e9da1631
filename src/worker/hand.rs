//! Parallel copies and fills: each hand takes a lane, does a batch, commits, takes the next.

use super::conductor::{record_failure, transaction};
use super::{available, HAND};
use crate::backfill::{batch::give_way, pace};
use crate::engine::{dual_writing, emergency, look, rewriting, signals};
use crate::error::Result;
use crate::guc;
use crate::pg::{activity, dml, neighbours, process, Datum, Oid};
use crate::rewrite::copy::{self, Copied};
use crate::store::migration::{self, Migration};
use crate::store::{node, progress, rewrite, rule};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

thread_local! {
    /// How many hands there should be of a shadow, or a rule, as last seen by this conductor.
    static WISHED: RefCell<HashMap<(Task, Oid), i32>> = RefCell::default();
}

/// What a hand works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    Rewrite(i64),
    Rule(i64),
}

/// Starts the hands of a migration's copy that are wished for and were not before. Fewer than wished for is no error: the
/// conductor copies too. Those that are too many end by themselves.
pub fn start_missing(id: &str) -> Result<()> {
    if !available() {
        return Ok(());
    }
    let migration = migration::get(id)?;
    if !look::may_copy(&migration) {
        return Ok(());
    }
    emergency::in_force(&migration)?;
    let wished = guc::max_parallel_backfill() - 1;
    for rewrite in rewrite::list(id)? {
        let copying =
            !rewrite.deduplicated && progress::unfinished(progress::Of::Rewrite(rewrite.id))? > 1;
        if !copying {
            continue;
        }
        start((Task::Rewrite(rewrite.id), rewrite.shadow), wished);
    }
    for id in rule::in_force(&migration.id)? {
        let key = (Task::Rule(id), Oid::INVALID);
        match progress::unfinished(progress::Of::Rule(id))? > 1 {
            true => start(key, wished),
            // There may be another pass.
            false => WISHED.with_borrow_mut(|known| {
                known.remove(&key);
            }),
        }
    }
    Ok(())
}

fn start(key: (Task, Oid), wished: i32) {
    let before = WISHED.with_borrow_mut(|known| known.insert(key, wished).unwrap_or(0));
    let task = match key.0 {
        Task::Rewrite(id) => format!("rewrite {id}"),
        Task::Rule(id) => format!("rule {id}"),
    };
    for number in before + 1..=wished {
        if !process::start_worker(HAND, "transmute_hand_main", &format!("{task} {number}")) {
            break;
        }
    }
}

/// What a hand was told, and its number.
fn told(extra: &str) -> Option<(Task, i32)> {
    let mut words = extra.split(' ');
    let (task, id) = (words.next()?, words.next()?.parse().ok()?);
    let number = words.next()?.parse().ok()?;
    match task {
        "rewrite" => Some((Task::Rewrite(id), number)),
        "rule" => Some((Task::Rule(id), number)),
        _ => None,
    }
}

/// Entry point, by name from the server: the argument is the database's oid, the extra data what it works on and
/// the hand's number, from 1.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_hand_main(arg: Datum) {
    process::install_signal_handlers();
    process::connect(Some(Oid::from(arg.value() as u32)));
    let extra = pgrx::bgworkers::BackgroundWorker::get_extra();
    let Some((task, number)) = told(extra) else {
        process::exit(0);
    };
    let _ = transaction(|| node::announce("hand"));
    while let Some(pause) = batch(task, number) {
        activity::idle();
        process::wait(pause.as_millis().max(1) as i64);
    }
    let _ = transaction(node::leave);
    process::exit(0);
}

/// One batch; how long to sleep, `None` when this hand is not needed any more.
fn batch(task: Task, number: i32) -> Option<Duration> {
    activity::running(&match task {
        Task::Rewrite(id) => format!("transmute: copying, rewrite {id}"),
        Task::Rule(id) => format!("transmute: filling, rule {id}"),
    });
    let mut driven = None;
    let mut may_work = |migration: &Migration, relation: Oid| -> Result<Option<Option<Duration>>> {
        driven = Some((migration.id.clone(), migration::resumed_us(&migration.id)?));
        if !look::may_copy(migration) {
            return Ok(Some(None));
        }
        emergency::in_force(migration)?;
        if number >= guc::max_parallel_backfill() {
            return Ok(Some(None)); // tuned down since; the conductor is one of them
        }
        give_way()?;
        // The conductor says why.
        Ok(pace::held(&migration.id, relation)?.map(|held| Some(held.pause)))
    };
    let result = transaction(|| {
        let rewrite_id = match task {
            Task::Rewrite(id) => id,
            Task::Rule(id) => {
                let Some(kept) = rule::get(id)? else {
                    return Ok(None);
                };
                let migration = migration::get(&kept.migration_id)?;
                if let Some(not_now) = may_work(&migration, kept.relation)? {
                    return Ok(not_now);
                }
                return dual_writing::hand_batch(&migration, &kept);
            }
        };
        let Some(rewrite) = rewrite::get(rewrite_id)?.filter(|r| !r.deduplicated) else {
            return Ok(None);
        };
        let migration = migration::get(&rewrite.migration_id)?;
        if let Some(not_now) = may_work(&migration, rewrite.relation)? {
            return Ok(not_now);
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
