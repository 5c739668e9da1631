//! Describe and plan.

use super::run::in_turn;
use super::{call, json, look, need};
use crate::engine::admission::Options;
use crate::engine::{call as calls, document, preflight, register};
use crate::error::Error;
use crate::model::meta::Meta;
use crate::model::risk::Level;
use crate::model::written::{Copy, Phases};
use crate::pg::identity;
use crate::pg::json::Document;
use crate::pg::ErrorReport;
use crate::recipe::{self, Plain, Script};
use pgrx::prelude::*;
use pgrx::JsonB;
use std::collections::HashMap;

#[pg_extern(volatile, parallel_unsafe)]
fn register(
    id: Option<&str>,
    up: Option<&str>,
    down: default!(Option<&str>, "NULL"),
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let request = register::Request {
            id,
            up: need("up", up)?,
            down,
            meta: &json("meta", meta)?,
        };
        register::run(request, caller)?;
        Ok(id.to_string())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn register_phases(
    id: Option<&str>,
    schema_additions: Option<&str>,
    migrate_batch: Option<&str>,
    schema_drops: Option<&str>,
    rollback: default!(Option<&str>, "NULL"),
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let written = Phases {
            schema_additions: schema_additions.unwrap_or_default().into(),
            migrate_batch: need("migrate_batch", migrate_batch)?.into(),
            schema_drops: schema_drops.unwrap_or_default().into(),
            rollback: rollback.map(str::to_string),
        };
        register::run_phases(id, &written, &json("meta", meta)?, caller)?;
        Ok(id.to_string())
    })
}

#[allow(
    clippy::too_many_arguments,
    reason = "an SQL function with named arguments"
)]
#[pg_extern(volatile, parallel_unsafe)]
fn register_copy(
    id: Option<&str>,
    source: Option<&str>,
    target: Option<&str>,
    key: Option<Vec<Option<String>>>,
    transform: default!(Option<&str>, "NULL"),
    pipeline: default!(Option<Document>, "NULL"),
    rollback: default!(Option<&str>, "NULL"),
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let key: Vec<String> = need("key", key)?
            .into_iter()
            .map(|name| need("a column of key", name))
            .collect::<crate::error::Result<_>>()?;
        let written = Copy {
            source: need("source", source)?.into(),
            target: need("target", target)?.into(),
            key,
            transform: transform.map(str::to_string),
            pipeline: pipeline.map(|p| p.read("pipeline")).transpose()?,
            rollback: rollback.map(str::to_string),
        };
        register::run_copy(id, &written, &json("meta", meta)?, caller)?;
        Ok(id.to_string())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn migrate(
    ddl: Option<&str>,
    id: default!(Option<&str>, "NULL"),
    meta: default!(Option<Document>, "'{}'"),
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let options = Options {
            max_risk,
            confirm,
            dry_run: false,
            allow_out_of_order: false,
        };
        options.check()?;
        let up = need("ddl", ddl)?;
        let id = match id {
            Some(id) => id.to_string(),
            None => generated_id(up)?,
        };
        let request = register::Request {
            id: &id,
            up,
            down: None,
            meta: &json("meta", meta)?,
        };
        register::run(request, caller)?;
        in_turn("migrate", caller, || {
            calls::apply(Some(&id), &options, caller)
        })?;
        Ok(id)
    })
}

#[pg_extern(stable, parallel_unsafe)]
fn export(id: Option<&str>) -> std::result::Result<JsonB, ErrorReport> {
    look(&identity::caller(), |_| {
        Ok(JsonB(document::export(need("id", id)?)?))
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn import(document: Option<Document>) -> std::result::Result<String, ErrorReport> {
    call(|caller| document::import(&json("document", document)?, caller))
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

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// The step of each statement beside which the plain one is shown: the one its recipe names, else the first.
fn counterparts(script: &Script) -> HashMap<i32, i32> {
    let mut shown = HashMap::new();
    for planned in &script.steps {
        let step = shown.entry(planned.statement).or_insert(planned.step.step);
        if !planned.naive.is_empty() {
            *step = planned.step.step;
        }
    }
    shown
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
            name!(statement, i32),
            name!(phase, String),
            name!(kind, String),
            name!(operations, Vec<String>),
            name!(target, String),
            name!(sql, String),
            name!(lock_mode, String),
            name!(locks, Vec<String>),
            name!(transactional, bool),
            name!(risk_level, String),
            name!(risk_score, i32),
            name!(reasons, Vec<String>),
            name!(estimated_rows, i64),
            name!(estimated_bytes, i64),
            name!(estimated_seconds, f64),
            name!(plain_statement, String),
            name!(plain_locks, Vec<String>),
            name!(plain_rewrites, bool),
            name!(plain_scans, bool),
            name!(plain_transactional, bool),
            name!(plain_risk_level, String),
            name!(plain_risk_score, i32),
            name!(plain_reasons, Vec<String>),
            name!(plain_estimated_seconds, f64),
            name!(notes, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let script = call(|caller| recipe::make(need("ddl", ddl)?, caller, &Meta::default()))?;
    let shown = counterparts(&script);
    let rows: Vec<_> = script
        .steps
        .into_iter()
        .map(|p| {
            let plain = script
                .plain
                .iter()
                .find(|s| s.number == p.statement && shown.get(&p.statement) == Some(&p.step.step));
            let step = p.step;
            (
                step.step,
                p.statement,
                step.phase.to_string(),
                step.kind,
                texts(&step.operations),
                step.target,
                step.sql,
                step.lock_mode,
                texts(&step.locks),
                step.transactional,
                step.risk_level.to_string(),
                step.risk_score,
                texts(&step.reasons),
                step.estimate.rows,
                step.estimate.bytes,
                step.estimate.seconds,
                plain.map(|s| s.words.clone()).unwrap_or_default(),
                plain.map(|s| texts(&s.locks)).unwrap_or_default(),
                plain.is_some_and(|s| s.rewrites),
                plain.is_some_and(|s| s.scans),
                plain.is_none_or(|s| s.transactional),
                plain.map_or(Level::Safe, Plain::level).to_string(),
                plain.map_or(0, |s| s.score),
                plain.map(|s| texts(&s.reasons)).unwrap_or_default(),
                plain.map_or(0.0, |s| s.estimate.seconds),
                plain.map(|s| s.notes.clone()).unwrap_or_default(),
            )
        })
        .collect();
    Ok(TableIterator::new(rows))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn plain_locks(
    ddl: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(statement, i32),
            name!(operations, Vec<String>),
            name!(mode, Option<String>),
            name!(relation, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let plain = call(|caller| recipe::plain(need("ddl", ddl)?, caller))?;
    let rows = plain.into_iter().flat_map(|p| {
        let operations = texts(&p.operations);
        let mut locks: Vec<(Option<String>, Option<String>)> = p
            .locks
            .into_iter()
            .map(|l| (Some(l.mode.to_string()), Some(l.relation)))
            .collect();
        if locks.is_empty() {
            locks.push((None, None));
        }
        locks
            .into_iter()
            .map(move |(mode, relation)| (p.number, operations.clone(), mode, relation))
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn preflight(
    id: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(check, String),
            name!(ok, bool),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let checks = call(|caller| preflight::run(need("id", id)?, caller))?;
    Ok(TableIterator::new(checks.into_iter().map(|c| {
        (
            c.check.to_string(),
            c.ok,
            c.detail,
            c.hint.map(str::to_string),
        )
    })))
}

#[pg_extern(volatile, parallel_unsafe, name = "explain")]
fn explain_document(
    ddl: Option<&str>,
    format: Option<&str>,
) -> std::result::Result<SetOfIterator<'static, String>, ErrorReport> {
    let lines = call(|caller| {
        let ddl = need("ddl", ddl)?;
        let format = need("format", format)?;
        if !["text", "json"].contains(&format) {
            return Err(Error::InvalidArgument {
                problem: "unknown format".into(),
                detail: format!("format is {format}."),
                hint:
                    "The formats are 'text' and 'json'; without one, explain(ddl) gives typed rows."
                        .into(),
            });
        }
        let script = recipe::make(ddl, caller, &Meta::default())?;
        Ok(match format {
            "json" => vec![serde_json::to_string_pretty(&script.json())?],
            _ => script.text(),
        })
    })?;
    Ok(SetOfIterator::new(lines))
}
