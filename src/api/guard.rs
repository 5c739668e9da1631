//! What the server calls, not people.

use super::look;
use crate::engine::foreign_ddl;
use crate::pg::ErrorReport;
use crate::pg::{event, identity, procedure, process};
use pgrx::prelude::*;

/// Event trigger function: see `engine::foreign_ddl`.
#[pg_extern(
    sql = "CREATE FUNCTION _transmute.guard_ddl() RETURNS event_trigger \
           LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';",
    requires = ["bootstrap"]
)]
fn guard_ddl(fcinfo: procedure::Call) -> std::result::Result<(), ErrorReport> {
    if identity::is_own_work() || process::binary_upgrade() {
        return Ok(());
    }
    // With the caller's search_path: names are resolved.
    let command = event::command(fcinfo)?;
    look(&identity::caller(), |caller| {
        foreign_ddl::check(&command, caller)
    })
}
