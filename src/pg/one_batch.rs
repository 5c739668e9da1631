//! A batch that a person has written: a statement, or a call of a function, with the size of the batch as its one parameter.

use super::parser::to_c;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::IntoDatum;

/// SPI_OK_MERGE_RETURNING, which there is from 17 on.
const MERGE_RETURNING: u32 = 19;

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Rows that it has done; 0 where it only says whether there are more.
    pub rows: i64,
    pub more: bool,
}

/// Runs one batch of `size` under the current role. Data statements have done as many rows as they touched; a SELECT gives a
/// number of rows, or whether more remain.
pub fn run(sql: &str, size: i32) -> Result<Batch> {
    let source = to_c(sql)?;
    Spi::connect_mut(|_| {
        // SAFETY: connected to SPI; one parameter of type int4; results are read before SPI ends.
        unsafe {
            let mut types = [pg_sys::INT4OID];
            let mut values = [size
                .into_datum()
                .ok_or_else(|| Error::Bug("a number without a datum".into()))?];
            let code = pg_sys::SPI_execute_with_args(
                source.as_ptr(),
                1,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                std::ptr::null(),
                false,
                0,
            );
            let touched = pg_sys::SPI_processed as i64;
            match code as u32 {
                pg_sys::SPI_OK_SELECT => said(touched),
                pg_sys::SPI_OK_INSERT
                | pg_sys::SPI_OK_UPDATE
                | pg_sys::SPI_OK_DELETE
                | pg_sys::SPI_OK_MERGE
                | pg_sys::SPI_OK_INSERT_RETURNING
                | pg_sys::SPI_OK_UPDATE_RETURNING
                | pg_sys::SPI_OK_DELETE_RETURNING
                | MERGE_RETURNING => Ok(Batch {
                    rows: touched,
                    more: touched > 0,
                }),
                _ => Err(Error::Bug(format!("SPI_execute_with_args gave {code}"))),
            }
        }
    })
}

/// What a SELECT of `rows` rows has said.
///
/// # Safety
/// SPI has just run it.
unsafe fn said(rows: i64) -> Result<Batch> {
    // SAFETY: by the contract above; column 1 is asked for only where there is one.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        let wrong = |detail: String| {
            Err(Error::InvalidArgument {
                problem: "a batch does not say how many rows it has done, or whether more remain"
                    .into(),
                detail,
                hint: "Let it give one row with one bigint, 0 at the end, or one boolean, false at the end.".into(),
            })
        };
        if table.is_null() || rows > 1 || (*(*table).tupdesc).natts != 1 {
            return wrong(format!("It gave {rows} rows."));
        }
        if rows == 0 {
            return Ok(Batch {
                rows: 0,
                more: false,
            });
        }
        let desc = (*table).tupdesc;
        let mut is_null = false;
        let value = pg_sys::SPI_getbinval(*(*table).vals, desc, 1, &mut is_null);
        let kind = pg_sys::SPI_gettypeid(desc, 1);
        let number = match kind {
            pg_sys::BOOLOID => {
                let more = bool::from_datum(value, is_null).unwrap_or(false);
                return Ok(Batch { rows: 0, more });
            }
            pg_sys::INT2OID => i16::from_datum(value, is_null).map(i64::from),
            pg_sys::INT4OID => i32::from_datum(value, is_null).map(i64::from),
            pg_sys::INT8OID => i64::from_datum(value, is_null),
            _ => return wrong("It gave a value of another type.".into()),
        };
        match number.unwrap_or(0) {
            negative if negative < 0 => wrong(format!("It gave {negative}.")),
            rows => Ok(Batch {
                rows,
                more: rows > 0,
            }),
        }
    }
}
