//! What can be found out of a migration without writing: whether there is anything to do but to wait, for how long, and for what.

use super::rewriting::complete;
use super::{dual_writing, finalize, outside, start, undo, untouched};
use crate::error::Result;
use crate::guc;
use crate::model::gate::Waiting;
use crate::model::phase::Phase;
use crate::model::soak;
use crate::model::state::State;
use crate::rewrite::drain;
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::Kind;
use crate::store::{dependency, outside as outsides, sequence, step};
use std::time::Duration;

/// How often a migration that waits for a person or for time is looked at.
pub(super) const IDLE: Duration = Duration::from_millis(500);

/// Whether the next thing to do may take much longer than a batch of the copy, found out without writing.
pub fn is_long(id: &str) -> Result<bool> {
    let migration = migration::get(id)?;
    let phases: &[Phase] = match migration.state {
        State::Running => &[Phase::Backfill, Phase::Validate],
        State::Finishing => &[Phase::Contract],
        State::Initializing if migration.meta.is_direct() => &[Phase::Expand],
        State::AwaitingFinalization if migration.meta.is_direct() => &[Phase::Contract],
        _ => return Ok(false),
    };
    let stopped = migration.paused_reason.is_some()
        || migration.stopped.is_some()
        || !migration.at_home
        || migration.rollback_reason.is_some() && migration.state != State::Finishing;
    if !migration.queued || stopped || pause_left(&migration)?.is_some() {
        return Ok(false);
    }
    let next = step::next(id, phases)?;
    let waits = migration.state == State::AwaitingFinalization && migration.waiting_for.is_some();
    if waits {
        return Ok(false);
    }
    // Behind the point of no return most statements take a moment only.
    let finishing = migration.state == State::Finishing;
    let Some(step) = next else {
        return Ok(false);
    };
    Ok(match step.kind {
        // As written, alone: whoever is here does it, unless others have to be kept current beside it.
        Kind::Direct => migration::others_under_way(id)?,
        Kind::Execute | Kind::Change => !finishing,
        kind => kind.may_take_long(),
    })
}

/// Whether there is nothing to do for a migration but to wait, found out without writing: how long, or `None` when
/// `tick` has to look.
pub fn peek(id: &str) -> Result<Option<Duration>> {
    let migration = migration::get(id)?;
    if let Some(reason) = &migration.stopped {
        let said = migration.waiting_for == Some(stopped_text(reason));
        return Ok((said && !outsides::under_way(id)?).then_some(IDLE));
    }
    if !migration.queued || migration.rollback_reason.is_some() {
        return Ok(None);
    }
    let said = migration.next_attempt_us == Some(i64::MAX);
    if !migration.at_home && !said && migration.state != State::Finished {
        return Ok(None); // a copy of the database: to be told once
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
            if dual_writing::has_letters_to_try(id)? =>
        {
            Ok(None)
        }
        State::AwaitingAction => {
            // After a pause it has to be said again.
            let said = migration.waiting_for.is_some() || !migration.awaits_acknowledgement();
            Ok(said.then_some(pause))
        }
        State::Uninitialized => {
            if dependency::plan_is_stale(id)? || sequence::plan_is_stale(id)? {
                return Ok(None);
            }
            let waiting = waiting_text(&start::waiting(&migration)?);
            let still = waiting.is_some() && waiting == migration.waiting_for;
            Ok(still.then_some(start_pause(&migration)?))
        }
        State::AwaitingFinalization if untouched::is_touched(&migration)? => Ok(None),
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
pub(super) fn waiting_text(waiting: &[Waiting]) -> Option<String> {
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
    let left = Duration::from_micros(u64::try_from(until - now).unwrap_or(0));
    // No pause is that long: the clock went back.
    let is_over = left.is_zero() || left > super::failure::longest_pause();
    Ok((!is_over).then(|| left.min(IDLE)))
}

/// Until the next look, while it waits.
pub(super) fn nap(drained: bool) -> Duration {
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
        && migration.at_home
        && migration.stopped.is_none()
}

/// What it waits for after an emergency stop.
pub(super) fn stopped_text(reason: &str) -> String {
    format!("resume_all: emergency stop, {reason}")
}

/// Until the soak before the start ends, or IDLE.
pub(super) fn start_pause(migration: &Migration) -> Result<Duration> {
    let (now, high_water) = migration::clock()?;
    Ok(match migration.pre_execution_until_us {
        Some(until) => match soak::remaining(until, now, high_water) {
            0 => IDLE,
            left => IDLE.min(Duration::from_micros(left as u64)),
        },
        None => IDLE,
    })
}
