//! What a migration declared must hold: checked at register, looked at in its phase, as the migration's owner, restricted,
//! in a subtransaction that cannot write and is undone.

use super::execute::owner_role;
use super::look::pause_left;
use super::tick::Next;
use super::{failure, finalize, register};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::amount::count;
use crate::model::effects::Object;
use crate::model::invariant::{self, is_due, Position, When};
use crate::model::mentions::Mentions;
use crate::model::phase::Phase;
use crate::model::retry::{classify, RetryClass};
use crate::model::state::State;
use crate::pg::identity::{self, Caller, Session};
use crate::pg::xact::{self, End};
use crate::pg::{parser, spi, timeout, waitpoint, Oid};
use crate::store::audit_event::{self, Act};
use crate::store::invariant::{Found, Invariant};
use crate::store::migration::{self, Migration};
use crate::store::{invariant as store, rewrite, step};
use std::time::{Duration, Instant};

/// Counter-examples that are kept, and characters of each.
const EXAMPLES: usize = 5;
const EXAMPLE_CHARS: usize = 500;
/// Longest timeout: longer means that somebody meant something else.
const MAX_TIMEOUT: &str = "1 day";

/// Checks invariants before they are stored, in the order of `given`: their timeouts.
pub fn check(given: &[invariant::Invariant], script: &str, caller: &Caller) -> Result<Vec<String>> {
    given
        .iter()
        .enumerate()
        .map(|(i, one)| {
            let path = format!("meta.invariants[{i}]");
            let limit = timeout_of(&path, one)?;
            check_query(&path, one, script, caller)?;
            Ok(limit)
        })
        .collect()
}

fn timeout_of(path: &str, given: &invariant::Invariant) -> Result<String> {
    let text = given.timeout.clone().unwrap_or_else(guc::invariant_timeout);
    let path = format!("{path}.timeout");
    let text = register::interval(&path, &text)?;
    let fits: Option<bool> = spi::value(
        "SELECT $1::interval >= interval '1 ms' AND $1::interval <= $2::interval",
        &[text.as_str().into(), MAX_TIMEOUT.into()],
    )?;
    match fits {
        Some(true) => Ok(text),
        _ => Err(Error::InvalidArgument {
            problem: "the timeout of an invariant is too short or too long".into(),
            detail: format!("{path} is {text}."),
            hint: format!("Give 1 ms to {MAX_TIMEOUT}."),
        }),
    }
}

fn check_query(
    path: &str,
    given: &invariant::Invariant,
    script: &str,
    caller: &Caller,
) -> Result<()> {
    let wrong = |problem: &str, detail: String| {
        Error::InvalidArgument {
        problem: problem.into(),
        detail: format!("{path}.sql: {detail}."),
        hint: "Give one SELECT: a boolean that must be true in every row, or the rows that must not be there.".into(),
    }
    };
    let parsed =
        xact::subtransaction(End::Keep, || parser::parse(&given.sql)).map_err(|error| {
            error.or_means(|error| {
                wrong(
                    "the query of an invariant cannot be read",
                    error.to_string(),
                )
            })
        })?;
    match parsed.as_slice() {
        [one] if one.tag == "SELECT" => {}
        [one] => {
            let detail = format!("{} is no query", one.tag);
            return Err(wrong("an invariant is not one query", detail));
        }
        several => {
            let detail = format!("{} statements were found", several.len());
            return Err(wrong("an invariant is not one query", detail));
        }
    }
    let limit = Duration::from_secs(10);
    match asked(limit, caller.role, &caller.session, || columns(&given.sql)) {
        Ok(_) => Ok(()),
        Err(error) if may_come(&error, &given.sql, script)? => {
            pgrx::notice!(
                "transmute: invariant \"{}\" can be checked only when the migration has begun: {error}",
                given.name
            );
            Ok(())
        }
        Err(error @ Error::Server(_)) if error.sqlstate_text() == "42501" => {
            Err(Error::Privilege {
                problem: "the query of an invariant may not be run".into(),
                detail: format!("{path}.sql: {error}."),
                hint: "It runs as the owner of the migration, the role that registers.".into(),
            })
        }
        Err(error) => Err(wrong(
            "the query of an invariant cannot be run",
            error.to_string(),
        )),
    }
}

/// What is not there: a column, a table, a function, a type, a schema.
const UNDEFINED: [&str; 5] = ["42703", "42P01", "42883", "42704", "3F000"];

/// Whether what the query misses may be what the script makes.
fn may_come(error: &Error, sql: &str, script: &str) -> Result<bool> {
    if !UNDEFINED.contains(&error.sqlstate_text().as_str()) {
        return Ok(false);
    }
    let mentions = Mentions::of(sql);
    let meant = |objects: &[Object]| {
        objects
            .iter()
            .any(|o| mentions.has(o.schema.as_deref(), &o.name))
    };
    Ok(parser::parse(script)?
        .iter()
        .any(|s| s.effects.unknown || meant(&s.effects.makes) || meant(&s.effects.alters)))
}

/// Runs `f` as a role, restricted, for so long at most, in a subtransaction that cannot write and is undone.
fn asked<T>(
    limit: Duration,
    role: Oid,
    session: &Session,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    xact::subtransaction(End::Undo, || {
        identity::set_for_transaction("transaction_read_only", "on")?;
        timeout::within(limit, || identity::as_role(role, session, f))
    })
}

/// The types of a query's columns, by the server; nothing of it is run.
fn columns(sql: &str) -> Result<Vec<Oid>> {
    spi::column_types(&format!(
        "SELECT * FROM (\n{sql}\n) AS _transmute_rows LIMIT 0"
    ))
}

/// What a query found: why it does not hold, and counter-examples.
type Answer = (Option<String>, Vec<String>);

/// A query with one column, of type boolean, is a condition: true in every row, with at least one row. Any other one lists
/// counter-examples.
fn answer(sql: &str) -> Result<Answer> {
    let is_condition = columns(sql)? == [Oid::from(16)];
    if is_condition {
        let counts = spi::first(
            &format!(
                "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE _transmute_rows.c IS NOT TRUE) \
                 FROM (\n{sql}\n) AS _transmute_rows (c)"
            ),
            &[],
            |row| Ok((row.need::<i64>(1)?, row.need::<i64>(2)?)),
        )?;
        return Ok(match counts {
            Some((0, _)) | None => (Some("it gives no row".into()), Vec::new()),
            Some((_, 0)) => (None, Vec::new()),
            Some((1, _)) => (Some("it is not true".into()), Vec::new()),
            Some((all, wrong)) => (
                Some(format!(
                    "it is not true in {wrong} of {}",
                    count(all, "row")
                )),
                Vec::new(),
            ),
        });
    }
    let mut rows: Vec<String> = spi::query(
        &format!(
            "SELECT pg_catalog.left(pg_catalog.to_json(_transmute_rows)::pg_catalog.text, {EXAMPLE_CHARS}) \
             FROM (\n{sql}\n) AS _transmute_rows LIMIT {}",
            EXAMPLES + 1
        ),
        &[],
        |row| row.need(1),
    )?;
    let more = rows.len() > EXAMPLES;
    rows.truncate(EXAMPLES);
    let problem = match rows.len() {
        0 => None,
        1 => Some("it finds a row".to_string()),
        n if more => Some(format!("it finds more than {n} rows")),
        n => Some(format!("it finds {n} rows")),
    };
    Ok((problem, rows))
}

/// The one to look at before anything else is done; `None`: none.
pub fn due(migration: &Migration) -> Result<Option<Invariant>> {
    let all = store::list(&migration.id)?;
    if all.is_empty() {
        return Ok(None);
    }
    let steps_left =
        |phases: &[Phase]| -> Result<bool> { Ok(step::next(&migration.id, phases)?.is_some()) };
    let steps_done = match migration.state {
        State::Running => !steps_left(&[Phase::Backfill, Phase::Validate])?,
        State::Finishing => !steps_left(&[Phase::Contract])?,
        _ => false,
    };
    let position = Position {
        state: migration.state,
        steps_done,
        last_step_us: step::last_done_us(&migration.id)?,
        may_finalize: migration.state == State::AwaitingFinalization && is_ready(migration)?,
        now_us: migration::clock()?.0,
    };
    Ok(all.into_iter().find(|one| is_due(&one.seen, &position)))
}

/// Whether nothing but invariants and hooks holds finalization back.
pub(super) fn is_ready(migration: &Migration) -> Result<bool> {
    let has_contract = step::next(&migration.id, &[Phase::Contract])?.is_some();
    let waiting = finalize::waiting(migration, &rewrite::list(&migration.id)?, has_contract)?;
    Ok(waiting.is_empty())
}

/// Looks at one that is due; `None`: none is.
pub fn tick(migration: &Migration) -> Result<Option<Next>> {
    if migration.paused_reason.is_some() || pause_left(migration)?.is_some() {
        return Ok(None);
    }
    let Some(one) = due(migration)? else {
        return Ok(None);
    };
    let started = Instant::now();
    let limit = Duration::from_millis(one.timeout_ms.max(1) as u64);
    let role = owner_role(migration)?;
    let (problem, counter_examples) =
        match asked(limit, role, &migration.session, || answer(&one.sql)) {
            Ok(found) => found,
            Err(error) => (Some(failed(error, started, limit)?), Vec::new()),
        };
    let took = started.elapsed();
    store::set_found(
        one.id,
        Found {
            took_ms: took.as_secs_f64() * 1000.0,
            problem: problem.as_deref(),
            counter_examples: counter_examples.clone(),
        },
    )?;
    report(migration, &one, problem.as_deref(), &counter_examples)?;
    waitpoint::reach("invariant_before_commit")?;
    Ok(Some(Next::Again))
}

/// What an error of the query says of the invariant; an error of its own where it says nothing: the query was interrupted,
/// or something around it failed, and it is asked again.
fn failed(error: Error, started: Instant, limit: Duration) -> Result<String> {
    let sqlstate = error.sqlstate_text();
    if sqlstate == failure::CANCELED && started.elapsed() >= limit {
        return Ok(format!("it took longer than {} ms", limit.as_millis()));
    }
    match (&error, classify(&sqlstate)) {
        (Error::Server(_), RetryClass::Final) => Ok(format!("{error} ({sqlstate})")),
        _ => Err(error),
    }
}

/// The trail, and where it does not hold the stop; after the point of no return only the trail and the log.
fn report(
    migration: &Migration,
    one: &Invariant,
    problem: Option<&str>,
    counter_examples: &[String],
) -> Result<()> {
    let event = match problem {
        None if one.seen.holds == Some(true) => return Ok(()),
        None => "invariant held",
        Some(_) => "invariant failed",
    };
    let mut facts = serde_json::json!({ "name": one.name, "phase": one.seen.when.to_string() });
    if let Some(problem) = problem {
        facts["problem"] = problem.into();
        facts["counter_examples"] = serde_json::json!(counter_examples);
    }
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event,
        detail: Some(facts),
        ..Act::default()
    })?;
    let Some(problem) = problem else {
        return Ok(());
    };
    let message = format!("invariant \"{}\" does not hold", one.name);
    let detail = match counter_examples.is_empty() {
        true => format!("{problem}."),
        false => format!("{problem}: {}.", counter_examples.join(", ")),
    };
    if one.seen.when == When::PostFinalization {
        crate::log::warning(&format!(
            "transmute: migration \"{}\": {message}: {detail}",
            migration.id
        ));
        return Ok(());
    }
    let migration = migration::lock(&migration.id)?;
    if migration.was_asked_to_stop() {
        return Ok(()); // just now
    }
    let waiting_for = format!("a person: {message}: {detail}");
    let error = Error::Prerequisite {
        problem: message,
        detail,
        hint: "See transmute.invariants; mend what it finds.".into(),
    };
    failure::stop_for_invariant(&migration, &error, &waiting_for)
}
