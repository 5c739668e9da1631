//! A table of the script's own that takes the place of another one, by its name: partitioned, say. It is the shadow. The server
//! itself finds the partition of each row, so what the other files do below SQL is done here by statements, each with
//! the snapshot that is asked for. The protocol is the same: capture, copy, drains that are about states, check, swap.

mod fit;
mod swap;

pub use fit::{fit, make, read, require_droppable, Fitting};
pub use swap::swap;

use super::Work;
use crate::catalog::column::{self, Column};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal};
use crate::pg::heap::{Snapshot, Tid};
use crate::pg::key::{self, LoggedKey};
use crate::pg::{dml, identity, spi, utility};
use crate::store::rewrite::{Copied, Successor};
/// A work whose shadow is a table of the script's own, as the statements need it.
pub struct Into<'a> {
    work: &'a Work,
    successor: &'a Successor,
}

impl<'a> Into<'a> {
    pub fn of(work: &'a Work) -> Option<Into<'a>> {
        let successor = work.rewrite.successor.as_ref()?;
        Some(Into { work, successor })
    }

    /// INSERT … SELECT of the rows of `o`, without the FROM.
    fn insert(&self) -> String {
        let list = |prefix: &str, name: fn(&Copied) -> &str| {
            let names = self.successor.columns.iter();
            let names: Vec<String> = names
                .map(|c| format!("{prefix}{}", quote_ident(name(c))))
                .collect();
            names.join(", ")
        };
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {}",
            self.work.rewrite.shadow_name(),
            list("", |c| &c.into),
            list("o.", |c| &c.from)
        )
    }

    /// The columns of the key, with those of the successor that they are copied into.
    fn key(&self) -> Result<Vec<(Column, &'a str)>> {
        let columns = column::list(self.work.rewrite.relation)?;
        let gone = || Error::Bug("a key column is not copied".into());
        let numbers = self.work.rewrite.key_columns.iter();
        numbers
            .map(|number| {
                let column = columns.iter().find(|c| c.number == *number);
                let column = column.ok_or_else(gone)?.clone();
                let mut copies = self.successor.columns.iter();
                let copied = copies.find(|c| c.from == column.name);
                let into = copied.ok_or_else(gone)?;
                Ok((column, into.into.as_str()))
            })
            .collect()
    }

    /// Runs a statement as the owner of both, triggers of users not firing, over the rows that the snapshot sees.
    fn run(&self, sql: &str, snapshot: Snapshot) -> Result<i64> {
        self.work.as_owner(|| {
            reach_in_part()?;
            identity::set_for_transaction("session_replication_role", "replica")?;
            dml::run_as_of(sql, snapshot)
        })
    }

    /// Copies the rows of blocks `from..to`. What is there already, or is in the way of a row, is not touched: a row that was written
    /// meanwhile is brought over by the drain, and what another row keeps out shows in the check.
    ///
    /// Nothing can be there while nobody has written to the table, and a plain INSERT needs less time and WAL. What is in the way all
    /// the same – another hand copies what was written since – is an error of the server's, for which the caller asks by rows.
    pub fn copy_range(&self, from: i64, to: i64, snapshot: Snapshot) -> Result<i64> {
        let is_untouched = key::open_log(self.work.rewrite.key_log).blocks() == 0;
        let sql = format!(
            "{} FROM ONLY {} o WHERE o.ctid >= '({from},0)'::pg_catalog.tid AND o.ctid < '({to},0)'::pg_catalog.tid{}",
            self.insert(),
            self.work.table.name,
            if is_untouched { "" } else { " ON CONFLICT DO NOTHING" }
        );
        self.run(&sql, snapshot)
    }

    /// The same of single rows.
    pub fn copy_rows(&self, rows: &[Tid], snapshot: Snapshot) -> Result<i64> {
        let list: Vec<String> = rows
            .iter()
            .map(|tid| format!("\"({},{})\"", tid.block, tid.offset))
            .collect();
        let sql = format!(
            "{} FROM ONLY {} o WHERE o.ctid = ANY ('{{{}}}'::pg_catalog.tid[]) ON CONFLICT DO NOTHING",
            self.insert(),
            self.work.table.name,
            list.join(",")
        );
        self.run(&sql, snapshot)
    }

    /// Empties the successor.
    pub fn empty(&self, by_delete: bool, snapshot: Snapshot) -> Result<()> {
        let name = self.work.rewrite.shadow_name();
        match by_delete {
            true => self
                .run(&format!("DELETE FROM {name}"), snapshot)
                .map(|_| ()),
            false => self.work.as_owner(|| {
                identity::set_for_transaction("session_replication_role", "replica")?;
                utility::run(&format!("TRUNCATE {name}"))
            }),
        }
    }

    /// These keys, as a table `k` with columns k1, k2, …
    fn keys(&self, part: &[LoggedKey]) -> Result<String> {
        let key = self.key()?;
        let mut values: Vec<Vec<String>> = vec![Vec::new(); key.len()];
        let mut mapper = self.work.mapper(false)?;
        for logged in part {
            let texts = logged.values(&mut mapper);
            for (column, text) in values.iter_mut().zip(texts) {
                let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                column.push(format!("\"{quoted}\""));
            }
            mapper.reset();
        }
        let (mut casts, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (i, ((column, _), values)) in key.iter().zip(values).enumerate() {
            let name = format!("k{}", i + 1);
            casts.push(format!("u.{name}::{} AS {name}", column.type_name));
            let array = quote_literal(&format!("{{{}}}", values.join(",")));
            arrays.push(format!("{array}::pg_catalog.text[]"));
            names.push(name);
        }
        Ok(format!(
            "(SELECT DISTINCT {} FROM ROWS FROM (pg_catalog.unnest({})) AS u ({})) k",
            casts.join(", "),
            arrays.join(", "),
            names.join(", ")
        ))
    }

    /// `a.key = b.key` for all columns; what a column is called on either side.
    fn equal(
        &self,
        left: impl Fn(usize, &Column, &str) -> String,
        right: impl Fn(usize, &Column, &str) -> String,
    ) -> Result<String> {
        let mut all = Vec::new();
        for (i, (column, into)) in self.key()?.iter().enumerate() {
            all.push(format!(
                "{} {} {}",
                left(i, column, into),
                column::equality(column.type_oid)?,
                right(i, column, into)
            ));
        }
        Ok(all.join(" AND "))
    }

    /// Takes the rows of these keys out of the successor.
    pub fn delete(&self, part: &[LoggedKey], snapshot: Snapshot) -> Result<i64> {
        let on = self.equal(
            |_, _, into| format!("n.{}", quote_ident(into)),
            |i, _, _| format!("k.k{}", i + 1),
        )?;
        let keys = self.work.as_owner(|| self.keys(part))?;
        let name = self.work.rewrite.shadow_name();
        self.run(
            &format!("DELETE FROM {name} n USING {keys} WHERE {on}"),
            snapshot,
        )
    }

    /// Puts the rows of these keys into it, as the snapshot sees them in the table.
    pub fn bring_over(&self, part: &[LoggedKey], snapshot: Snapshot) -> Result<i64> {
        let on = self.equal(
            |_, column, _| format!("o.{}", quote_ident(&column.name)),
            |i, _, _| format!("k.k{}", i + 1),
        )?;
        let keys = self.work.as_owner(|| self.keys(part))?;
        let table = &self.work.table.name;
        let sql = format!("{} FROM {keys} JOIN ONLY {table} o ON {on}", self.insert());
        self.run(&sql, snapshot)
    }

    /// Compares the rows of blocks `from..to` of the table with theirs in the successor, byte for byte: how many there are, and
    /// which have none that is equal.
    pub fn compare(&self, from: i64, to: i64) -> Result<(i64, Vec<Tid>)> {
        let mut on = self.equal(
            |_, _, into| format!("n.{}", quote_ident(into)),
            |_, column, _| format!("o.{}", quote_ident(&column.name)),
        )?;
        // With them only one partition is looked into.
        let columns = column::list(self.work.rewrite.relation)?;
        let keyed = &self.work.rewrite.key_columns;
        let divided: Vec<String> = spi::query_kept(
            include_str!("../../../sql/query/partition_columns.sql"),
            &[self.work.rewrite.shadow.into()],
            |row| row.need(1),
        )?;
        let mut lists = (Vec::new(), Vec::new());
        for copied in &self.successor.columns {
            let column = columns.iter().find(|c| c.name == copied.from);
            let (new, old) = (
                format!("n.{}", quote_ident(&copied.into)),
                format!("o.{}", quote_ident(&copied.from)),
            );
            let adds = |c: &&Column| {
                c.not_null && divided.contains(&copied.into) && !keyed.contains(&c.number)
            };
            if let Some(column) = column.filter(adds) {
                let equality = column::equality(column.type_oid)?;
                on.push_str(&format!(" AND {new} {equality} {old}"));
            }
            lists.0.push(old);
            lists.1.push(new);
        }
        let (_, first) = self.key()?.swap_remove(0);
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.string_agg(o.ctid::pg_catalog.text, ' ') FILTER (WHERE n.{} IS NULL \
               OR ROW({})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({})::pg_catalog.record) \
             FROM ONLY {} o LEFT JOIN {} n ON {on} \
             WHERE o.ctid >= '({from},0)'::pg_catalog.tid AND o.ctid < '({to},0)'::pg_catalog.tid",
            quote_ident(first),
            lists.0.join(", "),
            lists.1.join(", "),
            self.work.table.name,
            self.work.rewrite.shadow_name()
        );
        let row = self.work.as_owner(|| {
            reach_in_part()?;
            one_row(&sql)
        })?;
        let wrong = || Error::Bug("a comparison that gives no row".into());
        let [rows, unequal] = row.as_slice() else {
            return Err(wrong());
        };
        let unequal = unequal.split_whitespace().map(Tid::of_text);
        let unequal = unequal.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        Ok((rows.parse().map_err(|_| wrong())?, unequal))
    }

    /// Its rows, as the active snapshot sees them.
    pub fn count(&self) -> Result<i64> {
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM {}",
            self.work.rewrite.shadow_name()
        );
        let row = self.work.as_owner(|| one_row(&sql))?;
        let count = row.first().and_then(|text| text.parse().ok());
        count.ok_or_else(|| Error::Bug("a count that is no number".into()))
    }
}

/// A few blocks or keys of many, whatever the planner has not been told of them: never the whole table for each part. (A range of
/// blocks has no parallel plan; one of the whole table can look cheaper.)
fn reach_in_part() -> Result<()> {
    for setting in ["enable_seqscan", "enable_hashjoin", "enable_mergejoin"] {
        identity::set_for_transaction(setting, "off")?;
    }
    identity::set_for_transaction("max_parallel_workers_per_gather", "0")
}

fn one_row(sql: &str) -> Result<Vec<String>> {
    let sql = std::ffi::CString::new(sql).map_err(|_| Error::Bug("a query holds a NUL".into()))?;
    Ok(spi::first_row_in_active_snapshot(&sql)?.unwrap_or_default())
}
