//! What snapshots from before a swap cannot see of its table: noted by each drain, asked for by `pg::outdated`.

use crate::pg::{identity, outdated, xact};
use crate::store::rewrite;

/// Statements with such snapshots are refused from now on. While shared_preload_libraries are loaded.
pub fn init() {
    // As of now: the snapshot in question is from before.
    outdated::init(|relation| {
        identity::as_extension(|| {
            xact::with_latest_snapshot(|_| rewrite::brought_over(relation.to_u32()))
        })
    });
}
