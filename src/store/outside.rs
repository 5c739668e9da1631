//! `_transmute.outside`.

use crate::error::{Error, Result};
use crate::pg::error::{code_of, sqlstate_text, ServerError};
use crate::pg::spi::{self, Row};
use pgrx::JsonB;

/// What a statement under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The statement of the step.
    Run,
    /// Removes what a failed one left behind.
    Clean,
    /// Takes the step back.
    Revert,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Run => "run",
            Purpose::Clean => "clean",
            Purpose::Revert => "revert",
        }
    }
}

/// Who runs the statement under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Nobody was asked yet, or long ago.
    Nobody,
    Asked,
    Alive(i32),
    /// The process is gone without a word.
    Gone,
    Ended,
}

#[derive(Debug, Clone)]
pub struct Outside {
    pub id: i64,
    pub found: bool,
    pub succeeded: bool,
    /// The statement under way; `None`: none.
    pub under_way: Option<Purpose>,
    pub runner: Runner,
    pub error: Option<ServerError>,
    pub failure: Option<ServerError>,
}

/// A statement as its process takes it.
pub struct Order {
    pub migration_id: String,
    /// What the script has SET before it.
    pub settings: Vec<(String, String)>,
    pub sql: String,
    pub role_name: String,
    pub lock_timeout_ms: i32,
}

fn to_json(error: &ServerError) -> JsonB {
    JsonB(serde_json::json!({
        "sqlstate": sqlstate_text(error.code),
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
    }))
}

fn from_json(json: Option<JsonB>) -> Option<ServerError> {
    let json = json?.0;
    let text = |key: &str| json[key].as_str().map(str::to_string);
    Some(ServerError {
        code: code_of(&text("sqlstate").unwrap_or_default()),
        message: text("message").unwrap_or_default(),
        detail: text("detail"),
        hint: text("hint"),
        position: None,
    })
}

/// A process that was asked for and has not taken the statement after this time is asked for again.
const PATIENCE: &str = "5 s";

fn from_row(row: &Row<'_>) -> Result<Outside> {
    let purpose: Option<String> = row.get(4)?;
    let under_way = purpose
        .map(|name| {
            [Purpose::Run, Purpose::Clean, Purpose::Revert]
                .into_iter()
                .find(|p| p.name() == name)
                .ok_or_else(|| Error::Bug(format!("unknown purpose {name}")))
        })
        .transpose()?;
    let (pid, alive, ended, asked): (Option<i32>, bool, bool, bool) =
        (row.get(5)?, row.need(6)?, row.need(7)?, row.need(8)?);
    let runner = match pid {
        _ if ended => Runner::Ended,
        Some(pid) if alive => Runner::Alive(pid),
        Some(_) => Runner::Gone,
        None if asked => Runner::Asked,
        None => Runner::Nobody,
    };
    Ok(Outside {
        id: row.need(1)?,
        found: row.need(2)?,
        succeeded: row.need(3)?,
        under_way,
        runner,
        error: from_json(row.get(9)?),
        failure: from_json(row.get(10)?),
    })
}

/// The row of a step; `None`: nothing was intended yet. Whether its process is alive is as of the last look at
/// pg_stat_activity (`blocker::look_anew`).
pub fn find(migration_id: &str, step: i32) -> Result<Option<Outside>> {
    spi::first(
        &format!(
            "SELECT o.id, o.found, o.succeeded, o.purpose, o.pid, \
               EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = o.pid AND a.backend_start = o.backend_start), \
               o.ended_at IS NOT NULL, coalesce(o.asked_at > clock_timestamp() - interval '{PATIENCE}', false), \
               o.error, o.failure \
             FROM _transmute.outside o WHERE o.migration_id = $1 AND o.step = $2"
        ),
        &[migration_id.into(), step.into()],
        from_row,
    )
}

/// Whether a statement of the migration is under way.
pub fn under_way(migration_id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.outside WHERE migration_id = $1 AND sql IS NOT NULL)",
        &[migration_id.into()],
    )? == Some(true))
}

/// What is to run next for a step; `found`: what it makes is there already.
pub fn intend(
    migration_id: &str,
    step: i32,
    purpose: Purpose,
    order: &Order,
    found: bool,
) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.outside AS o (migration_id, step, found, purpose, sql, role_name, lock_timeout_ms, intended_at) \
         VALUES ($1, $2, $3, $4, $5, $6::name, $7, clock_timestamp()) \
         ON CONFLICT (migration_id, step) DO UPDATE SET found = excluded.found, succeeded = false, purpose = excluded.purpose, \
           sql = excluded.sql, role_name = excluded.role_name, lock_timeout_ms = excluded.lock_timeout_ms, \
           intended_at = excluded.intended_at, asked_at = NULL, pid = NULL, backend_start = NULL, ended_at = NULL, error = NULL",
        &[
            migration_id.into(),
            step.into(),
            found.into(),
            purpose.name().into(),
            order.sql.as_str().into(),
            order.role_name.as_str().into(),
            order.lock_timeout_ms.into(),
        ],
    )?;
    Ok(())
}

/// The result of the step was there before it began.
pub fn set_found(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.outside (migration_id, step, found) VALUES ($1, $2, true) \
         ON CONFLICT (migration_id, step) DO UPDATE SET found = true",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// A row for a step that has none, as if its statement had been run by us.
pub fn begin(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.outside (migration_id, step, found) VALUES ($1, $2, false) \
         ON CONFLICT (migration_id, step) DO NOTHING",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// The step is about to run another statement.
pub fn forget(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.outside WHERE migration_id = $1 AND step = $2",
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// A process was asked for.
pub fn set_asked(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.outside SET asked_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Nothing is under way any more.
pub fn settle(id: i64, succeeded: bool, failure: Option<&ServerError>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.outside SET purpose = NULL, sql = NULL, succeeded = $2, failure = $3, asked_at = NULL, pid = NULL, \
           backend_start = NULL, ended_at = NULL, error = NULL WHERE id = $1",
        &[id.into(), succeeded.into(), failure.map(to_json).into()],
    )?;
    Ok(())
}

/// Takes back a statement that no process has taken; false when one has.
pub fn withdraw(id: i64) -> Result<bool> {
    Ok(spi::execute(
        "UPDATE _transmute.outside SET purpose = NULL, sql = NULL, asked_at = NULL WHERE id = $1 AND pid IS NULL \
         RETURNING id",
        &[id.into()],
    )? > 0)
}

/// This process takes the statement; `None`: another one has, or it was withdrawn.
pub fn take(id: i64) -> Result<Option<Order>> {
    spi::write_first(
        "UPDATE _transmute.outside SET pid = pg_backend_pid(), \
           backend_start = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()) \
         WHERE id = $1 AND pid IS NULL AND sql IS NOT NULL RETURNING migration_id, sql, role_name::text, lock_timeout_ms, \
           coalesce((SELECT s.detail -> 'settings' FROM _transmute.steps s \
             WHERE s.migration_id = outside.migration_id AND s.step = outside.step), '[]')",
        &[id.into()],
        |row| {
            Ok(Order {
                settings: serde_json::from_value(row.need::<JsonB>(5)?.0)?,
                migration_id: row.need(1)?,
                sql: row.need(2)?,
                role_name: row.need(3)?,
                lock_timeout_ms: row.need(4)?,
            })
        },
    )
}

/// This process reports how its statement ended.
pub fn report(id: i64, error: Option<&ServerError>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.outside SET ended_at = clock_timestamp(), error = $2 WHERE id = $1 AND pid = pg_backend_pid()",
        &[id.into(), error.map(to_json).into()],
    )?;
    Ok(())
}

/// As if no step had begun, before an apply.
pub fn reset(migration_id: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.outside WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}
