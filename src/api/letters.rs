//! Dead letters, and the statement that refuses them.

use super::{call, ids as numbers, need};
use crate::engine::{amend as amending, letters};
use crate::pg::ErrorReport;
use crate::worker::wake_at_commit;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_unsafe)]
fn replay_dead_letters(
    id: Option<&str>,
    ids: default!(Option<Vec<Option<i64>>>, "NULL"),
) -> std::result::Result<i64, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let count = letters::replay(id, numbers("ids", ids)?.as_deref(), caller)?;
        wake_at_commit();
        Ok(count)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn discard_dead_letters(
    id: Option<&str>,
    ids: Option<Vec<Option<i64>>>,
    reason: Option<&str>,
) -> std::result::Result<i64, ErrorReport> {
    call(|caller| {
        let (id, reason) = (need("id", id)?, need("reason", reason)?);
        let count = letters::discard(id, numbers("ids", ids)?.as_deref(), reason, caller)?;
        wake_at_commit();
        Ok(count)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn purge_dead_letters(
    id: Option<&str>,
    status: Option<&str>,
) -> std::result::Result<i64, ErrorReport> {
    call(|caller| letters::purge(need("id", id)?, need("status", status)?, caller))
}

#[pg_extern(volatile, parallel_unsafe)]
fn amend(
    id: Option<&str>,
    up: Option<&str>,
    reason: Option<&str>,
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let (id, up, reason) = (need("id", id)?, need("up", up)?, need("reason", reason)?);
        let checksum = amending::run(id, up, reason, caller)?;
        wake_at_commit();
        Ok(checksum)
    })
}
