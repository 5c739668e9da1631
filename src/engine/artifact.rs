//! Old rows whose time is over.

use crate::error::Result;
use crate::recover::column;
use crate::rewrite::drop_schema;
use crate::store::artifact;
use crate::store::audit_event::{self, Act};

/// Until the next try to drop an artifact that is in use.
const PAUSE: &str = "10 minutes";

/// Drops one expired artifact; false when there is none.
pub fn drop_expired() -> Result<bool> {
    let Some(expired) = artifact::expired()? else {
        return Ok(false);
    };
    match &expired.column {
        Some(column) => {
            column::drop_hidden(column)?;
        }
        None => drop_schema(&expired.schema)?,
    }
    artifact::set_dropped(expired.id)?;
    audit_event::append(Act {
        migration_id: Some(&expired.migration_id),
        event: "artifact dropped",
        detail: Some(
            serde_json::json!({ "artifact": expired.id, "schema": expired.schema, "column": expired.column }),
        ),
        ..Act::default()
    })?;
    Ok(true)
}

/// After an error of `drop_expired`: whoever uses that artifact must not keep the others, or the migrations, waiting.
pub fn postpone_first() -> Result<()> {
    match artifact::expired()? {
        Some(expired) => artifact::postpone(expired.id, PAUSE),
        None => Ok(()),
    }
}
