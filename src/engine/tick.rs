//! The next thing to do for one migration: what workers, `CALL transmute.run` and tests drive. One call is one
//! transaction.

use super::finalize::Of;
use super::rewriting::{complete, drain_all, Swapped};
use super::work::{self, Worked};
use super::{
    advance, dual_writing, finalize, hooks, invariants, outside, planning, rewriting, rollback,
    signals, start, undo, usage,
};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::phase::Phase;
use crate::model::soak;
use crate::model::state::{Event, State};
use crate::pg::waitpoint;
use crate::pg::xact::{self, End};
use crate::rewrite::drain;
use crate::store::dependency;
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::Kind;
use crate::store::{artifact, dead_letter, driver, invariant, object, outside as outsides, step};
use std::time::Duration;

/// When to call again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    Again,
    Wait(Duration),
    /// Nothing more to do for this migration.
    Done,
}

/// How often a migration that waits for a person or for time is looked at.
const IDLE: Duration = Duration::from_millis(500);

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
    let migration = migration::get(id)?;
    if !migration.queued {
        return Ok(Next::Done);
    }
    let mut drained = false;
    if migration.rollback_reason.is_none() || migration.state == State::Finishing {
        drained = if migration.next_attempt_us == Some(i64::MAX) {
            // It waits for a person after an error, which may be that it cannot drain: said once.
            xact::subtransaction(End::Keep, || drain_all(&migration)).unwrap_or(true)
        } else {
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
        State::AwaitingAction => {
            if migration.awaits_acknowledgement() && !migration.has_error {
                migration::set_waiting(id, Some(EXTERNAL_ACTION))?;
            }
            Ok(Next::Wait(nap(drained)))
        }
        State::AwaitingFinalization => finalization(&migration, drained),
        State::Finishing => finishing_step(&migration),
        State::Finished => undo::tick(&migration),
        State::RollingBack => Ok(Next::Done),
    }
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

/// Whether there is nothing to do for a migration but to wait, found out without writing: how long, or `None` when
/// `tick` has to look.
pub fn peek(id: &str) -> Result<Option<Duration>> {
    let migration = migration::get(id)?;
    if !migration.queued || migration.rollback_reason.is_some() {
        return Ok(None);
    }
    let rewrites = rewrite::list(id)?;
    if migration.state == State::AwaitingFinalization
        && rewrites.iter().any(|r| r.awaited.is_none())
    {
        return Ok(None);
    }
    let kept: Vec<&Rewrite> = rewrites
        .iter()
        .filter(|r| !r.swapped && complete(r))
        .collect();
    if !matches!(
        migration.state,
        State::Uninitialized | State::Initializing | State::Finished
    ) {
        for rewrite in &kept {
            if drain::is_due(rewrite)? {
                return Ok(None);
            }
        }
    }
    if matches!(migration.state, State::Finishing | State::Finished) && undo::is_due(&migration)? {
        return Ok(None);
    }
    if migration.state == State::Finished && migration.paused_reason.is_none() {
        let Some(pause) = undo::peek(&migration)? else {
            return Ok(None);
        };
        return Ok(Some(
            pause_left(&migration)?.map_or(pause, |left| left.min(pause)),
        ));
    }
    let pause = nap(!kept.is_empty());
    if migration.paused_reason.is_some() {
        let quiet = !outsides::under_way(id)?;
        return Ok((migration.waiting_for.is_some() && quiet).then_some(pause));
    }
    if let Some(left) = pause_left(&migration)? {
        return Ok(Some(left.min(pause)));
    }
    match migration.state {
        State::AwaitingAction | State::AwaitingFinalization
            if dual_writing::has_open_letters(id)? =>
        {
            Ok(None)
        }
        State::AwaitingAction => {
            // After a pause it has to be said again.
            let said = migration.waiting_for.is_some() || !migration.awaits_acknowledgement();
            Ok(said.then_some(pause))
        }
        State::Uninitialized => {
            if dependency::plan_is_stale(id)? {
                return Ok(None);
            }
            let waiting = waiting_text(&start::waiting(&migration)?);
            let still = waiting.is_some() && waiting == migration.waiting_for;
            Ok(still.then_some(start_pause(&migration)?))
        }
        State::AwaitingFinalization => {
            let contract = step::next(id, &[Phase::Contract])?.is_some();
            let waiting = waiting_text(&finalize::waiting(&migration, &rewrites, contract)?);
            Ok((waiting.is_some() && waiting == migration.waiting_for).then_some(pause))
        }
        State::Running | State::Finishing => match step::running_outside(id)?.first() {
            Some(step) => {
                let still = outside::peek(&migration, step)?;
                Ok((still == Some(migration.waiting_for.clone())).then_some(pause))
            }
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// What is waited for, in one line; `None`: nothing.
pub(super) fn waiting_text(waiting: &[crate::model::gate::Waiting]) -> Option<String> {
    let texts: Vec<&str> = waiting.iter().map(|w| w.text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Time until the next try after a failure.
pub(super) fn pause_left(migration: &Migration) -> Result<Option<Duration>> {
    let Some(until) = migration.next_attempt_us else {
        return Ok(None);
    };
    if until == i64::MAX {
        return Ok(Some(IDLE));
    }
    let (now, _) = migration::clock()?;
    Ok((until > now).then(|| Duration::from_micros((until - now) as u64).min(IDLE)))
}

fn nap(drained: bool) -> Duration {
    if drained {
        guc::drain_interval()
    } else {
        IDLE
    }
}

/// Whether hands may copy now: running, neither paused nor on the way back nor waiting after an error.
pub fn may_copy(migration: &Migration) -> bool {
    migration.state == State::Running
        && migration.paused_reason.is_none()
        && migration.rollback_reason.is_none()
        && migration.next_attempt_us.is_none()
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

/// Until the soak before the start ends, or IDLE.
fn start_pause(migration: &Migration) -> Result<Duration> {
    let (now, high_water) = migration::clock()?;
    Ok(match migration.pre_execution_until_us {
        Some(until) => match soak::remaining(until, now, high_water) {
            0 => IDLE,
            left => IDLE.min(Duration::from_micros(left as u64)),
        },
        None => IDLE,
    })
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
        usage::begin(migration)?;
        invariant::discount(&migration.id)?;
        advance::change_state(migration, Event::Ready, "ready", None)?;
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
    finalize::look_for_old_snapshots(&rewrite::list(&migration.id)?)?;
    let rewrites = rewrite::list(&migration.id)?;
    let waiting = finalize::waiting(migration, &rewrites, first.is_some())?;
    if let Some(text) = waiting_text(&waiting) {
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

/// FINISHING: the remaining contract steps.
fn finishing_step(migration: &Migration) -> Result<Next> {
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
