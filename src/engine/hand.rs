//! Batches that a person has written: one a transaction, as the migration's owner, until one says that nothing is left. It
//! finds its rows itself, so that it can go on wherever it was.

use super::data;
use super::execute::{self, owner_role};
use super::work::Worked;
use crate::backfill::{batch, pace};
use crate::error::{Error, Result};
use crate::pg::one_batch::{self, Batch};
use crate::pg::{dml, identity, utility, waitpoint, Oid};
use crate::store::migration::Migration;
use crate::store::step::Step;
use crate::store::{dead_letter, hand_batch};
use std::time::Instant;

/// One batch.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    let size =
        hand_batch::size(&migration.id)?.ok_or_else(|| Error::Bug("no batch size".into()))?;
    batch::give_way()?;
    if let Some(wait) = data::hold(migration, Oid::INVALID)? {
        return Ok(wait);
    }
    let (started, wal_before) = (Instant::now(), dml::wal_written());
    let done = once(migration, &step.sql, size)?;
    let busy_ms = started.elapsed().as_secs_f64() * 1000.0;
    hand_batch::advance(&migration.id, step.step, done.rows, busy_ms, !done.more)?;
    waitpoint::reach("hand_batch_before_commit")?;
    if !done.more {
        return Ok(Worked::Done);
    }
    let wal = dml::wal_written().saturating_sub(wal_before);
    Ok(data::after_batch(pace::rest(&migration.id, busy_ms, wal)))
}

/// One batch as the owner. What would be checked at the commit is checked here: nothing may be left for it in a restricted
/// context.
pub(super) fn once(migration: &Migration, sql: &str, size: i32) -> Result<Batch> {
    identity::as_role(owner_role(migration)?, &migration.session, || {
        utility::run("SET CONSTRAINTS ALL IMMEDIATE")?;
        one_batch::run(sql, size)
    })
}

/// What the person has written to take the batches back.
pub fn undo(migration: &Migration, step: &Step) -> Result<()> {
    if let Some(sql) = &step.revert_sql {
        execute::run(migration, sql)?;
    }
    dead_letter::resolve_copy(&migration.id, step.step)?;
    hand_batch::delete(&migration.id, step.step)
}
