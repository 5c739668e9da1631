//! The indexes of a table.

use crate::error::Result;
use crate::model::address;
use crate::pg::spi;
use crate::pg::Oid;

/// An index that identifies rows.
#[derive(Debug, Clone)]
pub struct Key {
    pub index: Oid,
    pub name: String,
    /// Attribute numbers, in index order.
    pub columns: Vec<i16>,
    /// A column of it is among the touched ones.
    pub touched: bool,
}

impl Key {
    /// What identifies the rows of a table that has nothing else.
    pub fn address() -> Key {
        Key {
            index: Oid::INVALID,
            name: address::COLUMN.into(),
            columns: vec![address::NUMBER],
            touched: false,
        }
    }

    pub fn is_address(&self) -> bool {
        address::is_key(&self.columns)
    }
}

/// The unique index of a table on these columns; the one that is `known` where it is still there.
pub fn on_key(table: Oid, columns: &[i16], known: Oid) -> Result<Option<Oid>> {
    spi::first(
        include_str!("../../sql/query/key_index.sql"),
        &[table.into(), columns.to_vec().into(), known.into()],
        |row| row.need(1),
    )
}

/// Indexes that identify a row, best first; `touched` are columns better avoided.
pub fn keys(table: Oid, touched: &[i16]) -> Result<Vec<Key>> {
    spi::query_kept(
        include_str!("../../sql/query/key_indexes.sql"),
        &[table.into(), touched.to_vec().into()],
        |row| {
            Ok(Key {
                index: row.need(1)?,
                name: row.need(2)?,
                columns: row.need(3)?,
                touched: row.need(4)?,
            })
        },
    )
}

/// The index by which a table was clustered last.
pub fn clustered(table: Oid) -> Result<Option<String>> {
    spi::first_kept(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 AND i.indisclustered",
        &[table.into()],
        |row| row.need(1),
    )
}

/// Whether the table has an index that is being built or given up.
pub fn any_unfinished(table: Oid) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = $1 AND NOT (indisvalid AND indisready AND indislive))",
        &[table.into()],
    )? == Some(true))
}

/// What decides an index's file, and its name.
struct Shape {
    oid: Oid,
    name: String,
    shape: String,
    usable: bool,
}

/// Two indexes of the same shape, one of each table.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub a: Oid,
    pub b: Oid,
}

/// Pairs the indexes of two tables: by name, then what is left by shape (the server chooses names for unnamed
/// constraints, and it may have had to choose another one). The second part names what found no partner or differs.
pub fn pairs(a: Oid, b: Oid) -> Result<(Vec<Pair>, Vec<String>)> {
    let (left, mut right) = (shapes(a)?, shapes(b)?);
    let (mut pairs, mut faults, mut unnamed) = (Vec::new(), Vec::new(), Vec::new());
    for x in left {
        match right
            .iter()
            .position(|y| y.name == x.name && y.shape == x.shape)
        {
            Some(i) => join(x, right.swap_remove(i), &mut pairs, &mut faults),
            None => unnamed.push(x),
        }
    }
    right.sort_by(|x, y| x.name.cmp(&y.name));
    for x in unnamed {
        match right.iter().position(|y| y.shape == x.shape) {
            Some(i) => join(x, right.remove(i), &mut pairs, &mut faults),
            None => faults.push(format!("index {}", x.name)),
        }
    }
    faults.extend(right.into_iter().map(|y| format!("index {}", y.name)));
    Ok((pairs, faults))
}

fn join(x: Shape, y: Shape, pairs: &mut Vec<Pair>, faults: &mut Vec<String>) {
    if x.usable && y.usable {
        pairs.push(Pair { a: x.oid, b: y.oid });
    } else {
        faults.push(format!("index {}, which is invalid", x.name));
    }
}

fn shapes(table: Oid) -> Result<Vec<Shape>> {
    spi::query_kept(
        include_str!("../../sql/query/index_shapes.sql"),
        &[table.into()],
        |row| {
            Ok(Shape {
                oid: row.need(1)?,
                name: row.need(2)?,
                shape: row.need(3)?,
                usable: row.need(4)?,
            })
        },
    )
}

/// TOAST table of a table and its index, if it has one.
pub fn toast(table: Oid) -> Result<Option<(Oid, Oid)>> {
    spi::first_kept(
        "SELECT c.reltoastrelid, i.indexrelid FROM pg_class c JOIN pg_index i ON i.indrelid = c.reltoastrelid \
         WHERE c.oid = $1 AND i.indisvalid",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// Key columns, quoted, of a unique index without expression and predicate; empty for any other.
pub fn unique_columns(index: Oid) -> Result<Vec<String>> {
    spi::query_kept(
        "SELECT quote_ident(a.attname) FROM pg_index i \
         CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indexrelid = $1 AND i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL \
           AND k.n <= i.indnkeyatts ORDER BY k.n",
        &[index.into()],
        |row| row.need(1),
    )
}

/// Whether changing these columns can make rows collide in a unique index or exclusion constraint of the table.
pub fn is_unique_on(table: Oid, columns: &[i16]) -> Result<bool> {
    Ok(spi::value_kept::<bool>(
        include_str!("../../sql/query/unique_on_columns.sql"),
        &[table.into(), columns.to_vec().into()],
    )? == Some(true))
}

/// Whether an index is in a tablespace of its own.
pub fn in_tablespace(index: Oid) -> Result<bool> {
    Ok(spi::value_kept::<bool>(
        "SELECT reltablespace <> 0 FROM pg_class WHERE oid = $1",
        &[index.into()],
    )? == Some(true))
}

/// A unique or primary key constraint.
#[derive(Debug, Clone)]
pub struct KeyConstraint {
    pub name: String,
    pub primary: bool,
    /// Columns of the key.
    pub columns: Vec<String>,
    /// Columns of the index as the server names them, INCLUDE among them.
    pub index_columns: Vec<String>,
    pub index: Oid,
    /// DEFERRABLE and INITIALLY DEFERRED, or empty.
    pub timing: String,
}

/// The unique and primary key constraints of a table, oldest first.
pub fn key_constraints(table: Oid) -> Result<Vec<KeyConstraint>> {
    spi::query_kept(
        "SELECT c.conname::text, c.contype = 'p', \
           ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k (number, place) \
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place), \
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.conindid AND a.attnum > 0 ORDER BY a.attnum), \
           c.conindid, CASE WHEN c.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN c.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END \
         FROM pg_constraint c WHERE c.conrelid = $1 AND c.contype IN ('p', 'u') ORDER BY c.oid",
        &[table.into()],
        |row| {
            Ok(KeyConstraint {
                name: row.need(1)?,
                primary: row.need(2)?,
                columns: row.need(3)?,
                index_columns: row.need(4)?,
                index: row.need(5)?,
                timing: row.need(6)?,
            })
        },
    )
}

/// A relation found by an index's name.
pub struct Named {
    /// It is an index of that table.
    pub on_table: bool,
    pub valid: bool,
}

/// What has this name in the schema of a table.
pub fn named(table: Oid, name: &str) -> Result<Option<Named>> {
    spi::first_kept(
        "SELECT coalesce(i.indrelid = t.oid, false), coalesce(i.indisvalid, false) FROM pg_class t \
         JOIN pg_class c ON c.relnamespace = t.relnamespace AND c.relname = $2::name \
         LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE t.oid = $1",
        &[table.into(), name.into()],
        |row| {
            Ok(Named {
                on_table: row.need(1)?,
                valid: row.need(2)?,
            })
        },
    )
}

/// The table of an index, its kind (i, or I where partitions have theirs), and the constraint that stands on it.
pub fn owner_of(index: Oid) -> Result<Option<(Oid, char, Option<String>)>> {
    spi::first_kept(
        "SELECT i.indrelid, c.relkind::text, \
           (SELECT conname::text FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x')) \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indexrelid = $1",
        &[index.into()],
        |row| {
            let kind: String = row.need(2)?;
            Ok((row.need(1)?, kind.chars().next().unwrap_or('i'), row.get(3)?))
        },
    )
}

/// An index that REINDEX CONCURRENTLY has left on a table, its partitions or their TOAST tables, or anywhere in a schema.
pub fn left_by_reindex(table: Option<Oid>, schema: &str) -> Result<Option<String>> {
    spi::first_kept(
        include_str!("../../sql/query/left_by_reindex.sql"),
        &[table.into(), schema.into()],
        |row| row.need(1),
    )
}

/// Whether a materialized view has a unique index by which REFRESH … CONCURRENTLY tells rows apart, and whether it has rows
/// that can be read.
pub fn refreshable(view: Oid) -> Result<(bool, bool)> {
    spi::first_kept(
        "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate \
             AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND 0 < ALL (i.indkey::int2[])), \
           c.relispopulated FROM pg_class c WHERE c.oid = $1",
        &[view.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )?
    .ok_or_else(|| crate::error::Error::Bug("a materialized view that is gone".into()))
}

/// Statements that make an index again, with those of its partitions.
pub fn again(index: Oid) -> Result<Vec<String>> {
    Ok(
        spi::value::<Vec<String>>("SELECT _transmute.index_again($1)", &[index.into()])?
            .unwrap_or_default(),
    )
}
