//! Everything at once: the stop, and the end of it. And what may be changed of one migration while it runs.

use super::call::{interrupt, owned, record, require_reason, wrong_state};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::amount::count;
use crate::model::state::State;
use crate::pg::identity::{self, Caller};
use crate::pg::xact::{self, End};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};
use crate::store::stop;
use std::collections::BTreeMap;

/// No migration takes a step any more; what runs is interrupted. How many are under way.
pub fn stop(reason: &str, caller: &Caller) -> Result<i64> {
    require_reason(reason)?;
    if !stop::begin(reason)? {
        return Err(Error::Prerequisite {
            problem: "everything is stopped already".into(),
            detail: "An emergency stop is open: see transmute.emergency_stops.".into(),
            hint: "transmute.resume_all(reason) ends it.".into(),
        });
    }
    let under_way = migration::queued()?;
    for id in &under_way {
        interrupt(id)?;
    }
    note("emergency stop", reason, under_way.len(), caller)?;
    crate::log::in_words(|| {
        format!(
            "emergency stop, {}",
            count(under_way.len() as i64, "migration")
        )
    });
    Ok(under_way.len() as i64)
}

pub fn resume(reason: &str, caller: &Caller) -> Result<i64> {
    require_reason(reason)?;
    if !stop::end(reason)? {
        return Err(Error::Prerequisite {
            problem: "nothing is stopped".into(),
            detail: "No emergency stop is open.".into(),
            hint: "A single migration goes on with transmute.resume(id, reason).".into(),
        });
    }
    let under_way = migration::queued()?;
    note("emergency stop ended", reason, under_way.len(), caller)?;
    crate::log::in_words(|| "the emergency stop has ended".into());
    Ok(under_way.len() as i64)
}

fn note(event: &str, reason: &str, migrations: usize, caller: &Caller) -> Result<()> {
    audit_event::append(Act {
        event,
        detail: Some(serde_json::json!({ "reason": reason, "migrations": migrations })),
        current_user: Some(&relation::role_name(caller.role)?),
        ..Act::default()
    })?;
    Ok(())
}

/// Changes what the settings say for one migration; what is tuned now.
pub fn tune(
    id: &str,
    reason: &str,
    changes: &[(&str, Option<i32>)],
    reset: bool,
    caller: &Caller,
) -> Result<BTreeMap<String, i32>> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    if migration.state == State::Finished && !migration.queued {
        return Err(wrong_state(&migration, "tune", "It is over."));
    }
    let mut tuned = match reset {
        true => BTreeMap::new(),
        false => migration.tuned.clone(),
    };
    for (name, value) in changes {
        if let Some(value) = value {
            tuned.insert((*name).to_string(), *value);
        }
    }
    // The server says what is out of range.
    xact::subtransaction(End::Keep, || set_for_transaction(&tuned)).map_err(|error| {
        error.or_means(|error| Error::InvalidArgument {
            problem: "a setting cannot be tuned to that value".into(),
            detail: error.to_string(),
            hint: "Ranges are those of the settings: docs/settings.md.".into(),
        })
    })?;
    migration::set_tuned(id, &tuned)?;
    record(
        &migration,
        caller,
        "tuned",
        serde_json::json!({ "reason": reason, "before": migration.tuned, "after": tuned }),
    )?;
    Ok(tuned)
}

/// Puts what was tuned in force for the rest of this transaction.
pub fn in_force(migration: &Migration) -> Result<()> {
    set_for_transaction(&migration.tuned)
}

fn set_for_transaction(tuned: &BTreeMap<String, i32>) -> Result<()> {
    for (name, value) in tuned {
        identity::set_for_transaction(&format!("transmute.{name}"), &value.to_string())?;
    }
    Ok(())
}
