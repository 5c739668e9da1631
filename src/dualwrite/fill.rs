//! The new columns of rows that are there: filled by ranges of blocks, then compared, every row in one snapshot, until
//! nothing differs.
//!
//! A row that moves while it is filled is met in its new place or not at all; if it was written by a statement that the rule
//! was about, it is right. What is missed, the check finds.

use super::rule::key_columns;
use crate::catalog::column::{self, Column};
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::quote_ident;
use crate::model::rule::Mechanism;
use crate::model::throttle::BatchSizer;
use crate::pg::expression::canonical;
use crate::pg::identity::{self, Session};
use crate::pg::relation::{LockMode, Table};
use crate::pg::same::{self, Same};
use crate::pg::xact::{self, End};
use crate::pg::{dml, dual_write, neighbours, spi, waitpoint};
use crate::rewrite::halving;
use crate::store::dead_letter::{self, OfRule};
use crate::store::progress::{self, Done, Of};
use crate::store::rule::{self as store, Kept};
use std::ffi::CString;
use std::time::Instant;

/// 1 to 1024 blocks a batch.
const MIN_BLOCKS: u32 = 1;
const MAX_BLOCKS: u32 = 1024;
/// Blocks that the check reads in one query.
const CHECK_BLOCKS: i64 = 1024;
/// Rows that a check mends itself; more, and another pass is quicker.
const MENDED_AT_ONCE: usize = 10_000;

/// How far it got.
#[derive(Debug, PartialEq)]
pub enum Filled {
    /// A batch is done; it took so long, milliseconds, and wrote so much WAL, bytes.
    Batch {
        rows: i64,
        busy_ms: f64,
        wal: u64,
    },
    /// The rest is in other hands.
    Others,
    All,
}

/// A rule with what its work needs.
pub struct Work<'a> {
    pub kept: &'a Kept,
    pub table: &'a Relation,
    columns: Vec<Column>,
    /// Of the key, in its order; none: the table has no key.
    key: Vec<String>,
    /// Names and constants as the rule has them written down; the time zone is that of register.
    session: Session,
}

impl<'a> Work<'a> {
    pub fn new(kept: &'a Kept, table: &'a Relation, registered: &Session) -> Result<Work<'a>> {
        let columns = column::list(table.oid)?;
        let mut session = canonical();
        for (name, value) in &registered.settings {
            if matches!(name.as_str(), "TimeZone" | "lc_monetary") {
                session.set(name, value);
            }
        }
        Ok(Work {
            session,
            key: key_columns(table.oid, &columns)?,
            kept,
            table,
            columns,
        })
    }

    fn column(&self, name: &str) -> Result<&Column> {
        self.columns
            .iter()
            .find(|c| !c.dropped && c.name == name)
            .ok_or_else(|| Error::Prerequisite {
                problem: "the table was changed while its columns were kept equal".into(),
                detail: format!("{} has no column \"{name}\" any more.", self.table.name),
                hint: "Undo that change, then transmute.resume(id, reason).".into(),
            })
    }

    /// The condition "the row is not what the rule says", in either direction.
    fn differs(&self) -> Result<String> {
        let rule = &self.kept.rule;
        let mut made = Vec::new();
        let mut conditions = Vec::new();
        for assignment in &rule.forth {
            let column = self.column(&assignment.column)?;
            let name = quote_ident(&column.name);
            let value = format!("({})::{}", assignment.expression, column.type_name);
            if !rule.exact {
                // Evaluated again it may give something else: a value is enough.
                conditions.push(format!("({name} IS NULL AND {value} IS NOT NULL)"));
            }
            made.push((column, value));
        }
        let forth = match rule.exact {
            true => unequal(&made),
            false => conditions.join(" OR "),
        };
        if !rule.is_two_way() {
            return Ok(forth);
        }
        // What a new application wrote need not come back by the old columns: "van Dyke" is no second word.
        let mut made = Vec::new();
        for assignment in &rule.back {
            let column = self.column(&assignment.column)?;
            made.push((
                column,
                format!("({})::{}", assignment.expression, column.type_name),
            ));
        }
        Ok(format!("({forth}) AND ({})", unequal(&made)))
    }

    /// The statement that makes a row what the rule says.
    fn update(&self) -> String {
        let rule = &self.kept.rule;
        let sets: Vec<String> = match rule.mechanism {
            // Touching what it is computed from makes the server compute it.
            Mechanism::Rule => rule
                .sources
                .iter()
                .map(|s| format!("{} = {}", quote_ident(s), quote_ident(s)))
                .collect(),
            Mechanism::Trigger => rule
                .forth
                .iter()
                .map(|a| format!("{} = {}", quote_ident(&a.column), a.expression))
                .collect(),
        };
        format!("UPDATE ONLY {} SET {}", self.table.name, sets.join(", "))
    }

    /// Fills the rows that `which` names and that differ.
    fn fill(&self, which: &str) -> Result<i64> {
        let condition = format!("{which} AND ({})", self.differs()?);
        let update = self.update();
        xact::with_latest_snapshot(|snapshot| {
            identity::as_role(self.table.owner, &self.session, || {
                dual_write::filling(|| dml::run_where(&update, &condition, snapshot))
            })
        })
    }

    /// A query as the table's owner, with the snapshot that is active.
    fn query(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let text = CString::new(sql).map_err(|_| Error::Bug("a query holds a NUL".into()))?;
        identity::as_role(self.table.owner, &self.session, || {
            spi::rows_in_active_snapshot(&text, 0)
        })
    }

    /// Where the rows lie that `which` names.
    fn places(&self, which: &str) -> Result<Vec<String>> {
        let found = self.query(&format!(
            "SELECT ctid FROM ONLY {} WHERE {which}",
            self.table.name
        ))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// How many rows `which` names, and where those lie that are different.
    fn compare(&self, which: &str, differs: &str) -> Result<(i64, Vec<String>)> {
        let found = self.query(&format!(
            "SELECT count(*), string_agg(ctid::text, ';') FILTER (WHERE {differs}) FROM ONLY {} WHERE {which}",
            self.table.name
        ))?;
        let row = found.into_iter().next().unwrap_or_default();
        let rows = row.first().and_then(|n| n.parse().ok()).unwrap_or(0);
        let places = row.get(1).map_or("", String::as_str);
        let places = places.split(';').filter(|p| !p.is_empty());
        Ok((rows, places.map(str::to_string).collect()))
    }

    /// Sets a row aside that the rule fails on.
    fn refuse(&self, place: &str, error: &Error) -> Result<()> {
        let shown = match self.key.is_empty() {
            true => &self.kept.rule.sources,
            false => &self.key,
        };
        let list: Vec<String> = shown
            .iter()
            .map(|name| format!("{}::text", quote_ident(name)))
            .collect();
        let values: Option<Vec<Option<String>>> = spi::first(
            &format!(
                "SELECT ARRAY[{}] FROM ONLY {} WHERE ctid = $1::tid",
                list.join(", "),
                self.table.name
            ),
            &[place.into()],
            |row| row.need(1),
        )?;
        let Some(values) = values else {
            return Ok(()); // it has moved meanwhile
        };
        set_aside(
            &self.kept.migration_id,
            self.kept.id,
            shown,
            &values,
            self.key.is_empty().then_some(place),
            (&expressions(&self.kept.rule.forth), error),
        )
    }
}

/// Expressions of a rule, for people.
pub fn expressions(assignments: &[crate::model::rule::Assignment]) -> String {
    let all: Vec<String> = assignments
        .iter()
        .map(|a| format!("{} = {}", quote_ident(&a.column), a.expression))
        .collect();
    all.join(", ")
}

/// Writes a refused row down: its columns and values, where it lies if it has no key, the expressions and the error.
pub fn set_aside(
    migration_id: &str,
    rule_id: i64,
    names: &[String],
    values: &[Option<String>],
    place: Option<&str>,
    (expression, error): (&str, &Error),
) -> Result<()> {
    let quoted: Vec<String> = names.iter().map(|n| quote_ident(n)).collect();
    let shown: Vec<&str> = values
        .iter()
        .map(|v| v.as_deref().unwrap_or("NULL"))
        .collect();
    let key_values: Vec<String> = match place {
        Some(_) => Vec::new(),
        None => values
            .iter()
            .map(|v| v.clone().unwrap_or_default())
            .collect(),
    };
    let row = OfRule {
        migration_id,
        rule_id,
        key_text: &format!("({})=({})", quoted.join(", "), shown.join(", ")),
        key_values: &key_values,
        place,
    };
    dead_letter::record_rule(&row, expression, error)
}

/// The condition "these columns are not these values", byte for byte as stored. Types of which equal values are the same bytes are
/// compared by their own operator, which costs a tenth of forming two rows; the rest as rows.
fn unequal(made: &[(&Column, String)]) -> String {
    let (mut conditions, mut columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (column, value) in made {
        let name = quote_ident(&column.name);
        match same::of_type(column.type_oid) {
            None => {
                columns.push(name);
                values.push(value.as_str());
            }
            Some(Same::Plainly) => conditions.push(format!("{name} IS DISTINCT FROM {value}")),
            // Whatever their collations are, and whether they agree: bytes.
            Some(Same::AsBytes) => conditions.push(format!(
                "{name} COLLATE pg_catalog.\"C\" IS DISTINCT FROM ({value}) COLLATE pg_catalog.\"C\""
            )),
        }
    }
    if !columns.is_empty() {
        conditions.push(format!(
            "ROW({})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({})::pg_catalog.record",
            columns.join(", "),
            values.join(", ")
        ));
    }
    conditions.join(" OR ")
}

fn blocks(from: i64, to: i64) -> String {
    format!(
        "ctid OPERATOR(pg_catalog.>=) '({from},0)'::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) '({to},0)'::pg_catalog.tid"
    )
}

fn at(places: &[String]) -> String {
    let quoted: Vec<String> = places.iter().map(|p| format!("\"{p}\"")).collect();
    format!(
        "ctid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.tid[])",
        quoted.join(",")
    )
}

/// Fills one range of blocks and moves the cursor, in one transaction.
pub fn batch(work: &Work<'_>) -> Result<Filled> {
    let of = Of::Rule(work.kept.id);
    let Some(lane) = progress::claim(of)? else {
        return Ok(match progress::unfinished(of)? {
            0 => Filled::All,
            _ => Filled::Others,
        });
    };
    silence()?;
    let _heeding = neighbours::heed();
    let (started, wal_before) = (Instant::now(), dml::wal_written());
    let end = (lane.next_block + i64::from(lane.batch_blocks)).min(lane.end_block);
    let all: Vec<i64> = (lane.next_block..end).collect();
    let mut rows = 0;
    let mut refused = Vec::new();
    halving::run(
        &all,
        &mut |part| {
            rows += work.fill(&blocks(part[0], part[part.len() - 1] + 1))?;
            Ok(())
        },
        &mut |block, _| {
            refused.push(*block);
            Ok(())
        },
    )?;
    for block in refused {
        let places = xact::with_latest_snapshot(|_| work.places(&blocks(block, block + 1)))?;
        rows += row_by_row(work, &places)?;
    }
    waitpoint::reach("rule_fill_before_commit")?;
    let busy_ms = started.elapsed().as_secs_f64() * 1000.0;
    let sizer = BatchSizer {
        target_ms: guc::batch_target_ms(),
        min_blocks: MIN_BLOCKS,
        max_blocks: MAX_BLOCKS,
    };
    let done = Done {
        next_block: end,
        rows,
        blocks: all.len() as i64,
        busy_ms,
        next_size: sizer.next_after(lane.last, all.len() as u32, busy_ms),
    };
    progress::advance(of, lane.lane, done)?;
    Ok(Filled::Batch {
        rows,
        busy_ms,
        wal: dml::wal_written().saturating_sub(wal_before),
    })
}

/// Triggers and rules of the application do not notice what is filled: an `updated_at` must not move.
fn silence() -> Result<()> {
    identity::set_for_transaction("session_replication_role", "replica")
}

fn row_by_row(work: &Work<'_>, places: &[String]) -> Result<i64> {
    let mut rows = 0;
    halving::run(
        places,
        &mut |part| {
            rows += work.fill(&at(part))?;
            Ok(())
        },
        &mut |place, error| work.refuse(place, &error),
    )?;
    Ok(rows)
}

/// What a check found.
#[derive(Debug, PartialEq)]
pub enum Checked {
    /// Every row of one snapshot is what the rule says.
    Equal,
    /// Rows were different and are filled now: check again.
    Mended,
    /// So many rows are set aside.
    SetAside(i64),
}

/// Compares every row with the rule, in one snapshot, and fills those that differ. One transaction.
///
/// No row can become different behind it: a writer that touches what the rule reads computes it, one that does not
/// carries on what its row had, and a row not yet filled is seen here.
pub fn check(work: &Work<'_>) -> Result<Checked> {
    silence()?;
    let _heeding = neighbours::heed();
    let blocks_now = Table::open(work.table.oid, LockMode::AccessShare).blocks();
    let differs = work.differs()?;
    let ranges: Vec<i64> = (0..blocks_now).step_by(CHECK_BLOCKS as usize).collect();
    let mut rows = 0;
    let mut different = Vec::new();
    let mut refused = Vec::new();
    xact::with_latest_snapshot(|_| {
        for from in ranges {
            let range: Vec<i64> = (from..(from + CHECK_BLOCKS).min(blocks_now)).collect();
            let mut failing = Vec::new();
            halving::run(
                &range,
                &mut |part| {
                    let which = blocks(part[0], part[part.len() - 1] + 1);
                    let (seen, found) = work.compare(&which, &differs)?;
                    rows += seen;
                    different.extend(found);
                    Ok(())
                },
                &mut |block, _| {
                    failing.push(*block);
                    Ok(())
                },
            )?;
            for block in failing {
                halving::run(
                    &work.places(&blocks(block, block + 1))?,
                    &mut |part| {
                        let (seen, found) = work.compare(&at(part), &differs)?;
                        rows += seen;
                        different.extend(found);
                        Ok(())
                    },
                    &mut |place, error| {
                        refused.push((place.clone(), error));
                        Ok(())
                    },
                )?;
            }
        }
        Ok(())
    })?;
    rows += refused.len() as i64;
    for (place, error) in &refused {
        work.refuse(place, error)?;
    }
    let id = work.kept.id;
    if different.len() > MENDED_AT_ONCE {
        progress::delete(Of::Rule(id))?;
        store::begin_pass(id, blocks_now)?;
        super::rule::lanes(id, blocks_now)?;
    } else {
        row_by_row(work, &different)?;
    }
    let open = dead_letter::open_of_rule(id)?.len() as i64;
    let passed = different.is_empty() && refused.is_empty() && open == 0;
    store::set_checked(id, rows, different.len() as i64, passed)?;
    waitpoint::reach("rule_check_before_commit")?;
    Ok(match (passed, open) {
        (true, _) => Checked::Equal,
        (false, 0) => Checked::Mended,
        (false, open) if different.is_empty() => Checked::SetAside(open),
        (false, _) => Checked::Mended,
    })
}

/// Tries the rows that were set aside again; how many are left.
pub fn settle(work: &Work<'_>) -> Result<i64> {
    silence()?;
    let differs = work.differs()?;
    let mut left = 0;
    for letter in dead_letter::open_of_rule(work.kept.id)? {
        let which = match (&letter.place, letter.key_values.is_empty()) {
            (Some(place), _) => at(std::slice::from_ref(place)),
            (None, false) => work.with_key(&letter.key_values)?,
            // Of a table without a key, written by a statement: the check finds it again.
            (None, true) => {
                dead_letter::resolve_rule_letter(&letter)?;
                continue;
            }
        };
        let tried = xact::subtransaction(End::Keep, || {
            // Evaluated also where nothing is to be filled: an error shows either way.
            xact::with_latest_snapshot(|_| work.compare(&which, &differs))?;
            work.fill(&which)
        });
        match tried {
            Ok(_) => {
                waitpoint::reach("rule_letter_before_resolve")?;
                dead_letter::resolve_rule_letter(&letter)?;
            }
            Err(error) if halving::is_data_error(&error) => left += 1,
            Err(error) => return Err(error),
        }
    }
    store::set_retried(work.kept.id)?;
    Ok(left)
}

impl Work<'_> {
    fn with_key(&self, values: &[String]) -> Result<String> {
        let mut conditions = Vec::new();
        for (name, value) in self.key.iter().zip(values) {
            let column = self.column(name)?;
            conditions.push(format!(
                "{} {} {}::{}",
                quote_ident(name),
                column::equality(column.type_oid)?,
                crate::model::ident::quote_literal(value),
                column.type_name
            ));
        }
        match conditions.is_empty() {
            true => Ok("false".into()),
            false => Ok(conditions.join(" AND ")),
        }
    }
}
