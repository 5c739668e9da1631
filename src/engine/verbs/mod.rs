//! What a runner of migration files does: the next one, all of them, one or several back.

pub mod again;
pub mod baseline;
pub mod fix;
pub mod seed;
pub mod squash;
pub mod turn;
pub mod verify;

use super::admission::Options;
use super::call::{self, Applied};
use super::{down, order};
use crate::error::{Error, Result};
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::{spi, ulid};
use crate::store::{migration, sequence};

/// Applies the next pending migration; none: nothing is pending.
pub fn up(options: &Options<'_>, caller: &Caller) -> Result<Vec<Applied>> {
    options.check()?;
    super::admission::confirm("up", options.confirm)?;
    let pending = order::pending()?;
    let Some(next) = pending.first() else {
        pgrx::notice!("nothing is pending");
        return Ok(Vec::new());
    };
    call::apply(Some(next), options, caller)
}

/// How somebody asks for the way back.
pub struct Back<'a> {
    pub reason: Option<&'a str>,
    pub options: Options<'a>,
    /// What nothing takes back may stay.
    pub allow_missing_down: bool,
}

impl Back<'_> {
    /// The reason for the audit trail: where something stays as it is a person has to give one.
    fn reason(&self, call: &str) -> Result<String> {
        if self.allow_missing_down {
            call::require_reason(self.reason.unwrap_or_default())?;
        }
        Ok(match self.reason {
            Some(reason) => {
                call::require_reason(reason)?;
                reason.to_string()
            }
            None => format!("{call}, without a reason"),
        })
    }
}

/// Takes back the last migration that was applied.
pub fn down_last(back: &Back<'_>, caller: &Caller) -> Result<Vec<Applied>> {
    back.options.check()?;
    super::admission::confirm("down", back.options.confirm)?;
    let reason = back.reason("down()")?;
    let applied = sequence::applied(1)?;
    if applied.is_empty() {
        pgrx::notice!("nothing is applied");
    }
    take_back(&applied, &reason, back, caller)
}

/// Most migrations that one call takes back.
const MAX_STEPS: i32 = 1000;

/// Takes back the last `steps` migrations, each after the one that was applied behind it.
pub fn rollback_steps(steps: i32, back: &Back<'_>, caller: &Caller) -> Result<Vec<Applied>> {
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(Error::InvalidArgument {
            problem: "the number of migrations to take back is not positive, or very large".into(),
            detail: format!("steps is {steps}, not between 1 and {MAX_STEPS}."),
            hint: "rollback(1) takes back the last one.".into(),
        });
    }
    back.options.check()?;
    super::admission::confirm("rollback", back.options.confirm)?;
    let database: String = spi::value("SELECT current_database()::text", &[])?.unwrap_or_default();
    if steps > 1 && back.options.confirm != Some(database.as_str()) {
        return Err(Error::InvalidArgument {
            problem: "more than one migration is taken back only where that is confirmed".into(),
            detail: format!(
                "steps is {steps}, and confirm is {}.",
                back.options
                    .confirm
                    .map_or("not given".into(), |c| format!("\"{c}\""))
            ),
            hint: "Add confirm => current_database().".into(),
        });
    }
    let reason = back.reason(&format!("rollback({steps})"))?;
    let applied = sequence::applied(i64::from(steps))?;
    if applied.len() < steps as usize {
        return Err(Error::Prerequisite {
            problem: "there are not that many migrations to take back".into(),
            detail: format!(
                "steps is {steps}, and {} are applied or queued.",
                applied.len()
            ),
            hint: "SELECT * FROM transmute.list shows them.".into(),
        });
    }
    take_back(&applied, &reason, back, caller)
}

/// Takes these back, in this order: one that has not finished by its own reverts, the others by a migration each.
fn take_back(
    ids: &[String],
    reason: &str,
    back: &Back<'_>,
    caller: &Caller,
) -> Result<Vec<Applied>> {
    let mut all: Vec<Applied> = Vec::new();
    let mut before: Option<String> = None;
    for id in ids {
        let found = migration::get(id)?;
        if found.state != State::Finished {
            call::rollback(id, reason, caller)?;
            pgrx::notice!("migration \"{id}\" is {} and is rolled back", found.state);
            before = None;
            all.push(Applied {
                id: id.clone(),
                state: found.state.to_string(),
                action: "rolling back",
                detail: None,
            });
            continue;
        }
        let request = down::Request {
            id,
            reason,
            after: before.as_deref(),
            with: ids,
            allow_missing_down: back.allow_missing_down,
            loud: true,
        };
        let applied = down::take_back(&request, &back.options, caller)?;
        before = Some(applied.id.clone());
        all.push(applied);
    }
    Ok(all)
}

/// The text of a new migration, with an id that sorts behind those of before.
pub fn scaffold(name: &str) -> Result<String> {
    let wrong = name.trim().is_empty() || name.chars().any(char::is_control);
    if wrong {
        return Err(Error::InvalidArgument {
            problem: "the name is empty, or has more than one line".into(),
            detail: "It stands in the first line of the file.".into(),
            hint: "Give a short title, such as 'add orders'.".into(),
        });
    }
    Ok(format!(
        "-- migration: {}\n-- id: {}\n\n-- migrate: up\n\n\n-- migrate: down\n\n",
        name.trim(),
        ulid::new()
    ))
}
