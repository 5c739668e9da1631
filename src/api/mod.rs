//! The SQL surface: check arguments and privilege, call the engine, shape rows. One file a chapter of `sql-api.md`.

pub mod dag;
pub mod describe;
pub mod emergency;
pub mod guard;
pub mod hook;
pub mod letters;
pub mod load;
pub mod release;
pub mod run;
pub mod template;
pub mod trust;
pub mod verbs;

use crate::engine::sight;
use crate::error::{Error, Result};
use crate::pg::identity::{self, Caller};
use crate::pg::json::Document;
use crate::pg::process;
use crate::pg::ErrorReport;

/// Runs a call as the extension, after the caller has been read; errors get their SQLSTATE, DETAIL and HINT.
fn call<T>(f: impl FnOnce(&Caller) -> Result<T>) -> std::result::Result<T, ErrorReport> {
    let caller = identity::caller();
    require_writable()?;
    look(&caller, f)
}

fn require_writable() -> std::result::Result<(), ErrorReport> {
    match process::read_only() {
        true => Err(ErrorReport::from(Error::ReadOnly {
            standby: process::in_recovery(),
        })),
        false => Ok(()),
    }
}

/// As `call`, for what only reads: it works on a standby too.
fn look<T>(
    caller: &Caller,
    f: impl FnOnce(&Caller) -> Result<T>,
) -> std::result::Result<T, ErrorReport> {
    // A server ERROR is raised again as a report of our own: pgrx would add a backtrace as its DETAIL.
    match crate::pg::error::catch(|| {
        identity::as_extension(|| f(caller).map_err(|error| sight::as_told(error, caller)))
    }) {
        Ok(result) => result.map_err(ErrorReport::from),
        Err(error) => Err(ErrorReport::from(Error::Server(error))),
    }
}

/// An argument that may not be NULL.
fn need<T>(argument: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::InvalidArgument {
        problem: format!("{argument} is NULL"),
        detail: format!("Argument {argument} must be given."),
        hint: "See \\df+ transmute.* for the arguments.".into(),
    })
}

/// An argument of type jsonb that may not be NULL.
fn json(argument: &str, value: Option<Document>) -> Result<serde_json::Value> {
    need(argument, value)?.read(argument)
}

/// A list of numbers without NULL in it.
fn ids(argument: &str, value: Option<Vec<Option<i64>>>) -> Result<Option<Vec<i64>>> {
    let Some(list) = value else {
        return Ok(None);
    };
    let numbers: Vec<i64> = list.iter().flatten().copied().collect();
    match numbers.len() == list.len() {
        true => Ok(Some(numbers)),
        false => Err(Error::InvalidArgument {
            problem: format!("{argument} holds a NULL"),
            detail: format!(
                "Argument {argument} is a list of {} numbers, some of them NULL.",
                list.len()
            ),
            hint: "Leave it out of the list.".into(),
        }),
    }
}
