//! The list of what a statement has to work on, and ranges of it. Nobody updates the list, so a range of its blocks means
//! the same keys for as long as it lives.

use super::{Driver, Work};
use crate::catalog::{column, relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::{quote_ident, quote_literal, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::relation::{LockMode, Table};
use crate::pg::spi::{self, NamedValue};
use crate::pg::{dml, utility, waitpoint, xact, Oid};
use crate::rewrite::{expand, shadow};
use crate::store::backfill::{self, Backfill};
use crate::store::migration::Migration;
use crate::store::progress::{self, Of};
use std::ffi::CString;

/// Name of the list in its work schema.
const LIST: &str = "keys";
/// What the list is called inside the statement: nothing of the DBA's is called so.
const ALIAS: &str = "_transmute_keys";
/// A lane holds at least this many blocks of keys (some 30,000 rows), so that small statements are one lane.
const MIN_LANE_BLOCKS: i64 = 128;
/// First batch: some 450 rows; the batch sizer takes it from there.
const FIRST_BATCH_BLOCKS: i32 = 2;

/// Where the keys of a backfill are listed.
pub fn list_name(backfill: &Backfill) -> QualifiedName {
    QualifiedName::new(&backfill.work_schema, LIST)
}

/// Lists the keys of all rows that the statement means now, in one snapshot, and cuts the list into lanes.
pub fn prepare(
    migration: &Migration,
    step: i32,
    sql: &str,
    owner: Oid,
    target: Oid,
    driver: &Driver,
) -> Result<()> {
    let id = free_id()?;
    let work_schema = format!("_transmute_{id}_data");
    let list = QualifiedName::new(&work_schema, LIST);
    let table = &driver.relation;
    let columns = column::list(table.oid)?;
    let typed: Vec<String> = driver
        .key
        .iter()
        .enumerate()
        .filter_map(|(i, name)| {
            let column = columns.iter().find(|c| quote_ident(&c.name) == *name)?;
            let collation = match column.collation.is_empty() {
                true => String::new(),
                false => format!(" COLLATE {}", column.collation),
            };
            Some(format!("k{} {}{collation}", i + 1, column.type_name))
        })
        .collect();
    expand::create_schema(&work_schema, &migration.owner_name)?;
    identity::as_role(owner, &Session::own(), || {
        utility::run(&format!(
            "CREATE TABLE {list} (place tid, {})",
            typed.join(", ")
        ))
    })?;
    let oid = shadow::oid_of(&list)?;
    expand::hide_from_decoding(&[oid], table.oid)?;
    // The scan begins with the first block, so that the list is in the order in which the rows lie.
    identity::set_for_transaction("synchronize_seqscans", "off")?;
    let rows = identity::as_role(owner, &migration.session, || {
        dml::list_rows(sql, &driver.key, &list)
    })?;
    identity::as_role(owner, &Session::own(), || {
        utility::run(&format!("ANALYZE {list}"))
    })?;
    let end_block = Table::open(oid, LockMode::AccessShare).blocks();
    backfill::insert(backfill::New {
        id,
        migration_id: &migration.id,
        step,
        relation: table.oid,
        target,
        work_schema: &work_schema,
        key_columns: &driver.key,
        rows_listed: rows,
        end_block,
    })?;
    let wanted = i64::from(guc::max_parallel_backfill()) * 4;
    let lanes = wanted.min(end_block / MIN_LANE_BLOCKS).max(1);
    progress::insert(Of::Backfill(id), end_block, lanes, FIRST_BATCH_BLOCKS)?;
    waitpoint::reach("batch_list_before_commit")
}

/// An id whose work schema is free; after a restore an old one may be there.
fn free_id() -> Result<i64> {
    loop {
        let id = backfill::next_id()?;
        if relation::schema_oid(&format!("_transmute_{id}_data"))?.is_none() {
            return Ok(id);
        }
    }
}

/// A part of the list: blocks `from..to`, and where the rows lay.
pub struct Range {
    from: i64,
    to: i64,
    /// Keys listed.
    pub keys: i64,
    /// First and last block of the table.
    blocks: (i64, i64),
}

/// What blocks `from..to` of the list are about.
pub fn of_blocks(work: &Work, from: i64, to: i64) -> Result<Range> {
    let (keys, first, last) = spi::first(
        &format!(
            "SELECT count(*), coalesce((min(l.place)::text::point)[0], 0)::bigint, \
               coalesce((max(l.place)::text::point)[0], 0)::bigint FROM {} l \
             WHERE l.ctid >= '({from},0)' AND l.ctid < '({to},0)'",
            list_name(&work.backfill)
        ),
        &[],
        |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
    )?
    .ok_or_else(|| Error::Bug("an aggregate without a row".into()))?;
    Ok(Range {
        from,
        to,
        keys,
        blocks: (first, last),
    })
}

impl Range {
    fn part_of_list(&self) -> String {
        format!(
            "{ALIAS}.ctid OPERATOR(pg_catalog.>=) '({},0)' AND {ALIAS}.ctid OPERATOR(pg_catalog.<) '({},0)'",
            self.from, self.to
        )
    }

    fn where_they_lay(&self, work: &Work) -> String {
        let name = &work.driver_name;
        format!(
            "{name}.ctid OPERATOR(pg_catalog.>=) '({},0)' AND {name}.ctid OPERATOR(pg_catalog.<) '({},0)'",
            self.blocks.0,
            self.blocks.1 + 1
        )
    }

    /// The condition "the row lies where the listed ones lay, and is listed": one pass over some blocks of the table.
    pub fn in_place(&self, work: &Work) -> String {
        format!(
            "{} AND {}",
            self.where_they_lay(work),
            in_list(work, &self.part_of_list())
        )
    }

    /// The condition "the row is listed at one of these places of the list, and lies elsewhere". In the snapshot of
    /// `in_place` the two have no row in common. For statements that change no row of the driver.
    pub fn elsewhere(&self, work: &Work, places: &[String]) -> String {
        format!(
            "NOT ({}) AND {}",
            self.where_they_lay(work),
            in_places(work, places)
        )
    }

    /// The query for the places in the list whose row does not lie where it lay when it was listed, or, where `ours` is
    /// given, was changed there by another transaction.
    pub fn moved(&self, work: &Work, ours: Option<u32>) -> String {
        let mut same = vec![format!("t.ctid OPERATOR(pg_catalog.=) {ALIAS}.place")];
        for (i, (column, operator)) in work.key().enumerate() {
            same.push(format!("{ALIAS}.k{} {operator} t.{column}", i + 1));
        }
        if let Some(xid) = ours {
            let by = |xid: u32| format!("t.xmax OPERATOR(pg_catalog.=) '{xid}'::pg_catalog.xid");
            same.push(format!("({} OR {})", by(0), by(xid)));
        }
        format!(
            "SELECT {ALIAS}.ctid FROM {} AS {ALIAS} WHERE {} AND NOT EXISTS (SELECT FROM {} AS t WHERE {})",
            list_name(&work.backfill),
            self.part_of_list(),
            work.table,
            same.join(" AND ")
        )
    }
}

/// The condition "the row is listed at one of these places of the list, and `ours` did not write it".
pub fn not_ours(work: &Work, places: &[String], ours: u32) -> String {
    format!(
        "{}.xmin OPERATOR(pg_catalog.<>) '{ours}'::pg_catalog.xid AND {}",
        work.driver_name,
        in_places(work, places)
    )
}

/// The condition "the key of the row stands at one of these places of the list".
pub fn in_places(work: &Work, places: &[String]) -> String {
    let places: Vec<String> = places.iter().map(|p| format!("\"{p}\"")).collect();
    in_list(
        work,
        &format!(
            "{ALIAS}.ctid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.tid[])",
            places.join(",")
        ),
    )
}

fn in_list(work: &Work, which: &str) -> String {
    let list = list_name(&work.backfill);
    let mut conditions = vec![which.to_string()];
    for (i, (column, operator)) in work
        .backfill
        .key_columns
        .iter()
        .zip(&work.equality)
        .enumerate()
    {
        conditions.push(format!(
            "{ALIAS}.k{} {operator} {}.{column}",
            i + 1,
            work.driver_name
        ));
    }
    format!(
        "EXISTS (SELECT FROM {list} AS {ALIAS} WHERE {})",
        conditions.join(" AND ")
    )
}

/// Places and keys of one block of the list.
pub fn rows_of_block(work: &Work, block: i64) -> Result<Vec<(String, String)>> {
    rows_where(
        work,
        &format!("l.ctid >= '({block},0)' AND l.ctid < '({},0)'", block + 1),
    )
}

/// The row whose key stands at this place of the list, as it is now, if it is there.
pub fn row_at(work: &Work, place: &str) -> Result<Option<Vec<NamedValue>>> {
    let mut same = vec![format!(
        "{ALIAS}.ctid OPERATOR(pg_catalog.=) {}::pg_catalog.tid",
        quote_literal(place)
    )];
    for (i, (column, operator)) in work.key().enumerate() {
        same.push(format!("{ALIAS}.k{} {operator} t.{column}", i + 1));
    }
    let sql = CString::new(format!(
        "SELECT t.* FROM {} AS t, {} AS {ALIAS} WHERE {}",
        work.table,
        list_name(&work.backfill),
        same.join(" AND ")
    ))
    .map_err(|_| Error::Bug("a query holds a NUL".into()))?;
    xact::with_latest_snapshot(|_| work.as_owner(|| spi::named_row_in_active_snapshot(&sql)))
}

fn rows_where(work: &Work, condition: &str) -> Result<Vec<(String, String)>> {
    let keys: Vec<String> = (1..=work.backfill.key_columns.len())
        .map(|i| format!("l.k{i}::text"))
        .collect();
    let names = work.backfill.key_columns.join(", ");
    spi::query(
        &format!(
            "SELECT l.ctid::text, $1 || concat_ws(', ', {}) || ')' FROM {} l WHERE {condition} ORDER BY l.ctid",
            keys.join(", "),
            list_name(&work.backfill)
        ),
        &[format!("({names})=(").into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// The list must be what `prepare` made.
pub fn require_list(work: &Work) -> Result<()> {
    let list = list_name(&work.backfill);
    let there: Option<bool> = spi::value(
        "SELECT to_regclass($1) IS NOT NULL",
        &[list.to_string().into()],
    )?;
    if there == Some(true) {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "the list of rows to work on is gone".into(),
        detail: format!("{list} was dropped by hand."),
        hint: "What was done stays done; write the rest of the statement by hand.".into(),
    })
}
