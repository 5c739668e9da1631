//! What holds an applied migration back from its first step.

use super::release;
use crate::error::Result;
use crate::guc;
use crate::model::gate::Waiting;
use crate::model::soak;
use crate::model::start::{self, StartFacts};
use crate::store::dependency;
use crate::store::migration::{self, Migration};
use crate::store::{object, sequence};

/// Everything it waits for; empty: it may start. Asked inside the transaction that would start it, after
/// `object::lock_starts`: then nothing else starts beside it.
pub fn waiting(migration: &Migration) -> Result<Vec<Waiting>> {
    let (now, high_water) = migration::clock()?;
    let facts = StartFacts {
        dependencies: dependency::standings(&migration.meta.depends_on)?,
        version: release::misfit(&migration.meta)?,
        soak_remaining_us: migration
            .pre_execution_until_us
            .map_or(0, |until| soak::remaining(until, now, high_water)),
        objects: object::touched_elsewhere(&migration.id)?,
        before: sequence::waits_for(&migration.id)?,
        running: dependency::running()?,
        max_running: guc::max_running(),
    };
    Ok(start::waiting(&facts))
}
