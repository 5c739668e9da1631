//! The next thing to do for one migration: what workers, `CALL transmute.run` and tests drive. One call is one
//! transaction.

use super::{advance, execute, finalize, rollback};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::phase::Phase;
use crate::model::state::{Event, State};
use crate::pg::identity::{self, Session};
use crate::pg::xact::{self, End};
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::copy::{self, Copied};
use crate::rewrite::{check, drain, expand, swap, Work};
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::{self, Kind, Step};
use crate::store::{artifact, dead_letter};
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
const SWAP_DRAINS: usize = 3;

/// One step forward.
pub fn tick(id: &str) -> Result<Next> {
    let Some(migration) = migration::try_lock(id)? else {
        return Ok(Next::Wait(IDLE)); // another session drives it, or it is gone
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
    let drained = if migration.next_attempt_us == Some(i64::MAX) {
        // It waits for a person after an error, which may be that it cannot drain: said once.
        xact::subtransaction(End::Keep, || drain_all(&migration)).unwrap_or(true)
    } else {
        drain_all(&migration)?
    };
    if let Some(reason) = &migration.paused_reason {
        migration::set_waiting(id, Some(&format!("resume: paused, {reason}")))?;
        return Ok(Next::Wait(nap(drained)));
    }
    if let Some(pause) = pause_left(&migration)? {
        return Ok(Next::Wait(pause.min(nap(drained))));
    }
    match migration.state {
        State::Uninitialized => start(&migration),
        State::Initializing => expand_step(&migration),
        State::Running => running_step(&migration),
        State::AwaitingAction => Ok(Next::Wait(nap(drained))),
        State::AwaitingFinalization => finalization(&migration, drained),
        State::Finishing => finishing_step(&migration),
        State::Finished | State::RollingBack => Ok(Next::Done),
    }
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
    let pause = nap(!kept.is_empty());
    if migration.paused_reason.is_some() {
        return Ok(migration.waiting_for.is_some().then_some(pause));
    }
    if let Some(left) = pause_left(&migration)? {
        return Ok(Some(left.min(pause)));
    }
    match migration.state {
        State::AwaitingAction => Ok(Some(pause)),
        State::AwaitingFinalization => {
            let contract = step::next(id, &[Phase::Contract])?.is_some();
            let waiting = waiting_text(&finalize::waiting(&migration, &rewrites, contract)?);
            Ok((waiting.is_some() && waiting == migration.waiting_for).then_some(pause))
        }
        _ => Ok(None),
    }
}

/// What is waited for, in one line; `None`: nothing.
fn waiting_text(waiting: &[crate::model::gate::Waiting]) -> Option<String> {
    let texts: Vec<&str> = waiting.iter().map(|w| w.text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Time until the next try after a failure.
fn pause_left(migration: &Migration) -> Result<Option<Duration>> {
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

/// Keeps every shadow that is complete up to date, in whatever state the migration waits. True if there is one.
fn drain_all(migration: &Migration) -> Result<bool> {
    let mut any = false;
    if matches!(
        migration.state,
        State::Uninitialized | State::Initializing | State::Finished
    ) {
        return Ok(false);
    }
    for rewrite in rewrite::list(&migration.id)? {
        if !rewrite.swapped && complete(&rewrite) {
            any = true;
            drain::run(&work_of(migration, rewrite)?)?;
        }
    }
    Ok(any)
}

/// Copied and indexed: from here on it is kept current.
fn complete(rewrite: &Rewrite) -> bool {
    rewrite.deduplicated && rewrite.next_definition as usize >= rewrite.deferred.len()
}

/// The ALTER TABLE that a rewrite belongs to.
fn alter_of(migration: &Migration, statement: i32) -> Result<String> {
    let statements = crate::pg::parser::parse(&migration.up)?;
    statements
        .get((statement - 1) as usize)
        .map(|s| s.text.clone())
        .ok_or_else(|| Error::Bug("a step of a statement that is not there".into()))
}

fn work(migration: &Migration, step: &Step) -> Result<Work> {
    work_of(migration, rewrite::of_step(&migration.id, step.statement)?)
}

/// A rewrite of the migration with what its work needs.
pub fn work_of(migration: &Migration, rewrite: Rewrite) -> Result<Work> {
    let alter = alter_of(migration, rewrite.statement)?;
    Work::new(migration, rewrite, &alter)
}

/// Whether hands may copy now: running, neither paused nor on the way back nor waiting after an error.
pub fn may_copy(migration: &Migration) -> bool {
    migration.state == State::Running
        && migration.paused_reason.is_none()
        && migration.rollback_reason.is_none()
        && migration.next_attempt_us.is_none()
}

/// UNINITIALIZED: waits for the pre-execution soak.
fn start(migration: &Migration) -> Result<Next> {
    let (now, high_water) = migration::clock()?;
    let left = migration.pre_execution_until_us.map_or(0, |until| {
        crate::model::soak::remaining(until, now, high_water)
    });
    if left > 0 {
        let what = format!("the soak before the start, {} s left", left / 1_000_000 + 1);
        migration::set_waiting(&migration.id, Some(&what))?;
        return Ok(Next::Wait(IDLE.min(Duration::from_micros(left as u64))));
    }
    step::reset(&migration.id)?;
    advance::change_state(migration, Event::Apply, "started", None)?;
    Ok(Next::Again)
}

/// INITIALIZING: one expand step; the last one and the new state commit together.
fn expand_step(migration: &Migration) -> Result<Next> {
    let phases = [Phase::Expand];
    if let Some(step) = step::next(&migration.id, &phases)? {
        migration::set_current_step(&migration.id, step.step)?;
        match step.kind {
            Kind::Execute => execute::run(migration, &step.sql)?,
            Kind::RewriteExpand => {
                let alter = alter_of(migration, step.statement)?;
                let table = table_of(migration, &alter)?;
                expand::run(migration, step.statement, &alter, table)?;
            }
            other => return Err(Error::Bug(format!("{} in expand", other.name()))),
        }
        step::set_done(&migration.id, step.step)?;
        waitpoint::reach("expand_before_commit")?;
    }
    if step::next(&migration.id, &phases)?.is_none() {
        advance::change_state(migration, Event::Expanded, "expanded", None)?;
    }
    Ok(Next::Again)
}

/// The table an ALTER TABLE means now, to the migration's owner.
fn table_of(migration: &Migration, alter: &str) -> Result<Oid> {
    use crate::pg::{parser, relation};
    let parsed = parser::parse(alter)?;
    let Some(parser::Kind::AlterTable(parsed)) = parsed.first().map(|s| &s.kind) else {
        return Err(Error::Bug("a rewrite that is no ALTER TABLE".into()));
    };
    let owner = execute::owner_role(migration)?;
    let oid = identity::as_role(owner, &migration.session, || {
        relation::resolve(parsed.schema.as_deref(), &parsed.name)
    })?
    .ok_or_else(|| Error::UndefinedTable {
        name: crate::model::ident::quote_ident(&parsed.name),
        search_path: migration.session.search_path.clone(),
    })?;
    let table = crate::catalog::relation::get(oid)?;
    if !identity::has_privs_of(owner, table.owner) {
        return Err(Error::Privilege {
            problem: "the migration's owner does not own the table any more".into(),
            detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
            hint: "Grant it membership, then transmute.resume(id, reason).".into(),
        });
    }
    Ok(oid)
}

/// RUNNING: a piece of the current step.
fn running_step(migration: &Migration) -> Result<Next> {
    let phases = [Phase::Backfill, Phase::Validate];
    let Some(step) = step::next(&migration.id, &phases)? else {
        advance::change_state(migration, Event::Ready, "ready", None)?;
        return Ok(Next::Again);
    };
    let letters = dead_letter::open_since_resume(&migration.id)?;
    if letters > guc::max_dead_letters() {
        return Err(Error::Prerequisite {
            problem: "too many rows are refused by the new shape".into(),
            detail: format!(
                "{letters} new dead letters, more than transmute.max_dead_letters = {}.",
                guc::max_dead_letters()
            ),
            hint:
                "Look at transmute.dead_letters and mend the rows: each is tried again by itself."
                    .into(),
        });
    }
    migration::set_current_step(&migration.id, step.step)?;
    migration::set_waiting(&migration.id, None)?;
    step::set_running(&migration.id, step.step)?;
    let work = work(migration, &step)?;
    let mut next = Next::Again;
    let done = match step.kind {
        Kind::RewriteCopy => match copy::batch(&work)? {
            Copied::Batch(busy_ms) => {
                let pause = crate::model::throttle::pause_ms(busy_ms, guc::backfill_duty());
                if pause > 0 {
                    next = Next::Wait(Duration::from_millis(pause));
                }
                false
            }
            Copied::Others => {
                next = Next::Wait(Duration::from_millis(20));
                false
            }
            Copied::All => true,
        },
        Kind::RewriteIndex if !work.rewrite.deduplicated => {
            copy::deduplicate(&work)?;
            false
        }
        Kind::RewriteIndex if !complete(&work.rewrite) => {
            copy::build_next(&work)?;
            false
        }
        Kind::RewriteIndex => {
            copy::build_next(&work)?; // nothing left to build: statistics
            drain::run(&work)?;
            true
        }
        Kind::RewriteCheck => check::batch(&work)?,
        other => return Err(Error::Bug(format!("{} in backfill", other.name()))),
    };
    if done {
        step::set_done(&migration.id, step.step)?;
        waitpoint::reach(&format!("{}_done_before_commit", step.kind.name()))?;
    }
    Ok(next)
}

/// AWAITING_FINALIZATION: when nothing holds it back, all swaps – or, without any, the first contract step – and
/// FINISHING commit together.
fn finalization(migration: &Migration, drained: bool) -> Result<Next> {
    let first = step::next(&migration.id, &[Phase::Contract])?;
    finalize::look_for_old_snapshots(&rewrite::list(&migration.id)?)?;
    let rewrites = rewrite::list(&migration.id)?;
    let waiting = finalize::waiting(migration, &rewrites, first.is_some())?;
    if let Some(text) = waiting_text(&waiting) {
        migration::set_waiting(&migration.id, Some(&text))?;
        return Ok(Next::Wait(nap(drained)));
    }
    if !swap_all(migration)? {
        if let Some(step) = first {
            contract_step(migration, &step)?;
        }
    }
    advance::change_state(migration, Event::Finalize, "finalizing", None)?;
    Ok(Next::Again)
}

/// Swaps every rewritten table of the migration; false when there is none.
fn swap_all(migration: &Migration) -> Result<bool> {
    let steps = step::pending(&migration.id, Kind::RewriteSwap)?;
    if steps.is_empty() {
        return Ok(false);
    }
    let mut works = Vec::new();
    for step in &steps {
        let work = work(migration, step)?;
        // What can be done outside the lock is done outside: several rounds, each shorter than the last.
        for _ in 0..SWAP_DRAINS {
            if drain::run(&work)? == 0 {
                break;
            }
        }
        works.push(work);
    }
    swap::run(&works)?;
    for step in &steps {
        step::set_done(&migration.id, step.step)?;
    }
    Ok(true)
}

/// FINISHING: the remaining contract steps.
fn finishing_step(migration: &Migration) -> Result<Next> {
    if let Some(step) = step::next(&migration.id, &[Phase::Contract])? {
        contract_step(migration, &step)?;
        return Ok(Next::Again);
    }
    artifact::measure(&migration.id)?;
    advance::change_state(migration, Event::Finish, "finished", None)?;
    Ok(Next::Done)
}

fn contract_step(migration: &Migration, step: &Step) -> Result<()> {
    migration::set_current_step(&migration.id, step.step)?;
    let done = match step.kind {
        Kind::Execute => {
            execute::run(migration, &step.sql)?;
            true
        }
        Kind::RewriteValidate => validate_or_clean_up(migration, step)?,
        other => return Err(Error::Bug(format!("{} in contract", other.name()))),
    };
    if done {
        step::set_done(&migration.id, step.step)?;
    }
    Ok(())
}

/// Validates one foreign key, or, when none is left, drops the work schema; true at the end.
fn validate_or_clean_up(migration: &Migration, step: &Step) -> Result<bool> {
    let done = rewrite::of_step(&migration.id, step.statement)?;
    let mut left = done.to_validate.clone();
    if let Some(foreign_key) = left.pop() {
        // As the owner of the referencing table: the check applies casts and operators that may be anybody's.
        let owner: Option<Oid> = spi::value(
            "SELECT relowner FROM pg_class WHERE oid = $1::text::regclass",
            &[foreign_key.table.as_str().into()],
        )?;
        let owner = owner.ok_or_else(|| Error::Bug("a foreign key without a table".into()))?;
        identity::as_role(owner, &Session::own(), || {
            utility::run(&format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                foreign_key.table,
                crate::model::ident::quote_ident(&foreign_key.name)
            ))
        })?;
        rewrite::set_to_validate(done.id, &left)?;
        return Ok(false);
    }
    rollback::drop_schema(&done.new_schema)?;
    Ok(true)
}
