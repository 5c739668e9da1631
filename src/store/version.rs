//! `_transmute.versions`, `_transmute.version_views`.

use crate::error::{Error, Result};
use crate::model::ident::{derived, QualifiedName};
use crate::pg::spi::{self, Row};
use crate::pg::Oid;
use pgrx::JsonB;
use serde::{Deserialize, Serialize};

/// A column as a release knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Attribute number in the table.
    pub number: i16,
    pub name: String,
    pub type_name: String,
}

/// A table in one version.
#[derive(Debug, Clone)]
pub struct View {
    pub id: i64,
    pub version: String,
    pub view_name: String,
    pub relation: Oid,
    pub view: Oid,
    pub columns: Vec<Shape>,
    /// Its types are not those of the table.
    pub converts: bool,
}

impl View {
    pub fn name(&self) -> QualifiedName {
        QualifiedName::new(&self.version, &self.view_name)
    }

    /// The function of its trigger.
    pub fn function(&self) -> QualifiedName {
        QualifiedName::new(&self.version, derived("_transmute_write_", &self.view_name))
    }

    /// The view through which that function reads and writes the table.
    pub fn rows(&self) -> QualifiedName {
        QualifiedName::new(&self.version, derived("_transmute_rows_", &self.view_name))
    }
}

const COLUMNS: &str =
    "id, version::text, view_name::text, relation, view, columns, read_script IS NOT NULL OR write_script IS NOT NULL";

fn from_row(row: &Row<'_>) -> Result<View> {
    Ok(View {
        id: row.need(1)?,
        version: row.need(2)?,
        view_name: row.need(3)?,
        relation: row.need(4)?,
        view: row.need(5)?,
        columns: serde_json::from_value(row.need::<JsonB>(6)?.0)?,
        converts: row.need(7)?,
    })
}

/// Whether a schema is a version of ours.
pub fn exists(version: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.versions WHERE version = $1::name)",
        &[version.into()],
    )? == Some(true))
}

/// Whether there is any.
pub fn any() -> Result<bool> {
    Ok(spi::value::<bool>("SELECT EXISTS (SELECT FROM _transmute.versions)", &[])? == Some(true))
}

pub fn insert_version(version: &str, owner: &str) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.versions (version, owner_name) VALUES ($1::name, $2::name)",
        &[version.into(), owner.into()],
    )?;
    Ok(())
}

/// Who may release it.
pub fn owner_of(version: &str) -> Result<Option<String>> {
    spi::value::<String>(
        "SELECT owner_name::text FROM _transmute.versions WHERE version = $1::name",
        &[version.into()],
    )
}

pub fn delete_version(version: &str) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.versions WHERE version = $1::name",
        &[version.into()],
    )?;
    Ok(())
}

/// A view that is about to be made.
pub fn insert(
    migration_id: &str,
    version: &str,
    view_name: &str,
    relation: Oid,
    columns: &[Shape],
) -> Result<View> {
    spi::write_first(
        &format!(
            "INSERT INTO _transmute.version_views (migration_id, version, view_name, relation, view, columns) \
             VALUES ($1, $2::name, $3::name, $4, 0, $5) RETURNING {COLUMNS}"
        ),
        &[
            migration_id.into(),
            version.into(),
            view_name.into(),
            relation.into(),
            JsonB(serde_json::to_value(columns)?).into(),
        ],
        from_row,
    )?
    .ok_or_else(|| Error::Bug("a version without a view".into()))
}

/// It is made, by these scripts where it converts.
pub fn set_made(
    id: i64,
    view: Oid,
    rows: Option<Oid>,
    read: Option<&str>,
    write: Option<&str>,
) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.version_views SET view = $2, rows_view = coalesce($5, 0), read_script = $3, write_script = $4 WHERE id = $1",
        &[id.into(), view.into(), read.into(), write.into(), rows.into()],
    )?;
    Ok(())
}

pub fn delete(id: i64) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.version_views WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// The versions of a table.
pub fn on(relation: Oid) -> Result<Vec<View>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.version_views WHERE relation = $1 AND to_regclass(format('%I.%I', version, \
             view_name))::oid = view ORDER BY id"
        ),
        &[relation.into()],
        from_row,
    )
}

/// All views of all versions.
pub fn all() -> Result<Vec<View>> {
    spi::query(
        &format!("SELECT {COLUMNS} FROM _transmute.version_views ORDER BY id"),
        &[],
        from_row,
    )
}

/// The tables of a version.
pub fn of(version: &str) -> Result<Vec<View>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.version_views WHERE version = $1::name ORDER BY id"
        ),
        &[version.into()],
        from_row,
    )
}

/// What a migration has made of one table in a version.
pub fn made_by(migration_id: &str, version: &str) -> Result<Vec<View>> {
    spi::query(
        &format!(
            "SELECT {COLUMNS} FROM _transmute.version_views WHERE migration_id = $1 AND version = $2::name ORDER BY id DESC"
        ),
        &[migration_id.into(), version.into()],
        from_row,
    )
}

/// Migrations that are under way and have made views of a version.
pub fn under_way(version: &str) -> Result<Vec<String>> {
    spi::query(
        "SELECT DISTINCT m.id FROM _transmute.version_views v JOIN _transmute.migrations m ON m.id = v.migration_id \
         WHERE v.version = $1::name AND (m.state <> 'FINISHED' OR m.undo_reason IS NOT NULL AND m.undone_at IS NULL) ORDER BY 1",
        &[version.into()],
        |row| row.need(1),
    )
}
