//! `_transmute.nodes`.

use crate::error::Result;
use crate::pg::{activity, spi};

/// Announces this process, and forgets processes that are gone.
pub fn announce(role: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.nodes WHERE (pid, backend_start) NOT IN (SELECT pid, backend_start FROM pg_catalog.pg_stat_activity)",
        &[],
    )?;
    spi::execute(
        "INSERT INTO _transmute.nodes (pid, role, backend_start) \
         SELECT $1, $2, a.backend_start FROM pg_catalog.pg_stat_get_activity($1) a ON CONFLICT (pid) DO UPDATE SET \
           role = excluded.role, backend_start = excluded.backend_start, started_at = clock_timestamp(), migration_id = NULL, since = NULL",
        &[activity::pid().into(), role.into()],
    )?;
    Ok(())
}

/// Says which migration this process drives.
pub fn works_on(migration_id: Option<&str>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.nodes SET migration_id = $2, since = clock_timestamp() \
         WHERE pid = $1 AND migration_id IS DISTINCT FROM $2",
        &[activity::pid().into(), migration_id.into()],
    )?;
    Ok(())
}

pub fn leave() -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.nodes WHERE pid = $1",
        &[activity::pid().into()],
    )?;
    Ok(())
}
