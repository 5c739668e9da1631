//! Queries with owned results. Every query text here and above is fully qualified or runs under the
//! pinned search_path of `identity`.

use super::{identity, waitpoint};
use crate::error::{Error, Result};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

/// One row of a result, columns from 1.
pub struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<Option<T>> {
        Ok(self.0.get::<T>(column)?)
    }

    /// A column that cannot be NULL.
    pub fn need<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<T> {
        self.get(column)?
            .ok_or_else(|| Error::Bug(format!("column {column} of a catalog query is NULL")))
    }
}

/// Runs a query and maps each row. It assigns no transaction id; in a transaction that has written it sees that.
pub fn query<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    waitpoint::may_fail(sql)?;
    as_of_now(|| Spi::connect(|client| rows(client.select(sql, None, args)?, each)))
}

/// A query is read with the active snapshot while the current subtransaction has written nothing. Where the transaction around it
/// has, that one is older than its writes, and than what others have committed: it gets a new one, as outside of the subtransaction.
fn as_of_now<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction; pushed and popped in balance (an ERROR aborts the subtransaction, which pops it).
    unsafe {
        let none = pg_sys::InvalidTransactionId;
        let outdated = pg_sys::GetTopTransactionIdIfAny() != none
            && pg_sys::GetCurrentTransactionIdIfAny() == none;
        if !outdated {
            return f();
        }
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = f();
        pg_sys::PopActiveSnapshot();
        result
    }
}

thread_local! {
    /// Plans of our own catalog queries, for the life of the backend; the server notices itself when they are outdated.
    static PLANS: RefCell<HashMap<usize, &'static OwnedPreparedStatement>> = RefCell::default();
}

/// As `query`, for a long text that is asked again and again: its plan is kept.
pub fn query_kept<T>(
    sql: &'static str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    waitpoint::may_fail(sql)?;
    as_of_now(|| {
        Spi::connect(|client| {
            let plan = plan_of(client, sql, args)?;
            let table = generic(|| client.select(plan, None, args))?;
            rows(table, each)
        })
    })
}

fn plan_of(
    client: &SpiClient<'_>,
    sql: &'static str,
    args: &[DatumWithOid<'_>],
) -> Result<&'static OwnedPreparedStatement> {
    let key = sql.as_ptr() as usize;
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
        return Ok(plan);
    }
    let types: Vec<PgOid> = args.iter().map(|a| PgOid::from(a.oid())).collect();
    // Never freed: the backend ends first.
    let plan: &'static _ = Box::leak(Box::new(client.prepare(sql, &types)?.keep()));
    PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
    Ok(plan)
}

/// Our queries look up a few rows by their keys, whatever these are: one plan does, made once.
fn generic<T>(f: impl FnOnce() -> T) -> T {
    identity::with_setting(c"plan_cache_mode", c"force_generic_plan", f)
}

/// The first row, if there is one.
pub fn first<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(query(sql, args, each)?.into_iter().next())
}

/// As `first`, with a plan that is kept.
pub fn first_kept<T>(
    sql: &'static str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(query_kept(sql, args, each)?.into_iter().next())
}

/// The one value of a query that always gives a row; NULL is `None`.
pub fn value<T: FromDatum + IntoDatum>(sql: &str, args: &[DatumWithOid<'_>]) -> Result<Option<T>> {
    Ok(first(sql, args, |row| row.get::<T>(1))?.flatten())
}

/// As `value`, with a plan that is kept.
pub fn value_kept<T: FromDatum + IntoDatum>(
    sql: &'static str,
    args: &[DatumWithOid<'_>],
) -> Result<Option<T>> {
    Ok(first_kept(sql, args, |row| row.get::<T>(1))?.flatten())
}

/// The types of the columns of a query's result.
pub fn column_types(sql: &str) -> Result<Vec<pg_sys::Oid>> {
    Spi::connect(|client| {
        let table = client.select(sql, None, &[])?;
        (1..=table.columns()?)
            .map(|column| Ok(table.column_type_oid(column)?.value()))
            .collect()
    })
}

/// Runs a statement that writes or locks rows and gives the first row it returns.
pub fn write_first<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(query_locking(sql, args, each)?.into_iter().next())
}

/// As `query`, for one that locks its rows.
pub fn query_locking<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    waitpoint::may_fail(sql)?;
    Spi::connect_mut(|client| rows(client.update(sql, None, args)?, each))
}

fn rows<T>(
    table: SpiTupleTable<'_>,
    mut each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut result = Vec::with_capacity(table.len());
    for tuple in table {
        result.push(each(&Row(tuple))?);
    }
    Ok(result)
}

/// Runs a statement; the number of rows it touched.
pub fn execute(sql: &str, args: &[DatumWithOid<'_>]) -> Result<usize> {
    waitpoint::may_fail(sql)?;
    Spi::connect_mut(|client| Ok(client.update(sql, None, args)?.len()))
}

/// As `execute`, with a plan that is kept.
pub fn execute_kept(sql: &'static str, args: &[DatumWithOid<'_>]) -> Result<usize> {
    waitpoint::may_fail(sql)?;
    Spi::connect_mut(|client| {
        let plan = plan_of(client, sql, args)?;
        Ok(generic(|| client.update(plan, None, args))?.len())
    })
}

/// Names and types, ready to be written, of the columns of a query, which gives no row.
pub fn columns(sql: &str) -> Result<Vec<(String, String)>> {
    let sql = std::ffi::CString::new(format!("{sql} LIMIT 0"))
        .map_err(|_| Error::Bug("a query holds a NUL".into()))?;
    Spi::connect(|_| {
        // SAFETY: connected to SPI; the descriptor is there for a query without rows too; texts are copied out.
        unsafe {
            let code = pg_sys::SPI_execute(sql.as_ptr(), true, 0);
            let table = pg_sys::SPI_tuptable;
            if code != pg_sys::SPI_OK_SELECT as i32 || table.is_null() {
                return Err(Error::Bug(format!("SPI_execute gave {code}")));
            }
            let desc = (*table).tupdesc;
            let text = |pointer: *const std::ffi::c_char| {
                CStr::from_ptr(pointer).to_string_lossy().into_owned()
            };
            Ok((1..=(*desc).natts)
                .map(|column| {
                    let of = pg_sys::format_type_extended(
                        pg_sys::SPI_gettypeid(desc, column),
                        -1,
                        pg_sys::FORMAT_TYPE_FORCE_QUALIFY as _,
                    );
                    (text(pg_sys::SPI_fname(desc, column)), text(of))
                })
                .collect())
        }
    })
}

/// A column's name and its value as text.
pub type NamedValue = (String, Option<String>);

/// The first row of a query with the names of its columns, read as by `first_row_in_active_snapshot`.
pub fn named_row_in_active_snapshot(sql: &CStr) -> Result<Option<Vec<NamedValue>>> {
    Spi::connect(|_| {
        // SAFETY: connected to SPI; read_only makes SPI use the active snapshot; texts are copied out of SPI's memory.
        unsafe {
            let code = pg_sys::SPI_execute(sql.as_ptr(), true, 1);
            if code != pg_sys::SPI_OK_SELECT as i32 {
                return Err(Error::Bug(format!("SPI_execute gave {code}")));
            }
            let table = pg_sys::SPI_tuptable;
            if table.is_null() || (*table).numvals == 0 {
                return Ok(None);
            }
            let (desc, tuple) = ((*table).tupdesc, *(*table).vals);
            let text = |pointer: *mut std::ffi::c_char| match pointer.is_null() {
                true => None,
                false => Some(CStr::from_ptr(pointer).to_string_lossy().into_owned()),
            };
            let columns = (1..=(*desc).natts).filter_map(|column| {
                let name = text(pg_sys::SPI_fname(desc, column))?;
                Some((name, text(pg_sys::SPI_getvalue(tuple, desc, column))))
            });
            Ok(Some(columns.collect()))
        }
    })
}

/// The first row of a query as text, read with the active snapshot whatever the isolation level and whatever this
/// transaction has done: for what must be as new as the snapshot that was just taken.
pub fn first_row_in_active_snapshot(sql: &CStr) -> Result<Option<Vec<String>>> {
    Ok(rows_in_active_snapshot(sql, 1)?.into_iter().next())
}

/// As `first_row_in_active_snapshot`, up to `limit` rows, 0: all.
pub fn rows_in_active_snapshot(sql: &CStr, limit: i64) -> Result<Vec<Vec<String>>> {
    Spi::connect(|_| {
        // SAFETY: connected to SPI; read_only makes SPI use the active snapshot; texts are copied out of SPI's memory.
        unsafe {
            let code = pg_sys::SPI_execute(sql.as_ptr(), true, limit as _);
            if code != pg_sys::SPI_OK_SELECT as i32 {
                return Err(Error::Bug(format!("SPI_execute gave {code}")));
            }
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return Ok(Vec::new());
            }
            let desc = (*table).tupdesc;
            let rows = (0..(*table).numvals as usize).map(|i| {
                let tuple = *(*table).vals.add(i);
                let columns = (1..=(*desc).natts).map(|column| {
                    let text = pg_sys::SPI_getvalue(tuple, desc, column);
                    if text.is_null() {
                        return String::new();
                    }
                    CStr::from_ptr(text).to_string_lossy().into_owned()
                });
                columns.collect()
            });
            Ok(rows.collect())
        }
    })
}
