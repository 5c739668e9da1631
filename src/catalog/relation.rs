//! One relation.

use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::model::risk::Facts;
use crate::pg::spi;
use crate::pg::Oid;

#[derive(Debug, Clone)]
pub struct Relation {
    pub oid: Oid,
    pub name: QualifiedName,
    /// pg_class.relkind.
    pub kind: char,
    /// pg_class.relpersistence.
    pub persistence: char,
    pub owner: Oid,
    pub owner_name: String,
    pub is_partition: bool,
    pub has_inheritance: bool,
    pub is_typed: bool,
    pub relfilenode: Oid,
    pub access_method: String,
    /// Empty: the database's default.
    pub tablespace: String,
    pub rows: f64,
    pub table_bytes: i64,
    pub index_bytes: i64,
    /// Storage parameters as they stand in WITH (…), quoted.
    pub options: String,
    pub toast_options: String,
    /// Names of invalid indexes, for messages; empty: none.
    pub invalid_indexes: String,
    pub is_system: bool,
    pub writes_per_second: f64,
}

impl Relation {
    pub fn facts(&self) -> Facts {
        Facts {
            rows: self.rows as i64,
            bytes: self.table_bytes + self.index_bytes,
            writes_per_second: self.writes_per_second,
        }
    }
}

pub fn get(oid: Oid) -> Result<Relation> {
    spi::first_kept(
        include_str!("../../sql/query/relation.sql"),
        &[oid.into()],
        |row| {
            let character = |text: String| text.chars().next().unwrap_or('?');
            Ok(Relation {
                oid,
                name: QualifiedName::new(row.need::<String>(1)?, row.need::<String>(2)?),
                kind: character(row.need(3)?),
                persistence: character(row.need(4)?),
                owner: row.need(5)?,
                owner_name: row.need(6)?,
                is_partition: row.need(7)?,
                has_inheritance: row.need(8)?,
                is_typed: row.need(9)?,
                relfilenode: row.need(10)?,
                access_method: row.need(11)?,
                tablespace: row.need(12)?,
                rows: row.need(13)?,
                table_bytes: row.need(14)?,
                index_bytes: row.need(15)?,
                options: row.need(16)?,
                toast_options: row.need(17)?,
                invalid_indexes: row.need(18)?,
                is_system: row.need(19)?,
                writes_per_second: row.need(20)?,
            })
        },
    )?
    .ok_or_else(|| Error::UndefinedObject {
        problem: "the table is gone".into(),
        detail: format!("No relation has oid {}.", oid.to_u32()),
        hint: "transmute.rollback(id, reason) clears the migration up.".into(),
    })
}

/// Names of relations of whatever kind, in the order of the names.
pub fn names(oids: &[Oid]) -> Result<Vec<String>> {
    spi::query_kept(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = ANY ($1) ORDER BY 1, 2",
        &[oids.to_vec().into()],
        |row| Ok(QualifiedName::new(row.need::<String>(1)?, row.need::<String>(2)?).to_string()),
    )
}

/// Sequences that belong to columns of the table, and go where it goes.
pub fn owned_sequences(table: Oid) -> Result<Vec<Oid>> {
    spi::query_kept(
        "SELECT d.objid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = d.classid AND d.refobjid = $1 AND d.deptype IN ('a', 'i')",
        &[table.into()],
        |row| row.need(1),
    )
}

/// The relation of a qualified and quoted name, or of any other text, which names none.
pub fn named(name: &str) -> Result<Option<Oid>> {
    spi::value("SELECT _transmute.relation_named($1)", &[name.into()])
}

/// File number now, read from the catalog.
pub fn relfilenode(oid: Oid) -> Result<Option<Oid>> {
    spi::value_kept::<Oid>(
        "SELECT relfilenode FROM pg_class WHERE oid = $1",
        &[oid.into()],
    )
}

/// SHA-256 of the canonical text of everything the catalogs say of the table.
pub fn fingerprint(oid: Oid) -> Result<String> {
    text_digest("SELECT _transmute.fingerprint($1)", oid)
}

/// SHA-256 of the part of it that a swap of files relies on.
pub fn definition(oid: Oid) -> Result<String> {
    text_digest("SELECT _transmute.definition($1)", oid)
}

fn text_digest(sql: &str, oid: Oid) -> Result<String> {
    let text: Option<String> = spi::value(sql, &[oid.into()])?;
    Ok(crate::model::digest::sha256_hex(
        text.unwrap_or_default().as_bytes(),
    ))
}

/// oid of a role by name; `None` when it was dropped.
pub fn role_oid(name: &str) -> Result<Option<Oid>> {
    spi::value_kept::<Oid>(
        "SELECT oid FROM pg_roles WHERE rolname = $1::name",
        &[name.into()],
    )
}

pub fn role_name(oid: Oid) -> Result<String> {
    Ok(
        spi::value_kept::<String>("SELECT pg_get_userbyid($1)::text", &[oid.into()])?
            .unwrap_or_default(),
    )
}

/// oid of a schema by name; `None`: there is none.
pub fn schema_oid(name: &str) -> Result<Option<Oid>> {
    spi::value_kept::<Oid>(
        "SELECT oid FROM pg_namespace WHERE nspname = $1::name",
        &[name.into()],
    )
}

pub fn may_truncate(table: Oid, role: Oid) -> Result<bool> {
    Ok(spi::value_kept::<bool>(
        "SELECT has_table_privilege($2, $1, 'TRUNCATE')",
        &[table.into(), role.into()],
    )? == Some(true))
}

/// Schema and name of the type that a text means under the search_path in force.
pub fn type_name(text: &str) -> Result<Option<QualifiedName>> {
    spi::first_kept(
        "SELECT n.nspname::text, t.typname::text FROM pg_catalog.pg_type t \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = pg_catalog.to_regtype($1)",
        &[text.into()],
        |row| {
            Ok(QualifiedName::new(
                row.need::<String>(1)?,
                row.need::<String>(2)?,
            ))
        },
    )
}
