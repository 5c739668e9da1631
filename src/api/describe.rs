//! Describe and plan.

use super::{call, need};
use crate::engine::{call as calls, register};
use crate::model::reason::Reason;
use crate::model::risk::Level;
use crate::pg::ErrorReport;
use crate::recipe;
use pgrx::prelude::*;
use pgrx::JsonB;

#[pg_extern(volatile, parallel_unsafe)]
fn register(
    id: Option<&str>,
    up: Option<&str>,
    down: default!(Option<&str>, "NULL"),
    meta: default!(Option<JsonB>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let request = register::Request {
            id,
            up: need("up", up)?,
            down,
            meta: &need("meta", meta)?.0,
        };
        register::run(request, caller)?;
        Ok(id.to_string())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn migrate(
    ddl: Option<&str>,
    id: default!(Option<&str>, "NULL"),
    meta: default!(Option<JsonB>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let up = need("ddl", ddl)?;
        let id = match id {
            Some(id) => id.to_string(),
            None => generated_id(up)?,
        };
        let request = register::Request {
            id: &id,
            up,
            down: None,
            meta: &need("meta", meta)?.0,
        };
        register::run(request, caller)?;
        calls::apply(Some(&id), caller)?;
        crate::worker::wake_at_commit();
        Ok(id)
    })
}

/// `m-` and the time to the microsecond, then some of the text's digest: readable, ordered, unique enough to be
/// refused by the primary key where it is not.
fn generated_id(up: &str) -> crate::error::Result<String> {
    let (now, _) = crate::store::migration::clock()?;
    Ok(format!(
        "m-{now}-{}",
        &crate::model::digest::sha256_hex(up.as_bytes())[..8]
    ))
}

fn codes(reasons: &[Reason]) -> Vec<String> {
    reasons.iter().map(ToString::to_string).collect()
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn explain(
    ddl: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(step, i32),
            name!(phase, String),
            name!(kind, String),
            name!(target, String),
            name!(lock_mode, String),
            name!(risk_level, String),
            name!(risk_score, i32),
            name!(reasons, Vec<String>),
            name!(estimated_rows, i64),
            name!(estimated_seconds, f64),
            name!(sql, String),
            name!(plain_statement, String),
            name!(plain_risk_level, String),
            name!(plain_risk_score, i32),
        ),
    >,
    ErrorReport,
> {
    let planned =
        call(|caller| recipe::make(need("ddl", ddl)?, caller, recipe::Options::default()))?;
    Ok(TableIterator::new(planned.into_iter().map(|p| {
        (
            p.step.step,
            p.step.phase.to_string(),
            p.step.kind,
            p.step.target,
            p.step.lock_mode,
            p.step.risk_level.to_string(),
            p.step.risk_score,
            codes(&p.step.reasons),
            p.step.estimate.rows,
            p.step.estimate.seconds,
            p.step.sql,
            p.naive.to_string(),
            Level::of_score(p.naive_score).to_string(),
            p.naive_score,
        )
    })))
}
