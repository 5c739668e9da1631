//! Releases.

use super::{call, look, need};
use crate::engine::release;
use crate::error::Result;
use crate::model::release::Answer;
use crate::pg::identity;
use crate::pg::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_unsafe)]
fn create_checkpoint(
    version: Option<&str>,
    description: Option<&str>,
) -> std::result::Result<(), ErrorReport> {
    call(|caller| {
        release::create_checkpoint(
            need("version", version)?,
            need("description", description)?,
            caller,
        )?;
        // Some may have waited for it.
        crate::worker::wake_at_commit();
        Ok(())
    })
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn can_upgrade_to(
    version: Option<&str>,
) -> std::result::Result<
    TableIterator<'static, (name!(allowed, bool), name!(reason, String))>,
    ErrorReport,
> {
    answer(version, release::can_upgrade_to)
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn can_downgrade_to(
    version: Option<&str>,
) -> std::result::Result<
    TableIterator<'static, (name!(allowed, bool), name!(reason, String))>,
    ErrorReport,
> {
    answer(version, release::can_downgrade_to)
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn answer(
    version: Option<&str>,
    ask: impl FnOnce(&str) -> Result<Answer>,
) -> std::result::Result<
    TableIterator<'static, (name!(allowed, bool), name!(reason, String))>,
    ErrorReport,
> {
    let answer = look(&identity::caller(), |_| ask(need("version", version)?))?;
    Ok(TableIterator::once((answer.allowed, answer.reason)))
}

#[pg_extern(stable, parallel_unsafe)]
fn current_version() -> std::result::Result<Option<String>, ErrorReport> {
    look(&identity::caller(), |_| {
        Ok(release::current()?.map(|v| v.to_string()))
    })
}
