//! `_transmute.leaf_indexes`.

use crate::error::Result;
use crate::pg::spi::{self, Row};

/// An index that a migration builds on a partition.
#[derive(Debug, Clone)]
pub struct LeafIndex {
    pub id: i64,
    /// The partition, qualified and quoted.
    pub leaf: String,
    pub name: String,
    pub sql: String,
    pub revert_sql: String,
    pub built: bool,
}

const COLUMNS: &str = "id, leaf, name::text, sql, revert_sql, built";

fn from_row(row: &Row<'_>) -> Result<LeafIndex> {
    Ok(LeafIndex {
        id: row.need(1)?,
        leaf: row.need(2)?,
        name: row.need(3)?,
        sql: row.need(4)?,
        revert_sql: row.need(5)?,
        built: row.need(6)?,
    })
}

/// Those of one index of a partitioned table, in the order in which they are built.
pub fn list(migration_id: &str, target: &str) -> Result<Vec<LeafIndex>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.leaf_indexes WHERE migration_id = $1 AND target = $2 ORDER BY id"
        ),
        &[migration_id.into(), target.into()],
        from_row,
    )
}

/// What is about to be built on a partition.
pub struct New<'a> {
    pub migration_id: &'a str,
    pub target: &'a str,
    pub leaf: &'a str,
    pub name: &'a str,
    pub sql: &'a str,
    pub revert_sql: &'a str,
}

pub fn insert(new: New<'_>) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.leaf_indexes (migration_id, target, leaf, name, sql, revert_sql) \
         VALUES ($1, $2, $3, $4::name, $5, $6)",
        &[
            new.migration_id.into(),
            new.target.into(),
            new.leaf.into(),
            new.name.into(),
            new.sql.into(),
            new.revert_sql.into(),
        ],
    )?;
    Ok(())
}

pub fn set_built(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.leaf_indexes SET built = true WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

pub fn delete(id: i64) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.leaf_indexes WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}
