//! The next thing to do for one migration: what workers, `CALL transmute.run` and tests drive. One call is one
//! transaction.

use super::finalize::Of;
use super::look::{nap, pause_left, start_pause, stopped_text, waiting_text, IDLE};
use super::rewriting::{drain_all, Swapped};
use super::work::{self, Worked};
use super::{
    advance, dual_writing, emergency, finalize, hooks, invariants, outside, planning, rewriting,
    rollback, signals, start, undo, untouched, usage, way_back,
};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::phase::Phase;
use crate::model::state::{Event, State};
use crate::pg::waitpoint;
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use crate::store::migration::{self, Migration};
use crate::store::rewrite;
use crate::store::step::Kind;
use crate::store::{artifact, dead_letter, driver, invariant, object, outside as outsides, step};
use std::time::Duration;

/// When to call again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    Again,
    Wait(Duration),
    /// The table is vacuumed first, outside of any transaction; only a process that said that it can is asked.
    Vacuum(Oid),
    /// Nothing more to do for this migration.
    Done,
}

/// What `status.waiting_for` says while somebody has to act outside of the database.
const EXTERNAL_ACTION: &str =
    "a person: the external action (meta.requires_external_action); acknowledge says that it was done";

/// One step forward. The driver's row is locked throughout: at most one transaction drives a migration. The
/// migration's own row, which people's calls change, only where that does not take long: so they never wait for an
/// index build, a scan or a drain.
pub fn tick(id: &str) -> Result<Next> {
    if !driver::try_lock(id)? {
        return Ok(Next::Wait(IDLE)); // another session drives it, or it is gone
    }
    let mut quiet = only_changes_state(id)?;
    let mut next = tick_on(id)?;
    while next == Next::Again && only_changes_state(id)? {
        // Behind a step of the planner, which may hold a strong lock, the states have a transaction of their own.
        if !quiet && !runs_in_one(id)? {
            break;
        }
        quiet = true;
        next = tick_on(id)?;
    }
    Ok(next)
}

/// Whether a script is one transaction, the states behind it included.
fn runs_in_one(id: &str) -> Result<bool> {
    Ok(migration::get(id)?.meta.is_direct() || step::is_derived(id)?)
}

/// Whether one that has begun has nothing before its next state that would be worth a commit: no step, no look at an
/// invariant, no hook.
fn only_changes_state(id: &str) -> Result<bool> {
    let migration = migration::get(id)?;
    let phases: &[Phase] = match migration.state {
        State::Initializing => &[Phase::Expand],
        State::Running => &[Phase::Backfill, Phase::Validate],
        State::AwaitingFinalization | State::Finishing => &[Phase::Contract],
        _ => return Ok(false),
    };
    Ok(migration.rollback_reason.is_none()
        && migration.queued
        && migration.meta.invariants.is_empty()
        && step::next(id, phases)?.is_none()
        && !hooks::are_due(&migration)?)
}

fn tick_on(id: &str) -> Result<Next> {
    let migration = migration::get(id)?;
    if !migration.queued {
        return Ok(Next::Done);
    }
    if let Some(reason) = &migration.stopped {
        migration::set_waiting(id, Some(&stopped_text(reason)))?;
        return Ok(outside::halt(&migration)?.unwrap_or(Next::Wait(IDLE)));
    }
    emergency::in_force(&migration)?;
    if !migration.at_home && migration.rollback_reason.is_none() {
        return stay_away(&migration);
    }
    let mut drained = false;
    if migration.rollback_reason.is_none() || migration.state == State::Finishing {
        drained = if migration.next_attempt_us == Some(i64::MAX) {
            // It waits for a person after an error, which may be that it cannot drain: said once.
            xact::subtransaction(End::Keep, || drain_all(&migration)).unwrap_or(true)
        } else {
            untouched::require(&migration)?;
            drain_all(&migration)?
        };
        dual_writing::settle_all(&migration)?;
        if let Some(next) = invariants::tick(&migration)? {
            return Ok(next);
        }
        if let Some(next) = hooks::tick(&migration)? {
            return Ok(next);
        }
        if let Some(next) = long_step(&migration)? {
            return Ok(next);
        }
    }
    let Some(migration) = migration::try_lock(id)? else {
        return Ok(Next::Wait(IDLE)); // somebody is just calling something
    };
    if !migration.queued {
        return Ok(Next::Done);
    }
    if migration.rollback_reason.is_some() && migration.state != State::Finishing {
        if let Some(pause) = pause_left(&migration)? {
            return Ok(Next::Wait(pause));
        }
        return rollback::tick(&migration);
    }
    if let Some(reason) = &migration.paused_reason {
        migration::set_waiting(id, Some(&format!("resume: paused, {reason}")))?;
        if let Some(next) = outside::halt(&migration)? {
            return Ok(next);
        }
        return Ok(Next::Wait(nap(drained)));
    }
    if let Some(pause) = pause_left(&migration)? {
        return Ok(Next::Wait(pause.min(nap(drained))));
    }
    match migration.state {
        State::Uninitialized => begin(&migration),
        State::Initializing => expand_step(&migration),
        State::Running => running_step(&migration),
        State::AwaitingAction | State::AwaitingFinalization | State::Finished => {
            let next = stand_by(&migration, drained)?;
            if matches!(next, Next::Wait(_)) {
                // It may stand for days: tries are counted from the last one that went well.
                migration::forget_attempts(id)?;
            }
            Ok(next)
        }
        State::Finishing => finishing_step(&migration),
        State::RollingBack => Ok(Next::Done),
    }
}

/// A state in which changes are brought over until somebody, or the time, lets it go on.
fn stand_by(migration: &Migration, drained: bool) -> Result<Next> {
    match migration.state {
        State::AwaitingFinalization => finalization(migration, drained),
        State::Finished => undo::tick(migration),
        _ => {
            if migration.awaits_acknowledgement() && !migration.has_error {
                migration::set_waiting(&migration.id, Some(EXTERNAL_ACTION))?;
            }
            Ok(Next::Wait(nap(drained)))
        }
    }
}

/// In a copy of the database (a restored dump, a template's copy, after pg_upgrade) nothing goes on by itself: the application
/// may not use it at all, and what is known by oid may mean something else.
fn stay_away(migration: &Migration) -> Result<Next> {
    if migration.next_attempt_us == Some(i64::MAX) {
        return Ok(Next::Wait(IDLE)); // said once
    }
    Err(Error::Prerequisite {
        problem: "this database is a copy of the one that the migration was applied in".into(),
        detail: "System identifier or oid of the database are others.".into(),
        hint: "To go on here, where the copy was made file by file (CREATE DATABASE, pg_upgrade): \
               transmute.resume(id, reason)."
            .into(),
    })
}

/// A piece of a step that may take long; `None`: the next thing is none. It changes no state, so it may commit whatever
/// people have asked for meanwhile; pause and rollback interrupt it.
fn long_step(migration: &Migration) -> Result<Option<Next>> {
    if migration.paused_reason.is_some() || pause_left(migration)?.is_some() {
        return Ok(None);
    }
    let step = match migration.state {
        State::Running => step::next(&migration.id, &[Phase::Backfill, Phase::Validate])?
            .filter(|s| !s.kind.is_outside()),
        State::Finishing => step::next(&migration.id, &[Phase::Contract])?
            .filter(|s| s.kind == Kind::RewriteValidate),
        _ => None,
    };
    let Some(step) = step else {
        return Ok(None);
    };
    if migration.state == State::Running {
        require_few_dead_letters(migration)?;
    }
    // A batch of a data statement is short, and says itself what it waits for.
    let says = matches!(
        step.kind,
        Kind::Data
            | Kind::Batch
            | Kind::HandBatch
            | Kind::CopyRows
            | Kind::RuleFill
            | Kind::RuleCheck
    );
    if says {
        migration::set_waiting(&migration.id, None)?;
    }
    let worked = work::run(migration, &step)?;
    // Steps that may take strong locks tell nothing at their commit.
    if matches!(
        step.kind,
        Kind::RewriteCopy | Kind::RewriteIndex | Kind::RewriteCheck | Kind::Batch
    ) && matches!(worked, Worked::Done | Worked::More(Next::Again))
    {
        signals::progress(&migration.id)?;
    }
    if !says && migration.waiting_for.is_some() && migration::try_lock(&migration.id)?.is_some() {
        migration::set_waiting(&migration.id, None)?;
    }
    Ok(Some(match worked {
        Worked::Done => {
            waitpoint::reach("step_before_commit")?;
            Next::Again
        }
        Worked::More(next) => next,
    }))
}

/// UNINITIALIZED: waits for what it depends on, for its soak, for who works on the same objects, and for its turn.
fn begin(migration: &Migration) -> Result<Next> {
    if planning::renew(migration)? {
        waitpoint::reach("plan_before_commit")?;
        return Ok(Next::Again);
    }
    object::lock_starts()?;
    waitpoint::reach("start_locked")?;
    if let Some(text) = waiting_text(&start::waiting(migration)?) {
        migration::set_waiting(&migration.id, Some(&text))?;
        return Ok(Next::Wait(start_pause(migration)?));
    }
    step::reset(&migration.id)?;
    outsides::reset(&migration.id)?;
    invariant::reset(&migration.id)?;
    advance::change_state(migration, Event::Apply, "started", None)?;
    Ok(Next::Again)
}

/// INITIALIZING: one expand step; the last one and the new state commit together.
fn expand_step(migration: &Migration) -> Result<Next> {
    let phases = [Phase::Expand];
    if let Some(step) = step::next(&migration.id, &phases)? {
        match work::run(migration, &step)? {
            Worked::Done => waitpoint::reach("expand_before_commit")?,
            Worked::More(next) => return Ok(next),
        }
    }
    if step::next(&migration.id, &phases)?.is_none() {
        advance::change_state(migration, Event::Expanded, "expanded", None)?;
    }
    Ok(Next::Again)
}

/// RUNNING: what is no `long_step`, a look at a statement outside of transactions, or the end.
fn running_step(migration: &Migration) -> Result<Next> {
    let phases = [Phase::Backfill, Phase::Validate];
    let Some(step) = step::next(&migration.id, &phases)? else {
        if invariants::due(migration)?.is_some() {
            return Ok(Next::Again);
        }
        if migration.awaits_acknowledgement() {
            let facts = serde_json::json!({ "waiting_for": EXTERNAL_ACTION });
            advance::change_state(
                migration,
                Event::NeedAction,
                "external action needed",
                Some(facts),
            )?;
            migration::set_waiting(&migration.id, Some(EXTERNAL_ACTION))?;
            return Ok(Next::Again);
        }
        if migration.soak_until_us.is_none() {
            usage::begin(migration)?; // else it is back from AWAITING_ACTION, and was counted all the time
        }
        invariant::discount(&migration.id)?;
        advance::change_state(migration, Event::Ready, "ready", None)?;
        // Whoever sees the state is counted with the next statement.
        usage::collect()?;
        // Whoever waits for this state may ask at once what it waits for.
        let ready = migration::get(&migration.id)?;
        let first = step::next(&ready.id, &[Phase::Contract])?;
        let waiting = held_back(&ready, first.is_some())?;
        migration::set_waiting(&ready.id, waiting.as_deref())?;
        return Ok(Next::Again);
    };
    if !step.kind.is_outside() {
        return Ok(Next::Again); // somebody has just resumed it
    }
    require_few_dead_letters(migration)?;
    match work::run(migration, &step)? {
        Worked::Done => {
            waitpoint::reach("step_before_commit")?;
            Ok(Next::Again)
        }
        Worked::More(next) => Ok(next),
    }
}

/// Refused rows over the limit are a person's business.
fn require_few_dead_letters(migration: &Migration) -> Result<()> {
    let letters = dead_letter::open_since_resume(&migration.id)?;
    let (limit, name) = match migration.max_dead_letters {
        Some(limit) => (limit, "meta.max_dead_letters"),
        None => (guc::max_dead_letters(), "transmute.max_dead_letters"),
    };
    if letters <= limit {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "too many rows are refused by the new shape".into(),
        detail: format!("{letters} new dead letters, more than {name} = {limit}."),
        hint: "Look at transmute.dead_letters: mend the rows, which are tried again by themselves, or the statement, by transmute.amend(id, up, reason).".into(),
    })
}

/// AWAITING_FINALIZATION: when nothing holds it back, all swaps – or, without any, the first contract step – and
/// FINISHING commit together.
fn finalization(migration: &Migration, drained: bool) -> Result<Next> {
    let first = step::next(&migration.id, &[Phase::Contract])?;
    usage::collect()?;
    if let Some(text) = held_back(migration, first.is_some())? {
        migration::set_waiting(&migration.id, Some(&text))?;
        return Ok(Next::Wait(nap(drained)));
    }
    if rewriting::renew_views(migration)? {
        return Ok(Next::Again); // their build is a transaction of its own
    }
    if invariants::due(migration)?.is_some() || hooks::are_due(migration)? {
        return Ok(Next::Again); // so are a look at each of them, and a call
    }
    match rewriting::swap_all(migration)? {
        Swapped::Yes => {}
        // A row of the last moment was refused; the gates see it next time.
        Swapped::NotYet => return Ok(Next::Again),
        Swapped::Nothing => {
            if let Some(step) = first {
                work::run(migration, &step)?;
            }
        }
    }
    finalize::leave_behind(migration, Of::All)?;
    advance::change_state(migration, Event::Finalize, "finalizing", None)?;
    Ok(Next::Again)
}

/// What holds it back from its point of no return, for people.
fn held_back(migration: &Migration, has_contract_steps: bool) -> Result<Option<String>> {
    finalize::look_for_old_snapshots(&rewrite::list(&migration.id)?)?;
    let rewrites = rewrite::list(&migration.id)?;
    let waiting = finalize::waiting(migration, &rewrites, has_contract_steps)?;
    Ok(waiting_text(&waiting))
}

/// FINISHING: the remaining contract steps.
fn finishing_step(migration: &Migration) -> Result<Next> {
    if way_back::settle(migration)? {
        return Ok(Next::Again);
    }
    if let Some(step) = step::next(&migration.id, &[Phase::Contract])? {
        require_few_dead_letters(migration)?;
        if !step.kind.is_outside() {
            migration::set_waiting(&migration.id, None)?;
        }
        return match work::run(migration, &step)? {
            Worked::Done => Ok(Next::Again),
            Worked::More(next) => Ok(next),
        };
    }
    if invariants::due(migration)?.is_some() {
        return Ok(Next::Again);
    }
    artifact::measure(&migration.id)?;
    undo::note_end(migration)?;
    if let Some(other) = &migration.down_of {
        migration::set_taken_back(other)?;
    }
    advance::change_state(migration, Event::Finish, "finished", None)?;
    Ok(Next::Done)
}
