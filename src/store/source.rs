//! `_transmute.sources`.

use crate::error::Result;
use crate::pg::spi::{self, Row};

/// Where a text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// NULL: somebody has given it as a text.
    pub directory: Option<&'a str>,
    pub file: Option<&'a str>,
    pub line: i32,
}

/// The text that a migration was loaded from.
#[derive(Clone, Debug)]
pub struct Known {
    pub id: String,
    pub source: String,
    pub checksum: String,
    pub file: Option<String>,
    pub line: i32,
}

const COLUMNS: &str = "s.migration_id, s.source, s.checksum, s.file, s.line";

pub fn insert(id: &str, source: &str, checksum: &str, found: &Found<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.sources (migration_id, source, checksum, directory, file, line) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            id.into(),
            source.into(),
            checksum.into(),
            found.directory.into(),
            found.file.into(),
            found.line.into(),
        ],
    )?;
    Ok(())
}

/// `None`: the migration was not loaded from a text.
pub fn find(id: &str) -> Result<Option<Known>> {
    let sql = format!("SELECT {COLUMNS} FROM _transmute.sources s WHERE s.migration_id = $1");
    spi::first(&sql, &[id.into()], known)
}

/// Its file is there now.
pub fn set_found(id: &str, found: &Found<'_>) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.sources SET directory = $2, file = $3, line = $4 \
         WHERE migration_id = $1 AND (directory, file, line) IS DISTINCT FROM ($2, $3, $4)",
        &[
            id.into(),
            found.directory.into(),
            found.file.into(),
            found.line.into(),
        ],
    )?;
    Ok(())
}

/// Another text, after the script was amended.
pub fn set_text(id: &str, source: &str, checksum: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.sources SET source = $2, checksum = $3 WHERE migration_id = $1",
        &[id.into(), source.into(), checksum.into()],
    )?;
    Ok(())
}

/// What was found in a directory before and is none of `ids`, in the order in which it runs. A directory is the same at another
/// place if more than half of its migrations are among `ids`.
pub fn gone(directory: &str, ids: &[String]) -> Result<Vec<Known>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM _transmute.sources s JOIN _transmute.migrations m ON m.id = s.migration_id \
         WHERE s.migration_id <> ALL ($2) AND m.squashed_into IS NULL AND (s.directory = $1 OR s.directory IN (\
           SELECT o.directory FROM _transmute.sources o WHERE o.directory IS NOT NULL GROUP BY o.directory \
           HAVING 2 * count(*) FILTER (WHERE o.migration_id = ANY ($2)) > count(*))) \
         ORDER BY coalesce(m.place, m.seq), m.seq"
    );
    spi::query(&sql, &[directory.into(), ids.to_vec().into()], known)
}

/// Whatever a migration was loaded from or registered with, in the order in which it runs: its script, and the text.
pub fn all() -> Result<Vec<(String, String, Option<Known>)>> {
    let sql = format!(
        "SELECT {COLUMNS}, m.id, m.up FROM _transmute.migrations m LEFT JOIN _transmute.sources s ON s.migration_id = m.id \
         WHERE m.down_of IS NULL AND m.squashed_into IS NULL ORDER BY coalesce(m.place, m.seq), m.seq"
    );
    spi::query(&sql, &[], |row| {
        let loaded = row.get::<String>(1)?.is_some();
        Ok((
            row.need(6)?,
            row.need(7)?,
            loaded.then(|| known(row)).transpose()?,
        ))
    })
}

fn known(row: &Row<'_>) -> Result<Known> {
    Ok(Known {
        id: row.need(1)?,
        source: row.need(2)?,
        checksum: row.need(3)?,
        file: row.get(4)?,
        line: row.need(5)?,
    })
}
