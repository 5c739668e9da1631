//! The partitions of a table.

use crate::error::{Error, Result};
use crate::pg::spi;
use crate::pg::Oid;

/// A table of a partition tree.
#[derive(Debug, Clone)]
pub struct Member {
    pub oid: Oid,
    /// The table it is a partition of; `None`: the one that was asked for.
    pub parent: Option<Oid>,
    /// Qualified and quoted.
    pub name: String,
    /// pg_class.relkind: r, p or f.
    pub kind: char,
    /// DETACH … CONCURRENTLY has begun and not ended.
    pub detaching: bool,
}

/// A table and its partitions of all levels, parents first.
pub fn tree(table: Oid) -> Result<Vec<Member>> {
    spi::query_kept(
        include_str!("../../sql/query/partition_tree.sql"),
        &[table.into()],
        |row| {
            Ok(Member {
                oid: row.need(1)?,
                parent: row.get(2)?,
                name: row.need(3)?,
                kind: row.need::<String>(4)?.chars().next().unwrap_or('?'),
                detaching: row.need(5)?,
            })
        },
    )
}

/// The partitions that hold rows, foreign ones too.
pub fn leaves(table: Oid) -> Result<Vec<Member>> {
    let mut all = tree(table)?;
    all.retain(|m| m.kind != 'p' && m.parent.is_some());
    Ok(all)
}

/// The partition key as it stands in PARTITION BY.
pub fn key(table: Oid) -> Result<String> {
    spi::value::<String>("SELECT pg_get_partkeydef($1)", &[table.into()])?
        .ok_or_else(|| Error::Bug("a partitioned table without a key".into()))
}

/// An index of a table of the tree, as the server compares it with its parent's.
#[derive(Debug, Clone)]
pub struct Alike {
    pub table: Oid,
    pub name: String,
    pub shape: String,
    pub valid: bool,
    /// It belongs to an index of the parent.
    pub attached: bool,
    /// pg_constraint.contype of the constraint that stands on it.
    pub constraint: Option<String>,
}

pub fn indexes(tables: &[Oid]) -> Result<Vec<Alike>> {
    spi::query_kept(
        include_str!("../../sql/query/alike_indexes.sql"),
        &[tables.to_vec().into()],
        |row| {
            Ok(Alike {
                table: row.need(1)?,
                name: row.need(2)?,
                shape: row.need(3)?,
                valid: row.need(4)?,
                attached: row.need(5)?,
                constraint: row.get(6)?,
            })
        },
    )
}

/// NOT NULL constraints of a partition that it has of its table only.
pub fn inherited_not_null(leaf: Oid) -> Result<Vec<Oid>> {
    spi::query(
        "SELECT oid FROM pg_constraint WHERE conrelid = $1 AND contype = 'n' AND NOT conislocal",
        &[leaf.into()],
        |row| row.need(1),
    )
}
