//! The way back behind the point of no return, as a migration of its own: the script given as `down`, else what is derived.

use super::admission::Options;
use super::call::{self, Applied};
use super::derive::{self, Derived};
use super::execute::owner_role;
use super::register;
use super::verbs::again;
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::parser;
use crate::pg::xact::{self, End};
use crate::recipe;
use crate::store::dependency;
use crate::store::migration::{self, Migration};
use crate::store::{object, sequence};

/// What is put behind the id of a migration for the one that takes it back.
pub const SUFFIX: &str = ":down";

/// Classes of errors that say only that something is not there yet, or still there: what `up` does changes that.
const OF_NAMES: [&str; 9] = [
    "42P01", "42703", "42704", "42883", "42P06", "3F000", "42P07", "42701", "42710",
];

/// Refuses a way back that cannot be right whatever `up` does: each statement is planned by itself; what is not there because
/// `up` makes it is left to the time when it runs.
pub fn check(script: &str, caller: &Caller, meta: &Meta) -> Result<()> {
    let statements = xact::subtransaction(End::Keep, || parser::parse(script))?;
    if statements.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "the way back holds no statement".into(),
            detail: "down is given, and holds nothing but blanks and comments.".into(),
            hint: "Leave it out where there is none.".into(),
        });
    }
    // It speaks of columns that `up` drops.
    let meta = &Meta {
        reverse: Default::default(),
        ..meta.clone()
    };
    for statement in &statements {
        let planned = xact::subtransaction(End::Undo, || {
            recipe::make(&statement.text, caller, meta).map(drop)
        });
        if let Err(error) = planned {
            if !OF_NAMES.contains(&error.sqlstate_text().as_str()) {
                return Err(of_down(error, statement.line));
            }
        }
    }
    Ok(())
}

/// The error says which of the two scripts it means.
fn of_down(mut error: Error, line: usize) -> Error {
    if let Some(detail) = error.detail_mut() {
        *detail = format!("In down, statement of line {line}: {detail}");
    }
    error
}

/// A finished migration that somebody wants to be taken back.
pub struct Request<'a> {
    pub id: &'a str,
    pub reason: &'a str,
    /// The migration that takes back what was applied behind it: this one waits for that.
    pub after: Option<&'a str>,
    /// All that are taken back by the same call.
    pub with: &'a [String],
    /// What nothing takes back may stay.
    pub allow_missing_down: bool,
    /// What will be done is said in NOTICEs.
    pub loud: bool,
}

/// Takes back one migration.
pub fn run(
    id: &str,
    reason: &str,
    options: &Options<'_>,
    allow_missing_down: bool,
    caller: &Caller,
) -> Result<Applied> {
    let request = Request {
        id,
        reason,
        after: None,
        with: &[],
        allow_missing_down,
        loud: false,
    };
    take_back(&request, options, caller)
}

/// Registers the way back of a finished migration under its own id and applies it.
pub fn take_back(request: &Request<'_>, options: &Options<'_>, caller: &Caller) -> Result<Applied> {
    let (id, reason) = (request.id, request.reason);
    call::require_reason(reason)?;
    options.check()?;
    let migration = call::owned(id, caller)?;
    require_finished(&migration)?;
    require_no_dependents(&migration, request.with)?;
    let down = again::fresh(id, "down", 1, id)?;
    let given = migration::way_back(id)?;
    let run = sequence::run_in_force(id)?;
    if !migration::exists(&down)? {
        let meta = Meta {
            // Scripts as written come in the order in which they are registered.
            depends_on: request
                .after
                .filter(|_| !migration.meta.is_direct())
                .map(str::to_string)
                .into_iter()
                .collect(),
            keep_old: None,
            reverse: Default::default(),
            versioned_views: None,
            versioned_views_before: None,
            drop_versions: Vec::new(),
            soak_until_unused: None,
            invariants: Vec::new(),
            source_version: None,
            target_version: None,
            ..migration.meta.clone()
        };
        let owner = Caller {
            role: owner_role(&migration)?,
            session: migration.session.clone(),
        };
        // The script of hand-written phases says nothing of their batches: only apply makes them so again.
        let up = match migration::down_and_phases(id)?.1 {
            true => String::new(),
            false => migration::script(id)?,
        };
        match given.filter(|script| !script.trim().is_empty()) {
            Some(script) => {
                if request.loud {
                    pgrx::notice!("migration \"{id}\" is taken back by the script given as down");
                }
                let registered = register::Request {
                    id: &down,
                    up: &script,
                    down: Some(up.as_str()).filter(|up| !up.is_empty()),
                    meta: &serde_json::to_value(meta)?,
                };
                register::run(registered, &owner)?;
            }
            None => {
                let derived = derive(&migration, &run, request)?;
                let meta = match derived.planned {
                    // What the migration made goes for good.
                    Some(_) => Meta {
                        drop_policy: Some("drop".into()),
                        rename: Some("in_place".into()),
                        dual_write: None,
                        ..meta
                    },
                    None => meta,
                };
                register::run_derived(&down, &derived, &up, meta, &owner)?;
                if derived.planned.is_none() {
                    object::copy(&down, &run)?;
                }
            }
        }
        migration::set_down_of(&down, id)?;
    }
    call::record(
        &migration,
        caller,
        "taken back",
        serde_json::json!({ "reason": reason, "migration": down }),
    )?;
    let applied = call::apply(Some(&down), options, caller)?;
    applied
        .into_iter()
        .next()
        .ok_or_else(|| Error::Bug("apply of one migration gave no row".into()))
}

/// The way back that nobody gave.
fn derive(migration: &Migration, run: &str, request: &Request<'_>) -> Result<Derived> {
    let id = &migration.id;
    if migration.baseline && !request.allow_missing_down {
        return Err(Error::Prerequisite {
            problem: "the migration has no way back".into(),
            detail: format!(
                "Migration \"{id}\" never ran: it was declared to be in the database already, and has no down."
            ),
            hint: "Register a migration that does what it takes; or allow_missing_down => true with a reason: it counts as taken back, \
                and nothing is done."
                .into(),
        });
    }
    let derived = derive::of(run, &migration.owner_name)?;
    derive::require_whole(id, &derived.lost, request.allow_missing_down)?;
    if request.loud {
        let rest = match derived.lost.is_empty() {
            true => String::new(),
            false => format!("; this stays as it is: {}", derived.lost.join("; ")),
        };
        match derived.is_empty() {
            true => pgrx::notice!("migration \"{id}\": nothing has to be taken back{rest}"),
            false => pgrx::notice!(
                "migration \"{id}\" is taken back by what was kept when it ran: {}{rest}",
                derived.sql
            ),
        }
    }
    Ok(derived)
}

fn require_finished(migration: &Migration) -> Result<()> {
    if migration.undone {
        return Err(call::wrong_state(migration, "down", "It was undone."));
    }
    if migration.taken_back {
        return Err(Error::Prerequisite {
            problem: "the migration was taken back".into(),
            detail: format!("Migration \"{0}{SUFFIX}\" has finished.", migration.id),
            hint: format!(
                "SELECT transmute.apply({}) makes it so again.",
                crate::model::ident::quote_literal(&migration.id)
            ),
        });
    }
    if migration.state == State::Finished {
        return Ok(());
    }
    Err(call::wrong_state(
        migration,
        "down",
        match migration.state {
            State::Finishing => "It is past the point of no return: wait for FINISHED.",
            _ => "Before FINISHING, transmute.rollback(id, reason) takes it back.",
        },
    ))
}

/// What builds on it goes first.
pub(super) fn require_no_dependents(migration: &Migration, with: &[String]) -> Result<()> {
    let mut others = dependency::live_dependents(&migration.id)?;
    others.retain(|id| !with.contains(id));
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "other migrations depend on it".into(),
        detail: format!(
            "Migration \"{}\" is what \"{}\" depends on.",
            migration.id,
            others.join("\", \"")
        ),
        hint: "Take these back first.".into(),
    })
}
