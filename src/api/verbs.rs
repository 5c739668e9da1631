//! What people know from runners of migration files.

use super::run::{in_turn, rows};
use super::{call, look, need};
use crate::engine::admission::{self, Options};
use crate::engine::down as way_back;
use crate::engine::verbs::turn::one_at_a_time;
use crate::engine::verbs::{
    self as calls, baseline as base, fix as fixing, seed as seeds, squash as squashing, Back,
};
use crate::error::Error;
use crate::pg::identity;
use crate::pg::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_unsafe)]
fn create(name: Option<&str>) -> std::result::Result<String, ErrorReport> {
    look(&identity::caller(), |_| {
        crate::engine::verbs::scaffold(need("name", name)?)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn up(
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
    allow_out_of_order: default!(Option<bool>, "false"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let options = Options {
            max_risk,
            confirm,
            dry_run: false,
            allow_out_of_order: need("allow_out_of_order", allow_out_of_order)?,
        };
        in_turn("up", caller, || calls::up(&options, caller))
    })?;
    Ok(TableIterator::new(rows(applied)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn down(
    id: Option<&str>,
    reason: default!(Option<&str>, "NULL"),
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
    allow_missing_down: default!(Option<bool>, "false"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let options = back_options(max_risk, confirm);
        let allow_missing_down = need("allow_missing_down", allow_missing_down)?;
        // A variable that is NULL by mistake must not mean the last one.
        let id = need("id", id)?;
        in_turn("down", caller, || {
            let reason = need("reason", reason)?;
            admission::confirm("down", confirm)?;
            way_back::run(id, reason, &options, allow_missing_down, caller).map(|a| vec![a])
        })
    })?;
    Ok(TableIterator::new(rows(applied)))
}

/// The last one, whatever its id is. The first argument is no text, so that a text without a name is always an id.
#[pg_extern(volatile, parallel_unsafe, name = "down")]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn down_last(
    allow_missing_down: default!(Option<bool>, "false"),
    reason: default!(Option<&str>, "NULL"),
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let back = Back {
            reason,
            options: back_options(max_risk, confirm),
            allow_missing_down: need("allow_missing_down", allow_missing_down)?,
        };
        in_turn("down", caller, || calls::down_last(&back, caller))
    })?;
    Ok(TableIterator::new(rows(applied)))
}

/// What holds for a way back: it is out of order by its nature.
fn back_options(max_risk: Option<i32>, confirm: Option<&str>) -> Options<'_> {
    Options {
        max_risk,
        confirm,
        dry_run: false,
        allow_out_of_order: true,
    }
}

#[pg_extern(volatile, parallel_unsafe, name = "rollback")]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn rollback_steps(
    steps: Option<i32>,
    reason: default!(Option<&str>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
    allow_missing_down: default!(Option<bool>, "false"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let back = Back {
            reason,
            options: back_options(None, confirm),
            allow_missing_down: need("allow_missing_down", allow_missing_down)?,
        };
        let steps = need("steps", steps)?;
        in_turn("rollback", caller, || {
            calls::rollback_steps(steps, &back, caller)
        })
    })?;
    Ok(TableIterator::new(rows(applied)))
}

#[pg_extern(volatile, parallel_unsafe)]
fn fix(
    id: Option<&str>,
    action: Option<&str>,
    reason: Option<&str>,
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let action = fixing::Action::of(need("action", action)?)?;
        let reason = need("reason", reason)?;
        one_at_a_time(|| fixing::run(id, action, reason, confirm, caller))?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn squash(
    name: Option<&str>,
    ids: Option<Vec<Option<String>>>,
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let name = need("name", name)?;
        let ids = need("ids", ids)?
            .into_iter()
            .map(|id| {
                id.ok_or_else(|| Error::InvalidArgument {
                    problem: "ids holds a NULL".into(),
                    detail: "Argument ids is a list of ids, one of them NULL.".into(),
                    hint: "Leave it out of the list.".into(),
                })
            })
            .collect::<crate::error::Result<Vec<String>>>()?;
        one_at_a_time(|| squashing::run(name, &ids, caller))
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn baseline(
    id: Option<&str>,
    reason: Option<&str>,
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let (id, reason) = (need("id", id)?, need("reason", reason)?);
        one_at_a_time(|| base::run(id, reason, confirm, caller))
    })?;
    Ok(TableIterator::new(rows(applied)))
}

#[pg_extern(volatile, parallel_unsafe)]
fn seed_load(name: Option<&str>, source: Option<&str>) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let changed = seeds::load(need("name", name)?, need("source", source)?, caller)?;
        Ok(match changed {
            true => "loaded",
            false => "unchanged",
        }
        .into())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn seed(
    name: default!(Option<&str>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<'static, (name!(name, String), name!(action, String))>,
    ErrorReport,
> {
    let done = call(|caller| one_at_a_time(|| seeds::run(name, confirm, caller)))?;
    Ok(TableIterator::new(
        done.into_iter()
            .map(|(name, action)| (name, action.to_string())),
    ))
}
