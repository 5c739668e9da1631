//! Steps that run a statement as it stands, and their reverts.

use crate::catalog::constraint;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::parser::{self, Action, AlterTable, Command, Kind, Statement};
use crate::pg::pieces;
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::Oid;
use crate::pg::{identity, utility};
use crate::rewrite::{lock, require_free};
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
            relations.extend(others(migration, owner, &table, alter, sql)?);
            lock::acquire(&relations, mode, &table.name.to_string())?;
            let gives_away = alter
                .commands
                .iter()
                .all(|c| c.action == Action::ChangeOwner);
            if !gives_away {
                role = table.owner;
            }
        }
    }
    identity::as_role(role, &migration.session, || utility::run(sql))
}

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
