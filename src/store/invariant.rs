//! `_transmute.invariants`.

use crate::error::{Error, Result};
use crate::model::invariant::{self, Seen};
use crate::pg::spi;

/// One invariant of a migration, with what was found last.
#[derive(Debug, Clone)]
pub struct Invariant {
    pub id: i64,
    pub name: String,
    pub sql: String,
    pub timeout_ms: i64,
    pub seen: Seen,
}

pub fn insert(migration_id: &str, given: &invariant::Invariant, timeout: &str) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.invariants (migration_id, name, phase, sql, timeout) VALUES ($1, $2, $3, $4, $5::interval)",
        &[
            migration_id.into(),
            given.name.as_str().into(),
            given.phase.to_string().into(),
            given.sql.as_str().into(),
            timeout.into(),
        ],
    )?;
    Ok(())
}

/// All of a migration, in the order in which they were given.
pub fn list(migration_id: &str) -> Result<Vec<Invariant>> {
    spi::query(
        "SELECT id, name, sql, (extract(epoch FROM timeout) * 1000)::bigint, phase, holds, \
           coalesce((extract(epoch FROM checked_at) * 1000000)::bigint, 0), coalesce(took_ms * 1000, 0)::bigint, counts \
         FROM _transmute.invariants WHERE migration_id = $1 ORDER BY id",
        &[migration_id.into()],
        |row| {
            let phase: String = row.need(5)?;
            Ok(Invariant {
                id: row.need(1)?,
                name: row.need(2)?,
                sql: row.need(3)?,
                timeout_ms: row.need(4)?,
                seen: Seen {
                    when: phase.parse().map_err(|e| Error::Bug(format!("{e}")))?,
                    holds: row.get(6)?,
                    at_us: row.need(7)?,
                    took_us: row.need(8)?,
                    counts: row.need(9)?,
                },
            })
        },
    )
}

/// What a look at one found. `problem` `None`: it holds.
pub struct Found<'a> {
    pub took_ms: f64,
    pub problem: Option<&'a str>,
    pub counter_examples: Vec<String>,
}

pub fn set_found(id: i64, found: Found<'_>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.invariants SET holds = $3 IS NULL, checked_at = clock_timestamp(), counts = true, took_ms = $2, problem = $3, \
           counter_examples = $4, checks = checks + 1, failures = failures + ($3 IS NOT NULL)::integer WHERE id = $1",
        &[
            id.into(),
            found.took_ms.into(),
            found.problem.into(),
            found.counter_examples.into(),
        ],
    )?;
    Ok(())
}

/// What was found so far is no reason to finalize: the soak begins.
pub fn discount(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.invariants SET counts = false WHERE migration_id = $1 AND phase = 'PRE_FINALIZATION' AND counts",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// Nothing is known any more: before an apply.
pub fn reset(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.invariants SET holds = NULL, checked_at = NULL, took_ms = NULL, problem = NULL, \
           counter_examples = '{}', checks = 0, failures = 0 WHERE migration_id = $1 AND checks > 0",
        &[migration_id.into()],
    )?;
    Ok(())
}
