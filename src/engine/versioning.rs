//! Versioned schemas: a schema a release, with a view of each table that the migration changes, as that release knows it.

use super::call::require_reason;
use super::execute;
use crate::catalog::relation::{self, Relation};
use crate::dualwrite::second_name::{self, Place};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::meta::Meta;
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Kind as Parsed, Named};
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::recipe::{self, Planned};
use crate::rewrite::probe::Earlier;
use crate::rewrite::version::{self as views, Ways};
use crate::rewrite::{keep, lock, require_free, shadow};
use crate::store::audit_event;
use crate::store::migration::Migration;
use crate::store::rewrite;
use crate::store::step::{self, Kind, Step};
use crate::store::version::{self, Shape};

/// Makes, or drops, what the step is about.
pub fn run(migration: &Migration, step: &Step) -> Result<()> {
    let meta = &migration.meta;
    match step.kind {
        Kind::VersionBefore => {
            let table = table_of(migration, step)?;
            let shape = views::shape(table.oid)?;
            make(
                migration,
                &before(meta)?,
                &table,
                &shape,
                Ways::default(),
                &view_name(step)?,
            )
        }
        Kind::VersionAfter => after(migration, step, meta),
        Kind::VersionDrop => {
            views::require_owner(&step.target, execute::owner_role(migration)?)?;
            drop_version(&step.target)
        }
        Kind::VersionBack => {
            let view = named(&step.target)?;
            let version = view.schema.unwrap_or_default();
            let mut made = version::of(&version)?;
            made.retain(|v| v.view_name == view.name);
            match version::exists(&version)? {
                true => drop_views(&version, &made),
                false => Ok(()), // somebody released it
            }
        }
        other => Err(Error::Bug(format!("{} makes no version", other.name()))),
    }
}

/// Takes away what the step has made.
pub fn revert(migration: &Migration, step: &Step) -> Result<()> {
    let meta = &migration.meta;
    let version = match step.kind {
        Kind::VersionBefore => before(meta)?,
        _ => of_release(meta)?,
    };
    let name = view_name(step)?;
    let made: Vec<version::View> = version::made_by(&migration.id, &version)?
        .into_iter()
        .filter(|v| v.view_name == name)
        .collect();
    drop_views(&version, &made)
}

fn before(meta: &Meta) -> Result<String> {
    meta.versioned_views_before
        .clone()
        .ok_or_else(|| Error::Bug("a step without its version".into()))
}

fn of_release(meta: &Meta) -> Result<String> {
    meta.versioned_views
        .clone()
        .ok_or_else(|| Error::Bug("a step without its version".into()))
}

/// What takes the view away that a step of a run has made, when that has finished; `None`: it was released, or is somebody
/// else's by now.
pub fn way_back(run: &str, meta: &Meta, step: &Step) -> Result<Option<Planned>> {
    let version = match step.kind {
        Kind::VersionBefore => before(meta)?,
        _ => of_release(meta)?,
    };
    let name = view_name(step)?;
    let made = version::made_by(run, &version)?;
    let Some(view) = made.into_iter().find(|v| v.view_name == name) else {
        return Ok(None);
    };
    views::refuse_users(&view)?;
    let target = view.name().to_string();
    let sql = format!("drop {target}, a view of the table");
    Ok(Some(recipe::back(0, &target, &sql, Kind::VersionBack)))
}

/// The table's name in the version: what the step says behind its last blank.
fn view_name(step: &Step) -> Result<String> {
    Ok(named(&step.target)?.name)
}

fn named(target: &str) -> Result<Named> {
    let (schema, name) = spi::first(
        "SELECT p[1], p[2] FROM parse_ident($1) p",
        &[target.into()],
        |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
    )?
    .ok_or_else(|| Error::Bug(format!("no name: {target}")))?;
    Ok(Named {
        schema: Some(schema),
        name,
    })
}

/// The table of a step, also where a view stands in its place.
fn table_of(migration: &Migration, step: &Step) -> Result<Relation> {
    let named = named(&step.target)?;
    let name = QualifiedName::new(named.schema.unwrap_or_default(), named.name);
    let table = match second_name::place(&name)? {
        Place::Table(table) | Place::View(_, table) => table,
    };
    if !identity::has_privs_of(execute::owner_role(migration)?, table.owner) {
        return Err(Error::Privilege {
            problem: "the migration's owner does not own the table any more".into(),
            detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
            hint: "Grant it membership, then transmute.resume(id, reason).".into(),
        });
    }
    require_free(&table, &migration.id)?;
    Ok(table)
}

/// The table as it will be: the shadow's columns, where there is one, under their new names, without those that are dropped.
fn after(migration: &Migration, step: &Step, meta: &Meta) -> Result<()> {
    let table = table_of(migration, step)?;
    let rewrite = rewrite::list(&migration.id)?
        .into_iter()
        .find(|r| r.relation == table.oid && !r.swapped);
    let work = rewrite
        .map(|r| super::rewriting::work_of(migration, r))
        .transpose()?;
    let tree = tree_of(migration, &table)?;
    let shape = match (&work, &tree) {
        (Some(work), _) => views::shape(work.rewrite.shadow)?,
        (None, Some(tree)) => shape_of_tree(migration, &table, tree)?,
        (None, None) => views::shape(table.oid)?,
    };
    let shape = renamed(&migration.id, &step.target, shape)?;
    let ways = match (&work, &tree) {
        (Some(work), _) => Ways {
            read: Some(&work.alter),
            write: work.other.as_deref(),
        },
        (None, Some(tree)) => Ways {
            read: Some(&tree.sql),
            write: tree.revert_sql.as_deref(),
        },
        (None, None) => Ways::default(),
    };
    make(
        migration,
        &of_release(meta)?,
        &table,
        &shape,
        ways,
        &view_name(step)?,
    )
}

/// The step that will change a partitioned table, when its partitions are copied.
fn tree_of(migration: &Migration, table: &Relation) -> Result<Option<Step>> {
    if table.kind != 'p' {
        return Ok(None);
    }
    for tree in step::pending(&migration.id, Kind::RewriteTree)? {
        if table_of(migration, &tree)?.oid == table.oid {
            return Ok(Some(tree));
        }
    }
    Ok(None)
}

/// It has no shadow itself: the statements are tried on an empty copy.
fn shape_of_tree(migration: &Migration, table: &Relation, tree: &Step) -> Result<Vec<Shape>> {
    let session = migration.with_settings(&tree.settings).session;
    let nothing_earlier = Earlier::default();
    let shape = |_: &QualifiedName, new: &QualifiedName| views::shape(shadow::oid_of(new)?);
    keep::with_copies(
        table,
        &tree.sql,
        &nothing_earlier,
        &session,
        || Ok(()),
        shape,
    )
}

/// What later steps of the migration rename and hide.
fn renamed(id: &str, target: &str, mut shape: Vec<Shape>) -> Result<Vec<Shape>> {
    for step in step::all(id)? {
        if step.target != target {
            continue;
        }
        let statement = match step.kind {
            Kind::RenameFinish | Kind::HideColumn => parser::parse(&step.sql)?.into_iter().next(),
            _ => None,
        };
        match statement.map(|s| s.kind) {
            Some(Parsed::RenameColumn(rename)) => {
                for column in shape.iter_mut().filter(|c| c.name == rename.column) {
                    column.name.clone_from(&rename.new_name);
                }
            }
            Some(Parsed::AlterTable(alter)) => {
                let hidden = alter.commands.first().and_then(|c| c.column.clone());
                shape.retain(|c| Some(&c.name) != hidden.as_ref());
            }
            _ => {}
        }
    }
    Ok(shape)
}

/// The schema, if it is not there yet, and the view in it.
fn make(
    migration: &Migration,
    version: &str,
    table: &Relation,
    shape: &[Shape],
    ways: Ways<'_>,
    view_name: &str,
) -> Result<()> {
    audit_event::reserve()?;
    views::require_owner(version, execute::owner_role(migration)?)?;
    let schema = quote_ident(version);
    if !version::exists(version)? {
        utility::run(&format!(
            "CREATE SCHEMA {schema} AUTHORIZATION {}",
            quote_ident(&migration.owner_name)
        ))?;
        version::insert_version(version, &migration.owner_name)?;
    }
    let mut grants = vec![format!(
        "GRANT USAGE ON SCHEMA {schema} TO {}",
        quote_ident(&table.owner_name)
    )];
    grants.extend(spi::query(
        "SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %s', $2, _transmute.role_name(e.grantee)) \
         FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) e \
         WHERE n.nspname = $1::name AND e.privilege_type = 'USAGE' ORDER BY 1",
        &[table.name.schema.as_str().into(), version.into()],
        |row| row.need::<String>(1),
    )?);
    for sql in grants {
        spi::execute(&sql, &[])?;
    }
    let view = version::insert(&migration.id, version, view_name, table.oid, shape)?;
    views::make(&view, table, ways, &migration.session)?;
    waitpoint::reach("version_before_commit")
}

/// Drops these views, and the schema with its last one.
fn drop_views(version: &str, made: &[version::View]) -> Result<()> {
    audit_event::reserve()?;
    let mut there: Vec<Oid> = Vec::new();
    for view in made {
        let oid: Option<Oid> = spi::value(
            "SELECT oid FROM pg_class WHERE oid = $1 AND relkind = 'v'",
            &[view.view.into()],
        )?;
        there.extend(oid);
    }
    lock::acquire(&there, LockMode::AccessExclusive, version)?;
    for view in made {
        views::unmake(view)?;
        version::delete(view.id)?;
    }
    if version::of(version)?.is_empty() {
        utility::run(&format!("DROP SCHEMA IF EXISTS {}", quote_ident(version)))?;
        version::delete_version(version)?;
    }
    waitpoint::reach("version_before_commit")
}

fn drop_version(version: &str) -> Result<()> {
    match version::exists(version)? {
        true => drop_views(version, &version::of(version)?),
        false => Ok(()), // somebody released it
    }
}

/// `transmute.release_version`: the application of that release is gone.
pub fn release(version: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    if !version::exists(version)? {
        return Err(unknown(version));
    }
    views::require_owner(version, caller.role)?;
    let busy = version::under_way(version)?;
    if let Some(id) = busy.first() {
        return Err(Error::Prerequisite {
            problem: "a migration that has made the version is under way".into(),
            detail: format!("Migration \"{id}\" has views in \"{version}\"."),
            hint: "Wait until it has finished, or roll it back: that takes its views away.".into(),
        });
    }
    let views = version::of(version)?;
    let ids: Vec<String> = views.iter().map(|v| v.name().to_string()).collect();
    drop_views(version, &views)?;
    record_release(version, reason, &ids, caller)
}

fn record_release(version: &str, reason: &str, views: &[String], caller: &Caller) -> Result<()> {
    let user = relation::role_name(caller.role)?;
    audit_event::append(audit_event::Act {
        event: "version released",
        detail: Some(serde_json::json!({ "version": version, "reason": reason, "views": views })),
        current_user: Some(&user),
        ..audit_event::Act::default()
    })?;
    Ok(())
}

fn unknown(version: &str) -> Error {
    Error::UndefinedObject {
        problem: "version does not exist".into(),
        detail: format!("No version is named \"{version}\"."),
        hint: "SELECT * FROM transmute.versions lists them.".into(),
    }
}
