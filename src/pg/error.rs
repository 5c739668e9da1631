//! Catching the server's errors as values.

use super::position;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::PgSqlErrorCode;
use std::panic::AssertUnwindSafe;

/// An ERROR the server raised, with everything a client would have seen of it.
#[derive(Debug, Clone)]
pub struct ServerError {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Cursor position in the text that was run, in characters from 1.
    pub position: Option<usize>,
}

/// The five characters of a SQLSTATE (elog.h packs six bits a character).
pub fn sqlstate_text(code: PgSqlErrorCode) -> String {
    let packed = code as i32;
    (0..5)
        .map(|i| char::from((((packed >> (6 * i)) & 0x3F) as u8) + b'0'))
        .collect()
}

/// The code of five characters (MAKE_SQLSTATE of elog.h).
pub fn code_of(sqlstate: &str) -> PgSqlErrorCode {
    PgSqlErrorCode::from(sqlstate.bytes().enumerate().fold(0, |code, (i, byte)| {
        code | (i32::from(byte.wrapping_sub(b'0')) & 0x3F) << (6 * i)
    }))
}

impl From<CaughtError> for ServerError {
    fn from(error: CaughtError) -> Self {
        let report = match &error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        };
        ServerError {
            code: report.sql_error_code(),
            message: report.message().to_string(),
            detail: report.detail().map(str::to_string),
            hint: report.hint().map(str::to_string),
            position: None,
        }
    }
}

/// Runs `f` and gives a server ERROR (or a Rust panic) back as a value.
///
/// The caller must end the (sub)transaction in which it happened, or raise an ERROR at once: the server's state is
/// that of an aborted command, nothing else may be done with it.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, ServerError> {
    let (result, position) = position::watching(|| {
        PgTryBuilder::new(AssertUnwindSafe(|| Ok(f())))
            .catch_others(|e| Err(ServerError::from(e)))
            .catch_rust_panic(|e| Err(ServerError::from(e)))
            .execute()
    });
    result.map_err(|error| ServerError { position, ..error })
}
