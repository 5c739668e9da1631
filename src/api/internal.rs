//! What our own SQL procedures call; nobody else may.

use super::{call, need};
use crate::engine::{failure, tick};
use crate::error::Error;
use crate::pg::error::{code_of, ServerError};
use crate::pg::ErrorReport;
use crate::store::node;
use pgrx::prelude::*;

/// One tick for `CALL transmute.run`: milliseconds until the next, 0 at once, -1 nothing more to do.
#[pg_extern(
    sql = "CREATE FUNCTION _transmute.tick(id text) RETURNS bigint VOLATILE PARALLEL UNSAFE \
           LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';",
    requires = ["bootstrap"]
)]
fn tick(id: Option<&str>) -> std::result::Result<i64, ErrorReport> {
    call(|_| {
        let id = need("id", id)?;
        node::announce("session")?;
        node::works_on(Some(id))?;
        Ok(match tick::tick(id)? {
            tick::Next::Again => 0,
            tick::Next::Wait(pause) => pause.as_millis() as i64,
            tick::Next::Done => {
                node::leave()?;
                -1
            }
        })
    })
}

/// Records the failure of a tick.
#[pg_extern(
    sql = "CREATE FUNCTION _transmute.record_failure(id text, sqlstate text, message text, detail text, hint text) \
           RETURNS void VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';",
    requires = ["bootstrap"]
)]
fn record_failure(
    id: Option<&str>,
    sqlstate: Option<&str>,
    message: Option<&str>,
    detail: Option<&str>,
    hint: Option<&str>,
) -> std::result::Result<(), ErrorReport> {
    call(|_| {
        let text = |t: Option<&str>| t.filter(|t| !t.is_empty()).map(str::to_string);
        let error = Error::Server(ServerError {
            code: code_of(need("sqlstate", sqlstate)?),
            message: need("message", message)?.to_string(),
            detail: text(detail),
            hint: text(hint),
            position: None,
        });
        failure::record(need("id", id)?, &error)
    })
}
