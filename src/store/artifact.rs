//! `_transmute.artifacts`.

use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::spi;

/// Records the old rows of a finished rewrite; they expire after the migration's keep_artifacts.
pub fn insert(migration_id: &str, source: &str, physical: &QualifiedName, rows: f64) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.artifacts (migration_id, kind, source, physical_schema, physical_name, \
           row_estimate, bytes, created_at, expires_at) \
         SELECT $1, 'table', $2, $3::name, $4::name, $5, 0, n.now, n.now + keep_artifacts \
         FROM _transmute.migrations, (SELECT clock_timestamp() AS now OFFSET 0) n WHERE id = $1",
        &[
            migration_id.into(),
            source.into(),
            physical.schema.as_str().into(),
            physical.name.as_str().into(),
            rows.into(),
        ],
    )?;
    Ok(())
}

/// Old rows that are kept current expire when that ends.
pub fn expire_with(schema: &str, reverse: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts a SET expires_at = r.kept_until FROM _transmute.rewrites r \
         WHERE r.id = $2 AND a.physical_schema = $1::name AND a.dropped_at IS NULL",
        &[schema.into(), reverse.into()],
    )?;
    Ok(())
}

/// Whoever keeps the rows in this schema current has let go of them.
pub fn expire_now(schema: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET expires_at = least(expires_at, clock_timestamp()) \
         WHERE physical_schema = $1::name AND dropped_at IS NULL",
        &[schema.into()],
    )?;
    Ok(())
}

/// The schema is gone with what was in it.
pub fn set_schema_dropped(schema: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET dropped_at = clock_timestamp() \
         WHERE physical_schema = $1::name AND dropped_at IS NULL",
        &[schema.into()],
    )?;
    Ok(())
}

/// Records a column that is about to be hidden; `set_column` says under which name.
pub fn insert_column(migration_id: &str, table: &Relation, column: &str) -> Result<i64> {
    spi::write_first(
        "INSERT INTO _transmute.artifacts (migration_id, kind, source, physical_schema, physical_name, \
           row_estimate, bytes, created_at, expires_at) \
         SELECT $1, 'column', $2, $3::name, $4::name, $5, 0, n.now, n.now + keep_artifacts \
         FROM _transmute.migrations, (SELECT clock_timestamp() AS now OFFSET 0) n WHERE id = $1 RETURNING id",
        &[
            migration_id.into(),
            format!("{}.{}", table.name, quote_ident(column)).into(),
            table.name.schema.as_str().into(),
            table.name.name.as_str().into(),
            table.rows.into(),
        ],
        |row| row.need(1),
    )?
    .ok_or_else(|| Error::Bug("an artifact of no migration".into()))
}

pub fn set_column(id: i64, column: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET physical_column = $2::name WHERE id = $1",
        &[id.into(), column.into()],
    )?;
    Ok(())
}

/// A column that a migration hides: its artifact, the table that it was hidden in, its name of ours.
pub struct HiddenColumn {
    pub id: i64,
    pub table: QualifiedName,
    pub name: String,
}

const HIDDEN_COLUMN: &str = "id, physical_schema::text, physical_name::text, physical_column::text";

fn hidden_column(row: &spi::Row<'_>) -> Result<HiddenColumn> {
    let (schema, name): (String, String) = (row.need(2)?, row.need(3)?);
    Ok(HiddenColumn {
        id: row.need(1)?,
        table: QualifiedName::new(&schema, &name),
        name: row.need(4)?,
    })
}

/// The hidden column that had this name.
pub fn of_column(
    migration_id: &str,
    table: &QualifiedName,
    column: &str,
) -> Result<Option<HiddenColumn>> {
    spi::first(
        &format!(
            "SELECT {HIDDEN_COLUMN} FROM _transmute.artifacts WHERE migration_id = $1 AND source = $2 \
             AND physical_column IS NOT NULL AND dropped_at IS NULL ORDER BY id DESC LIMIT 1"
        ),
        &[
            migration_id.into(),
            format!("{table}.{}", quote_ident(column)).into(),
        ],
        hidden_column,
    )
}

/// All columns that a migration hides.
pub fn columns(migration_id: &str) -> Result<Vec<HiddenColumn>> {
    spi::query(
        &format!(
            "SELECT {HIDDEN_COLUMN} FROM _transmute.artifacts WHERE migration_id = $1 \
             AND physical_column IS NOT NULL AND dropped_at IS NULL ORDER BY id"
        ),
        &[migration_id.into()],
        hidden_column,
    )
}

/// Nobody keeps this one current any more: it goes when its time is over, and that is now.
pub fn set_expired(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET expires_at = least(expires_at, clock_timestamp()) WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Sizes are measured after the swap, outside its lock.
pub fn measure(migration_id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET bytes = coalesce(pg_total_relation_size( \
           to_regclass(format('%I.%I', physical_schema, physical_name))), 0) \
         WHERE migration_id = $1 AND kind = 'table' AND dropped_at IS NULL",
        &[migration_id.into()],
    )?;
    Ok(())
}

pub struct Expired {
    pub id: i64,
    pub migration_id: String,
    /// The schema that holds the table, or the table of the column.
    pub schema: String,
    /// A hidden column; else the whole schema is the artifact.
    pub column: Option<String>,
}

/// Work schemas in which a migration keeps tables.
pub fn schemas(migration_id: &str) -> Result<Vec<String>> {
    spi::query(
        "SELECT DISTINCT physical_schema::text FROM _transmute.artifacts \
         WHERE migration_id = $1 AND dropped_at IS NULL AND physical_column IS NULL ORDER BY 1",
        &[migration_id.into()],
        |row| row.need(1),
    )
}

/// One artifact that is over its time, and that nobody keeps current. Only the conductor asks, and there is one.
pub fn expired() -> Result<Option<Expired>> {
    spi::first(
        "SELECT id, migration_id, physical_schema::text, physical_column::text FROM _transmute.artifacts a \
         WHERE dropped_at IS NULL AND expires_at <= clock_timestamp() AND NOT EXISTS (SELECT FROM _transmute.rewrites b \
           JOIN _transmute.rewrites f ON f.id = b.reverses WHERE b.swapped_at IS NULL AND f.old_schema = a.physical_schema) \
           AND (a.physical_column IS NULL OR NOT EXISTS (SELECT FROM _transmute.migrations m \
             WHERE m.id = a.migration_id AND m.kept_until IS NOT NULL)) \
           AND NOT EXISTS (SELECT FROM _transmute.rules r, jsonb_array_elements(r.rule -> 'way_back' -> 'shows') AS s \
             WHERE s ->> 0 = a.physical_column) \
           AND NOT EXISTS (SELECT FROM _transmute.version_views v WHERE v.relation = \
             to_regclass(format('%I.%I', a.physical_schema, a.physical_name))::oid AND (a.physical_column IS NULL OR EXISTS ( \
               SELECT FROM jsonb_to_recordset(v.columns) AS c (number int2) JOIN pg_attribute t ON t.attrelid = v.relation \
                 AND t.attnum = c.number AND t.attname = a.physical_column))) \
         ORDER BY id LIMIT 1",
        &[],
        |row| {
            Ok(Expired {
                id: row.need(1)?,
                migration_id: row.need(2)?,
                schema: row.need(3)?,
                column: row.get(4)?,
            })
        },
    )
}

/// It cannot be dropped now: looked at again after a while.
pub fn postpone(id: i64, pause: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET expires_at = clock_timestamp() + $2::text::interval WHERE id = $1",
        &[id.into(), pause.into()],
    )?;
    Ok(())
}

pub fn set_dropped(id: i64) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.artifacts SET dropped_at = clock_timestamp() WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// What a migration has hidden.
pub struct Hidden {
    /// The table, as it is called now; `None`: it, or the column, is not there any more.
    pub physical: Option<QualifiedName>,
    /// The hidden column; `None`: the table.
    pub column: Option<String>,
    /// How long it was to be kept.
    pub until: String,
}

/// The artifact of a migration that was called so.
pub fn hidden(migration_id: &str, source: &str) -> Result<Option<Hidden>> {
    spi::first(
        "SELECT n.nspname::text, c.relname::text, a.physical_column::text, a.expires_at::text FROM _transmute.artifacts a \
         LEFT JOIN pg_attribute t ON a.physical_column IS NOT NULL AND t.attname = a.physical_column AND t.attnum > 0 AND NOT t.attisdropped \
         LEFT JOIN pg_class c ON a.dropped_at IS NULL AND c.oid = CASE WHEN a.physical_column IS NULL \
           THEN to_regclass(format('%I.%I', a.physical_schema, a.physical_name))::oid ELSE t.attrelid END \
         LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE a.migration_id = $1 AND a.source = $2 ORDER BY a.id DESC LIMIT 1",
        &[migration_id.into(), source.into()],
        |row| {
            let (schema, name): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
            Ok(Hidden {
                physical: schema
                    .zip(name)
                    .map(|(schema, name)| QualifiedName::new(&schema, &name)),
                column: row.get(3)?,
                until: row.need(4)?,
            })
        },
    )
}

/// Whether a hidden column is still there for somebody.
pub fn is_kept(hidden: &str) -> Result<bool> {
    let found: Option<bool> = spi::value(
        "SELECT EXISTS (SELECT FROM _transmute.artifacts WHERE dropped_at IS NULL AND physical_column = $1::name)",
        &[hidden.into()],
    )?;
    Ok(found == Some(true))
}

/// A hidden table or column is in use again: nothing drops it; its id and what it was called.
pub fn take_out(table: &QualifiedName, column: Option<&str>) -> Result<Option<(i64, String)>> {
    spi::write_first(
        "UPDATE _transmute.artifacts SET dropped_at = clock_timestamp() WHERE dropped_at IS NULL AND CASE WHEN $3::text IS NULL \
           THEN physical_column IS NULL AND physical_schema = $1::name AND physical_name = $2::name \
           ELSE physical_column = $3::name END RETURNING id, source",
        &[
            table.schema.as_str().into(),
            table.name.as_str().into(),
            column.into(),
        ],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}
