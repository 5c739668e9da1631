//! Old rows whose time is over.

use crate::error::Result;
use crate::rewrite::drop_schema;
use crate::store::artifact;
use crate::store::audit_event::{self, Act};

/// Drops one expired artifact; false when there is none.
pub fn drop_expired() -> Result<bool> {
    let Some((id, migration_id, schema)) = artifact::expired()? else {
        return Ok(false);
    };
    drop_schema(&schema)?;
    artifact::set_dropped(id)?;
    audit_event::append(Act {
        migration_id: Some(&migration_id),
        event: "artifact dropped",
        detail: Some(serde_json::json!({ "artifact": id, "schema": schema })),
        ..Act::default()
    })?;
    Ok(true)
}
