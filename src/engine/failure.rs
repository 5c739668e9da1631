//! What happens after an error: wait, try again, or ask a person. Runs in a transaction of its own, after the failed
//! one is gone.

use super::advance;
use crate::catalog::blocker;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::retry::{self, RetryClass};
use crate::model::state::{Event, State};
use crate::pg::spi;
use crate::rewrite::{lock, ANOTHER_MIGRATION};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Failure, Migration};
use crate::store::{rewrite, rule};
use std::time::Duration;

/// Pause after a lock timeout: 4 to 8 times the time we let others queue behind us.
const LOCK_PAUSE_FACTOR: i64 = 4;
/// First pause after a passing error.
const RETRY_BASE_MS: u64 = 100;

/// Where transmute.cancel_blockers says so: ends sessions that hold the lock we want and do nothing. In this transaction, so
/// that what was done is in the audit trail.
fn end_idle_blockers(id: &str) -> Result<()> {
    let (Some((relations, mode)), Some(idle)) = (lock::take_wanted(), guc::cancel_blockers())
    else {
        return Ok(());
    };
    let idle = super::register::interval("transmute.cancel_blockers", &idle)?;
    blocker::look_anew()?;
    for ended in blocker::end_idle(&relations, mode, &idle)? {
        audit_event::append(Act {
            migration_id: Some(id),
            event: "blocker ended",
            detail: Some(serde_json::json!({
                "pid": ended.pid,
                "user": ended.user,
                "application_name": ended.application,
                "idle_seconds": ended.idle_seconds,
            })),
            ..Act::default()
        })?;
        crate::log::in_words(|| {
            format!(
                "migration \"{id}\" ended pid {} of \"{}\", idle in transaction for {} s",
                ended.pid, ended.user, ended.idle_seconds
            )
        });
    }
    Ok(())
}

/// SQLSTATE of a statement that somebody interrupted.
pub const CANCELED: &str = "57014";

/// As `record`, for a try that began when `migration::resumed_us` was `resumed_us`: if somebody has let the migration go on
/// or sent it back since, the next try is another one, and an error of this one must not hold it up.
pub fn record_of_try(id: &str, error: &Error, resumed_us: Option<i64>) -> Result<()> {
    let migration = migration::lock(id)?;
    match resumed_us {
        Some(at) if migration::resumed_us(id)? != at => Ok(()),
        _ => decide(&migration, error),
    }
}

/// Longer than any pause after an error that passes.
pub fn longest_pause() -> Duration {
    let lock = u64::from(guc::lock_timeout_ms().unsigned_abs()) * LOCK_PAUSE_FACTOR.unsigned_abs();
    Duration::from_millis(2 * guc::retry_delay_ms().max(2 * lock))
}

/// Records `error` of the last try of migration `id`.
pub fn record(id: &str, error: &Error) -> Result<()> {
    decide(&migration::lock(id)?, error)
}

/// Whether something that the first try had found was gone when it opened it, or when a function of the server that answers NULL
/// for it then described it. The next try looks at all of it before anything else, and says in its own words what is missing.
fn went_away(migration: &Migration, error: &Error) -> Result<bool> {
    let (Error::Server(_) | Error::Bug(_), 0) = (error, migration.attempts) else {
        return Ok(false);
    };
    Ok(retry::may_have_gone(&error.sqlstate_text())
        && (!rewrite::list(&migration.id)?.is_empty()
            || !rule::in_force(&migration.id)?.is_empty()))
}

/// `migration`, locked, waits, is tried again, or asks a person.
fn decide(migration: &Migration, error: &Error) -> Result<()> {
    let id = migration.id.as_str();
    if !migration.queued || error.sqlstate_text() == CANCELED && migration.was_asked_to_stop() {
        return Ok(());
    }
    let message = error.to_string();
    let sqlstate = error.sqlstate_text();
    let random: f64 = spi::value("SELECT random()", &[])?.unwrap_or(0.5);
    let detail = error.detail().unwrap_or_default();
    let mut failure = Failure {
        message: &message,
        sqlstate: &sqlstate,
        hint: "",
        waiting_for: "",
        attempts: migration.attempts,
        pause_ms: None,
        is_error: true,
    };
    let class = match message.starts_with(ANOTHER_MIGRATION) {
        true => RetryClass::LockTimeout, // it ends by itself, as a lock does
        false if went_away(migration, error)? => RetryClass::Transient,
        false => retry::classify(&sqlstate),
    };
    let tries = migration.attempts + 1;
    match class {
        RetryClass::LockTimeout => {
            end_idle_blockers(id)?;
            let waiting = match error {
                Error::Server(_) if !message.starts_with(ANOTHER_MIGRATION) => {
                    "a lock, not granted within transmute.lock_timeout".to_string()
                }
                _ => format!("{message}. {detail}"),
            };
            let base = i64::from(guc::lock_timeout_ms()) * LOCK_PAUSE_FACTOR;
            failure.waiting_for = waiting.trim_end();
            failure.pause_ms = Some(base + (base as f64 * random) as i64);
            failure.is_error = false;
            return migration::set_failure(id, &failure);
        }
        RetryClass::Transient if tries <= guc::max_retries() => {
            let waiting = format!("trying again after: {message}");
            failure.waiting_for = &waiting;
            failure.hint = "It is tried again by itself.";
            failure.attempts = tries;
            let pause =
                retry::backoff_ms(tries as u32, RETRY_BASE_MS, guc::retry_delay_ms(), random);
            failure.pause_ms = Some(pause as i64);
            return migration::set_failure(id, &failure);
        }
        _ => {}
    }
    stop(migration, error, &format!("a person: {message}"))
}

/// Stops the migration until somebody has acted: in AWAITING_ACTION where it was RUNNING, else where it is.
pub fn stop(migration: &Migration, error: &Error, waiting_for: &str) -> Result<()> {
    let leaves = migration.state == State::Running;
    stop_and(leaves, migration, error, waiting_for)
}

/// The same for what somebody has asked to hold: in AWAITING_ACTION also where all that was left was to finalize. Its dual writes
/// go on, and `resume` looks again at all of it, as at the end of RUNNING.
pub fn stop_for_invariant(migration: &Migration, error: &Error, waiting_for: &str) -> Result<()> {
    let leaves = matches!(
        migration.state,
        State::Running | State::AwaitingFinalization
    );
    stop_and(leaves, migration, error, waiting_for)
}

fn stop_and(leaves: bool, migration: &Migration, error: &Error, waiting_for: &str) -> Result<()> {
    let (message, sqlstate) = (error.to_string(), error.sqlstate_text());
    let mut facts = serde_json::json!({ "sqlstate": sqlstate, "message": message });
    if let Some(hint) = error.hint() {
        facts["hint"] = hint.into();
    }
    if leaves {
        advance::change_state(migration, Event::NeedAction, "failed", Some(facts))?;
    } else {
        audit_event::append(Act {
            migration_id: Some(&migration.id),
            event: "failed",
            detail: Some(facts),
            ..Act::default()
        })?;
    }
    let hint = format!(
        "{}transmute.resume(id, reason) tries again{}",
        error.hint().map(|h| format!("{h} ")).unwrap_or_default(),
        match migration.state {
            State::Finishing | State::Finished => ".",
            _ if migration.meta.is_one_by_one() => {
                "; if it was mended by hand, transmute.fix(id, 'applied' or 'removed', reason) says how."
            }
            _ => ", transmute.rollback(id, reason) takes everything back.",
        }
    );
    let failure = Failure {
        message: &message,
        sqlstate: &sqlstate,
        hint: &hint,
        waiting_for,
        attempts: migration.attempts,
        pause_ms: None,
        is_error: true,
    };
    migration::set_failure(&migration.id, &failure)?;
    crate::log::event(
        "needs a person",
        serde_json::json!({
            "id": migration.id,
            "state": migration.state.to_string(),
            "sqlstate": sqlstate,
            "message": message,
            "detail": error.detail(),
            "hint": hint,
        }),
        || {
            format!(
                "migration \"{}\" needs a person: {message} ({sqlstate}) {}",
                migration.id,
                error.detail().unwrap_or_default()
            )
        },
    );
    Ok(())
}
