//! Rows of any query in the order of a key: the parts of it between two keys. Nothing but SELECT is asked of it, so that it
//! may be a foreign table.

use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal};
use crate::pg::spi::{self, NamedValue};
use crate::pg::{dml, utility, xact};
use serde::{Deserialize, Serialize};
use std::ffi::CString;

/// What the rows are called inside the statement of a copy.
pub const ROW: &str = "record";

/// A copy as it was registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// `(query) AS record`, or the table.
    pub source: String,
    /// Names and types of the key.
    pub key: Vec<(String, String)>,
    /// INSERT … SELECT … FROM the source, up to its condition.
    pub insert: String,
    /// What follows the condition.
    pub tail: String,
    pub rollback: Option<String>,
    pub batch_size: i32,
}

/// From behind a key up to and with another one; `None`: the end of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    pub after: Option<&'a [String]>,
    pub to: Option<&'a [String]>,
}

impl Copy {
    fn columns(&self) -> Vec<String> {
        self.key
            .iter()
            .map(|(name, _)| format!("{ROW}.{}", quote_ident(name)))
            .collect()
    }

    fn literals(&self, key: &[String]) -> Vec<String> {
        self.key
            .iter()
            .zip(key)
            .map(|((_, of), value)| format!("{}::{of}", quote_literal(value)))
            .collect()
    }

    /// `record.key operator value`, as rows where the key has several columns: one comparison is what a foreign server can be
    /// asked.
    fn compare(&self, operator: &str, key: &[String]) -> String {
        let (columns, values) = (self.columns(), self.literals(key));
        match columns.len() {
            1 => format!("{} {operator} {}", columns[0], values[0]),
            _ => format!(
                "({}) {operator} ({})",
                columns.join(", "),
                values.join(", ")
            ),
        }
    }

    fn condition(&self, range: Range<'_>) -> String {
        let mut all = Vec::new();
        all.extend(range.after.map(|key| self.compare(">", key)));
        all.extend(range.to.map(|key| self.compare("<=", key)));
        match all.is_empty() {
            true => "true".into(),
            false => all.join(" AND "),
        }
    }

    fn texts(&self) -> String {
        let texts: Vec<String> = self
            .columns()
            .iter()
            .map(|c| format!("{c}::text"))
            .collect();
        texts.join(", ")
    }

    /// The key `size` rows behind another one; `None`: there are not so many.
    pub fn boundary(&self, after: Option<&[String]>, size: i32) -> Result<Option<Vec<String>>> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1",
            self.texts(),
            self.source,
            self.condition(Range { after, to: None }),
            self.columns().join(", "),
            size - 1
        );
        Ok(rows(&sql)?.into_iter().next())
    }

    /// The different keys of a range, in order.
    pub fn keys(&self, range: Range<'_>) -> Result<Vec<Vec<String>>> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} GROUP BY {} ORDER BY {}",
            self.texts(),
            self.source,
            self.condition(range),
            self.columns().join(", "),
            self.columns().join(", ")
        );
        rows(&sql)
    }

    /// Rows that no cursor comes by.
    pub fn without_key(&self) -> Result<bool> {
        let nulls: Vec<String> = self
            .columns()
            .iter()
            .map(|c| format!("{c} IS NULL"))
            .collect();
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} LIMIT 1",
            self.source,
            nulls.join(" OR ")
        );
        Ok(!rows(&sql)?.is_empty())
    }

    /// Copies a range; how many rows were written.
    pub fn write(&self, range: Range<'_>) -> Result<i64> {
        self.write_where(&self.condition(range))
    }

    /// Copies from the first of these keys to the last, all of which follow each other.
    pub fn write_between(&self, first: &[String], last: &[String]) -> Result<i64> {
        self.write_where(&format!(
            "{} AND {}",
            self.compare(">=", first),
            self.compare("<=", last)
        ))
    }

    fn write_where(&self, condition: &str) -> Result<i64> {
        // What would be checked at the commit is checked here: nothing may be left for it in a restricted context.
        utility::run("SET CONSTRAINTS ALL IMMEDIATE")?;
        dml::run(&format!("{} WHERE {condition}{}", self.insert, self.tail))
    }

    /// A row, as the source has it now.
    pub fn row(&self, key: &[String]) -> Result<Option<Vec<NamedValue>>> {
        let sql = to_c(&format!(
            "SELECT {ROW}.* FROM {} WHERE {} LIMIT 1",
            self.source,
            self.compare("=", key)
        ))?;
        xact::with_latest_snapshot(|_| spi::named_row_in_active_snapshot(&sql))
    }

    /// `(columns)=(values)` for people.
    pub fn key_text(&self, key: &[String]) -> String {
        let names: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
        format!("({})=({})", names.join(", "), key.join(", "))
    }
}

fn rows(sql: &str) -> Result<Vec<Vec<String>>> {
    let sql = to_c(sql)?;
    xact::with_latest_snapshot(|_| spi::rows_in_active_snapshot(&sql, 0))
}

fn to_c(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::Bug("a query holds a NUL".into()))
}
