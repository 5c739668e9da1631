//! Rows that a data statement fails on: set aside, tried again, or given up by a person.

use super::{batch, range, Work};
use crate::error::{Error, Result};
use crate::store::backfill;
use crate::store::dead_letter::{self as store, Refusal};

/// Sets a row aside.
pub fn record(work: &Work, place: &str, key: &str, error: &Error) -> Result<()> {
    let refusal = Refusal {
        migration_id: &work.migration_id,
        key,
        row: range::row_at(work, place)?,
        expression: &work.sql,
        error,
    };
    store::record_batch(work.backfill.id, place, &refusal)
}

/// Tries every row that is set aside once more. One that is no longer meant, or gone, counts as done.
pub fn retry(work: &Work) -> Result<()> {
    for (place, key) in store::open_batch(work.backfill.id)? {
        match batch::one(work, &place)? {
            None => store::resolve_place(work.backfill.id, &place)?,
            Some(error) => record(work, &place, &key, &error)?,
        }
    }
    backfill::set_retried(work.backfill.id)
}
