//! `_transmute.objects`.

use crate::error::Result;
use crate::pg::{spi, Oid};

/// What a migration touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `relation`, `type`, `schema` or `other`.
    pub class: &'static str,
    /// Qualified and quoted.
    pub name: String,
    /// `None`: the script makes it, or it has none.
    pub oid: Option<Oid>,
    pub reads: bool,
}

pub fn insert(migration_id: &str, object: &Object) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.objects (migration_id, class, name, object, reads) VALUES ($1, $2, $3, $4, $5)",
        &[
            migration_id.into(),
            object.class.into(),
            object.name.as_str().into(),
            object.oid.into(),
            object.reads.into(),
        ],
    )?;
    Ok(())
}

/// What one touches the other touches too.
pub fn copy(to: &str, from: &str) -> Result<()> {
    delete_all(to)?;
    spi::execute(
        "INSERT INTO _transmute.objects (migration_id, class, name, object, reads) \
         SELECT $1, class, name, object, reads FROM _transmute.objects WHERE migration_id = $2",
        &[to.into(), from.into()],
    )?;
    Ok(())
}

pub fn delete_all(migration_id: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.objects WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    Ok(())
}

/// Migrations under way that touch what this one touches, oldest first: id and one object.
pub fn touched_elsewhere(migration_id: &str) -> Result<Vec<(String, String)>> {
    spi::query_kept(
        include_str!("../../sql/query/touched_elsewhere.sql"),
        &[migration_id.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// One start at a time: what another one has decided has committed when this returns. Nobody who reads, registers or dumps
/// waits for it.
pub fn lock_starts() -> Result<()> {
    spi::execute(
        "LOCK TABLE _transmute.objects IN SHARE UPDATE EXCLUSIVE MODE",
        &[],
    )?;
    Ok(())
}
