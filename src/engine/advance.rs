//! Changing state: the only caller of the state machine. The new state, its audit event and whatever the caller did
//! in the same transaction commit together.

use crate::error::{Error, Result};
use crate::model::state::{transition, Event, State};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};

/// Applies `event` and records it. `name` is the audit event.
pub fn change_state(
    migration: &Migration,
    event: Event,
    name: &str,
    detail: Option<serde_json::Value>,
) -> Result<State> {
    let to = transition(migration.state, event).map_err(|e| Error::Bug(e.to_string()))?;
    migration::set_state(&migration.id, to)?;
    let head = audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: name,
        from_state: Some(migration.state.to_string()),
        to_state: Some(to.to_string()),
        detail,
        current_user: None,
        ..Act::default()
    })?;
    // The head leaves the database here: who keeps the log can prove what the trail was.
    crate::log::in_words(|| {
        format!(
            "migration \"{}\": {} -> {to}, audit head {head}",
            migration.id, migration.state
        )
    });
    Ok(to)
}
