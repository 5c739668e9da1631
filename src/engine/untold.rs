//! Whether our tables are what the audit trail tells: what somebody has written into them by hand, past every call.

use super::register;
use crate::error::Result;
use crate::model::plan::Plan;
use crate::pg::spi;
use crate::store::{migration, step};

/// A row that the trail does not explain.
pub struct Untold {
    /// Of schema `_transmute`.
    pub relation: String,
    pub row: String,
    pub problem: String,
}

/// The first one, in the snapshot of the call; `None`: everything is told.
pub fn first() -> Result<Option<Untold>> {
    let found = spi::first(include_str!("../../sql/query/untold.sql"), &[], |row| {
        Ok(Untold {
            relation: row.need(1)?,
            row: row.need(2)?,
            problem: row.need(3)?,
        })
    })?;
    match found {
        Some(found) => Ok(Some(found)),
        None => unlike_its_checksum(),
    }
}

/// A script, or a plan, that was replaced beneath its checksum.
fn unlike_its_checksum() -> Result<Option<Untold>> {
    for id in migration::all()? {
        let kept = migration::get(&id)?;
        let untold = |problem: &str| {
            Ok(Some(Untold {
                relation: "migrations".into(),
                row: id.clone(),
                problem: problem.into(),
            }))
        };
        // What a person has written as phases is JSON, of which jsonb keeps no text to look at again.
        let (_, by_hand) = migration::down_and_phases(&id)?;
        let script = migration::script(&id)?;
        if !by_hand && register::checksum_of(&id, &script)? != migration::checksum(&id)? {
            return untold("its script, way back or metadata were replaced");
        }
        let plan = Plan {
            steps: step::plan(&id)?.into_iter().map(|(_, step)| step).collect(),
        };
        if !kept.plan_checksum.is_empty() && plan.checksum() != kept.plan_checksum {
            return untold("its steps were replaced");
        }
    }
    Ok(None)
}
