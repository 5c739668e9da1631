//! A script whose statements run one by one has failed in the midst of them: a person says what became of it.

use crate::engine::call;
use crate::engine::{advance, hooks};
use crate::error::{Error, Result};
use crate::model::state::{Event, State};
use crate::pg::identity::Caller;
use crate::store::{migration, outside, step};

/// What a person says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What was left was done by hand.
    Applied,
    /// What was done was removed by hand.
    Removed,
}

impl Action {
    pub fn of(word: &str) -> Result<Action> {
        match word {
            "applied" => Ok(Action::Applied),
            "removed" => Ok(Action::Removed),
            _ => Err(Error::InvalidArgument {
                problem: "unknown action".into(),
                detail: format!("action is \"{word}\"."),
                hint: "'applied': what was left was done by hand; 'removed': what was done was removed by hand.".into(),
            }),
        }
    }
}

/// Goes on as the person says. Nothing of the script is run.
pub fn run(
    id: &str,
    action: Action,
    reason: &str,
    confirm: Option<&str>,
    caller: &Caller,
) -> Result<()> {
    call::require_reason(reason)?;
    super::super::admission::confirm("fix", confirm)?;
    let migration = call::owned(id, caller)?;
    if !migration.meta.is_one_by_one() {
        return Err(call::wrong_state(
            &migration,
            "fix",
            "Only scripts with meta.transaction \"none\" are left half done; transmute.resume(id, reason) or transmute.rollback(id, reason) is what it needs.",
        ));
    }
    if !migration.queued || !migration.has_error || migration.state == State::RollingBack {
        return Err(call::wrong_state(&migration, "fix", "It has not failed."));
    }
    let word = match action {
        Action::Applied => "applied",
        Action::Removed => "removed",
    };
    call::record(
        &migration,
        caller,
        "fixed",
        serde_json::json!({ "action": word, "reason": reason }),
    )?;
    migration::set_paused(id, None)?;
    migration::clear_error(id)?;
    match action {
        Action::Applied => {
            step::set_all(id, "done")?;
            if migration.state == State::AwaitingAction {
                advance::change_state(&migration, Event::Resume, "running again", None)?;
            }
        }
        Action::Removed => {
            hooks::before(hooks::PRE_ROLLBACK, &migration, Some(reason))?;
            step::set_all(id, "reverted")?;
            outside::reset(id)?;
            call::leave_queue_behind(&migration, caller)?;
            migration::request_rollback(id, reason)?;
        }
    }
    Ok(())
}
