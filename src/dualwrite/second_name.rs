//! Columns under two names at once: the table steps aside, and a view in its place shows it as it is, with the new names
//! after the last column. Both names are the same stored value: nothing is copied, nothing can differ, indexes serve both.

use super::make_view;
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{self, derived, quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::naming::{HIDDEN, OLD_NAME_OF};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{expand, lock, require_free};
use crate::store::audit_event;

/// Old and new name of a column.
pub type Pair = (String, String);

/// What a table's name means now.
pub enum Place {
    /// The table itself.
    Table(Relation),
    /// Our view, and the table behind it.
    View(Oid, Relation),
}

/// Looks what `name` means.
pub fn place(name: &QualifiedName) -> Result<Place> {
    let Some(oid) = pg_relation::resolve(Some(&name.schema), &name.name)? else {
        return Err(Error::UndefinedTable {
            name: name.to_string(),
            search_path: String::new(),
        });
    };
    let found = relation::get(oid)?;
    if found.kind != 'v' {
        return Ok(Place::Table(found));
    }
    // The one relation that the view of ours is about; a name in a comment could be anybody's.
    let base: Option<Oid> = spi::first(
        "SELECT DISTINCT d.refobjid FROM pg_rewrite r \
         JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass \
         JOIN pg_class c ON c.oid = d.refobjid AND c.oid <> r.ev_class AND c.relname ~ '^_transmute_[0-9]+_' \
         WHERE r.ev_class = $1 AND obj_description($1, 'pg_class') LIKE $2 || '%'",
        &[oid.into(), OLD_NAME_OF.into()],
        |row| row.need(1),
    )?;
    match base {
        Some(base) => Ok(Place::View(oid, relation::get(base)?)),
        None => Err(Error::WrongObject {
            problem: "the table's name belongs to something else now".into(),
            detail: format!("{name} is not the view that was made for both applications."),
            hint: "Give that object another name, then transmute.resume(id, reason).".into(),
        }),
    }
}

/// Makes `pairs` the columns with two names, whichever they are now; none: the table is itself again. One transaction.
pub fn set(migration_id: &str, name: &QualifiedName, pairs: &[Pair]) -> Result<()> {
    let table = alone(migration_id, name)?;
    both(&table, name, pairs)
}

/// The end taken back: columns that have their new names only get the old ones, and keep the new ones beside them.
pub fn reopen(migration_id: &str, name: &QualifiedName, pairs: &[Pair]) -> Result<()> {
    let table = alone(migration_id, name)?;
    let columns = column::list(table.oid)?;
    let is_there = |name: &String| columns.iter().any(|c| !c.dropped && c.name == *name);
    for (old, new) in pairs {
        match (is_there(old), is_there(new)) {
            (true, _) => {} // with the first of its table
            (false, true) => rename_column(&table, name, new, old)?,
            (false, false) => {
                return Err(Error::Prerequisite {
                    problem: "a column that was renamed is gone".into(),
                    detail: format!("{name} has no column {} any more.", quote_ident(new)),
                    hint: "Undo that change, then transmute.resume(id, reason).".into(),
                })
            }
        }
    }
    both(&table, name, pairs)
}

/// The table, which is alone, with a view in its place that has both names.
fn both(table: &Relation, name: &QualifiedName, pairs: &[Pair]) -> Result<()> {
    if !pairs.is_empty() {
        // Deparsed while the table has the name that the view gets.
        let grants: Vec<String> = spi::query(
            "SELECT unnest(_transmute.grant_sql($1))",
            &[table.oid.into()],
            |row| row.need(1),
        )?;
        let base = derived(&format!("{HIDDEN}{}_", expand::free_id()?), &name.name);
        let base = QualifiedName::new(&name.schema, base);
        rename(table, name, &base.name)?;
        make_view(table, name, &base, &columns(table.oid, pairs)?)?;
        for sql in &grants {
            spi::execute(sql, &[])?;
        }
        for sql in column_grants(table.oid, name, pairs)? {
            spi::execute(&sql, &[])?;
        }
    }
    waitpoint::reach("second_name_before_commit")
}

/// The end: the table alone under its name, its columns under their new ones. One transaction.
pub fn finish(migration_id: &str, name: &QualifiedName, pairs: &[Pair]) -> Result<()> {
    let table = alone(migration_id, name)?;
    let columns = column::list(table.oid)?;
    for (old, new) in pairs {
        // What a step before did in one go with its own is done.
        if columns.iter().any(|c| !c.dropped && c.name == *old) {
            rename_column(&table, name, old, new)?;
        }
    }
    waitpoint::reach("second_name_before_commit")
}

/// The table locked, under its own name: without the view, if there was one.
fn alone(migration_id: &str, name: &QualifiedName) -> Result<Relation> {
    let (view, table) = lock_both(migration_id, name)?;
    if let Some(view) = view {
        require_unused(view, name)?;
        utility::run(&format!("DROP VIEW {name}"))?;
        rename(&table, &table.name, &name.name)?;
    }
    Ok(table)
}

/// The view first, if it is there: everybody who comes by the name meets it first.
fn lock_both(migration_id: &str, name: &QualifiedName) -> Result<(Option<Oid>, Relation)> {
    let (view, table) = match place(name)? {
        Place::Table(table) => (None, table),
        Place::View(view, table) => (Some(view), table),
    };
    require_free(&table, migration_id)?;
    audit_event::reserve()?;
    let locked: Vec<Oid> = view.into_iter().chain([table.oid]).collect();
    lock::acquire(&locked, LockMode::AccessExclusive, &name.to_string())?;
    Ok((view, table))
}

/// Somebody built something on the view: dropping it would take that along.
fn require_unused(view: Oid, name: &QualifiedName) -> Result<()> {
    let users: Vec<String> = spi::query(
        include_str!("../../sql/query/drop_users.sql"),
        &[vec![view].into(), Vec::<i16>::new().into()],
        |row| row.need(1),
    )?;
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "other objects were built on a table while a column of it has two names".into(),
        detail: format!("On {name}: {}.", users.join(", ")),
        hint: "Drop them, transmute.resume(id, reason), and make them again at the end.".into(),
    })
}

fn as_owner(table: &Relation, sql: &str) -> Result<()> {
    identity::as_role(table.owner, &Session::own(), || utility::run(sql))
}

fn rename_column(table: &Relation, name: &QualifiedName, from: &str, to: &str) -> Result<()> {
    as_owner(table, &ident::rename_column(name, from, to))
}

fn rename(table: &Relation, from: &QualifiedName, to: &str) -> Result<()> {
    as_owner(
        table,
        &format!("ALTER TABLE {from} RENAME TO {}", quote_ident(to)),
    )
}

/// What is granted on a column is granted under its second name too.
fn column_grants(table: Oid, name: &QualifiedName, pairs: &[Pair]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (old, new) in pairs {
        all.extend(spi::query(
            "SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s', e.privilege_type, $3, $4, _transmute.role_name(e.grantee), \
               CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
             FROM pg_attribute a, aclexplode(a.attacl) e WHERE a.attrelid = $1 AND a.attname = $2::name",
            &[
                table.into(),
                old.as_str().into(),
                new.as_str().into(),
                name.to_string().into(),
            ],
            |row| row.need::<String>(1),
        )?);
    }
    Ok(all)
}

/// The table's columns, and the second names after them.
fn columns(table: Oid, pairs: &[Pair]) -> Result<Vec<String>> {
    let mut columns: Vec<String> = column::list(table)?
        .iter()
        .filter(|c| !c.dropped)
        .map(|c| quote_ident(&c.name))
        .collect();
    columns.extend(
        pairs
            .iter()
            .map(|(old, new)| format!("{} AS {}", quote_ident(old), quote_ident(new))),
    );
    Ok(columns)
}
