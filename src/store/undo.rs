//! Undo after the end, in `_transmute.migrations`: how long it is possible, and how far it got.

use crate::error::Result;
use crate::pg::spi;

pub fn request(id: &str, reason: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET undo_reason = $2, paused_reason = NULL, next_attempt_at = NULL, attempts = 0, \
           queued = true WHERE id = $1",
        &[id.into(), reason.into()],
    )?;
    Ok(())
}

/// An undo that was asked for is not wanted any more.
pub fn withdraw(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET undo_reason = NULL, next_attempt_at = NULL, attempts = 0, waiting_for = NULL \
         WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// It has finished: from now on it can be undone for a time, which ends with that of the first of its tables.
pub fn begin_to_keep(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations m SET kept_until = least(clock_timestamp() + m.keep_old, (SELECT min(r.kept_until) \
           FROM _transmute.rewrites r WHERE r.migration_id = m.id AND r.reverses IS NOT NULL AND r.swapped_at IS NULL)) \
         WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Ends the time in which it can be undone.
pub fn keep_no_longer(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET kept_until = clock_timestamp() WHERE id = $1 AND kept_until IS NOT NULL",
        &[id.into()],
    )?;
    Ok(())
}

/// Nothing is kept any more.
pub fn set_let_go(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET kept_until = NULL WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// The old shape is in its place again.
pub fn set_back(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET is_back = true WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn set_undone(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET undone_at = clock_timestamp(), kept_until = NULL, waiting_for = NULL, last_error = NULL, \
           last_error_sqlstate = NULL, last_error_hint = NULL WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}
