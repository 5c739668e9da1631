//! `_transmute.dead_letters`.

use crate::error::{Error, Result};
use crate::pg::spi::{self, NamedValue};
use pgrx::JsonB;
use std::collections::HashSet;

/// Longest value, and longest statement, that is kept of a refused row, characters: they are for people to read.
const MAX_CHARS: usize = 2000;

/// What is kept of a refusal.
pub struct Refusal<'a> {
    pub migration_id: &'a str,
    pub key: &'a str,
    /// Columns of the row; `None`: it is not there any more.
    pub row: Option<Vec<NamedValue>>,
    /// The statement that refuses it.
    pub expression: &'a str,
    pub error: &'a Error,
}

impl Refusal<'_> {
    fn row_values(&self) -> Option<JsonB> {
        let values = self.row.as_ref()?.iter().map(|(name, value)| {
            let value = value.as_ref().map(|v| cut(v));
            (name.clone(), value.into())
        });
        Some(JsonB(serde_json::Value::Object(values.collect())))
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// What a new refusal of a row that is refused already changes.
const AGAIN: &str = "row_values = excluded.row_values, expression = excluded.expression, \
    sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, \
    attempts = dead_letters.attempts + 1, last_seen = clock_timestamp(), status = 'open', reason = NULL, resolved_at = NULL";

/// A person went on without the row as it is, maybe while it waited for another try. What was cut may have changed.
const GIVEN_UP: &str = "dead_letters.status = 'discarded' AND dead_letters.expression = excluded.expression \
    AND dead_letters.row_values IS NOT DISTINCT FROM excluded.row_values \
    AND NOT EXISTS (SELECT FROM jsonb_each_text(excluded.row_values) AS v WHERE right(v.value, 1) = '…')";

/// Records a refusal by a new shape, or counts one more try of a row that is refused already.
pub fn record(rewrite_id: i64, refusal: &Refusal<'_>) -> Result<()> {
    spi::execute(
        &format!(
            "INSERT INTO _transmute.dead_letters (migration_id, rewrite_id, key_text, row_values, expression, \
               sqlstate, message, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (rewrite_id, key_text) WHERE status <> 'resolved' DO UPDATE SET {AGAIN} WHERE NOT ({GIVEN_UP})"
        ),
        &[
            refusal.migration_id.into(),
            rewrite_id.into(),
            refusal.key.into(),
            refusal.row_values().into(),
            cut(refusal.expression).into(),
            refusal.error.sqlstate_text().into(),
            refusal.error.to_string().into(),
            refusal.error.detail().into(),
        ],
    )?;
    Ok(())
}

/// Records a row that a data statement fails on; `place` is where its key stands in the list.
pub fn record_batch(backfill_id: i64, place: &str, refusal: &Refusal<'_>) -> Result<()> {
    spi::execute(
        &format!(
            "INSERT INTO _transmute.dead_letters (migration_id, backfill_id, place, key_text, row_values, expression, \
               sqlstate, message, detail) VALUES ($1, $2, $3::tid, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (backfill_id, place) WHERE status <> 'resolved' DO UPDATE SET {AGAIN}"
        ),
        &[
            refusal.migration_id.into(),
            backfill_id.into(),
            place.into(),
            refusal.key.into(),
            refusal.row_values().into(),
            cut(refusal.expression).into(),
            refusal.error.sqlstate_text().into(),
            refusal.error.to_string().into(),
            refusal.error.detail().into(),
        ],
    )?;
    Ok(())
}

/// Records a row that a copy fails on.
pub fn record_copy(step: i32, key: &[String], refusal: &Refusal<'_>) -> Result<()> {
    spi::execute(
        &format!(
            "INSERT INTO _transmute.dead_letters (migration_id, copy_step, copy_key, key_text, row_values, expression, \
               sqlstate, message, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (migration_id, copy_step, copy_key) WHERE status <> 'resolved' DO UPDATE SET {AGAIN}"
        ),
        &[
            refusal.migration_id.into(),
            step.into(),
            key.to_vec().into(),
            refusal.key.into(),
            refusal.row_values().into(),
            cut(refusal.expression).into(),
            refusal.error.sqlstate_text().into(),
            refusal.error.to_string().into(),
            refusal.error.detail().into(),
        ],
    )?;
    Ok(())
}

/// Numbers and keys of rows that a copy still fails on, for another try: whoever discards one meanwhile waits, and has
/// the last word.
pub fn open_copy(migration_id: &str, step: i32) -> Result<Vec<(i64, Vec<String>)>> {
    spi::query_locking(
        "SELECT id, copy_key FROM _transmute.dead_letters \
         WHERE migration_id = $1 AND copy_step = $2 AND status = 'open' ORDER BY id FOR UPDATE",
        &[migration_id.into(), step.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

pub fn resolve_id(id: i64) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE id = $1 AND status = 'open'"),
        &[id.into()],
    )?;
    Ok(())
}

/// Closes what is open of a copy.
pub fn resolve_copy(migration_id: &str, step: i32) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE migration_id = $1 AND copy_step = $2 AND status = 'open'"),
        &[migration_id.into(), step.into()],
    )?;
    Ok(())
}

/// Places and keys of rows that a data statement still fails on, for another try, as above.
pub fn open_batch(backfill_id: i64) -> Result<Vec<(String, String)>> {
    spi::query_locking(
        "SELECT place::text, key_text FROM _transmute.dead_letters \
         WHERE backfill_id = $1 AND status = 'open' ORDER BY id FOR UPDATE",
        &[backfill_id.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

const RESOLVED: &str =
    "UPDATE _transmute.dead_letters SET status = 'resolved', resolved_at = clock_timestamp()";

pub fn resolve_place(backfill_id: i64, place: &str) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE backfill_id = $1 AND place = $2::tid AND status = 'open'"),
        &[backfill_id.into(), place.into()],
    )?;
    Ok(())
}

/// Closes what is open of a data statement.
pub fn resolve_backfill(backfill_id: i64) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE backfill_id = $1 AND status = 'open'"),
        &[backfill_id.into()],
    )?;
    Ok(())
}

/// Goes on without these; how many.
pub fn discard(migration_id: &str, ids: &[i64], reason: &str) -> Result<i64> {
    let closed = spi::execute(
        "UPDATE _transmute.dead_letters SET status = 'discarded', reason = $3, resolved_at = clock_timestamp() \
         WHERE migration_id = $1 AND id = ANY ($2) AND status = 'open' RETURNING 1",
        &[migration_id.into(), ids.to_vec().into(), reason.into()],
    )?;
    Ok(closed as i64)
}

/// Forgets those of one status; how many.
pub fn purge(migration_id: &str, status: &str) -> Result<i64> {
    let gone = spi::execute(
        "DELETE FROM _transmute.dead_letters WHERE migration_id = $1 AND status = $2 RETURNING 1",
        &[migration_id.into(), status.into()],
    )?;
    Ok(gone as i64)
}

/// Keys of the rows that a shadow has not: refused, or given up by a person.
pub fn refused_keys(rewrite_id: i64) -> Result<HashSet<String>> {
    Ok(spi::query(
        "SELECT key_text FROM _transmute.dead_letters WHERE rewrite_id = $1 AND status <> 'resolved'",
        &[rewrite_id.into()],
        |row| row.need(1),
    )?
    .into_iter()
    .collect())
}

/// Keys of the rows that a shadow refuses and that are tried again.
pub fn open_keys(rewrite_id: i64) -> Result<Vec<String>> {
    spi::query(
        "SELECT key_text FROM _transmute.dead_letters WHERE rewrite_id = $1 AND status = 'open'",
        &[rewrite_id.into()],
        |row| row.need(1),
    )
}

/// An open dead letter and where it comes from.
#[derive(Debug, Clone)]
pub struct Open {
    pub id: i64,
    pub key: String,
    pub rewrite_id: Option<i64>,
    pub backfill_id: Option<i64>,
    pub copy_step: Option<i32>,
    pub rule_id: Option<i64>,
}

/// Those of a migration that are open, in order.
pub fn open(migration_id: &str) -> Result<Vec<Open>> {
    spi::query(
        "SELECT id, key_text, rewrite_id, backfill_id, copy_step, rule_id FROM _transmute.dead_letters \
         WHERE migration_id = $1 AND status = 'open' ORDER BY id",
        &[migration_id.into()],
        |row| {
            Ok(Open {
                id: row.need(1)?,
                key: row.need(2)?,
                rewrite_id: row.get(3)?,
                backfill_id: row.get(4)?,
                copy_step: row.get(5)?,
                rule_id: row.get(6)?,
            })
        },
    )
}

/// Open ones that appeared after the migration was last resumed: a person who resumes accepts those before.
pub fn open_since_resume(migration_id: &str) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM _transmute.dead_letters d JOIN _transmute.migrations m ON m.id = d.migration_id \
         WHERE d.migration_id = $1 AND d.status = 'open' \
           AND d.first_seen > coalesce(m.resumed_at, '-infinity')",
        &[migration_id.into()],
    )?
    .unwrap_or(0))
}

/// The rows of these keys are in the shadow now, or gone from the table.
pub fn resolve(rewrite_id: i64, keys: &[String]) -> Result<()> {
    spi::execute(
        &format!(
            "{RESOLVED} WHERE rewrite_id = $1 AND status <> 'resolved' AND key_text = ANY ($2)"
        ),
        &[rewrite_id.into(), keys.to_vec().into()],
    )?;
    Ok(())
}

pub fn resolve_all(rewrite_id: i64) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE rewrite_id = $1 AND status <> 'resolved'"),
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
        "INSERT INTO _transmute.dead_letters AS d (migration_id, rule_id, place, key_text, key_values, sqlstate, message, detail, \
           expression) VALUES ($1, $2, $3::tid, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (rule_id, key_text) WHERE status = 'open' DO UPDATE SET expression = excluded.expression, \
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
            cut(expression).into(),
        ],
    )?;
    Ok(())
}

/// A row that a rule refused.
pub struct Refused {
    pub id: i64,
    pub attempts: i32,
    pub key_values: Vec<String>,
    pub place: Option<String>,
}

/// Not locked: the application's statements lock a row first, then its letter.
pub fn open_of_rule(rule_id: i64) -> Result<Vec<Refused>> {
    spi::query(
        "SELECT id, coalesce(key_values, '{}'), place::text, attempts FROM _transmute.dead_letters \
         WHERE rule_id = $1 AND resolved_at IS NULL ORDER BY id",
        &[rule_id.into()],
        |row| {
            Ok(Refused {
                id: row.need(1)?,
                key_values: row.need(2)?,
                place: row.get(3)?,
                attempts: row.need(4)?,
            })
        },
    )
}

/// The row of a rule's letter is fine; not where it was refused once more, or settled by somebody else, since the letter was read.
pub fn resolve_rule_letter(letter: &Refused) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE id = $1 AND status = 'open' AND attempts = $2"),
        &[letter.id.into(), letter.attempts.into()],
    )?;
    Ok(())
}

/// Closes what is open of a rule.
pub fn resolve_rule(rule_id: i64) -> Result<()> {
    spi::execute(
        &format!("{RESOLVED} WHERE rule_id = $1 AND status = 'open'"),
        &[rule_id.into()],
    )?;
    Ok(())
}
