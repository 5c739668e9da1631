//! `_transmute.backfills`: data statements that run in batches.

use crate::error::{Error, Result};
use crate::pg::spi::{self, Row};
use crate::pg::Oid;

#[derive(Debug, Clone)]
pub struct Backfill {
    pub id: i64,
    /// The relation whose rows it goes through.
    pub relation: Oid,
    /// The table it writes.
    pub target: Oid,
    pub work_schema: String,
    /// Quoted.
    pub key_columns: Vec<String>,
    /// Seconds since refused rows were last tried again, or until that by a clock that went back; `None`: never.
    pub since_retry: Option<f64>,
    pub finished: bool,
}

const COLUMNS: &str = "id, relation, target, work_schema::text, key_columns, \
    abs(extract(epoch FROM clock_timestamp() - retried_at))::float8, finished_at IS NOT NULL";

fn from_row(row: &Row<'_>) -> Result<Backfill> {
    Ok(Backfill {
        id: row.need(1)?,
        relation: row.need(2)?,
        target: row.need(3)?,
        work_schema: row.need(4)?,
        key_columns: row.need(5)?,
        since_retry: row.get(6)?,
        finished: row.need(7)?,
    })
}

pub struct New<'a> {
    pub id: i64,
    pub migration_id: &'a str,
    pub step: i32,
    pub relation: Oid,
    pub target: Oid,
    pub work_schema: &'a str,
    pub key_columns: &'a [String],
    pub rows_listed: i64,
    pub end_block: i64,
}

/// The next id, which names the work schema before the row exists.
pub fn next_id() -> Result<i64> {
    spi::value::<i64>("SELECT nextval('_transmute.backfills_id_seq')", &[])?
        .ok_or_else(|| Error::Bug("no next id".into()))
}

pub fn insert(new: New<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.backfills (id, migration_id, step, relation, target, work_schema, key_columns, \
           rows_listed, end_block) \
         OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6::name, $7, $8, $9)",
        &[
            new.id.into(),
            new.migration_id.into(),
            new.step.into(),
            new.relation.into(),
            new.target.into(),
            new.work_schema.into(),
            new.key_columns.to_vec().into(),
            new.rows_listed.into(),
            new.end_block.into(),
        ],
    )?;
    Ok(())
}

pub fn find(migration_id: &str, step: i32) -> Result<Option<Backfill>> {
    spi::first(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.backfills WHERE migration_id = $1 AND step = $2"
        ),
        &[migration_id.into(), step.into()],
        from_row,
    )
}

pub fn set_relations(id: i64, relation: Oid, target: Oid) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.backfills SET relation = $2, target = $3 WHERE id = $1",
        &[id.into(), relation.into(), target.into()],
    )?;
    Ok(())
}

/// What is refused is tried at the next look.
pub fn ask_retry(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.backfills SET retried_at = NULL WHERE id = $1 AND retried_at IS NOT NULL",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_retried(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.backfills SET retried_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_finished(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.backfills SET finished_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn delete(id: i64) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.backfills WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}
