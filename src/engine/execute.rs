//! Steps that run a statement as it stands, and their reverts.

use crate::catalog::relation::{self, Relation};
use crate::catalog::{constraint, index, partition};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::maintenance::{Maintenance, Name};
use crate::pg::parser::{self, Action, AlterTable, Command, Kind, Part, PartChange, Statement};
use crate::pg::pieces;
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use crate::pg::{identity, utility};
use crate::rewrite::{drop_schema, lock, require_free};
use crate::store::artifact;
use crate::store::migration::Migration;

/// Runs statements as they stand: an ALTER TABLE as the table's owner, anything else as the migration's owner;
/// restricted, with the search_path of register, under lock_timeout.
pub fn run(migration: &Migration, sql: &str) -> Result<()> {
    for statement in parser::parse(sql)? {
        run_one(migration, &statement)?;
    }
    Ok(())
}

fn run_one(migration: &Migration, statement: &Statement) -> Result<()> {
    let owner = owner_role(migration)?;
    let mut role = owner;
    let sql = &statement.text;
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    if let Kind::AlterTable(alter) = &statement.kind {
        let oid = identity::as_role(owner, &migration.session, || {
            pg_relation::resolve(alter.schema.as_deref(), &alter.name)
        })?;
        if let Some(oid) = oid {
            let table = relation::get(oid)?;
            if !identity::has_privs_of(owner, table.owner) {
                return Err(Error::Privilege {
                    problem: "the migration's owner does not own the table any more".into(),
                    detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
                    hint: "Grant it membership, then transmute.resume(id, reason).".into(),
                });
            }
            require_free(&table, &migration.id)?;
            let mode = pieces::lock_of(sql)?.unwrap_or(LockMode::AccessExclusive);
            let mut relations = vec![oid];
            if reaches_partitions(alter) && !pieces::of(sql)?.only {
                relations = tree(oid)?;
            }
            relations.extend(others(migration, owner, &table, alter, sql)?);
            lock::acquire(&relations, mode, &table.name.to_string())?;
            if let Some(part) = alter.commands.iter().find_map(|c| c.part.as_ref()) {
                let (tables, same_owner) = parts(migration, owner, &table, part)?;
                lock::acquire(&tables, LockMode::AccessExclusive, &table.name.to_string())?;
                if !same_owner {
                    return identity::as_role(owner, &migration.session, || utility::run(sql));
                }
            }
            let gives_away = alter
                .commands
                .iter()
                .all(|c| c.action == Action::ChangeOwner);
            if !gives_away {
                role = table.owner;
            }
        }
    }
    if let Kind::Maintenance(maintenance) = &statement.kind {
        lock_for_index(migration, owner, maintenance)?;
    }
    if let Kind::Maintenance(Maintenance::DropType { names }) = &statement.kind {
        return drop_types(migration, owner, sql, names);
    }
    identity::as_role(role, &migration.session, || utility::run(sql))
}

/// The tables besides the partitioned one that are locked to attach or detach a partition, and whether all have one owner: else
/// only whoever has the rights of all of them may do it.
fn parts(
    migration: &Migration,
    owner: Oid,
    table: &Relation,
    part: &Part,
) -> Result<(Vec<Oid>, bool)> {
    let found = identity::as_role(owner, &migration.session, || {
        pg_relation::resolve(part.schema.as_deref(), &part.name)
    })?;
    let mut tables = Vec::new();
    if part.change != PartChange::Finalize {
        tables.extend(partition::default_of(table.oid)?);
    }
    if part.change == PartChange::Attach {
        let keys = partition::foreign_keys(table.oid)?;
        tables.extend(keys.into_iter().map(|key| key.references));
        tables.sort_unstable_by_key(|oid| oid.to_u32());
        tables.dedup();
    }
    let mut same_owner = true;
    if let Some(oid) = found {
        let child = relation::get(oid)?;
        require_free(&child, &migration.id)?;
        same_owner = child.owner == table.owner;
        tables.retain(|t| *t != oid);
        tables.extend(tree(oid)?);
    }
    Ok((tables, same_owner))
}

/// Whether an ALTER TABLE changes the partitions and heirs of its table too.
fn reaches_partitions(alter: &AlterTable) -> bool {
    alter.commands.iter().any(|c| {
        matches!(
            c.action,
            Action::AddColumn
                | Action::DropColumn
                | Action::AlterType
                | Action::SetNotNull
                | Action::AddConstraint
                | Action::ValidateConstraint
                | Action::DropConstraint
        )
    })
}

/// A table, its partitions and heirs, in the order in which the server locks them.
fn tree(table: Oid) -> Result<Vec<Oid>> {
    Ok(partition::tree(table)?.into_iter().map(|m| m.oid).collect())
}

/// The index of a partitioned table is made ONLY there, and dropped with those of the partitions, in a transaction: the tables
/// are locked first, outside of the queue.
fn lock_for_index(migration: &Migration, owner: Oid, maintenance: &Maintenance) -> Result<()> {
    let find = |name: &Name| {
        identity::as_role(owner, &migration.session, || {
            pg_relation::resolve(name.schema.as_deref(), &name.name)
        })
    };
    let (table, mode) = match maintenance {
        Maintenance::CreateIndex(create) => (find(&create.table)?, LockMode::Share),
        Maintenance::DropIndex(drop) => {
            let index = drop.names.first().map(find).transpose()?.flatten();
            let of = index.map(index::owner_of).transpose()?.flatten();
            (of.map(|(table, ..)| table), LockMode::AccessExclusive)
        }
        _ => return Ok(()),
    };
    let Some(table) = table.map(relation::get).transpose()? else {
        return Ok(());
    };
    if table.kind != 'p' {
        return Ok(());
    }
    require_free(&table, &migration.id)?;
    let relations = match mode {
        LockMode::Share => vec![table.oid],
        _ => tree(table.oid)?,
    };
    lock::acquire(&relations, mode, &table.name.to_string())
}

/// DROP TYPE. The old rows that a migration keeps may be of the type: then it goes into their schema, and with them.
fn drop_types(migration: &Migration, owner: Oid, sql: &str, names: &[Name]) -> Result<()> {
    let plainly = || identity::as_role(owner, &migration.session, || utility::run(sql));
    let refused = match xact::subtransaction(End::Keep, plainly) {
        Err(error) if error.sqlstate_text() == DEPENDENT_OBJECTS => error,
        other => return other,
    };
    let kept = artifact::schemas(&migration.id)?;
    let Some(schema) = kept.first() else {
        return Err(refused);
    };
    // Whether anything else is in the way, with them gone.
    xact::subtransaction(End::Undo, || {
        for schema in &kept {
            drop_schema(schema)?;
        }
        plainly()
    })?;
    for name in names {
        let text = match &name.schema {
            Some(schema) => QualifiedName::new(schema, &name.name).to_string(),
            None => quote_ident(&name.name),
        };
        let found = identity::as_role(owner, &migration.session, || relation::type_name(&text))?;
        if let Some(found) = found {
            utility::run(&format!(
                "ALTER TYPE {found} SET SCHEMA {}",
                quote_ident(schema)
            ))?;
        }
    }
    Ok(())
}

/// dependent_objects_still_exist
const DEPENDENT_OBJECTS: &str = "2BP01";

/// Tables besides its own that an ALTER TABLE locks in the same mode: at the other end of a foreign key that it adds
/// or drops.
fn others(
    migration: &Migration,
    owner: Oid,
    table: &Relation,
    alter: &AlterTable,
    sql: &str,
) -> Result<Vec<Oid>> {
    let mut found = Vec::new();
    for piece in pieces::of(sql)?.list {
        for (schema, name) in piece
            .constraints
            .iter()
            .filter_map(|c| c.references.as_ref())
        {
            found.extend(identity::as_role(owner, &migration.session, || {
                pg_relation::resolve(schema.as_deref(), name)
            })?);
        }
    }
    let drops: Vec<&Command> = alter
        .commands
        .iter()
        .filter(|c| matches!(c.action, Action::DropColumn | Action::DropConstraint))
        .collect();
    if !drops.is_empty() {
        for constraint in constraint::list(table.oid)? {
            let dropped = drops.iter().any(|c| match (c.action, &c.column) {
                (Action::DropColumn, Some(column)) => constraint.columns.contains(column),
                (_, name) => name.as_deref() == Some(constraint.name.as_str()),
            });
            found.extend(constraint.references.filter(|_| dropped));
        }
    }
    found.retain(|oid| *oid != table.oid);
    found.sort_unstable_by_key(|oid| oid.to_u32());
    found.dedup();
    Ok(found)
}

/// The role a migration belongs to; it may have been dropped since.
pub fn owner_role(migration: &Migration) -> Result<Oid> {
    relation::role_oid(&migration.owner_name)?.ok_or_else(|| Error::UndefinedObject {
        problem: "the owner of the migration does not exist any more".into(),
        detail: format!("Role \"{}\" was dropped.", migration.owner_name),
        hint: "transmute.rollback(id, reason), then register it again as another role.".into(),
    })
}
