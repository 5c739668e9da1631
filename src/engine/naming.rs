//! The steps that give things another name: the old name of a table kept by a view, dropped tables and columns hidden.

use super::dual_writing;
use super::tick::Next;
use super::work::Worked;
use super::{execute, way_back};
use crate::catalog::relation::{self, Relation};
use crate::catalog::{column, partition};
use crate::dualwrite::alias;
use crate::dualwrite::second_name::{self, Pair, Place};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, AlterTable, Kind as Parsed, Named, NewPlace, RenameTable};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::xact::{self, End};
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::recover;
use crate::rewrite::lock;
use crate::store::artifact;
use crate::store::audit_event;
use crate::store::migration::Migration;
use crate::store::rule;
use crate::store::step::{self, Kind, Step};

/// A whole step: what it is about stands in its statement, with qualified names.
pub fn run(migration: &Migration, step: &Step) -> Result<()> {
    match (step.kind, parse(&step.sql)?) {
        (Kind::AliasMake, Parsed::RenameTable(rename)) => {
            let (old, new) = names(&rename)?;
            let table = owned(migration, &old)?;
            alias::make(&migration.id, &table, &step.sql, &new)
        }
        (Kind::AliasDrop, Parsed::RenameTable(rename)) => {
            let (old, new) = names(&rename)?;
            owned(migration, &new)?;
            alias::remove(&old, &new, None)
        }
        (Kind::RenameBoth, Parsed::RenameColumn(rename)) => {
            let table = qualified(&rename.table)?;
            // This one is begun already.
            let pairs = pairs(&step::begun(&migration.id, Kind::RenameBoth)?, &table)?;
            require_owned(migration, &table)?;
            second_name::set(&migration.id, &table, &pairs)
        }
        (Kind::RenameFinish, Parsed::RenameColumn(rename)) => {
            // All columns of the table at once: none may lose its new name on the way.
            let table = qualified(&rename.table)?;
            let pairs = pairs(&step::pending(&migration.id, Kind::RenameFinish)?, &table)?;
            require_owned(migration, &table)?;
            second_name::finish(&migration.id, &table, &pairs)
        }
        (Kind::RelaxColumn, Parsed::AlterTable(alter)) => {
            let (name, _) = column_of(&alter)?;
            lock_tree(&owned(migration, &name)?)?;
            execute::run(migration, &step.sql)
        }
        (Kind::HideColumn, Parsed::AlterTable(alter)) => {
            let (name, column) = column_of(&alter)?;
            let table = owned(migration, &name)?;
            // What partitions lose with it nothing puts back.
            if !migration.keeps_old && table.kind != 'p' {
                way_back::note(migration, step, &[table.oid], &[])?;
            }
            recover::column::hide(&migration.id, &table, &column, migration.keeps_old)
        }
        (Kind::HideTable, Parsed::DropTable(drop)) => {
            let name = drop.tables.first().map(qualified).transpose()?;
            let name = name.ok_or_else(|| Error::Bug("a DROP TABLE without a table".into()))?;
            let table = owned(migration, &name)?;
            if table.kind != 'p' {
                let keys = recover::table::foreign_keys(table.oid)?.into_iter();
                let keys: Vec<String> = keys.filter(|k| k.is_own).map(|k| k.name).collect();
                let back = way_back::foreign_keys(table.oid, &keys)?;
                step::set_revert(&migration.id, step.step, Some(&back))?;
            }
            recover::table::hide(&migration.id, &table)
        }
        (Kind::Recover, Parsed::RenameColumn(rename)) => {
            let table = owned(migration, &qualified(&rename.table)?)?;
            recover::column::recover(&migration.id, &table, &rename.column, &rename.new_name)
        }
        (Kind::Recover, Parsed::RenameTable(rename)) => {
            let (hidden, shown) = names(&rename)?;
            recover::table::show(&migration.id, &owned(migration, &hidden)?, &shown)
        }
        (kind, _) => Err(Error::Bug(format!("{}: {}", kind.name(), step.sql))),
    }
}

/// The view away, the old name back.
pub fn undo_alias(step: &Step) -> Result<()> {
    let Parsed::RenameTable(rename) = parse(&step.sql)? else {
        return Err(Error::Bug(format!("no rename: {}", step.sql)));
    };
    let (old, new) = names(&rename)?;
    alias::remove(&old, &new, step.revert_sql.as_deref())
}

/// The column has one name again; others of the table may still have two.
pub fn undo_second_name(migration: &Migration, step: &Step) -> Result<()> {
    let Parsed::RenameColumn(rename) = parse(&step.sql)? else {
        return Err(Error::Bug(format!("no rename: {}", step.sql)));
    };
    let table = qualified(&rename.table)?;
    let others: Vec<Step> = step::begun(&migration.id, Kind::RenameBoth)?
        .into_iter()
        .filter(|s| s.step != step.step)
        .collect();
    second_name::set(&migration.id, &table, &pairs(&others, &table)?)
}

/// After the end: the columns have their old names, and the new ones beside them, as they had before it.
pub fn undo_finish(migration: &Migration, step: &Step) -> Result<()> {
    let Parsed::RenameColumn(rename) = parse(&step.sql)? else {
        return Err(Error::Bug(format!("no rename: {}", step.sql)));
    };
    let table = qualified(&rename.table)?;
    let pairs = pairs(&step::begun(&migration.id, Kind::RenameBoth)?, &table)?;
    second_name::reopen(&migration.id, &table, &pairs)
}

/// A column that was hidden whole is shown again.
pub fn undo_hide(migration: &Migration, step: &Step) -> Result<()> {
    let (name, column) = hidden_by(step)?;
    let Some(hidden) = artifact::of_column(&migration.id, &name, &column)? else {
        return Ok(()); // its rule has brought it back
    };
    let rules = rule::reverses(&migration.id)?;
    if rules
        .iter()
        .any(|r| r.rule.forth.iter().any(|a| a.column == hidden.name))
    {
        let ends = step::begun(&migration.id, Kind::RuleEnd)?;
        let end = ends.iter().find(|end| end.target == step.target);
        let end = end.ok_or_else(|| Error::Bug("a rule without an end".into()))?;
        return dual_writing::undo_end(migration, end);
    }
    let table = owned(migration, &name)?;
    audit_event::reserve()?;
    lock_tree(&table)?;
    recover::column::show(&table, &[(hidden, column)])?;
    waitpoint::reach("show_before_commit")
}

/// The table and the column that a step hides.
pub fn hidden_by(step: &Step) -> Result<(QualifiedName, String)> {
    match parse(&step.sql)? {
        Parsed::AlterTable(alter) => column_of(&alter),
        _ => Err(Error::Bug(format!("no ALTER TABLE: {}", step.sql))),
    }
}

/// Old and new names of the columns of `table` that these steps are about.
fn pairs(steps: &[Step], table: &QualifiedName) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for step in steps {
        if let Parsed::RenameColumn(rename) = parse(&step.sql)? {
            if qualified(&rename.table)? == *table {
                pairs.push((rename.column, rename.new_name));
            }
        }
    }
    Ok(pairs)
}

/// As `owned`, for a table that may stand behind a view of ours.
fn require_owned(migration: &Migration, name: &QualifiedName) -> Result<()> {
    let table = match second_name::place(name)? {
        Place::Table(table) | Place::View(_, table) => table,
    };
    require_owner(migration, &table)
}

/// NOT NULL again, without a scan under a strong lock: a CHECK not yet valid, validated, then NOT NULL on its proof.
/// One piece a call.
pub fn tighten(migration: &Migration, step: &Step) -> Result<Worked> {
    let Parsed::AlterTable(alter) = parse(&step.sql)? else {
        return Err(Error::Bug(format!("no ALTER TABLE: {}", step.sql)));
    };
    let (name, column_name) = column_of(&alter)?;
    let table = owned(migration, &name)?;
    let columns = column::list(table.oid)?;
    let found = columns.iter().find(|c| !c.dropped && c.name == column_name);
    let (Some(column), Some(revert)) = (found, &step.revert_sql) else {
        return Ok(Worked::Done); // dropped by somebody: there is nothing to tighten
    };
    let check = quote_ident(&format!("_transmute_not_null_{}", column.number));
    let validated: Option<bool> = spi::first(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = $1 AND conname = $2::name",
        &[table.oid.into(), check.as_str().into()],
        |row| row.need(1),
    )?;
    let quoted = quote_ident(&column_name);
    let as_owner =
        |sql: &str| identity::as_role(table.owner, &Session::own(), || utility::run(sql));
    if validated == Some(false) {
        // Reads the table under a lock that stops no writer.
        let sql = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {check}");
        xact::subtransaction(End::Keep, || as_owner(&sql)).map_err(|error| match &error {
            Error::Server(e) if crate::pg::error::sqlstate_text(e.code) == "23514" => {
                Error::Prerequisite {
                    problem: "a column cannot be made NOT NULL again".into(),
                    detail: format!(
                        "Rows of {name} that the new application wrote have no value in {quoted}."
                    ),
                    hint: format!(
                        "Give them one: UPDATE {name} SET {quoted} = … WHERE {quoted} IS NULL."
                    ),
                }
            }
            _ => error,
        })?;
        return Ok(Worked::More(Next::Again));
    }
    audit_event::reserve()?;
    lock_tree(&table)?;
    if validated.is_none() && !column.not_null {
        as_owner(&format!(
            "ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ({quoted} IS NOT NULL) NOT VALID"
        ))?;
        return Ok(Worked::More(Next::Again));
    }
    if !column.not_null {
        as_owner(revert)?;
    }
    if validated.is_some() {
        as_owner(&format!("ALTER TABLE {name} DROP CONSTRAINT {check}"))?;
    }
    Ok(Worked::Done)
}

/// A table, and its partitions, of which each has the column.
fn lock_tree(table: &Relation) -> Result<()> {
    let tree: Vec<Oid> = partition::tree(table.oid)?.iter().map(|m| m.oid).collect();
    lock::acquire(&tree, LockMode::AccessExclusive, &table.name.to_string())
}

fn parse(sql: &str) -> Result<Parsed> {
    parser::parse(sql)?
        .into_iter()
        .next()
        .map(|s| s.kind)
        .ok_or_else(|| Error::Bug("a step without a statement".into()))
}

/// Old and new name of a rename that names its schema.
fn names(rename: &RenameTable) -> Result<(QualifiedName, QualifiedName)> {
    let old = qualified(&rename.table)?;
    let new = match &rename.to {
        NewPlace::Name(name) => QualifiedName::new(&old.schema, name),
        NewPlace::Schema(schema) => QualifiedName::new(schema, &old.name),
    };
    Ok((old, new))
}

fn column_of(alter: &AlterTable) -> Result<(QualifiedName, String)> {
    let named = Named {
        schema: alter.schema.clone(),
        name: alter.name.clone(),
    };
    let column = alter.commands.first().and_then(|c| c.column.clone());
    column
        .map(|column| Ok((qualified(&named)?, column)))
        .ok_or_else(|| Error::Bug("a step without a column".into()))?
}

fn qualified(named: &Named) -> Result<QualifiedName> {
    match &named.schema {
        Some(schema) => Ok(QualifiedName::new(schema, &named.name)),
        None => Err(Error::Bug("a step whose table is not qualified".into())),
    }
}

/// The table of that name, which the migration's owner must still own.
fn owned(migration: &Migration, name: &QualifiedName) -> Result<Relation> {
    let oid = pg_relation::resolve(Some(&name.schema), &name.name)?.ok_or_else(|| {
        Error::UndefinedTable {
            name: name.to_string(),
            search_path: migration.session.search_path.clone(),
        }
    })?;
    let table = relation::get(oid)?;
    require_owner(migration, &table)?;
    Ok(table)
}

fn require_owner(migration: &Migration, table: &Relation) -> Result<()> {
    if !identity::has_privs_of(execute::owner_role(migration)?, table.owner) {
        return Err(Error::Privilege {
            problem: "the migration's owner does not own the table any more".into(),
            detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
            hint: "Grant it membership, then transmute.resume(id, reason).".into(),
        });
    }
    Ok(())
}
