//! Steps that run a statement as it stands, and their reverts.

use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::parser::{self, Kind};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::Oid;
use crate::pg::{identity, utility};
use crate::rewrite::{lock, require_free};
use crate::store::migration::Migration;

/// Runs one statement: an ALTER TABLE as the table's owner, anything else as the migration's owner; restricted, with
/// the search_path of register, under lock_timeout.
pub fn run(migration: &Migration, sql: &str) -> Result<()> {
    let owner = owner_role(migration)?;
    let mut role = owner;
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    if let Some(Kind::AlterTable(alter)) = parser::parse(sql)?.into_iter().next().map(|s| s.kind) {
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
            lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
            role = table.owner;
        }
    }
    identity::as_role(role, &migration.session, || utility::run(sql))
}

/// The role a migration belongs to; it may have been dropped since.
pub fn owner_role(migration: &Migration) -> Result<Oid> {
    relation::role_oid(&migration.owner_name)?.ok_or_else(|| Error::UndefinedObject {
        problem: "the owner of the migration does not exist any more".into(),
        detail: format!("Role \"{}\" was dropped.", migration.owner_name),
        hint: "transmute.rollback(id, reason), then register it again as another role.".into(),
    })
}
