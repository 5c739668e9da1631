//! `_transmute.rewrites`.

use crate::error::{Error, Result};
use crate::model::address;
use crate::model::ident::QualifiedName;
use crate::pg::outdated::BroughtOver;
use crate::pg::spi::{self, Row};
use crate::pg::Oid;
use pgrx::JsonB;
use serde::{Deserialize, Serialize};

/// An index or constraint of the shadow that is built after the copy.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Deferred {
    pub name: String,
    /// As the server deparses it; the relation it names is replaced when it runs.
    pub sql: String,
    /// Columns of a plain unique index (no expression, no predicate), quoted; empty for any other.
    pub unique_columns: Vec<String>,
    /// The index is in a tablespace of its own.
    pub in_tablespace: bool,
}

/// A foreign key that the swap left NOT VALID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToValidate {
    pub table: String,
    pub name: String,
}

/// A table of the script's own that takes the table's place by its name: which column is copied into which.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Successor {
    pub columns: Vec<Copied>,
}

/// A column of the successor, and the column of the table that it is a copy of.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Copied {
    pub into: String,
    pub from: String,
}

#[derive(Debug, Clone)]
pub struct Rewrite {
    pub id: i64,
    pub migration_id: String,
    pub statement: i32,
    pub relation: Oid,
    pub shadow: Oid,
    pub twin: Oid,
    pub key_log: Oid,
    pub new_schema: String,
    pub old_schema: String,
    pub key_index: Oid,
    pub key_columns: Vec<i16>,
    pub shadow_key: String,
    pub deferred: Vec<Deferred>,
    pub relfilenode: Oid,
    pub rows_estimate: f64,
    pub fingerprint: String,
    pub definition: String,
    pub next_definition: i32,
    pub deduplicated: bool,
    pub drain_xid: Option<String>,
    /// Transactions older than the first drain; `None`: not looked yet.
    pub awaited: Option<Vec<String>>,
    pub lag: i64,
    pub check_block: i64,
    pub check_mismatches: i64,
    pub check_rounds: i32,
    pub checked: bool,
    pub swapped: bool,
    pub to_validate: Vec<ToValidate>,
    pub name: String,
    /// What `capture::stamp` gave when capture began.
    pub capture_stamp: Option<String>,
    /// Where the shadow is; empty: it is gone.
    shadow_schema: String,
    /// The rewrite whose old rows this one keeps current.
    pub reverses: Option<i64>,
    /// The statements of such a one.
    pub script: Option<String>,
    /// Until when, microseconds since the Unix epoch.
    pub kept_until_us: Option<i64>,
    /// As `definition`, when the migration had finished.
    pub definition_at_end: Option<String>,
    /// The shadow is a table of the script's own.
    pub successor: Option<Successor>,
}

impl Rewrite {
    /// The shadow, under the table's own name in a work schema.
    pub fn shadow_name(&self) -> QualifiedName {
        QualifiedName::new(&self.shadow_schema, &self.name)
    }

    /// The table has no key: rows are found by their address.
    pub fn is_by_address(&self) -> bool {
        address::is_key(&self.key_columns)
    }

    pub fn key_log_name(&self) -> QualifiedName {
        QualifiedName::new(&self.new_schema, format!("_transmute_{}_keys", self.id))
    }

    /// Keys of rows that the shadow refused, in the shape of the key log.
    pub fn refused_name(&self) -> QualifiedName {
        QualifiedName::new(&self.new_schema, format!("_transmute_{}_refused", self.id))
    }

    /// A table of this name among the old ones.
    pub fn old_name(&self, name: &str) -> QualifiedName {
        QualifiedName::new(&self.old_schema, name)
    }

    /// Whether the table with the old rows is in the work schema for them.
    pub fn keeps_old_rows(&self) -> Result<bool> {
        Ok(spi::value_kept::<bool>(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = $1 AND n.nspname = $2::name)",
            &[self.twin.into(), self.old_schema.as_str().into()],
        )? == Some(true))
    }

    pub fn twin_name(&self) -> QualifiedName {
        QualifiedName::new(&self.old_schema, &self.name)
    }
}

const COLUMNS: &str = "r.id, r.migration_id, r.statement, r.relation, r.shadow, r.twin, r.key_log, \
    r.new_schema::text, r.old_schema::text, r.key_index, r.key_columns, coalesce(r.shadow_key::text, ''), \
    r.deferred_definitions, r.relfilenode, r.rows_estimate, r.fingerprint, r.definition, \
    r.next_definition, r.deduplicated, r.drain_xid::text, r.lag, r.check_block, \
    r.check_mismatches, r.check_rounds, r.checked_at IS NOT NULL, r.swapped_at IS NOT NULL, \
    r.constraints_to_validate, \
    coalesce((SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.oid = r.shadow), ''), r.awaited, \
    coalesce((SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.oid = r.shadow), ''), \
    r.reverses, r.script, (extract(epoch FROM r.kept_until) * 1000000)::bigint, r.definition_at_end, r.capture_stamp, r.successor";

fn from_row(row: &Row<'_>) -> Result<Rewrite> {
    let deferred: JsonB = row.need(13)?;
    let to_validate: JsonB = row.need(27)?;
    Ok(Rewrite {
        id: row.need(1)?,
        migration_id: row.need(2)?,
        statement: row.need(3)?,
        relation: row.need(4)?,
        shadow: row.need(5)?,
        twin: row.need(6)?,
        key_log: row.need(7)?,
        new_schema: row.need(8)?,
        old_schema: row.need(9)?,
        key_index: row.get(10)?.unwrap_or(Oid::INVALID),
        key_columns: row.need(11)?,
        shadow_key: row.need(12)?,
        deferred: serde_json::from_value(deferred.0)?,
        relfilenode: row.need(14)?,
        rows_estimate: row.need(15)?,
        fingerprint: row.need(16)?,
        definition: row.need(17)?,
        next_definition: row.need(18)?,
        deduplicated: row.need(19)?,
        drain_xid: row.get(20)?,
        awaited: row.get(29)?,
        lag: row.need(21)?,
        check_block: row.need(22)?,
        check_mismatches: row.need(23)?,
        check_rounds: row.need(24)?,
        checked: row.need(25)?,
        swapped: row.need(26)?,
        to_validate: serde_json::from_value(to_validate.0)?,
        name: row.need(28)?,
        capture_stamp: row.get(35)?,
        shadow_schema: row.need(30)?,
        reverses: row.get(31)?,
        script: row.get(32)?,
        kept_until_us: row.get(33)?,
        definition_at_end: row.get(34)?,
        successor: row
            .get::<JsonB>(36)?
            .map(|json| serde_json::from_value(json.0))
            .transpose()?,
    })
}

pub struct New<'a> {
    pub id: i64,
    pub migration_id: &'a str,
    pub statement: i32,
    pub relation: Oid,
    pub shadow: Oid,
    pub twin: Oid,
    pub key_log: Oid,
    pub new_schema: &'a str,
    pub old_schema: &'a str,
    pub key_index: Oid,
    pub key_columns: &'a [i16],
    pub shadow_key: &'a str,
    pub deferred: &'a [Deferred],
    pub relfilenode: Oid,
    pub end_block: i64,
    pub rows_estimate: f64,
    pub fingerprint: &'a str,
    pub definition: &'a str,
    /// The way back of a rewrite: which, and its statements.
    pub reverses: Option<(i64, &'a str)>,
}

/// The next id, which names the work schemas before the row exists.
pub fn next_id() -> Result<i64> {
    spi::value_kept::<i64>("SELECT nextval('_transmute.rewrites_id_seq')", &[])?
        .ok_or_else(|| Error::Bug("no next id".into()))
}

pub fn insert(new: New<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.rewrites (id, migration_id, statement, relation, shadow, twin, key_log, new_schema, \
           old_schema, key_index, key_columns, shadow_key, deferred_definitions, relfilenode, end_block, \
           rows_estimate, fingerprint, definition, reverses, script, kept_until, deduplicated, drain_xid, awaited) \
         OVERRIDING SYSTEM VALUE \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8::name, $9::name, $10, $11, $12::name, $13, $14, $15, $16, $17, $18, $19, $20, \
           CASE WHEN $19 IS NOT NULL THEN clock_timestamp() + m.keep_old END, $19 IS NOT NULL, \
           CASE WHEN $19 IS NOT NULL THEN pg_current_xact_id() END, CASE WHEN $19 IS NOT NULL THEN '{}'::text[] END \
         FROM _transmute.migrations m WHERE m.id = $2",
        &[
            new.id.into(),
            new.migration_id.into(),
            new.statement.into(),
            new.relation.into(),
            new.shadow.into(),
            new.twin.into(),
            new.key_log.into(),
            new.new_schema.into(),
            new.old_schema.into(),
            new.key_index.into(),
            new.key_columns.to_vec().into(),
            new.shadow_key.into(),
            JsonB(serde_json::to_value(new.deferred)?).into(),
            new.relfilenode.into(),
            new.end_block.into(),
            new.rows_estimate.into(),
            new.fingerprint.into(),
            new.definition.into(),
            new.reverses.map(|(of, _)| of).into(),
            new.reverses.map(|(_, script)| script).into(),
        ],
    )?;
    Ok(())
}

pub fn of_step(migration_id: &str, statement: i32) -> Result<Rewrite> {
    find(migration_id, statement)?
        .ok_or_else(|| Error::Bug(format!("no rewrite for statement {statement}")))
}

pub fn find(migration_id: &str, statement: i32) -> Result<Option<Rewrite>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.rewrites r WHERE r.migration_id = $1 AND r.statement = $2"),
        &[migration_id.into(), statement.into()],
        from_row,
    )
}

pub fn get(id: i64) -> Result<Option<Rewrite>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.rewrites r WHERE r.id = $1"),
        &[id.into()],
        from_row,
    )
}

/// Rewrites of a migration, in the order of the script.
pub fn list(migration_id: &str) -> Result<Vec<Rewrite>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.rewrites r WHERE r.migration_id = $1 AND r.reverses IS NULL \
             ORDER BY r.statement"
        ),
        &[migration_id.into()],
        from_row,
    )
}

/// The ways back that a migration keeps, or has gone, in the order of the script.
pub fn reverses(migration_id: &str) -> Result<Vec<Rewrite>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.rewrites r WHERE r.migration_id = $1 AND r.reverses IS NOT NULL \
             ORDER BY r.statement DESC"
        ),
        &[migration_id.into()],
        from_row,
    )
}

/// Whether a table is one whose old rows are kept current, by which migration and until when.
pub fn kept_by(relation: Oid) -> Result<Option<(String, String)>> {
    spi::first(
        "SELECT migration_id, kept_until::text FROM _transmute.rewrites \
           WHERE relation = $1 AND swapped_at IS NULL AND reverses IS NOT NULL \
         UNION ALL SELECT r.migration_id, coalesce(m.kept_until, clock_timestamp() + m.keep_old)::text FROM _transmute.rules r \
           JOIN _transmute.migrations m ON m.id = r.migration_id WHERE r.relation = $1 AND r.reverses IS NOT NULL",
        &[relation.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// What the table is defined as when the migration has finished.
pub fn set_definition_at_end(id: i64, definition: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET definition_at_end = $2 WHERE id = $1",
        &[id.into(), definition.into()],
    )?;
    Ok(())
}

/// The table that holds the new rows after the way back.
pub fn set_twin(id: i64, twin: Oid) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET twin = $2 WHERE id = $1",
        &[id.into(), twin.into()],
    )?;
    Ok(())
}

/// The migration that is rewriting this table now, or a partition of it, or keeps columns of it equal, if
/// any.
pub fn migration_of(relation: Oid) -> Result<Option<String>> {
    spi::value_kept::<String>(
        "WITH RECURSIVE tree (oid) AS ( \
           SELECT $1 UNION ALL SELECT h.inhrelid FROM tree JOIN pg_inherits h ON h.inhparent = tree.oid) \
         SELECT r.migration_id FROM tree JOIN _transmute.rewrites r ON r.relation = tree.oid AND r.swapped_at IS NULL \
         UNION ALL SELECT migration_id FROM _transmute.rules WHERE relation = $1 AND ended_at IS NULL LIMIT 1",
        &[relation.into()],
    )
}

/// Ends the time for which old rows are kept current.
pub fn keep_no_longer(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET kept_until = clock_timestamp() \
         WHERE migration_id = $1 AND reverses IS NOT NULL AND swapped_at IS NULL",
        &[migration_id.into()],
    )?;
    Ok(())
}

pub fn delete(id: i64) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.rewrites WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// The table got another file: the cursors start anew.
pub fn restart(id: i64, relfilenode: Oid, end_block: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET relfilenode = $2, end_block = $3, check_block = 0, check_rows = 0, \
           check_mismatches = 0 WHERE id = $1",
        &[id.into(), relfilenode.into(), end_block.into()],
    )?;
    Ok(())
}

/// It has another, empty shadow, which is filled and checked from the start.
pub fn set_shadow(
    id: i64,
    shadow: Oid,
    deferred: &[Deferred],
    relfilenode: Oid,
    end_block: i64,
) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET shadow = $2, deferred_definitions = $3, relfilenode = $4, end_block = $5, \
           next_definition = 0, deduplicated = false, drain_xid = NULL, awaited = NULL, brought_over = DEFAULT, lag = 0, check_block = 0, \
           check_rows = 0, checked_rows = NULL, check_mismatches = 0, repaired_rows = 0, check_rounds = 0, checked_at = NULL WHERE id = $1",
        &[
            id.into(),
            shadow.into(),
            JsonB(serde_json::to_value(deferred)?).into(),
            relfilenode.into(),
            end_block.into(),
        ],
    )?;
    Ok(())
}

/// The shadow is a table of the script's own.
pub fn set_successor(id: i64, successor: &Successor) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET successor = $2 WHERE id = $1",
        &[id.into(), JsonB(serde_json::to_value(successor)?).into()],
    )?;
    Ok(())
}

/// It has the table's name now: what reads the table from here on reads that, and the old rows are in `old`.
pub fn set_succeeded(id: i64, old: Oid) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET relation = shadow, twin = $2 WHERE id = $1",
        &[id.into(), old.into()],
    )?;
    Ok(())
}

pub fn set_deduplicated(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET deduplicated = true WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_capture_stamp(id: i64, stamp: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET capture_stamp = $2 WHERE id = $1",
        &[id.into(), stamp.into()],
    )?;
    Ok(())
}

pub fn set_next_definition(id: i64, next: i32) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET next_definition = $2 WHERE id = $1",
        &[id.into(), next.into()],
    )?;
    Ok(())
}

/// Records a drain; the first one fixes the age that snapshots must have before the swap.
pub fn set_drained(id: i64, keys: i64, milliseconds: f64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET drained_keys = drained_keys + $2, lag = $2, last_drain_at = clock_timestamp(), \
           last_drain_ms = $3, drain_xid = coalesce(drain_xid, pg_current_xact_id()) WHERE id = $1",
        &[id.into(), keys.into(), milliseconds.into()],
    )?;
    Ok(())
}

/// How many numbers `brought_over` has at most, two a drain. Older drains are one then, which is the younger of them and
/// has what the older had to bring.
const BROUGHT_OVER: i32 = 64;

/// This transaction brings over what others have written, the oldest of which is `oldest`.
pub fn note_brought_over(id: i64, oldest: u64) -> Result<()> {
    spi::execute_kept(
        "UPDATE _transmute.rewrites SET brought_over = CASE WHEN pg_catalog.cardinality(brought_over) >= $3 \
           THEN ARRAY[brought_over[3], least(brought_over[2], brought_over[4])] || brought_over[5:] ELSE brought_over END \
           || ARRAY[pg_catalog.pg_current_xact_id(), $2::text::xid8] WHERE id = $1",
        &[id.into(), oldest.to_string().into(), BROUGHT_OVER.into()],
    )?;
    Ok(())
}

/// What the drains of the swaps of a table have brought over, as the active snapshot sees it.
pub fn brought_over(relation: u32) -> Result<Vec<(String, Vec<BroughtOver>)>> {
    let sql = format!(
        "SELECT migration_id, brought_over::text[]::text FROM _transmute.rewrites \
         WHERE relation = {relation} AND swapped_at IS NOT NULL"
    );
    let sql = std::ffi::CString::new(sql).map_err(|_| Error::Bug("a query holds a NUL".into()))?;
    let rows = spi::rows_in_active_snapshot(&sql, 0)?;
    let drains = |text: &str| -> Option<Vec<BroughtOver>> {
        let numbers = text.trim_matches(['{', '}']).split(',');
        let numbers: Vec<u64> = numbers
            .filter(|number| !number.is_empty())
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let pairs = numbers.chunks_exact(2);
        Some(
            pairs
                .map(|pair| BroughtOver {
                    by: pair[0],
                    oldest: pair[1],
                })
                .collect(),
        )
    };
    rows.into_iter()
        .map(|row| match row.as_slice() {
            [migration, text] => drains(text).map(|drains| (migration.clone(), drains)),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Bug("brought_over is not what was written".into()))
}

pub fn start_check(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET check_block = 0, check_rows = 0, check_mismatches = 0, \
           check_rounds = check_rounds + 1, checked_at = NULL WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn advance_check(id: i64, next_block: i64, rows: i64, mismatches: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET check_block = $2, check_rows = check_rows + $3, \
           check_mismatches = check_mismatches + $4, repaired_rows = repaired_rows + $4 WHERE id = $1",
        &[id.into(), next_block.into(), rows.into(), mismatches.into()],
    )?;
    Ok(())
}

pub fn set_checked(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET checked_at = clock_timestamp(), checked_rows = check_rows WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_swapped(id: i64, to_validate: &[ToValidate]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET swapped_at = clock_timestamp(), constraints_to_validate = $2 WHERE id = $1",
        &[id.into(), JsonB(serde_json::to_value(to_validate)?).into()],
    )?;
    Ok(())
}

/// How long the lock was held, up to the commit, milliseconds.
pub fn set_lock_held(id: i64, milliseconds: f64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET lock_held_ms = $2 WHERE id = $1",
        &[id.into(), milliseconds.into()],
    )?;
    Ok(())
}

pub fn set_to_validate(id: i64, left: &[ToValidate]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET constraints_to_validate = $2 WHERE id = $1",
        &[id.into(), JsonB(serde_json::to_value(left)?).into()],
    )?;
    Ok(())
}

/// When refused rows are tried again: every ten seconds, and when the clock went back.
const RETRY_DUE: &str =
    "(retried_at IS NULL OR retried_at NOT BETWEEN clock_timestamp() - interval '10 seconds' AND clock_timestamp())";

/// Whether it is time to try refused rows again; writes nothing.
pub fn retry_is_due(id: i64) -> Result<bool> {
    let sql = format!("SELECT {RETRY_DUE} FROM _transmute.rewrites WHERE id = $1");
    Ok(spi::value::<bool>(&sql, &[id.into()])? == Some(true))
}

/// The same, and true once: whoever asks tries them.
pub fn take_retry(id: i64) -> Result<bool> {
    Ok(spi::execute(
        &format!("UPDATE _transmute.rewrites SET retried_at = clock_timestamp() WHERE id = $1 AND {RETRY_DUE}"),
        &[id.into()],
    )? > 0)
}

pub fn set_awaited(id: i64, transactions: &[String]) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.rewrites SET awaited = $2 WHERE id = $1",
        &[id.into(), transactions.to_vec().into()],
    )?;
    Ok(())
}
