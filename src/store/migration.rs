//! `_transmute.migrations`.

use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::start;
use crate::model::state::State;
use crate::pg::identity::Session;
use crate::pg::spi::{self, Row};
use pgrx::JsonB;
use std::collections::BTreeMap;

/// A row as the engine needs it. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct Migration {
    pub id: String,
    pub plan_checksum: String,
    pub state: State,
    pub meta: Meta,
    pub owner_name: String,
    pub registered_by: String,
    pub applied_by: Option<String>,
    pub session: Session,
    pub queued: bool,
    pub rollback_reason: Option<String>,
    pub paused_reason: Option<String>,
    pub attempts: i32,
    pub next_attempt_us: Option<i64>,
    pub pre_execution_until_us: Option<i64>,
    pub soak_until_us: Option<i64>,
    pub required_approvals: i32,
    /// Whether somebody said, since the last apply, that the external action was done.
    pub acknowledged: bool,
    pub has_error: bool,
    pub waiting_for: Option<String>,
    /// It was applied, or resumed, in this very database, not in one that this is a copy of.
    pub at_home: bool,
    /// Why everything is stopped; `None`: nothing is.
    pub stopped: Option<String>,
    /// What `transmute.tune` has changed: settings of ours, without their prefix, and values.
    pub tuned: BTreeMap<String, i32>,
    /// Instead of the setting's.
    pub max_dead_letters: Option<i64>,
    /// The old rows follow the new ones for a time after the swap.
    pub keeps_old: bool,
    /// It has finished and can be undone until then, microseconds since the Unix epoch.
    pub kept_until_us: Option<i64>,
    pub undo_reason: Option<String>,
    pub undone: bool,
    /// The migration that this one takes back.
    pub down_of: Option<String>,
    pub has_down: bool,
    /// A finished one that was taken back by another.
    pub taken_back: bool,
    /// What apply was given as its highest risk of a step.
    pub max_risk: Option<i32>,
    /// Among scripts that run one after the other.
    pub has_place: bool,
    pub squashed_into: Option<String>,
    pub baseline: bool,
}

impl Migration {
    /// Whether somebody wants it to stop, or to go back: then what was interrupted was interrupted for that.
    pub fn was_asked_to_stop(&self) -> bool {
        self.stopped.is_some()
            || self.paused_reason.is_some()
            || self.rollback_reason.is_some()
            || self.undo_reason.is_some()
    }

    /// Whether it must not be ready before somebody has called `acknowledge`.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.meta.requires_external_action && !self.acknowledged
    }

    /// As it is for a step before which the script has SET these.
    pub fn with_settings(&self, settings: &[(String, String)]) -> Migration {
        let mut changed = self.clone();
        for (name, value) in settings {
            changed.session.set(name, value);
        }
        changed
    }
}

const COLUMNS: &str = "id, plan_checksum, state, owner_name::text, registered_by::text, \
    applied_by::text, search_path, settings, queued, rollback_reason, paused_reason, attempts, \
    CASE WHEN next_attempt_at = 'infinity' THEN 9223372036854775807 \
         ELSE (extract(epoch FROM next_attempt_at) * 1000000)::bigint END, \
    (extract(epoch FROM pre_execution_until) * 1000000)::bigint, \
    (extract(epoch FROM soak_until) * 1000000)::bigint, required_approvals, \
    last_error IS NOT NULL, waiting_for, keep_old IS NOT NULL, undo_reason, undone_at IS NOT NULL, \
    (meta ->> 'max_dead_letters')::bigint, meta, down_of, down IS NOT NULL, taken_back, \
    acknowledged_at IS NOT NULL, max_risk, place IS NOT NULL, squashed_into, baseline, \
    home IS NULL OR home = _transmute.home(), \
    (SELECT s.reason FROM _transmute.stops s WHERE s.resumed_at IS NULL), tuned, \
    (extract(epoch FROM kept_until) * 1000000)::bigint";

fn from_row(row: &Row<'_>) -> Result<Migration> {
    let state: String = row.need(3)?;
    Ok(Migration {
        id: row.need(1)?,
        plan_checksum: row.need(2)?,
        state: state.parse().map_err(|e| Error::Bug(format!("{e}")))?,
        owner_name: row.need(4)?,
        registered_by: row.need(5)?,
        applied_by: row.get(6)?,
        session: Session {
            search_path: row.need(7)?,
            settings: serde_json::from_value(row.need::<JsonB>(8)?.0)?,
        },
        queued: row.need(9)?,
        rollback_reason: row.get(10)?,
        paused_reason: row.get(11)?,
        attempts: row.need(12)?,
        next_attempt_us: row.get(13)?,
        pre_execution_until_us: row.get(14)?,
        soak_until_us: row.get(15)?,
        required_approvals: row.need(16)?,
        acknowledged: row.need(27)?,
        max_risk: row.get(28)?,
        has_place: row.need(29)?,
        squashed_into: row.get(30)?,
        baseline: row.need(31)?,
        has_error: row.need(17)?,
        waiting_for: row.get(18)?,
        at_home: row.need(32)?,
        stopped: row.get(33)?,
        tuned: serde_json::from_value(row.need::<JsonB>(34)?.0)?,
        keeps_old: row.need(19)?,
        kept_until_us: row.get(35)?,
        undo_reason: row.get(20)?,
        undone: row.need(21)?,
        max_dead_letters: row.get(22)?,
        meta: serde_json::from_value(row.need::<JsonB>(23)?.0)?,
        down_of: row.get(24)?,
        has_down: row.need(25)?,
        taken_back: row.need(26)?,
    })
}

/// What register stores.
pub struct New<'a> {
    pub id: &'a str,
    pub up: &'a str,
    pub down: Option<&'a str>,
    pub meta: serde_json::Value,
    pub checksum: &'a str,
    pub plan_checksum: &'a str,
    pub owner_name: &'a str,
    pub session: &'a Session,
    /// What a person has written instead of a script.
    pub phases: Option<serde_json::Value>,
    pub required_approvals: i32,
    pub soak: &'a str,
    pub soak_until_unused: Option<&'a str>,
    pub keep_artifacts: &'a str,
    pub keep_old: Option<&'a str>,
}

pub fn insert(new: New<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.migrations (id, up, down, meta, checksum, plan_checksum, owner_name, \
           search_path, settings, required_approvals, soak, keep_artifacts, keep_old, soak_until_unused, phases) \
         VALUES ($1, $2, $3, $4, $5, $6, $7::name, $8, $9, $10, $11::interval, $12::interval, $13::interval, $14::interval, $15)",
        &[
            new.id.into(),
            new.up.into(),
            new.down.into(),
            JsonB(new.meta).into(),
            new.checksum.into(),
            new.plan_checksum.into(),
            new.owner_name.into(),
            new.session.search_path.as_str().into(),
            JsonB(serde_json::to_value(&new.session.settings)?).into(),
            new.required_approvals.into(),
            new.soak.into(),
            new.keep_artifacts.into(),
            new.keep_old.into(),
            new.soak_until_unused.into(),
            new.phases.map(JsonB).into(),
        ],
    )?;
    Ok(())
}

pub fn exists(id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.migrations WHERE id = $1)",
        &[id.into()],
    )?
    .unwrap_or(false))
}

pub fn get(id: &str) -> Result<Migration> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.migrations WHERE id = $1"),
        &[id.into()],
        from_row,
    )?
    .ok_or_else(|| Error::UnknownMigration { id: id.into() })
}

/// The row, locked against other callers until the transaction ends; rows that refer to it may be written meanwhile.
pub fn lock(id: &str) -> Result<Migration> {
    spi::write_first(
        &format!("SELECT {COLUMNS} FROM _transmute.migrations WHERE id = $1 FOR NO KEY UPDATE"),
        &[id.into()],
        from_row,
    )?
    .ok_or_else(|| Error::UnknownMigration { id: id.into() })
}

/// As `lock`, but `None` at once when somebody else is changing it.
pub fn try_lock(id: &str) -> Result<Option<Migration>> {
    spi::write_first(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.migrations WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
        ),
        &[id.into()],
        from_row,
    )
}

/// Every migration, as registered.
pub fn all() -> Result<Vec<String>> {
    spi::query(
        "SELECT id FROM _transmute.migrations ORDER BY seq",
        &[],
        |row| row.need(1),
    )
}

/// Every migration that was applied and is not through.
pub fn queued() -> Result<Vec<String>> {
    spi::query(
        "SELECT m.id FROM _transmute.migrations m WHERE m.queued ORDER BY m.seq",
        &[],
        |row| row.need(1),
    )
}

/// Those of them that may have something to do. One behind another that has not begun, or has not begun again, and that says so, has
/// not: of hundreds that build on each other only the first is looked at again and again.
pub fn worth_a_look() -> Result<Vec<String>> {
    let (head, tail) = start::NOT_STARTED;
    spi::query_kept(
        "SELECT m.id FROM _transmute.migrations m WHERE m.queued AND (m.state <> 'UNINITIALIZED' OR m.rollback_reason IS NOT NULL \
           OR m.paused_reason IS NOT NULL OR EXISTS (SELECT FROM _transmute.stops s WHERE s.resumed_at IS NULL) \
           OR NOT EXISTS (SELECT FROM _transmute.migrations b WHERE b.queued AND b.state <> 'FINISHED' AND b.place < m.place) \
             AND (m.waiting_for = $1 || (m.meta #>> '{depends_on,0}') || $2 AND EXISTS (SELECT FROM _transmute.migrations d \
               WHERE (d.id = m.meta #>> '{depends_on,0}' OR d.down_of = ANY (ARRAY(SELECT b.id FROM _transmute.migrations b \
                   WHERE b.down_of = m.meta #>> '{depends_on,0}'))) \
                 AND d.queued AND d.state = 'UNINITIALIZED' AND d.next_attempt_at IS NULL)) IS NOT TRUE) ORDER BY m.seq",
        &[head.into(), tail.into()],
        |row| row.need(1),
    )
}

/// The script as it was registered.
pub fn script(id: &str) -> Result<String> {
    Ok(spi::value::<String>(
        "SELECT up FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
    )?
    .unwrap_or_default())
}

/// The way back that was given, if any.
pub fn way_back(id: &str) -> Result<Option<String>> {
    spi::value(
        "SELECT down FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
    )
}

pub fn checksum(id: &str) -> Result<String> {
    Ok(spi::value(
        "SELECT checksum FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
    )?
    .unwrap_or_default())
}

/// Says that a migration takes another one back.
pub fn set_down_of(id: &str, other: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET down_of = $2 WHERE id = $1",
        &[id.into(), other.into()],
    )?;
    Ok(())
}

/// It was in the database before.
pub fn set_baseline(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET baseline = true, applied_by = session_user, applied_at = clock_timestamp() \
         WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// It is a part of another one now.
pub fn set_squashed(id: &str, into: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET squashed_into = $2, place = NULL WHERE id = $1",
        &[id.into(), into.into()],
    )?;
    Ok(())
}

/// The way back as it was given, and whether a person has written phases instead of a script.
pub fn down_and_phases(id: &str) -> Result<(Option<String>, bool)> {
    spi::first(
        "SELECT down, phases IS NOT NULL FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
        |row| Ok((row.get(1)?, row.need(2)?)),
    )?
    .ok_or_else(|| Error::UnknownMigration { id: id.into() })
}

/// What a person has written instead of a script.
pub fn phases(id: &str) -> Result<serde_json::Value> {
    Ok(spi::value::<JsonB>(
        "SELECT phases FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
    )?
    .map_or(serde_json::Value::Null, |j| j.0))
}

/// Another script, with another plan.
pub fn set_script(id: &str, up: &str, checksum: &str, plan_checksum: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET up = $2, checksum = $3, plan_checksum = $4 WHERE id = $1",
        &[id.into(), up.into(), checksum.into(), plan_checksum.into()],
    )?;
    Ok(())
}

/// `id` has finished and takes `other` back; what `other` had taken back holds again.
pub fn set_taken_back(other: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations m SET taken_back = (m.id = $1) \
         WHERE m.id = $1 OR m.id = (SELECT o.down_of FROM _transmute.migrations o WHERE o.id = $1)",
        &[other.into()],
    )?;
    Ok(())
}

/// Migrations registered before this one that only add and are not finished.
pub fn additive_before(id: &str) -> Result<Vec<String>> {
    spi::query(
        "SELECT m.id FROM _transmute.migrations m JOIN _transmute.migrations own ON own.id = $1 \
         WHERE m.seq < own.seq AND m.state <> 'FINISHED' AND m.rollback_reason IS NULL AND NOT m.was_rolled_back \
           AND NOT EXISTS (SELECT FROM _transmute.steps s WHERE s.migration_id = m.id AND s.phase = 'contract') \
         ORDER BY m.seq",
        &[id.into()],
        |row| row.need(1),
    )
}

/// Ids that are registered and were not applied, or taken back.
pub fn pending() -> Result<Vec<String>> {
    spi::query(
        "SELECT id FROM _transmute.migrations WHERE down_of IS NULL AND (taken_back OR \
           state = 'UNINITIALIZED' AND NOT queued AND squashed_into IS NULL) ORDER BY seq",
        &[],
        |row| row.need(1),
    )
}

/// Whether another one has begun and goes on.
pub fn others_under_way(id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.migrations WHERE queued AND id <> $1 AND state <> 'UNINITIALIZED')",
        &[id.into()],
    )? == Some(true))
}

/// Notes that it was planned now.
pub fn set_plan(id: &str, checksum: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET plan_checksum = $2, planned_at = clock_timestamp() WHERE id = $1",
        &[id.into(), checksum.into()],
    )?;
    Ok(())
}

/// A change of state, decided by `engine::advance`. A soak that has begun keeps its end on the way through AWAITING_ACTION, where
/// an invariant of the last look stopped it: what soaks is the same.
pub fn set_state(id: &str, to: State) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET state = $2, waiting_for = NULL, last_error = NULL, \
           last_error_sqlstate = NULL, last_error_hint = NULL, attempts = 0, next_attempt_at = NULL, \
           started_at = CASE WHEN $2 = 'INITIALIZING' THEN clock_timestamp() ELSE started_at END, \
           soak_until = CASE WHEN $2 = 'AWAITING_FINALIZATION' \
             THEN coalesce(soak_until, greatest(clock_timestamp(), (SELECT max(at) FROM _transmute.audit_events)) + soak) \
             WHEN $2 IN ('FINISHING', 'FINISHED', 'AWAITING_ACTION') OR state = 'AWAITING_ACTION' AND $2 = 'RUNNING' THEN soak_until END, \
           finished_at = CASE WHEN $2 = 'FINISHED' OR ($2 = 'UNINITIALIZED') THEN clock_timestamp() END, \
           queued = queued AND ($2 NOT IN ('FINISHED', 'UNINITIALIZED') OR $2 = 'FINISHED' AND kept_until IS NOT NULL), \
           was_rolled_back = $2 = 'UNINITIALIZED', \
           rollback_reason = CASE WHEN $2 = 'UNINITIALIZED' THEN NULL ELSE rollback_reason END, \
           current_step = CASE WHEN $2 IN ('FINISHED', 'UNINITIALIZED') THEN NULL ELSE current_step END \
         WHERE id = $1",
        &[id.into(), to.to_string().into()],
    )?;
    Ok(())
}

pub fn queue(id: &str, pre_execution_soak: &str, max_risk: Option<i32>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET queued = true, home = _transmute.home(), was_rolled_back = false, usage_skipped = false, applied_by = session_user, \
           applied_at = clock_timestamp(), finished_at = NULL, next_attempt_at = NULL, last_error = NULL, \
           last_error_sqlstate = NULL, last_error_hint = NULL, attempts = 0, \
           acknowledged_at = NULL, acknowledged_by = NULL, acknowledge_reason = NULL, max_risk = $3, \
           pre_execution_until = clock_timestamp() + $2::interval \
         WHERE id = $1",
        &[id.into(), pre_execution_soak.into(), max_risk.into()],
    )?;
    Ok(())
}

pub fn set_waiting(id: &str, what: Option<&str>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET waiting_for = $2 WHERE id = $1 AND waiting_for IS DISTINCT FROM $2",
        &[id.into(), what.into()],
    )?;
    Ok(())
}

pub fn set_current_step(id: &str, step: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET current_step = $2, attempts = 0, next_attempt_at = NULL \
         WHERE id = $1 AND (current_step IS DISTINCT FROM $2 OR attempts <> 0 OR next_attempt_at IS NOT NULL)",
        &[id.into(), step.into()],
    )?;
    Ok(())
}

/// A try went well: the next failure is the first one.
pub fn forget_attempts(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET attempts = 0, next_attempt_at = NULL \
         WHERE id = $1 AND attempts <> 0 AND next_attempt_at IS DISTINCT FROM 'infinity'",
        &[id.into()],
    )?;
    Ok(())
}

/// What a failed try leaves behind. `pause_ms` `None`: not tried again before a person acts.
pub struct Failure<'a> {
    pub message: &'a str,
    pub sqlstate: &'a str,
    pub hint: &'a str,
    pub waiting_for: &'a str,
    pub attempts: i32,
    pub pause_ms: Option<i64>,
    /// Shown as last_error; a lock timeout is only waited for.
    pub is_error: bool,
}

pub fn set_failure(id: &str, failure: &Failure<'_>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET \
           last_error = CASE WHEN $8 THEN $2 ELSE last_error END, \
           last_error_sqlstate = CASE WHEN $8 THEN $3 ELSE last_error_sqlstate END, \
           last_error_hint = CASE WHEN $8 THEN $4 ELSE last_error_hint END, \
           waiting_for = $5, attempts = $6, retries = retries + ($7 IS NOT NULL)::integer, current_step = coalesce((SELECT min(s.step) FROM _transmute.steps s \
             WHERE s.migration_id = $1 AND s.status IN ('pending', 'running')), current_step), \
           next_attempt_at = coalesce(clock_timestamp() + $7 * interval '1 millisecond', 'infinity') \
         WHERE id = $1",
        &[
            id.into(),
            failure.message.into(),
            failure.sqlstate.into(),
            failure.hint.into(),
            failure.waiting_for.into(),
            failure.attempts.into(),
            failure.pause_ms.into(),
            failure.is_error.into(),
        ],
    )?;
    Ok(())
}

pub fn set_paused(id: &str, reason: Option<&str>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET paused_reason = $2, next_attempt_at = NULL, attempts = 0, \
           waiting_for = NULL WHERE id = $1",
        &[id.into(), reason.into()],
    )?;
    Ok(())
}

pub fn acknowledge(id: &str, reason: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET acknowledged_at = clock_timestamp(), acknowledged_by = session_user, \
           acknowledge_reason = $2 WHERE id = $1",
        &[id.into(), reason.into()],
    )?;
    Ok(())
}

pub fn clear_error(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET last_error = NULL, last_error_sqlstate = NULL, last_error_hint = NULL, \
           next_attempt_at = NULL, attempts = 0, resumed_at = clock_timestamp(), home = _transmute.home() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_tuned(id: &str, tuned: &BTreeMap<String, i32>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET tuned = $2 WHERE id = $1",
        &[id.into(), JsonB(serde_json::to_value(tuned)?).into()],
    )?;
    Ok(())
}

pub fn request_rollback(id: &str, reason: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET rollback_reason = $2, paused_reason = NULL, next_attempt_at = NULL, \
           attempts = 0, queued = true WHERE id = $1",
        &[id.into(), reason.into()],
    )?;
    Ok(())
}

/// Takes a migration for which nothing is to be done any more out of the queue.
pub fn unqueue(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET queued = false, waiting_for = NULL, rollback_reason = NULL, last_error = NULL, \
           last_error_sqlstate = NULL, last_error_hint = NULL WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// What has soaked is made again: the soak begins anew when that is done.
pub fn forget_soak(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET soak_until = NULL WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn end_soak(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET soak_until = least(soak_until, clock_timestamp()), \
           pre_execution_until = least(pre_execution_until, clock_timestamp()), \
           usage_skipped = usage_skipped OR state = 'AWAITING_FINALIZATION' WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Clock of the server and the highest time in the audit trail, microseconds since the Unix epoch.
pub fn clock() -> Result<(i64, i64)> {
    spi::first(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
           coalesce((SELECT (extract(epoch FROM at) * 1000000)::bigint FROM _transmute.audit_events \
             ORDER BY seq DESC LIMIT 1), 0)",
        &[],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )?
    .ok_or_else(|| Error::Bug("no clock".into()))
}

/// When somebody last let it go on or sent it back, in microseconds since 1970; 0: nobody did.
pub fn resumed_us(id: &str) -> Result<i64> {
    Ok(spi::value_kept(
        "SELECT (extract(epoch FROM resumed_at) * 1000000)::bigint FROM _transmute.migrations WHERE id = $1",
        &[id.into()],
    )?
    .unwrap_or(0))
}

/// Whether it goes on only after somebody has acted.
pub fn needs_person(id: &str) -> Result<bool> {
    Ok(spi::value::<bool>("SELECT _transmute.needs_person($1)", &[id.into()])? == Some(true))
}

/// Where it stands, in one line.
pub fn progress_line(id: &str) -> Result<String> {
    Ok(spi::value("SELECT _transmute.progress_line($1)", &[id.into()])?.unwrap_or_default())
}
