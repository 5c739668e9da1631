//! Hooks.

use super::{call, need};
use crate::engine::hooks;
use crate::pg::{ErrorReport, Oid};
use pgrx::prelude::*;

#[pg_extern(
    sql = "CREATE FUNCTION transmute.hook(event text, function regprocedure) RETURNS void \
           LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';",
    requires = ["bootstrap"]
)]
fn hook(event: Option<&str>, function: Option<Oid>) -> std::result::Result<(), ErrorReport> {
    call(|caller| hooks::register(need("event", event)?, need("function", function)?, caller))
}

#[pg_extern(volatile, parallel_unsafe)]
fn unhook(event: Option<&str>, function: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| hooks::unregister(need("event", event)?, need("function", function)?, caller))
}
