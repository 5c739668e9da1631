//! Run.

use super::{call, ids, need, require_writable};
use crate::engine::admission::{self, Options};
use crate::engine::call as calls;
use crate::engine::undo as undos;
use crate::engine::verbs::turn::one_at_a_time;
use crate::engine::versioning;
use crate::error::{Error, Result};
use crate::pg::error::catch;
use crate::pg::ErrorReport;
use crate::pg::{identity, procedure, spi};
use pgrx::prelude::*;

/// A gate's refusal goes into the audit trail although the caller's transaction is undone.
fn written_down(error: Error, call: &str, caller: &identity::Caller) -> Error {
    match crate::worker::scribe::refused(&error, call, caller.role) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// A call that begins migrations, or takes them back: one at a time, its refusals written down, the workers woken at its end.
pub(super) fn in_turn(
    name: &str,
    caller: &identity::Caller,
    work: impl FnOnce() -> Result<Vec<calls::Applied>>,
) -> Result<Vec<calls::Applied>> {
    let applied = one_at_a_time(work).map_err(|error| written_down(error, name, caller))?;
    crate::worker::wake_at_commit();
    Ok(applied)
}

/// As columns: id, state, action, detail.
pub(super) fn rows(
    applied: Vec<calls::Applied>,
) -> impl Iterator<Item = (String, String, String, Option<String>)> {
    applied
        .into_iter()
        .map(|a| (a.id, a.state, a.action.to_string(), a.detail))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn apply(
    id: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
    allow_out_of_order: default!(Option<bool>, "false"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(state, String),
            name!(action, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let applied = call(|caller| {
        let options = Options {
            dry_run: need("dry_run", dry_run)?,
            max_risk,
            confirm,
            allow_out_of_order: need("allow_out_of_order", allow_out_of_order)?,
        };
        in_turn("apply", caller, || calls::apply(id, &options, caller))
    })?;
    Ok(TableIterator::new(rows(applied)))
}

#[pg_extern(volatile, parallel_unsafe)]
fn pause(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        calls::pause(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn resume(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        calls::resume(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn acknowledge(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        calls::acknowledge(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn approve(
    id: Option<&str>,
    reason: Option<&str>,
    ttl: default!(Option<pgrx::datum::Interval>, "'24 hours'"),
    waive_dead_letters: default!(Option<Vec<Option<i64>>>, "NULL"),
) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        let (id, reason, ttl) = (need("id", id)?, need("reason", reason)?, need("ttl", ttl)?);
        let microseconds: i64 = spi::value(
            "SELECT greatest(least(extract(epoch FROM $1) * 1000000, 9000000000000000), -9000000000000000)::bigint",
            &[ttl.into()],
        )?
        .ok_or_else(|| Error::Bug("an interval without a length".into()))?;
        let waived = ids("waive_dead_letters", waive_dead_letters)?;
        calls::approve(id, reason, microseconds, waived.as_deref(), caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn revoke_approval(
    id: Option<&str>,
    reason: Option<&str>,
) -> std::result::Result<i64, ErrorReport> {
    call(|caller| calls::revoke_approval(need("id", id)?, need("reason", reason)?, caller))
}

#[pg_extern(volatile, parallel_unsafe)]
fn skip_soak(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        calls::skip_soak(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn rollback(
    id: Option<&str>,
    reason: Option<&str>,
    confirm: default!(Option<&str>, "NULL"),
) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        let (id, reason) = (need("id", id)?, need("reason", reason)?);
        admission::confirm("rollback", confirm)?;
        one_at_a_time(|| calls::rollback(id, reason, caller))?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn undo(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        undos::request(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn release_old(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        undos::release(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn release_version(
    version: Option<&str>,
    reason: Option<&str>,
) -> std::result::Result<(), ErrorReport> {
    call(|caller| versioning::release(need("version", version)?, need("reason", reason)?, caller))
}

#[pg_extern(
    sql = "CREATE PROCEDURE transmute.run(id text DEFAULT NULL, max_steps integer DEFAULT NULL) \
           LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';",
    requires = ["bootstrap"]
)]
fn run(
    id: Option<&str>,
    max_steps: Option<i32>,
    fcinfo: procedure::Call,
) -> std::result::Result<(), ErrorReport> {
    let caller = identity::caller();
    require_writable()?;
    // It commits on its way: what it was called with does not outlive that.
    let id = id.map(str::to_string);
    // A server ERROR is raised again as in `look`.
    catch(|| crate::worker::session::run(fcinfo, id.as_deref(), max_steps, &caller))
        .unwrap_or_else(|error| Err(Error::Server(error)))
        .map_err(ErrorReport::from)
}
