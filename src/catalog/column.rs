//! The columns of a table.

use crate::error::Result;
use crate::pg::spi;
use crate::pg::Oid;

#[derive(Debug, Clone)]
pub struct Column {
    pub number: i16,
    pub name: String,
    pub dropped: bool,
    /// As format_type prints it, qualified.
    pub type_name: String,
    pub not_null: bool,
    /// 'a' always, 'd' by default, empty: no identity.
    pub identity: String,
    /// 's' stored, 'v' virtual (18), empty: not generated.
    pub generated: String,
    /// Default or generation expression.
    pub expression: String,
    /// Qualified and quoted; empty: the type's own.
    pub collation: String,
    /// pg_attribute.attstorage where it is not the type's own.
    pub storage: String,
    pub compression: String,
    pub type_oid: Oid,
    pub typmod: i32,
}

pub fn list(table: Oid) -> Result<Vec<Column>> {
    spi::query_kept(
        include_str!("../../sql/query/columns.sql"),
        &[table.into()],
        |row| {
            Ok(Column {
                number: row.need(1)?,
                name: row.need(2)?,
                dropped: row.need(3)?,
                type_name: row.need(4)?,
                not_null: row.need(5)?,
                identity: row.need(6)?,
                generated: row.need(7)?,
                expression: row.need(8)?,
                collation: row.need(9)?,
                storage: row.need(10)?,
                compression: row.need(11)?,
                type_oid: row.need(12)?,
                typmod: row.need(13)?,
            })
        },
    )
}

/// Where two tables differ in what decides the bytes of a row; empty: files can be swapped.
pub fn physical_differences(a: Oid, b: Oid) -> Result<Vec<String>> {
    spi::query_kept(
        include_str!("../../sql/query/physical_differences.sql"),
        &[a.into(), b.into()],
        |row| row.need(1),
    )
}

/// The type's own equality, as `OPERATOR(schema.=)`.
pub fn equality(type_oid: Oid) -> Result<String> {
    let operator = crate::pg::relation::equality_operator(type_oid)?;
    Ok(spi::value_kept::<String>(
        "SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) FROM pg_operator o \
         JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = $1",
        &[operator.into()],
    )?
    .unwrap_or_default())
}
