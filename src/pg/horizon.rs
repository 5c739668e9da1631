//! Which dead rows vacuum can remove.

use super::relation::{self, LockMode, Table};
use crate::error::Result;
use pgrx::pg_sys;

/// The transaction that begins next.
pub fn next() -> u32 {
    // SAFETY: reads shared memory under the server's own lock.
    let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
    next as u32 // the lower half is the transaction's number, as the server truncates it
}

/// Whether no snapshot, slot or replica is left that sees rows of the table which transactions before `before` deleted. False while
/// somebody has locked the table: nobody is waited for.
pub fn has_passed(table: pg_sys::Oid, before: u32) -> Result<bool> {
    if !relation::try_lock(table, LockMode::AccessShare)? {
        return Ok(false);
    }
    let table = Table::open(table, LockMode::AccessShare);
    // SAFETY: the table is open and locked; the function reads shared memory under the server's own lock.
    let oldest = unsafe { pg_sys::GetOldestNonRemovableTransactionId(table.0) };
    let ahead = oldest.into_inner().wrapping_sub(before) as i32;
    Ok(ahead >= 0) // modulo 2^32, as the server compares them
}
