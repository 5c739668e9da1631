//! `_transmute.rules`.

use crate::error::{Error, Result};
use crate::model::rule::Rule;
use crate::pg::spi::{self, Row};
use crate::pg::Oid;
use pgrx::JsonB;

/// A rule in force, or one that has ended.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: i64,
    pub migration_id: String,
    pub relation: Oid,
    /// The table by name, as the steps say it.
    pub target: String,
    pub rule: Rule,
    pub fingerprint: String,
    /// Seconds since rows that were set aside were last tried again; `None`: never.
    pub since_retry: Option<f64>,
}

const COLUMNS: &str = "id, migration_id, relation, target, rule, fingerprint, \
    abs(extract(epoch FROM clock_timestamp() - retried_at))::float8";

fn from_row(row: &Row<'_>) -> Result<Kept> {
    Ok(Kept {
        id: row.need(1)?,
        migration_id: row.need(2)?,
        relation: row.need(3)?,
        target: row.need(4)?,
        rule: serde_json::from_value(row.need::<JsonB>(5)?.0)?,
        fingerprint: row.need(6)?,
        since_retry: row.get(7)?,
    })
}

/// The next id, which names the trigger before the row exists.
pub fn next_id() -> Result<i64> {
    spi::value::<i64>("SELECT nextval('_transmute.rules_id_seq')", &[])?
        .ok_or_else(|| Error::Bug("no next id".into()))
}

pub struct New<'a> {
    pub id: i64,
    pub migration_id: &'a str,
    pub step: i32,
    pub relation: Oid,
    pub target: &'a str,
    pub rule: &'a Rule,
    pub end_block: i64,
    pub rows: f64,
    pub fingerprint: &'a str,
    pub reverses: Option<i64>,
}

pub fn insert(new: New<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.rules (id, migration_id, step, relation, target, rule, end_block, rows_estimate, fingerprint, reverses) \
         OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            new.id.into(),
            new.migration_id.into(),
            new.step.into(),
            new.relation.into(),
            new.target.into(),
            JsonB(serde_json::to_value(new.rule)?).into(),
            new.end_block.into(),
            new.rows.into(),
            new.fingerprint.into(),
            new.reverses.into(),
        ],
    )?;
    Ok(())
}

pub fn of_target(migration_id: &str, target: &str) -> Result<Option<Kept>> {
    spi::first(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.rules WHERE migration_id = $1 AND target = $2 AND reverses IS NULL ORDER BY id DESC LIMIT 1"
        ),
        &[migration_id.into(), target.into()],
        from_row,
    )
}

pub fn find(migration_id: &str, step: i32) -> Result<Option<Kept>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.rules WHERE migration_id = $1 AND step = $2"),
        &[migration_id.into(), step.into()],
        from_row,
    )
}

pub fn get(id: i64) -> Result<Option<Kept>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.rules WHERE id = $1 AND ended_at IS NULL"),
        &[id.into()],
        from_row,
    )
}

/// Rules of a migration that are in force until its end.
pub fn in_force(migration_id: &str) -> Result<Vec<i64>> {
    spi::query(
        "SELECT id FROM _transmute.rules WHERE migration_id = $1 AND ended_at IS NULL AND reverses IS NULL ORDER BY id",
        &[migration_id.into()],
        |row| row.need(1),
    )
}

/// Rules that keep hidden columns of a finished migration current.
pub fn reverses(migration_id: &str) -> Result<Vec<Kept>> {
    spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.rules WHERE migration_id = $1 AND reverses IS NOT NULL ORDER BY id"),
        &[migration_id.into()],
        from_row,
    )
}

/// The way back of a rule, if one is kept.
pub fn reverse_of(id: i64) -> Result<Option<Kept>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.rules WHERE reverses = $1"),
        &[id.into()],
        from_row,
    )
}

/// A rule that had ended is in force again, as this one.
pub fn reopen(id: i64, rule: &Rule) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rules SET ended_at = NULL, rule = $2 WHERE id = $1",
        &[id.into(), JsonB(serde_json::to_value(rule)?).into()],
    )?;
    Ok(())
}

/// Rules of a migration that are in force and have rows that were set aside.
pub fn with_open_letters(migration_id: &str) -> Result<Vec<Kept>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.rules r WHERE migration_id = $1 AND ended_at IS NULL AND EXISTS \
               (SELECT FROM _transmute.dead_letters d WHERE d.rule_id = r.id AND d.resolved_at IS NULL) ORDER BY id"
        ),
        &[migration_id.into()],
        from_row,
    )
}

/// Another pass begins.
pub fn begin_pass(id: i64, end_block: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rules SET end_block = $2, passes = passes + 1 WHERE id = $1",
        &[id.into(), end_block.into()],
    )?;
    Ok(())
}

/// A check has ended: rows it looked at, rows that it found different and filled.
pub fn set_checked(id: i64, rows: i64, repaired: i64, passed: bool) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rules SET checks = checks + 1, rows_checked = $2, rows_repaired = rows_repaired + $3, \
           checked_at = CASE WHEN $4 THEN clock_timestamp() END WHERE id = $1",
        &[id.into(), rows.into(), repaired.into(), passed.into()],
    )?;
    Ok(())
}

pub fn set_retried(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rules SET retried_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_ended(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rules SET ended_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn delete(id: i64) -> Result<()> {
    spi::execute("DELETE FROM _transmute.rules WHERE id = $1", &[id.into()])?;
    Ok(())
}
