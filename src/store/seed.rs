//! `_transmute.seeds`.

use crate::error::Result;
use crate::pg::identity::Session;
use crate::pg::spi::{self, Row};
use pgrx::JsonB;

pub struct Seed {
    pub name: String,
    pub script: String,
    pub checksum: String,
    pub owner_name: String,
    pub session: Session,
    pub ran_checksum: Option<String>,
}

const COLUMNS: &str =
    "name, script, checksum, owner_name::text, search_path, settings, ran_checksum";

fn from_row(row: &Row<'_>) -> Result<Seed> {
    Ok(Seed {
        name: row.need(1)?,
        script: row.need(2)?,
        checksum: row.need(3)?,
        owner_name: row.need(4)?,
        session: Session {
            search_path: row.need(5)?,
            settings: serde_json::from_value(row.need::<JsonB>(6)?.0)?,
        },
        ran_checksum: row.get(7)?,
    })
}

pub fn find(name: &str) -> Result<Option<Seed>> {
    spi::first(
        &format!("SELECT {COLUMNS} FROM _transmute.seeds WHERE name = $1"),
        &[name.into()],
        from_row,
    )
}

/// All, in the order in which they were first loaded.
pub fn all() -> Result<Vec<Seed>> {
    spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.seeds ORDER BY seq"),
        &[],
        from_row,
    )
}

/// The row, locked until the transaction ends.
pub fn lock(name: &str) -> Result<Option<Seed>> {
    spi::write_first(
        &format!("SELECT {COLUMNS} FROM _transmute.seeds WHERE name = $1 FOR UPDATE"),
        &[name.into()],
        from_row,
    )
}

/// Keeps a text under a name, in the place of the one before.
pub fn put(name: &str, script: &str, checksum: &str, owner: &str, session: &Session) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.seeds (name, script, checksum, owner_name, search_path, settings) \
         VALUES ($1, $2, $3, $4::name, $5, $6) \
         ON CONFLICT (name) DO UPDATE SET script = excluded.script, checksum = excluded.checksum, \
           owner_name = excluded.owner_name, search_path = excluded.search_path, settings = excluded.settings, \
           loaded_at = clock_timestamp(), loaded_by = session_user",
        &[
            name.into(),
            script.into(),
            checksum.into(),
            owner.into(),
            session.search_path.as_str().into(),
            JsonB(serde_json::to_value(&session.settings)?).into(),
        ],
    )?;
    Ok(())
}

/// Its text has run now.
pub fn set_ran(name: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.seeds SET ran_checksum = checksum, ran_at = clock_timestamp(), ran_by = session_user \
         WHERE name = $1",
        &[name.into()],
    )?;
    Ok(())
}
