//! The indexes of a table.

use crate::error::Result;
use crate::pg::spi;
use pgrx::pg_sys::Oid;

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

/// Indexes that identify a row, best first; `touched` are columns better avoided.
pub fn keys(table: Oid, touched: &[i16]) -> Result<Vec<Key>> {
    spi::query(
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

/// Two indexes of the same name, one of each table.
#[derive(Debug, Clone)]
pub struct Pair {
    pub a: Option<Oid>,
    pub b: Option<Oid>,
    pub name: String,
    pub differs: bool,
    pub usable: bool,
}

pub fn pairs(a: Oid, b: Oid) -> Result<Vec<Pair>> {
    spi::query(
        include_str!("../../sql/query/index_pairs.sql"),
        &[a.into(), b.into()],
        |row| {
            Ok(Pair {
                a: row.get(1)?,
                b: row.get(2)?,
                name: row.need(3)?,
                differs: row.need(4)?,
                usable: row.need(5)?,
            })
        },
    )
}

/// TOAST table of a table and its index, if it has one.
pub fn toast(table: Oid) -> Result<Option<(Oid, Oid)>> {
    spi::first(
        "SELECT c.reltoastrelid, i.indexrelid FROM pg_class c JOIN pg_index i ON i.indrelid = c.reltoastrelid \
         WHERE c.oid = $1 AND i.indisvalid",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// Key columns, quoted, of a unique index without expression and predicate; empty for any other.
pub fn unique_columns(index: Oid) -> Result<Vec<String>> {
    spi::query(
        "SELECT quote_ident(a.attname) FROM pg_index i \
         CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indexrelid = $1 AND i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL \
           AND k.n <= i.indnkeyatts ORDER BY k.n",
        &[index.into()],
        |row| row.need(1),
    )
}
