//! Run.

use super::{call, ids, need, require_writable};
use crate::engine::admission::Options;
use crate::engine::call as calls;
use crate::engine::down as way_back;
use crate::engine::undo as undos;
use crate::engine::versioning;
use crate::error::Error;
use crate::pg::error::catch;
use crate::pg::ErrorReport;
use crate::pg::{identity, procedure, spi};
use pgrx::prelude::*;

/// A gate's refusal goes into the audit trail although the caller's transaction is undone.
pub(super) fn written_down(error: Error, call: &str, caller: &identity::Caller) -> Error {
    match crate::worker::scribe::refused(&error, call, caller.role) {
        Ok(()) => error,
        Err(other) => other,
    }
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn apply(
    id: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
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
        };
        let applied = calls::apply(id, &options, caller)
            .map_err(|error| written_down(error, "apply", caller))?;
        crate::worker::wake_at_commit();
        Ok(applied)
    })?;
    Ok(TableIterator::new(
        applied
            .into_iter()
            .map(|a| (a.id, a.state, a.action.to_string(), a.detail)),
    ))
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
            "SELECT least(extract(epoch FROM $1) * 1000000, 9000000000000000)::bigint",
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
fn rollback(id: Option<&str>, reason: Option<&str>) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        calls::rollback(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn down(
    id: Option<&str>,
    reason: Option<&str>,
    max_risk: default!(Option<i32>, "NULL"),
    confirm: default!(Option<&str>, "NULL"),
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
            max_risk,
            confirm,
            dry_run: false,
        };
        let (id, reason) = (need("id", id)?, need("reason", reason)?);
        let applied = way_back::run(id, reason, &options, caller)
            .map_err(|error| written_down(error, "down", caller))?;
        crate::worker::wake_at_commit();
        Ok(applied)
    })?;
    Ok(TableIterator::once((
        applied.id,
        applied.state,
        applied.action.to_string(),
        applied.detail,
    )))
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
