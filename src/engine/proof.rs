//! The proof, on the way back, that a table is described as it was before.

use crate::error::Result;
use crate::store::audit_event::{self, Act};
use crate::store::migration::Migration;

/// Into the trail goes what the table's catalog entries were and what they are now (`None`: it is gone); to the log, too, where
/// these are not what they should be.
pub fn append(
    migration: &Migration,
    event: &str,
    before: &str,
    after: Option<&str>,
    same: bool,
) -> Result<()> {
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event,
        detail: Some(serde_json::json!({
            "fingerprint_before": before,
            "fingerprint_after": after,
            "identical": same,
        })),
        ..Act::default()
    })?;
    if !same {
        crate::log::warning(&format!(
            "transmute: migration \"{}\": the catalog entries of the table differ from those before it; \
             somebody changed them meanwhile",
            migration.id
        ));
    }
    Ok(())
}
