//! How hand-written phases take being run twice: tried when they are registered, in a subtransaction that is undone. What
//! the engine runs it runs once; that a phase may be run twice is for the people who run it by hand.

use super::work;
use super::{hand, rehearsal};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::meta::Meta;
use crate::pg::xact::{self, End};
use crate::pg::{identity, spi};
use crate::store::hand_batch;
use crate::store::migration::{self, Migration};
use crate::store::step::{self, Kind, Step};
use std::time::{Duration, Instant};

/// Locks are held until the rehearsal ends, so it ends soon: so many times transmute.lock_timeout, as for a dry run.
const HOLD_FACTOR: u32 = 10;

/// Refuses, or warns of, what is not the same when it is run twice, as meta.idempotency_mode says.
pub fn check(id: &str, meta: &Meta) -> Result<()> {
    let mode = meta.idempotency_mode.as_deref().unwrap_or("best_effort");
    if mode == "manual_exception" {
        return Ok(());
    }
    let migration = migration::get(id)?;
    let faults = match xact::subtransaction(End::Undo, || {
        // The steps were written by this very command.
        xact::command_counter_increment();
        xact::with_latest_snapshot(|_| rehearse(&migration))
    }) {
        Ok(faults) => faults,
        // A phase that does not even run once is wrong, whatever the mode; a lock that is not got says nothing of it.
        Err(error) if mode == "best_effort" && error.sqlstate_text() == "55P03" => {
            vec![format!("not tried: {error}")]
        }
        Err(error) => return Err(error),
    };
    let Some(first) = faults.first() else {
        return Ok(());
    };
    if mode == "strict" {
        return Err(Error::Prerequisite {
            problem: "a phase is not the same when it is run twice".into(),
            detail: format!("{first}."),
            hint: "Write IF [NOT] EXISTS and OR REPLACE, let a batch find only rows that are not done; or set meta.idempotency_mode.".into(),
        });
    }
    for fault in &faults {
        crate::log::warning(&format!(
            "transmute: migration \"{id}\" is not idempotent: {fault}"
        ));
    }
    Ok(())
}

/// Runs each phase twice; what was not the same the second time.
pub fn rehearse(migration: &Migration) -> Result<Vec<String>> {
    let limit = Duration::from_millis(guc::lock_timeout_ms() as u64) * HOLD_FACTOR;
    let began = Instant::now();
    let mut faults = Vec::new();
    // That something is there already is what the second time is about.
    identity::set_for_transaction("client_min_messages", "warning")?;
    for step in step::all(&migration.id)? {
        if began.elapsed() > limit {
            break; // the rest is not known to be wrong
        }
        match step.kind {
            Kind::HandBatch => faults.extend(batches_twice(migration, &step, began, limit)?),
            kind if rehearsal::can_rehearse(kind) => faults.extend(twice(migration, &step)?),
            // The engine's own ways to drop, which no statement of the person's is; and what takes long.
            _ => {}
        }
    }
    Ok(faults)
}

/// A statement that writes the catalog.
fn twice(migration: &Migration, step: &Step) -> Result<Option<String>> {
    work::run(migration, step)?;
    xact::command_counter_increment();
    let once = picture()?;
    Ok(
        match xact::subtransaction(End::Keep, || work::run(migration, step)) {
            Err(error) => Some(format!("the second time {} fails: {error}", words(step))),
            Ok(_) => {
                xact::command_counter_increment();
                (picture()? != once)
                    .then(|| format!("the second time {} changes something", words(step)))
            }
        },
    )
}

/// Batches until none is left, as far as there is time, and one more.
fn batches_twice(
    migration: &Migration,
    step: &Step,
    began: Instant,
    limit: Duration,
) -> Result<Option<String>> {
    let size =
        hand_batch::size(&migration.id)?.ok_or_else(|| Error::Bug("no batch size".into()))?;
    loop {
        if !hand::once(migration, &step.sql, size)?.more {
            break;
        }
        if began.elapsed() > limit {
            return Ok(None);
        }
    }
    let before = rows_written()?;
    let again = hand::once(migration, &step.sql, size)?;
    Ok((again.more || rows_written()? != before)
        .then(|| "behind the last batch another one changes rows".to_string()))
}

fn words(step: &Step) -> String {
    match step.sql.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &step.sql[..end]),
        None => step.sql.clone(),
    }
}

/// Rows that this transaction has written to tables of users.
fn rows_written() -> Result<i64> {
    Ok(spi::value(
        "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_xact_all_tables \
         WHERE schemaname NOT IN ('pg_catalog', '_transmute')",
        &[],
    )?
    .unwrap_or(0))
}

/// What the catalogs say, in one number.
fn picture() -> Result<String> {
    Ok(spi::value(include_str!("../../sql/query/catalog_picture.sql"), &[])?.unwrap_or_default())
}
