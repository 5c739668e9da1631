//! Steps that cannot run in a transaction. A tick commits what is intended, the next asks for a process that runs it
//! (`crate::worker::runner`), later ones look how it ended. The catalog says what was done, whatever died meanwhile.

use super::evidence::{self, Evidence};
use super::execute::owner_role;
use super::tick::Next;
use super::work::Worked;
use super::{failure, leaves};
use crate::catalog::{blocker, relation};
use crate::error::{Error, Result};
use crate::pg::error::ServerError;
use crate::pg::identity::{self, Session};
use crate::pg::{process, waitpoint, Oid};
use crate::rewrite::require_free;
use crate::store::migration::{self, Migration};
use crate::store::outside::{self, Order, Outside, Purpose, Runner};
use crate::store::step::{self, Step};
use pgrx::PgSqlErrorCode;
use std::time::Duration;

/// What pg_stat_activity.backend_type shows.
pub const RUNNER: &str = "transmute runner";
/// How soon a statement that has just been handed over is looked at.
const SOON: Duration = Duration::from_millis(20);
/// How often a statement under way is looked at; its end wakes the conductor.
const LOOK: Duration = Duration::from_millis(100);
/// Until another process slot may be free.
const SLOT_PAUSE: Duration = Duration::from_millis(500);

/// What is wanted of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Do,
    Undo,
    /// Nothing runs, nothing half made stays.
    Halt,
}

/// The step, a piece at a time.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    if let Some(worked) = under_way(migration, step, Goal::Do)? {
        return Ok(worked);
    }
    let row = outside::find(&migration.id, step.step)?;
    let evidence = evidence::look(migration, &step.sql)?;
    if let Some(row) = &row {
        if row.succeeded || (evidence.done && !row.found) {
            waitpoint::reach("outside_done_before_commit")?;
            outside::settle(row.id, true, None)?;
            return Ok(Worked::Done);
        }
        if let (Some(sql), false) = (&evidence.leftover, row.found) {
            return intend(migration, step, &evidence, Purpose::Clean, sql, false);
        }
        if let Some(error) = &row.failure {
            outside::settle(row.id, false, None)?;
            failure::record(&migration.id, &Error::Server(error.clone()))?;
            return Ok(Worked::More(Next::Wait(LOOK)));
        }
    }
    if evidence.done && evidence.found_is_fine && !evidence.exists {
        return Ok(Worked::Done); // nothing to drop
    }
    if evidence.exists && evidence.found_is_fine {
        if !evidence.done {
            return Err(Error::Prerequisite {
                problem: "what has the name of the new index is no valid index of the table".into(),
                detail: format!("IF NOT EXISTS would leave it at that: {}.", step.sql),
                hint:
                    "Drop it (an invalid index: DROP INDEX CONCURRENTLY), or choose another name."
                        .into(),
            });
        }
        outside::set_found(&migration.id, step.step)?;
        return Ok(Worked::Done);
    }
    if let Some(table) = &evidence.table {
        require_free(table, &migration.id)?;
    }
    intend(
        migration,
        step,
        &evidence,
        Purpose::Run,
        &step.sql,
        evidence.exists,
    )
}

/// Takes the step back, a piece at a time.
pub fn revert(migration: &Migration, step: &Step) -> Result<Worked> {
    if let Some(worked) = under_way(migration, step, Goal::Undo)? {
        return Ok(worked);
    }
    let Some(row) = outside::find(&migration.id, step.step)? else {
        return Ok(Worked::Done);
    };
    let evidence = evidence::look(migration, &step.sql)?;
    let way_back = match (&step.revert_sql, &evidence.leftover) {
        _ if row.found => None,
        (Some(sql), _) if evidence.exists => Some((Purpose::Revert, sql)),
        (_, Some(sql)) => Some((Purpose::Clean, sql)),
        _ => None,
    };
    match way_back {
        Some((purpose, sql)) => intend(migration, step, &evidence, purpose, sql, false),
        None => Ok(Worked::Done),
    }
}

/// Stops what runs for a paused migration, and removes what that leaves; when to look again, `None`: all is quiet.
pub fn halt(migration: &Migration) -> Result<Option<Next>> {
    for step in step::running_outside(&migration.id)? {
        let Some(step) = leaves::statement(migration, step)? else {
            continue;
        };
        let mut worked = under_way(migration, &step, Goal::Halt)?;
        if let (None, Some(row)) = (&worked, outside::find(&migration.id, step.step)?) {
            let evidence = evidence::look(migration, &step.sql)?;
            if let (Some(sql), false) = (&evidence.leftover, row.found) {
                worked = Some(intend(
                    migration,
                    &step,
                    &evidence,
                    Purpose::Clean,
                    sql,
                    false,
                )?);
            }
        }
        if let Some(Worked::More(next)) = worked {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// What keeps the statement of a step waiting, or `None` when it is not simply running: a look that writes nothing.
pub fn peek(migration: &Migration, step: &Step) -> Result<Option<Option<String>>> {
    match outside::find(&migration.id, step.step)? {
        Some(Outside {
            under_way: Some(_),
            runner: Runner::Alive(pid),
            ..
        }) => Ok(Some(waiting_text(pid)?)),
        _ => Ok(None),
    }
}

fn waiting_text(pid: i32) -> Result<Option<String>> {
    let blockers = blocker::of_process(pid)?;
    Ok((!blockers.is_empty()).then(|| format!("others to end: {}", blockers.join("; "))))
}

/// Sees to the statement under way; `None`: there is none (any more), so the catalog decides.
fn under_way(migration: &Migration, step: &Step, goal: Goal) -> Result<Option<Worked>> {
    blocker::look_anew()?;
    let Some(mut row) = outside::find(&migration.id, step.step)? else {
        return Ok(None);
    };
    if row.runner == Runner::Gone {
        // It may have reported its end between the two looks of one query, at the row and at the processes.
        match outside::find(&migration.id, step.step)? {
            Some(again) => row = again,
            None => return Ok(None),
        }
    }
    let Some(purpose) = row.under_way else {
        return Ok(None);
    };
    let unwanted = goal != Goal::Do && purpose == Purpose::Run;
    let pause = match row.runner {
        Runner::Ended | Runner::Gone => return ended(migration, &row, purpose, unwanted),
        Runner::Alive(pid) => {
            if unwanted {
                process::interrupt(pid)?;
            } else {
                migration::set_waiting(&migration.id, waiting_text(pid)?.as_deref())?;
            }
            LOOK
        }
        _ if unwanted => match outside::withdraw(row.id)? {
            true => return Ok(None),
            false => SOON,
        },
        Runner::Asked => SOON,
        Runner::Nobody => {
            if process::start_worker(RUNNER, "transmute_runner_main", &row.id.to_string()) {
                outside::set_asked(row.id)?;
                waitpoint::reach("outside_asked_before_commit")?;
                SOON
            } else {
                migration::set_waiting(
                    &migration.id,
                    Some("a free background worker slot: max_worker_processes are in use"),
                )?;
                SLOT_PAUSE
            }
        }
    };
    Ok(Some(Worked::More(Next::Wait(pause))))
}

/// The statement is over: settles the row, and the failure of one that was to clear up.
fn ended(
    migration: &Migration,
    row: &Outside,
    purpose: Purpose,
    unwanted: bool,
) -> Result<Option<Worked>> {
    let error = match row.runner {
        Runner::Ended => row.error.clone(),
        _ => Some(died()),
    };
    match (purpose, error) {
        // Stopped on purpose: neither an error nor a try.
        (Purpose::Run, Some(_)) if unwanted => outside::settle(row.id, false, None)?,
        // First what it left behind is removed, then people hear of it.
        (Purpose::Run, Some(error)) => outside::settle(row.id, false, Some(&error))?,
        (Purpose::Run, None) => outside::settle(row.id, true, None)?,
        (_, None) => outside::settle(row.id, false, row.failure.as_ref())?,
        (_, Some(error)) => {
            outside::settle(row.id, false, row.failure.as_ref())?;
            failure::record(&migration.id, &Error::Server(error))?;
            return Ok(Some(Worked::More(Next::Wait(LOOK))));
        }
    }
    Ok(None)
}

/// The process is gone and has reported nothing.
fn died() -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
        message: "the process that ran the statement has ended".into(),
        detail: Some("It was terminated, or the server restarted.".into()),
        hint: None,
        position: None,
    }
}

/// Writes down what runs next, and as whom: the owner of the table, else of the migration; never anybody else.
fn intend(
    migration: &Migration,
    step: &Step,
    evidence: &Evidence,
    purpose: Purpose,
    sql: &str,
    found: bool,
) -> Result<Worked> {
    let mut role_name = migration.owner_name.clone();
    if let Some(table) = &evidence.table {
        if !identity::has_privs_of(owner_role(migration)?, table.owner) {
            return Err(Error::Privilege {
                problem: "the migration's owner does not own the table any more".into(),
                detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
                hint: "Grant it membership, then transmute.resume(id, reason).".into(),
            });
        }
        role_name = table.owner_name.clone();
    }
    let order = Order {
        migration_id: migration.id.clone(),
        settings: Vec::new(),
        sql: sql.to_string(),
        role_name,
        lock_timeout_ms: 0,
    };
    outside::intend(&migration.id, step.step, purpose, &order, found)?;
    waitpoint::reach("outside_intent_before_commit")?;
    Ok(Worked::More(Next::Again))
}

/// What a runner needs to know of the statement it has taken.
pub struct Taken {
    pub id: i64,
    pub sql: String,
    pub migration_id: String,
    pub role: Oid,
    pub is_superuser: bool,
    pub session: Session,
    /// Name and value.
    pub settings: Vec<(&'static str, String)>,
}

/// In the runner: takes the statement and makes the session what it has to be; `None`: there is nothing to do.
pub fn take(id: i64) -> Result<Option<Taken>> {
    let Some(order) = outside::take(id)? else {
        return Ok(None);
    };
    let migration = migration::get(&order.migration_id)?;
    let role = relation::role_oid(&order.role_name)?.ok_or_else(|| Error::UndefinedObject {
        problem: "the role that the statement runs as does not exist any more".into(),
        detail: format!("Role \"{}\" was dropped.", order.role_name),
        hint: "transmute.rollback(id, reason) clears the migration up.".into(),
    })?;
    let mut settings = vec![
        ("lock_timeout", order.lock_timeout_ms.to_string()),
        ("statement_timeout", "0".to_string()),
    ];
    if cfg!(any(feature = "pg17", feature = "pg18")) {
        settings.push(("transaction_timeout", "0".to_string()));
    }
    waitpoint::reach("outside_taken_before_commit")?;
    Ok(Some(Taken {
        id,
        sql: order.sql,
        migration_id: order.migration_id,
        role,
        is_superuser: identity::is_superuser(role),
        session: migration.with_settings(&order.settings).session,
        settings,
    }))
}

/// In the runner: how the statement ended.
pub fn report(taken: &Taken, result: &Result<()>) -> Result<()> {
    let error = result.as_ref().err().map(|error| ServerError {
        code: error.sqlstate(),
        message: error.to_string(),
        detail: error.detail(),
        hint: error.hint(),
        position: None,
    });
    outside::report(taken.id, error.as_ref())?;
    waitpoint::reach("outside_report_before_commit")
}
