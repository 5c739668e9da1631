//! Undo after the end: while old rows are kept current, a finished migration is taken back, the tables by a swap that is as
//! short as the first. Its state stays FINISHED, which nothing leads out of; its outcome becomes UNDONE.

use super::call::{owned, record, require_reason, wrong_state};
use super::tick::Next;
use super::{dual_writing, hidden, rewriting, undo_steps, undo_trees};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::relation::LockMode;
use crate::pg::waitpoint;
use crate::rewrite::{capture, drain, drop_schema, lock, matview, Work};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step;
use crate::store::undo as store;
use crate::store::{artifact, dead_letter, mirror};
use std::time::Duration;

/// How often kept rows are looked at when there is nothing to bring over.
pub(super) const IDLE: Duration = Duration::from_millis(500);
/// And where nothing has to be brought over.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// Asks for the way back of a finished migration; its driver goes it.
pub fn request(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let refuse = |hint: &str| Err(wrong_state(&migration, "undo", hint));
    if migration.state != State::Finished {
        return refuse(match migration.state {
            State::Finishing => "Its last steps run; it can be undone when it has finished.",
            _ => "Until FINISHING, transmute.rollback(id, reason) takes it back.",
        });
    }
    if migration.undone {
        return refuse("It was undone.");
    }
    if migration.undo_reason.is_some() {
        return refuse("It is being undone.");
    }
    let kept = open(&migration.id)?;
    if kept.is_empty() && migration.kept_until_us.is_none() {
        return refuse("No old rows are kept current: meta.keep_old says at register for how long, and transmute.release_old ends it.");
    }
    let (now, _) = migration::clock()?;
    if is_over(&migration, &kept, now) {
        return refuse("The time of meta.keep_old is over.");
    }
    super::down::require_no_dependents(&migration, &[])?;
    for one in &kept {
        require_possible(one, one.definition_at_end.as_ref())?;
    }
    undo_trees::require_possible(&migration, &kept)?;
    hidden::require_possible(&migration)?;
    migration::clear_error(id)?;
    store::request(id, reason)?;
    super::call::interrupt(id)?;
    record(
        &migration,
        caller,
        "undo requested",
        serde_json::json!({ "reason": reason }),
    )
}

/// Lets go of the old rows before their time.
pub fn release(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let kept = open(id)?;
    let going_back = step::any_reverted(id)?;
    let none = kept.is_empty() && migration.kept_until_us.is_none();
    if none || migration.state != State::Finished || going_back {
        return Err(wrong_state(
            &migration,
            "release_old",
            match (migration.state, going_back) {
                (_, true) => "It is being undone.",
                (State::Finished, _) => "No old rows are kept current.",
                _ => "Old rows are kept from the swap on; it has not finished.",
            },
        ));
    }
    rewrite::keep_no_longer(id)?;
    store::keep_no_longer(id)?;
    store::withdraw(id)?;
    record(
        &migration,
        caller,
        "old rows released",
        serde_json::json!({ "reason": reason }),
    )
}

/// Ways back that are open, of tables that are there.
pub(super) fn open(id: &str) -> Result<Vec<Rewrite>> {
    let mut kept = Vec::new();
    for one in rewrite::reverses(id)?.into_iter().filter(|r| !r.swapped) {
        if !undo_trees::is_gone(&one)? {
            kept.push(one);
        }
    }
    Ok(kept)
}

/// One of a table that was dropped.
fn gone(id: &str) -> Result<Option<Rewrite>> {
    for one in rewrite::reverses(id)?.into_iter().filter(|r| !r.swapped) {
        if undo_trees::is_gone(&one)? {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

fn has_ended(kept: &Rewrite, now: i64) -> bool {
    kept.kept_until_us.is_some_and(|until| until <= now)
}

/// Whether the time in which it can be undone has ended, for one of its tables or for all.
fn is_over(migration: &Migration, kept: &[Rewrite], now: i64) -> bool {
    kept.iter().any(|k| has_ended(k, now))
        || migration.kept_until_us.is_some_and(|until| until <= now)
}

/// What the tables are when the migration has finished: other steps may have followed the swap.
pub fn note_end(migration: &Migration) -> Result<()> {
    for kept in open(&migration.id)? {
        rewrite::set_definition_at_end(kept.id, &relation::definition(kept.relation)?)?;
    }
    match migration.keeps_old {
        true => store::begin_to_keep(&migration.id),
        false => Ok(()),
    }
}

/// The table is as the migration left it, and every row of it has its old row.
pub(super) fn require_possible(kept: &Rewrite, definition: Option<&String>) -> Result<()> {
    let table = relation::get(kept.relation)?;
    if Some(&relation::definition(kept.relation)?) != definition {
        return Err(Error::Prerequisite {
            problem: "the table was changed since the migration ended".into(),
            detail: format!(
                "Columns, indexes or constraints of {} are not those the way back was made for.",
                table.name
            ),
            hint: "Undo that change, then transmute.undo(id, reason) again.".into(),
        });
    }
    require_converted(kept.id, &table.name.to_string())
}

pub(super) fn require_converted(kept: i64, table: &str) -> Result<()> {
    let refused = dead_letter::open_keys(kept)?;
    if !refused.is_empty() {
        return Err(Error::Prerequisite {
            problem: "rows were written that do not convert back".into(),
            detail: format!("{} of {table}, in transmute.dead_letters.", refused.len()),
            hint: "Change or delete these rows: each is tried again by itself. Then transmute.undo(id, reason) again."
                .into(),
        });
    }
    Ok(())
}

pub(super) fn works(migration: &Migration, kept: Vec<Rewrite>) -> Result<Vec<Work>> {
    kept.into_iter()
        .map(|rewrite| rewriting::work_of(migration, rewrite))
        .collect()
}

/// Brings kept rows up to date; false: none are kept.
pub fn drain(migration: &Migration) -> Result<bool> {
    let works = works(migration, open(&migration.id)?)?;
    for work in &works {
        drain::run(work)?;
    }
    Ok(!works.is_empty())
}

/// Whether there is something to bring over to kept rows.
pub fn is_due(migration: &Migration) -> Result<bool> {
    if dual_writing::has_letters_to_try(&migration.id)? {
        return Ok(true);
    }
    for one in &open(&migration.id)? {
        if drain::is_due(one)? {
            return Ok(true);
        }
    }
    Ok(gone(&migration.id)?.is_some())
}

/// Whether a finished migration that is up to date has nothing to do but to wait: how long.
pub fn peek(migration: &Migration) -> Result<Option<Duration>> {
    let kept = open(&migration.id)?;
    let (now, _) = migration::clock()?;
    let keeps = !kept.is_empty() || migration.kept_until_us.is_some();
    let waits = keeps && migration.undo_reason.is_none() && !is_over(migration, &kept, now);
    Ok(waits.then(|| pause(migration, &kept, now)))
}

/// Until the next look: rows are brought over; columns are kept by the statements that write.
fn pause(migration: &Migration, kept: &[Rewrite], now: i64) -> Duration {
    match (kept.is_empty(), migration.kept_until_us) {
        (true, Some(until)) => Duration::from_micros((until - now).max(0) as u64).min(LONG_IDLE),
        _ => guc::drain_interval().min(IDLE),
    }
}

/// What a finished migration does that is still driven.
pub fn tick(migration: &Migration) -> Result<Next> {
    if migration.undone {
        return clean_up(migration);
    }
    if let Some(gone) = gone(&migration.id)? {
        let_go(migration, &gone)?;
        return Ok(Next::Again);
    }
    if migration.undo_reason.is_some() {
        return undo_steps::go_back(migration);
    }
    let kept = open(&migration.id)?;
    let (now, _) = migration::clock()?;
    if let Some(over) = kept.iter().find(|k| has_ended(k, now)) {
        let_go(migration, over)?;
        return Ok(Next::Again);
    }
    if is_over(migration, &kept, now) {
        hidden::let_go(migration)?;
        return Ok(Next::Again);
    }
    if kept.is_empty() && migration.kept_until_us.is_none() {
        migration::unqueue(&migration.id)?;
        return Ok(Next::Done);
    }
    migration::set_waiting(&migration.id, None)?;
    Ok(Next::Wait(pause(migration, &kept, now)))
}

/// The time of one table is over: nothing is captured any more. Its old rows are purged in transactions of their own.
fn let_go(migration: &Migration, kept: &Rewrite) -> Result<()> {
    if let Some(oid) = capture::captured(kept.id)? {
        let table = relation::get(oid)?;
        audit_event::reserve()?;
        lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
        capture::off(kept.id, &table)?;
    }
    drop_schema(&kept.new_schema)?;
    if let Some(done) = kept.reverses.map(rewrite::get).transpose()?.flatten() {
        artifact::expire_now(&done.old_schema)?;
    }
    dead_letter::resolve_all(kept.id)?;
    rewrite::delete(kept.id)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "old rows let go",
        detail: Some(serde_json::json!({ "statement": -kept.statement })),
        ..Act::default()
    })?;
    waitpoint::reach("let_go_before_commit")
}

/// After the undo: work schemas and the empty tables of the old rows go.
fn clean_up(migration: &Migration) -> Result<Next> {
    for way in rewrite::reverses(&migration.id)? {
        drop_schema(&matview::schema_of(way.id))?;
        drop_schema(&way.new_schema)?;
        if let Some(done) = way.reverses.map(rewrite::get).transpose()?.flatten() {
            drop_schema(&done.old_schema)?;
            artifact::set_schema_dropped(&done.old_schema)?;
        }
    }
    mirror::delete_all(&migration.id)?;
    artifact::measure(&migration.id)?;
    migration::unqueue(&migration.id)?;
    waitpoint::reach("undo_cleaned_before_commit")?;
    Ok(Next::Done)
}

/// Whether a driver in a person's session has nothing to do for it but to go on bringing over what others write.
pub fn rests(id: &str) -> Result<bool> {
    let migration = migration::get(id)?;
    let (now, _) = migration::clock()?;
    Ok(migration.state == State::Finished
        && migration.undo_reason.is_none()
        && !is_over(&migration, &open(id)?, now))
}
