//! `_transmute.dead_letters`.

use crate::error::{Error, Result};
use crate::pg::spi;
use std::collections::HashSet;

/// Records a refusal, or counts one more try of a row that is open already.
pub fn record(migration_id: &str, rewrite_id: i64, key: &str, error: &Error) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.dead_letters (migration_id, rewrite_id, key_text, sqlstate, message, detail) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (rewrite_id, key_text) WHERE resolved_at IS NULL DO UPDATE SET \
           sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, \
           attempts = dead_letters.attempts + 1, last_seen = clock_timestamp()",
        &[
            migration_id.into(),
            rewrite_id.into(),
            key.into(),
            error.sqlstate_text().into(),
            error.to_string().into(),
            error.detail().into(),
        ],
    )?;
    Ok(())
}

/// Records a row that a data statement fails on; `place` is where its key stands in the list.
pub fn record_batch(
    migration_id: &str,
    backfill_id: i64,
    place: &str,
    key: &str,
    error: &Error,
) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.dead_letters (migration_id, backfill_id, place, key_text, sqlstate, message, detail) \
         VALUES ($1, $2, $3::tid, $4, $5, $6, $7) \
         ON CONFLICT (backfill_id, place) WHERE resolved_at IS NULL DO UPDATE SET \
           sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, \
           attempts = dead_letters.attempts + 1, last_seen = clock_timestamp()",
        &[
            migration_id.into(),
            backfill_id.into(),
            place.into(),
            key.into(),
            error.sqlstate_text().into(),
            error.to_string().into(),
            error.detail().into(),
        ],
    )?;
    Ok(())
}

/// Places and keys of rows that a data statement still fails on.
pub fn open_batch(backfill_id: i64) -> Result<Vec<(String, String)>> {
    spi::query(
        "SELECT place::text, key_text FROM _transmute.dead_letters \
         WHERE backfill_id = $1 AND resolved_at IS NULL ORDER BY id",
        &[backfill_id.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

pub fn resolve_place(backfill_id: i64, place: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE backfill_id = $1 AND place = $2::tid AND resolved_at IS NULL",
        &[backfill_id.into(), place.into()],
    )?;
    Ok(())
}

/// Closes what is open of a data statement.
pub fn resolve_backfill(backfill_id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE backfill_id = $1 AND resolved_at IS NULL",
        &[backfill_id.into()],
    )?;
    Ok(())
}

/// Closes what is open of all data statements of a migration; how many. Rows that a new shape refuses stay open.
pub fn discard(migration_id: &str) -> Result<i64> {
    let closed = spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE migration_id = $1 AND backfill_id IS NOT NULL AND resolved_at IS NULL RETURNING 1",
        &[migration_id.into()],
    )?;
    Ok(closed as i64)
}

pub fn open_keys(rewrite_id: i64) -> Result<HashSet<String>> {
    Ok(spi::query(
        "SELECT key_text FROM _transmute.dead_letters WHERE rewrite_id = $1 AND resolved_at IS NULL",
        &[rewrite_id.into()],
        |row| row.need(1),
    )?
    .into_iter()
    .collect())
}

pub fn open_count(migration_id: &str) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM _transmute.dead_letters WHERE migration_id = $1 AND resolved_at IS NULL",
        &[migration_id.into()],
    )?
    .unwrap_or(0))
}

/// Open ones that appeared after the migration was last resumed: a person who resumes accepts those before.
pub fn open_since_resume(migration_id: &str) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM _transmute.dead_letters d JOIN _transmute.migrations m ON m.id = d.migration_id \
         WHERE d.migration_id = $1 AND d.resolved_at IS NULL \
           AND d.first_seen > coalesce(m.resumed_at, '-infinity')",
        &[migration_id.into()],
    )?
    .unwrap_or(0))
}

/// The rows of these keys are in the shadow now, or gone from the table.
pub fn resolve(rewrite_id: i64, keys: &[String]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE rewrite_id = $1 AND resolved_at IS NULL AND key_text = ANY ($2)",
        &[rewrite_id.into(), keys.to_vec().into()],
    )?;
    Ok(())
}

pub fn resolve_all(rewrite_id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE rewrite_id = $1 AND resolved_at IS NULL",
        &[rewrite_id.into()],
    )?;
    Ok(())
}

/// A row that a dual-write rule refuses.
pub struct OfRule<'a> {
    pub migration_id: &'a str,
    pub rule_id: i64,
    pub key_text: &'a str,
    /// Values of the key's columns; of a table without a key, none.
    pub key_values: &'a [String],
    /// Where the row lies, of a table without a key.
    pub place: Option<&'a str>,
}

/// Records a row that a rule refuses, or counts one more try; `expression` is what it was computed by.
pub fn record_rule(row: &OfRule<'_>, expression: &str, error: &Error) -> Result<()> {
    let detail = match error.detail() {
        Some(detail) => format!("{expression}: {detail}"),
        None => expression.to_string(),
    };
    spi::execute(
        "INSERT INTO _transmute.dead_letters AS d (migration_id, rule_id, place, key_text, key_values, sqlstate, message, detail) \
         VALUES ($1, $2, $3::tid, $4, $5, $6, $7, $8) \
         ON CONFLICT (rule_id, key_text) WHERE resolved_at IS NULL DO UPDATE SET \
           sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, place = excluded.place, \
           attempts = d.attempts + 1, last_seen = clock_timestamp()",
        &[
            row.migration_id.into(),
            row.rule_id.into(),
            row.place.into(),
            row.key_text.into(),
            row.key_values.to_vec().into(),
            error.sqlstate_text().into(),
            error.to_string().into(),
            detail.into(),
        ],
    )?;
    Ok(())
}

/// A row that a rule refused.
pub struct Open {
    pub id: i64,
    pub key_values: Vec<String>,
    pub place: Option<String>,
}

pub fn open_of_rule(rule_id: i64) -> Result<Vec<Open>> {
    spi::query(
        "SELECT id, coalesce(key_values, '{}'), place::text FROM _transmute.dead_letters \
         WHERE rule_id = $1 AND resolved_at IS NULL ORDER BY id",
        &[rule_id.into()],
        |row| {
            Ok(Open {
                id: row.need(1)?,
                key_values: row.need(2)?,
                place: row.get(3)?,
            })
        },
    )
}

pub fn resolve_one(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Closes what is open of a rule.
pub fn resolve_rule(rule_id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.dead_letters SET resolved_at = clock_timestamp() \
         WHERE rule_id = $1 AND resolved_at IS NULL",
        &[rule_id.into()],
    )?;
    Ok(())
}
