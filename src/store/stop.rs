//! `_transmute.stops`.

use crate::error::Result;
use crate::pg::spi;

/// Begins an emergency stop; false: there is one already.
pub fn begin(reason: &str) -> Result<bool> {
    Ok(spi::write_first(
        "INSERT INTO _transmute.stops (reason) VALUES ($1) ON CONFLICT ((true)) WHERE resumed_at IS NULL DO NOTHING RETURNING true",
        &[reason.into()],
        |row| row.need::<bool>(1),
    )? == Some(true))
}

/// Ends the one that is open; false: there is none.
pub fn end(reason: &str) -> Result<bool> {
    Ok(spi::write_first(
        "UPDATE _transmute.stops SET resumed_at = clock_timestamp(), resumed_by = session_user, resume_reason = $1 \
         WHERE resumed_at IS NULL RETURNING true",
        &[reason.into()],
        |row| row.need::<bool>(1),
    )? == Some(true))
}

pub fn is_open() -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.stops WHERE resumed_at IS NULL)",
        &[],
    )? == Some(true))
}
