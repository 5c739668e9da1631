//! What the catalogs say of an object, fact by fact, with SQL that makes each so (`sql/objects/reverse.sql`).

use crate::error::Result;
use crate::model::reverse::Fact;
use crate::pg::affected::{Address, RELATIONS};
use crate::pg::spi::{self, Row};
use crate::pg::{dml, Oid};
use std::collections::HashSet;

const COLUMNS: &str = "rank, fact, coalesce(value, ''), make, unmake, replaces";

fn from_row(row: &Row<'_>) -> Result<Fact> {
    Ok(Fact {
        rank: row.need(1)?,
        name: row.need(2)?,
        value: row.need(3)?,
        make: row.get(4)?,
        unmake: row.get(5)?,
        replaces: row.need(6)?,
    })
}

/// Facts of one object; none: it is not there.
pub fn list(address: &Address) -> Result<Vec<Fact>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.facts($1, $2) ORDER BY rank, fact COLLATE \"C\""
        ),
        &[address.class.into(), address.object.into()],
        from_row,
    )
}

/// Facts of a table, with its indexes and extended statistics.
pub fn with_parts(table: Oid) -> Result<Vec<Fact>> {
    let mut facts = list(&Address {
        class: RELATIONS,
        object: table,
        part: 0,
        relation: Some(table),
    })?;
    facts.extend(spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.parts($1) ORDER BY rank, fact COLLATE \"C\""),
        &[table.into()],
        from_row,
    )?);
    Ok(facts)
}

/// What a table is a partition or an heir of, or has its type from.
pub fn links(table: Oid) -> Result<Vec<Fact>> {
    spi::query_kept(
        include_str!("../../sql/query/links.sql"),
        &[vec![table].into()],
        from_row,
    )
}

/// Whether an enum has a value.
pub fn has_label(enumeration: Oid, label: &str) -> Result<bool> {
    Ok(spi::value_kept::<bool>(
        "SELECT EXISTS (SELECT FROM pg_enum WHERE enumtypid = $1 AND enumlabel = $2)",
        &[enumeration.into(), label.into()],
    )? == Some(true))
}

/// What takes a value away from an enum, run by this owner; `None`: more than columns of tables use it. `as_written`: the planner
/// does not see it.
pub fn enum_without(
    enumeration: Oid,
    label: &str,
    owner: Oid,
    as_written: bool,
) -> Result<Option<Vec<String>>> {
    spi::value(
        "SELECT _transmute.enum_without($1, $2, $3, $4)",
        &[
            enumeration.into(),
            label.into(),
            owner.into(),
            as_written.into(),
        ],
    )
}

/// The default privileges of the database.
pub fn default_privileges() -> Result<Vec<Fact>> {
    spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.default_privileges()"),
        &[],
        from_row,
    )
}

/// Every object there is.
pub fn objects() -> Result<HashSet<(Oid, Oid)>> {
    Ok(written_by("NULL")?.into_iter().collect())
}

/// Objects whose rows this transaction wrote, oldest first.
pub fn written_here() -> Result<Vec<(Oid, Oid)>> {
    written_by("pg_current_xact_id()::xid")
}

/// Objects whose rows this transaction wrote since its last subtransaction began, oldest first.
pub fn written_now() -> Result<Vec<(Oid, Oid)>> {
    spi::query(
        "SELECT class, object FROM _transmute.objects($1::text::xid) ORDER BY object",
        &[dml::current_xid().to_string().into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

fn written_by(xid: &str) -> Result<Vec<(Oid, Oid)>> {
    spi::query(
        &format!("SELECT class, object FROM _transmute.objects({xid}) ORDER BY object"),
        &[],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// SQL that gives an object a name.
pub fn rename_sql(address: &Address, name: &str) -> Result<Option<String>> {
    spi::value_kept(
        "SELECT _transmute.rename_sql($1, $2, $3, $4)",
        &[
            address.class.into(),
            address.object.into(),
            address.part.into(),
            name.into(),
        ],
    )
}

/// The schema of an object, quoted.
pub fn schema(address: &Address) -> Result<Option<String>> {
    spi::value_kept(
        "SELECT schema FROM pg_identify_object($1, $2, 0)",
        &[address.class.into(), address.object.into()],
    )
}

/// SQL that moves an object to a schema, which is quoted.
pub fn set_schema_sql(address: &Address, schema: &str) -> Result<Option<String>> {
    spi::value_kept(
        "SELECT format('ALTER %s SET SCHEMA %s', _transmute.address_sql($1, $2, 0), $3::text)",
        &[address.class.into(), address.object.into(), schema.into()],
    )
}

/// An object's name as the server identifies it, with the arguments of a function and the table of a trigger.
pub fn identity(address: &Address) -> Result<String> {
    Ok(spi::value_kept::<String>(
        "SELECT identity FROM pg_identify_object($1, $2, $3)",
        &[
            address.class.into(),
            address.object.into(),
            address.part.into(),
        ],
    )?
    .unwrap_or_default())
}
