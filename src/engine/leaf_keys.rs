//! The foreign key of a partitioned table: each partition gets its own and proves it, then the statement itself runs,
//! and the server takes those over without looking a row up again.

use super::tick::Next;
use super::work::Worked;
use super::{execute, way_back};
use crate::catalog::partition::{self, Member};
use crate::catalog::{constraint, relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::parser::{self, Kind as StatementKind};
use crate::pg::pieces::{self, Constraint};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{identity, spi, utility, waitpoint, Oid};
use crate::rewrite::{lock, require_free};
use crate::store::leaf_index::{self, LeafIndex};
use crate::store::migration::Migration;
use crate::store::step::Step;
use std::collections::HashSet;

/// What the statement adds, and to which table.
struct Wanted {
    table: relation::Relation,
    key: Constraint,
    /// The table it points at.
    referenced: Oid,
}

fn wanted(migration: &Migration, step: &Step) -> Result<Wanted> {
    let statement = parser::parse(&step.sql)?.into_iter().next();
    let (alter, text) = match statement.map(|s| (s.kind, s.text)) {
        Some((StatementKind::AlterTable(alter), text)) => (alter, text),
        _ => return Err(Error::Bug(format!("no ALTER TABLE: {}", step.sql))),
    };
    let key = pieces::of(&text)?
        .list
        .into_iter()
        .flat_map(|p| p.constraints)
        .next();
    let key = key.ok_or_else(|| Error::Bug(format!("no foreign key: {}", step.sql)))?;
    let (schema, name) = key.references.clone().unwrap_or_default();
    let find = |schema: Option<&str>, name: &str| {
        let owner = execute::owner_role(migration)?;
        identity::as_role(owner, &migration.session, || {
            pg_relation::resolve(schema, name)
        })?
        .ok_or_else(|| Error::UndefinedTable {
            name: name.to_string(),
            search_path: migration.session.search_path.clone(),
        })
    };
    Ok(Wanted {
        table: relation::get(find(alter.schema.as_deref(), &alter.name)?)?,
        referenced: find(schema.as_deref(), &name)?,
        key,
    })
}

/// The next piece: one partition gets the key, or one proves it.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    add_next(migration, step, &wanted(migration, step)?)
}

/// Does what is still missing, then runs the statement.
pub fn attach(migration: &Migration, step: &Step) -> Result<Worked> {
    let wanted = wanted(migration, step)?;
    match add_next(migration, step, &wanted)? {
        Worked::Done => take_over(migration, step, &wanted).map(|()| Worked::Done),
        more => Ok(more),
    }
}

fn add_next(migration: &Migration, step: &Step, wanted: &Wanted) -> Result<Worked> {
    let ours = leaf_index::list(&migration.id, &step.target)?;
    if let Some(open) = ours.iter().find(|o| !o.built) {
        match relation::named(&open.leaf)? {
            None => leaf_index::delete(open.id)?,
            Some(_) => {
                execute::run(
                    migration,
                    &format!(
                        "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                        open.leaf,
                        quote_ident(&open.name)
                    ),
                )?;
                leaf_index::set_built(open.id)?;
            }
        }
        waitpoint::reach("leaf_key_proved_before_commit")?;
        return Ok(Worked::More(Next::Again));
    }
    let Some(leaf) = missing(wanted, &ours)? else {
        return Ok(Worked::Done);
    };
    let name = name_on(&leaf, &wanted.key)?;
    let quoted = quote_ident(&name);
    let sql = format!(
        "ALTER TABLE {} ADD CONSTRAINT {quoted} {} NOT VALID",
        leaf.name, wanted.key.body
    );
    execute::run(migration, &sql)?;
    leaf_index::insert(leaf_index::New {
        migration_id: &migration.id,
        target: &step.target,
        leaf: &leaf.name,
        name: &name,
        sql: &sql,
        revert_sql: &format!(
            "ALTER TABLE {} DROP CONSTRAINT IF EXISTS {quoted}",
            leaf.name
        ),
    })?;
    waitpoint::reach("leaf_key_added_before_commit")?;
    Ok(Worked::More(Next::Again))
}

/// The first partition with rows that has not got the key from us.
fn missing(wanted: &Wanted, ours: &[LeafIndex]) -> Result<Option<Member>> {
    let leaves = partition::leaves(wanted.table.oid)?;
    Ok(leaves.into_iter().find(|leaf| {
        leaf.kind == 'r' && !leaf.detaching && !ours.iter().any(|o| o.leaf == leaf.name)
    }))
}

/// That of the partitioned table's, as the server would choose it.
fn name_on(leaf: &Member, key: &Constraint) -> Result<String> {
    let wanted = key.name.clone().unwrap_or_default();
    let taken = constraint::list(leaf.oid)?.iter().any(|c| c.name == wanted);
    match taken {
        false => Ok(wanted),
        true => {
            let name = relation::get(leaf.oid)?.name;
            let columns = key.columns.join("_");
            constraint::choose_name(
                &name.schema,
                &name.name,
                Some(&columns),
                "fkey",
                &HashSet::new(),
            )
        }
    }
}

fn take_over(migration: &Migration, step: &Step, wanted: &Wanted) -> Result<()> {
    let table = &wanted.table;
    require_free(table, &migration.id)?;
    let members = |table: Oid| -> Result<Vec<Oid>> {
        Ok(partition::tree(table)?.into_iter().map(|m| m.oid).collect())
    };
    let locked = members(table.oid)?;
    let ours = leaf_index::list(&migration.id, &step.target)?;
    let names: Vec<String> = ours.iter().map(|o| o.name.clone()).collect();
    way_back::note(migration, step, &locked, &names)?;
    lock::acquire(
        &locked,
        LockMode::ShareRowExclusive,
        &table.name.to_string(),
    )?;
    // The server drops the triggers that the keys of the partitions have there.
    lock::acquire(
        &[wanted.referenced],
        LockMode::AccessExclusive,
        &relation::get(wanted.referenced)?.name.to_string(),
    )?;
    if members(table.oid)? != locked || missing(wanted, &ours)?.is_some() {
        return Err(Error::LockNotAvailable {
            relation: table.name.to_string(),
            detail: "A partition came meanwhile; its rows are proved first.".into(),
        });
    }
    identity::as_role(table.owner, &migration.session, || utility::run(&step.sql))?;
    for one in &ours {
        // One that was there before was taken over in its stead.
        if is_left(one)? {
            execute::run(migration, &one.revert_sql)?;
        }
        leaf_index::delete(one.id)?;
    }
    waitpoint::reach("leaf_attached_before_commit")
}

/// Whether the key of a partition belongs to no key of its table.
fn is_left(one: &LeafIndex) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2::name \
           AND contype = 'f' AND conparentid = 0)",
        &[one.leaf.as_str().into(), one.name.as_str().into()],
    )? == Some(true))
}

/// Drops the keys of the partitions, one a time, the last one first.
pub fn revert(migration: &Migration, step: &Step) -> Result<Worked> {
    let Some(last) = leaf_index::list(&migration.id, &step.target)?.pop() else {
        return Ok(Worked::Done);
    };
    if relation::named(&last.leaf)?.is_some() {
        execute::run(migration, &last.revert_sql)?;
    }
    leaf_index::delete(last.id)?;
    waitpoint::reach("leaf_dropped_before_commit")?;
    Ok(Worked::More(Next::Again))
}
