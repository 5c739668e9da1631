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

/// The partitions of a table, by name, with their bounds as they stand in PARTITION OF.
pub fn bounds(table: Oid) -> Result<Vec<(String, String)>> {
    spi::query(
        "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid \
         WHERE h.inhparent = $1 AND NOT h.inhdetachpending ORDER BY c.oid",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// What every row of a partition obeys, its table's own bounds included; `None`: anything goes.
pub fn constraint(partition: Oid) -> Result<Option<String>> {
    spi::value(
        "SELECT pg_get_partition_constraintdef($1)",
        &[partition.into()],
    )
}

/// The default partition of a table.
pub fn default_of(table: Oid) -> Result<Option<Oid>> {
    spi::value(
        "SELECT partdefid FROM pg_partitioned_table WHERE partrelid = $1 AND partdefid <> 0",
        &[table.into()],
    )
}

/// Whether it is a partition of that table, and whether DETACH … CONCURRENTLY has begun and not ended.
pub fn link(partition: Oid, table: Oid) -> Result<Option<bool>> {
    spi::value(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $1 AND inhparent = $2",
        &[partition.into(), table.into()],
    )
}

/// A foreign key of a table, as the server prints it.
#[derive(Debug, Clone)]
pub struct ForeignKey {
    pub name: String,
    pub definition: String,
    pub valid: bool,
    /// The table it points at.
    pub references: Oid,
}

pub fn foreign_keys(table: Oid) -> Result<Vec<ForeignKey>> {
    spi::query(
        "SELECT conname::text, regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', ''), convalidated, confrelid FROM pg_constraint AS c \
         WHERE conrelid = $1 AND contype = 'f' \
           AND NOT EXISTS (SELECT FROM pg_constraint AS p WHERE p.oid = c.conparentid AND p.conrelid = c.conrelid) ORDER BY oid",
        &[table.into()],
        |row| {
            Ok(ForeignKey {
                name: row.need(1)?,
                definition: row.need(2)?,
                valid: row.need(3)?,
                references: row.need(4)?,
            })
        },
    )
}

/// An index of a partitioned table that a new partition has to have.
#[derive(Debug, Clone)]
pub struct Template {
    pub index: Oid,
    pub name: String,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// DEFERRABLE and INITIALLY DEFERRED of the constraint on it, or empty.
    pub timing: String,
}

pub fn templates(table: Oid) -> Result<Vec<Template>> {
    spi::query(
        "SELECT i.indexrelid, c.relname::text, \
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum > 0 ORDER BY a.attnum), \
           coalesce((SELECT CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END \
             || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END FROM pg_constraint k \
             WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u')), '') \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND NOT i.indisexclusion ORDER BY i.indexrelid",
        &[table.into()],
        |row| {
            Ok(Template {
                index: row.need(1)?,
                name: row.need(2)?,
                columns: row.need(3)?,
                timing: row.need(4)?,
            })
        },
    )
}

/// FOR VALUES … of a partition; `None`: it is none.
pub fn bound(partition: Oid) -> Result<Option<String>> {
    spi::value(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1",
        &[partition.into()],
    )
}

/// An index or foreign key of a table or of one of its partitions.
#[derive(Debug, Clone)]
pub struct TreePart {
    pub oid: Oid,
    /// The one of the table itself to which it belongs.
    pub root: Option<Oid>,
    /// What drops it, where it is one of the table itself.
    pub drop: Option<String>,
}

pub fn tree_parts(table: Oid) -> Result<Vec<TreePart>> {
    spi::query_kept(
        include_str!("../../sql/query/tree_parts.sql"),
        &[table.into()],
        |row| {
            Ok(TreePart {
                oid: row.need(1)?,
                root: row.get(2)?,
                drop: row.get(3)?,
            })
        },
    )
}
