//! The way back: reverts in reverse order, until the catalog is what it was.

use super::advance;
use super::tick::Next;
use super::work::{self, Worked};
use crate::error::Result;
use crate::model::state::{Event, State};
use crate::pg::waitpoint;
use crate::store::migration::{self, Migration};
use crate::store::step;

/// One step back.
pub fn tick(migration: &Migration) -> Result<Next> {
    if migration.state != State::RollingBack {
        if migration.state == State::Uninitialized {
            migration::unqueue(&migration.id)?;
            return Ok(Next::Done);
        }
        let reason = migration.rollback_reason.clone().unwrap_or_default();
        advance::change_state(
            migration,
            Event::Rollback,
            "rolling back",
            Some(serde_json::json!({ "reason": reason })),
        )?;
        return Ok(Next::Again);
    }
    let Some(step) = step::last_to_revert(&migration.id)? else {
        advance::change_state(migration, Event::RolledBack, "rolled back", None)?;
        return Ok(Next::Done);
    };
    match work::revert(migration, &step)? {
        Worked::Done => {}
        Worked::More(next) => return Ok(next),
    }
    step::set_reverted(&migration.id, step.step)?;
    waitpoint::reach("rollback_before_commit")?;
    Ok(Next::Again)
}
