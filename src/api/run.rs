//! Run.

use super::{call, need};
use crate::engine::call as calls;
use crate::error::Error;
use crate::pg::spi;
use crate::pg::ErrorReport;
use pgrx::prelude::*;

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn apply(
    id: default!(Option<&str>, "NULL"),
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
        let applied = calls::apply(id, caller)?;
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
fn approve(
    id: Option<&str>,
    reason: Option<&str>,
    ttl: default!(Option<pgrx::datum::Interval>, "'24 hours'"),
) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        let (id, reason, ttl) = (need("id", id)?, need("reason", reason)?, need("ttl", ttl)?);
        let microseconds: i64 = spi::value(
            "SELECT least(extract(epoch FROM $1) * 1000000, 9000000000000000)::bigint",
            &[ttl.into()],
        )?
        .ok_or_else(|| Error::Bug("an interval without a length".into()))?;
        calls::approve(id, reason, microseconds, caller)?;
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
fn discard_dead_letters(
    id: Option<&str>,
    reason: Option<&str>,
) -> std::result::Result<i64, ErrorReport> {
    call(|caller| {
        let count = calls::discard_dead_letters(need("id", id)?, need("reason", reason)?, caller)?;
        crate::worker::wake_at_commit();
        Ok(count)
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
