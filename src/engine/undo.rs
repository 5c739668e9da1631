//! Undo after the end: while old rows are kept current, a finished migration is taken back, the tables by a swap that is as
//! short as the first. Its state stays FINISHED, which nothing leads out of; its outcome becomes UNDONE.

use super::call::{owned, record, require_reason, wrong_state};
use super::rewriting;
use super::tick::Next;
use super::work::{self, Worked};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::relation::LockMode;
use crate::pg::waitpoint;
use crate::rewrite::{capture, copy, drain, drop_schema, keep, lock, matview, swap, Work};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::{self, Kind};
use crate::store::{artifact, dead_letter, mirror};
use std::time::Duration;

/// How often kept rows are looked at when there is nothing to bring over.
const IDLE: Duration = Duration::from_millis(500);

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
    if kept.is_empty() {
        return refuse("No old rows are kept current: meta.keep_old says at register for how long, and transmute.release_old ends it.");
    }
    let (now, _) = migration::clock()?;
    if kept.iter().any(|k| is_over(k, now)) {
        return refuse("The time of meta.keep_old is over.");
    }
    super::down::require_no_dependents(&migration)?;
    for one in &kept {
        require_possible(one, one.definition_at_end.as_ref())?;
    }
    migration::clear_error(id)?;
    migration::request_undo(id, reason)?;
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
    if kept.is_empty() || migration.state != State::Finished || going_back {
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
    migration::withdraw_undo(id)?;
    record(
        &migration,
        caller,
        "old rows released",
        serde_json::json!({ "reason": reason }),
    )
}

/// Ways back that are open.
fn open(id: &str) -> Result<Vec<Rewrite>> {
    Ok(rewrite::reverses(id)?
        .into_iter()
        .filter(|r| !r.swapped)
        .collect())
}

fn is_over(kept: &Rewrite, now: i64) -> bool {
    kept.kept_until_us.is_some_and(|until| until <= now)
}

/// What the tables are when the migration has finished: other steps may have followed the swap.
pub fn note_end(migration: &Migration) -> Result<()> {
    for kept in open(&migration.id)? {
        rewrite::set_definition_at_end(kept.id, &relation::definition(kept.relation)?)?;
    }
    Ok(())
}

/// The table is as the migration left it, and every row of it has its old row.
fn require_possible(kept: &Rewrite, definition: Option<&String>) -> Result<()> {
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

fn require_converted(kept: i64, table: &str) -> Result<()> {
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

/// No row of the last moment, either.
fn none_refused(works: &[Work]) -> Result<()> {
    works
        .iter()
        .try_for_each(|w| require_converted(w.rewrite.id, &w.table.name.to_string()))
}

fn works(migration: &Migration, kept: Vec<Rewrite>) -> Result<Vec<Work>> {
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
    for one in &open(&migration.id)? {
        if drain::is_due(one)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a finished migration that is up to date has nothing to do but to wait: how long.
pub fn peek(migration: &Migration) -> Result<Option<Duration>> {
    let kept = open(&migration.id)?;
    let (now, _) = migration::clock()?;
    let waits = !kept.is_empty()
        && migration.undo_reason.is_none()
        && !kept.iter().any(|k| is_over(k, now));
    Ok(waits.then(|| guc::drain_interval().min(IDLE)))
}

/// What a finished migration does that is still driven.
pub fn tick(migration: &Migration) -> Result<Next> {
    if migration.undone {
        return clean_up(migration);
    }
    if migration.undo_reason.is_some() {
        return go_back(migration);
    }
    let kept = open(&migration.id)?;
    let (now, _) = migration::clock()?;
    if let Some(over) = kept.iter().find(|k| is_over(k, now)) {
        let_go(migration, over)?;
        return Ok(Next::Again);
    }
    if kept.is_empty() {
        migration::unqueue(&migration.id)?;
        return Ok(Next::Done);
    }
    migration::set_waiting(&migration.id, None)?;
    Ok(Next::Wait(guc::drain_interval().min(IDLE)))
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

/// The steps in reverse order, one a transaction; the swap back with all around it that there is nothing to do for.
fn go_back(migration: &Migration) -> Result<Next> {
    if validate_one(migration)? {
        return Ok(Next::Again);
    }
    if !step::any_reverted(&migration.id)? {
        for kept in &open(&migration.id)? {
            if let Some(wait) = hold_back(migration, kept, kept.definition_at_end.as_ref())? {
                return Ok(wait);
            }
        }
    }
    let (mut changed, mut swapped) = (false, false);
    let mut quiet = Vec::new();
    for step in step::to_revert(&migration.id)? {
        match step.kind {
            Kind::RewriteSwap if swapped => continue, // all at once
            Kind::RewriteSwap if changed => return Ok(Next::Again),
            Kind::RewriteSwap => {
                if let Some(next) = swap_back(migration)? {
                    return Ok(next);
                }
                (changed, swapped) = (true, true);
            }
            Kind::RewriteExpand => {
                prove(migration, step.statement)?;
                quiet.push(step.step);
            }
            Kind::RewriteCopy
            | Kind::RewriteIndex
            | Kind::RewriteCheck
            | Kind::RewriteViews
            | Kind::RewriteValidate
            // The old application is there: it lets go by itself, `release_version`.
            | Kind::VersionBefore => quiet.push(step.step),
            _ if changed => return Ok(Next::Again),
            _ => {
                if let Worked::More(next) = work::revert(migration, &step)? {
                    return Ok(next);
                }
                step::set_reverted(&migration.id, step.step)?;
                changed = true;
            }
        }
        if changed {
            for step in quiet.drain(..) {
                step::set_reverted(&migration.id, step)?;
            }
        }
        if swapped && has_to_validate(migration)? {
            return Ok(Next::Again);
        }
    }
    for step in quiet {
        step::set_reverted(&migration.id, step)?;
    }
    migration::set_undone(&migration.id)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "undone",
        detail: Some(serde_json::json!({ "reason": migration.undo_reason })),
        ..Act::default()
    })?;
    waitpoint::reach("undo_before_commit")?;
    Ok(Next::Again)
}

fn has_to_validate(migration: &Migration) -> Result<bool> {
    Ok(rewrite::reverses(&migration.id)?
        .iter()
        .any(|way| !way.to_validate.is_empty()))
}

/// Validates one foreign key that the swap back left NOT VALID; false: there is none.
fn validate_one(migration: &Migration) -> Result<bool> {
    for way in rewrite::reverses(&migration.id)? {
        if rewriting::validate_next(&way)? {
            waitpoint::reach("undo_validated_before_commit")?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// When to look again, where the swap back would not be right now; why is shown.
fn hold_back(
    migration: &Migration,
    kept: &Rewrite,
    definition: Option<&String>,
) -> Result<Option<Next>> {
    match require_possible(kept, definition) {
        Ok(()) => Ok(None),
        Err(error @ Error::Prerequisite { .. }) => {
            let text = format!("{error}. {}", error.detail().unwrap_or_default());
            migration::set_waiting(&migration.id, Some(text.trim_end()))?;
            Ok(Some(Next::Wait(guc::drain_interval().min(IDLE))))
        }
        Err(error) => Err(error),
    }
}

/// Swaps the old rows of every table in; when to come back, where it has to wait.
fn swap_back(migration: &Migration) -> Result<Option<Next>> {
    let mut works = works(migration, open(&migration.id)?)?;
    let steps = step::begun(&migration.id, Kind::RewriteSwap)?;
    if works.len() != steps.len() {
        return Err(Error::Bug("a swap without a way back".into()));
    }
    for work in &works {
        if let Some(wait) = hold_back(migration, &work.rewrite, Some(&work.rewrite.definition))? {
            return Ok(Some(wait));
        }
    }
    // What can be done outside of the lock is done outside, and in a transaction of its own.
    if matview::is_stale(&works)? {
        matview::build(&works)?;
        return Ok(Some(Next::Again));
    }
    if let Some(work) = works.iter().find(|w| !w.rewrite.checked) {
        copy::analyze(work)?;
        rewrite::set_checked(work.rewrite.id)?;
        return Ok(Some(Next::Again));
    }
    migration::set_waiting(&migration.id, None)?;
    for work in &mut works {
        for _ in 0..rewriting::SWAP_DRAINS {
            if drain::run(work)? == 0 {
                break;
            }
        }
        keep::make_twin(work)?;
    }
    swap::run(&works, &[], || none_refused(&works).map(|()| true))?;
    migration::set_back(&migration.id)?;
    for step in &steps {
        step::set_reverted(&migration.id, step.step)?;
    }
    Ok(None)
}

/// That the catalog says of the table what it said before the migration, into the trail.
fn prove(migration: &Migration, statement: i32) -> Result<()> {
    let Some(done) = rewrite::find(&migration.id, statement)? else {
        return Ok(());
    };
    let fingerprint = relation::fingerprint(done.relation)?;
    let same = fingerprint == done.fingerprint;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "rewrite undone",
        detail: Some(serde_json::json!({
            "fingerprint_before": done.fingerprint,
            "fingerprint_after": fingerprint,
            "identical": same,
        })),
        ..Act::default()
    })?;
    if !same {
        pgrx::warning!(
            "transmute: migration \"{}\": the catalog entries of the table differ from those before it; \
             somebody changed them meanwhile",
            migration.id
        );
    }
    Ok(())
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
        && !open(id)?.iter().any(|k| is_over(k, now)))
}
