//! `_transmute.hooks` and `_transmute.hook_runs`.

use crate::error::Result;
use crate::pg::spi::{self, Row};

/// A function that is called at an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub event: String,
    /// Qualified, with its argument.
    pub function: String,
    pub owner_name: String,
}

fn hook(row: &Row<'_>) -> Result<Hook> {
    Ok(Hook {
        event: row.need(1)?,
        function: row.need(2)?,
        owner_name: row.need(3)?,
    })
}

/// False: it is registered already.
pub fn insert(hook: &Hook) -> Result<bool> {
    Ok(spi::write_first(
        "INSERT INTO _transmute.hooks (event, function, owner_name) VALUES ($1, $2, $3::name) \
         ON CONFLICT DO NOTHING RETURNING true",
        &[
            hook.event.as_str().into(),
            hook.function.as_str().into(),
            hook.owner_name.as_str().into(),
        ],
        |row| row.need::<bool>(1),
    )? == Some(true))
}

/// False: there is none.
pub fn delete(event: &str, function: &str) -> Result<bool> {
    Ok(spi::write_first(
        "DELETE FROM _transmute.hooks WHERE event = $1 AND function = $2 RETURNING true",
        &[event.into(), function.into()],
        |row| row.need::<bool>(1),
    )? == Some(true))
}

/// Those of an event, in the order of their calls.
pub fn of_event(event: &str) -> Result<Vec<Hook>> {
    spi::query(
        "SELECT event, function, owner_name::text FROM _transmute.hooks WHERE event = $1 ORDER BY id",
        &[event.into()],
        hook,
    )
}

/// Hooks before an event that were not called without an error since the migration was applied.
pub fn missing(migration_id: &str, event: &str) -> Result<Vec<Hook>> {
    spi::query(
        "SELECT h.event, h.function, h.owner_name::text FROM _transmute.hooks h \
         WHERE h.event = $2 AND NOT EXISTS (SELECT FROM _transmute.hook_runs r \
           JOIN _transmute.migrations m ON m.id = r.migration_id \
           WHERE r.migration_id = $1 AND r.event = $2 AND r.function = h.function AND r.error IS NULL \
             AND r.ended_at >= m.applied_at) ORDER BY h.id",
        &[migration_id.into(), event.into()],
        hook,
    )
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub took_ms: f64,
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
}

/// Notes a call that was not asked for before.
pub fn insert_run(migration_id: &str, hook: &Hook, ended: &Ended) -> Result<()> {
    let id = spi::write_first(
        "INSERT INTO _transmute.hook_runs (migration_id, event, function, owner_name) VALUES ($1, $2, $3, $4::name) RETURNING id",
        &[
            migration_id.into(),
            hook.event.as_str().into(),
            hook.function.as_str().into(),
            hook.owner_name.as_str().into(),
        ],
        |row| row.need::<i64>(1),
    )?;
    set_ended(id.unwrap_or(0), ended)
}

/// The first call that is asked for and that nobody is making; locked until the transaction ends.
pub fn claim() -> Result<Option<(i64, String, Hook)>> {
    spi::write_first(
        "SELECT event, function, owner_name::text, id, migration_id FROM _transmute.hook_runs WHERE ended_at IS NULL \
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        &[],
        |row| Ok((row.need(4)?, row.need(5)?, hook(row)?)),
    )
}

/// Whether calls are asked for.
pub fn any_asked() -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.hook_runs WHERE ended_at IS NULL)",
        &[],
    )? == Some(true))
}

pub fn set_ended(id: i64, ended: &Ended) -> Result<()> {
    let (sqlstate, error) = ended.error.clone().unzip();
    spi::execute(
        "UPDATE _transmute.hook_runs SET ended_at = clock_timestamp(), took_ms = $2, sqlstate = $3, error = $4 WHERE id = $1",
        &[
            id.into(),
            ended.took_ms.into(),
            sqlstate.into(),
            error.into(),
        ],
    )?;
    Ok(())
}
