//! `_transmute.signals`. Rows are written by the trigger of `_transmute.migrations` (`sql/objects/signals.sql`).

use crate::error::Result;
use crate::pg::spi;

/// Whether signals wait to be sent.
pub fn waiting() -> Result<bool> {
    Ok(spi::value::<bool>("SELECT EXISTS (SELECT FROM _transmute.signals)", &[])? == Some(true))
}

/// Sends what waits, at the commit of this transaction; how many.
pub fn send() -> Result<i64> {
    let sent = spi::write_first("SELECT _transmute.send_signals()", &[], |row| row.need(1))?;
    Ok(sent.unwrap_or(0))
}

/// Tells how far a migration is, at the commit of this transaction.
pub fn progress(migration_id: &str) -> Result<()> {
    spi::execute(
        "SELECT _transmute.send_progress($1)",
        &[migration_id.into()],
    )?;
    Ok(())
}
