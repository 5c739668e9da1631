//! The way back behind the point of no return: the script given as `down`, as a migration of its own.

use super::admission::Options;
use super::call::{self, Applied};
use super::execute::owner_role;
use super::register::{self, Request};
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::parser;
use crate::pg::xact::{self, End};
use crate::recipe;
use crate::store::dependency;
use crate::store::migration::{self, Migration};

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

/// Registers the way back of a finished migration under its own id and applies it.
pub fn run(id: &str, reason: &str, options: &Options<'_>, caller: &Caller) -> Result<Applied> {
    call::require_reason(reason)?;
    options.check()?;
    let migration = call::owned(id, caller)?;
    require_finished(&migration)?;
    let Some(script) = migration::way_back(id)? else {
        return Err(Error::Prerequisite {
            problem: "the migration has no way back".into(),
            detail: format!("Migration \"{id}\" was registered without down."),
            hint: "Register a migration that does what it takes; the old rows are an artifact."
                .into(),
        });
    };
    require_no_dependents(&migration)?;
    let down = format!("{id}{SUFFIX}");
    match migration::exists(&down)? {
        true => require_own(&down, id)?,
        false => {
            let up = migration::script(id)?;
            let meta = serde_json::to_value(Meta {
                depends_on: Vec::new(),
                keep_old: None,
                versioned_views: None,
                versioned_views_before: None,
                drop_versions: Vec::new(),
                soak_until_unused: None,
                invariants: Vec::new(),
                source_version: None,
                target_version: None,
                ..migration.meta.clone()
            })?;
            let owner = Caller {
                role: owner_role(&migration)?,
                session: migration.session.clone(),
            };
            let request = Request {
                id: &down,
                up: &script,
                down: Some(&up),
                meta: &meta,
            };
            register::run(request, &owner)?;
            migration::set_down_of(&down, id)?;
        }
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

fn require_finished(migration: &Migration) -> Result<()> {
    if migration.undone {
        return Err(call::wrong_state(migration, "down", "It was undone."));
    }
    if migration.taken_back {
        return Err(Error::Prerequisite {
            problem: "the migration was taken back".into(),
            detail: format!("Migration \"{0}{SUFFIX}\" has finished.", migration.id),
            hint: format!(
                "SELECT transmute.down({}, reason) makes it so again.",
                crate::model::ident::quote_literal(&format!("{}{SUFFIX}", migration.id))
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
pub(super) fn require_no_dependents(migration: &Migration) -> Result<()> {
    let others = dependency::live_dependents(&migration.id)?;
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

/// The name may be somebody else's; and what was taken back halfway is taken up again.
fn require_own(down: &str, id: &str) -> Result<()> {
    match migration::get(down)?.down_of.as_deref() == Some(id) {
        true => Ok(()),
        false => Err(Error::AlreadyRegistered { id: down.into() }),
    }
}
