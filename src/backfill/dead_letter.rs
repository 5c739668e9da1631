//! Rows that a data statement fails on: set aside, tried again, or given up by a person.

use super::{batch, Work};
use crate::error::{Error, Result};
use crate::store::backfill;
use crate::store::dead_letter as store;

/// Sets a row aside.
pub fn record(work: &Work, place: &str, key: &str, error: &Error) -> Result<()> {
    store::record_batch(&work.migration_id, work.backfill.id, place, key, error)
}

/// Tries every row that is set aside once more; how many are left. One that is no longer meant, or gone, counts as done.
pub fn retry(work: &Work) -> Result<i64> {
    let open = store::open_batch(work.backfill.id)?;
    let mut left = 0;
    for (place, key) in open {
        match batch::one(work, &place)? {
            None => store::resolve_place(work.backfill.id, &place)?,
            Some(error) => {
                record(work, &place, &key, &error)?;
                left += 1;
            }
        }
    }
    backfill::set_retried(work.backfill.id)?;
    Ok(left)
}
