//! What the catalog says of a statement that ran, or was to run, outside of a transaction.

use super::execute::owner_role;
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::pg::identity;
use crate::pg::maintenance::{Maintenance, Name};
use crate::pg::parser::{self, Kind};
use crate::pg::{relation as pg_relation, Oid};
use crate::store::migration::Migration;

/// What is there.
pub struct Evidence {
    /// The table it works on, if there still is one.
    pub table: Option<relation::Relation>,
    /// What the statement makes, whole or not.
    pub exists: bool,
    /// The statement has done all it does.
    pub done: bool,
    /// Statement that removes what a failed one left; `None`: nothing is left.
    pub leftover: Option<String>,
    /// IF NOT EXISTS: what is found there will do.
    pub found_is_fine: bool,
}

/// Looks at what the statement of a step would make.
pub fn look(migration: &Migration, sql: &str) -> Result<Evidence> {
    let parsed = parser::parse(sql)?.into_iter().next().map(|s| s.kind);
    match parsed {
        Some(Kind::Maintenance(Maintenance::CreateIndex(create))) => {
            let table = resolve(migration, &create.table)?;
            let name = create.name.unwrap_or_default();
            let found = match &table {
                Some(table) => index::named(table.oid, &name)?,
                None => None,
            };
            let ours = found.as_ref().filter(|f| f.on_table);
            Ok(Evidence {
                exists: found.is_some(),
                done: ours.is_some_and(|f| f.valid),
                leftover: match (&table, ours) {
                    (Some(table), Some(found)) if !found.valid => Some(format!(
                        "DROP INDEX CONCURRENTLY IF EXISTS {}",
                        QualifiedName::new(&table.name.schema, &name)
                    )),
                    _ => None,
                },
                table,
                found_is_fine: create.if_not_exists,
            })
        }
        _ => Err(Error::Bug(format!(
            "no step outside of a transaction: {sql}"
        ))),
    }
}

/// What a name means now, to the migration's owner.
fn resolve(migration: &Migration, name: &Name) -> Result<Option<relation::Relation>> {
    let oid: Option<Oid> = identity::as_role(owner_role(migration)?, &migration.session, || {
        pg_relation::resolve(name.schema.as_deref(), &name.name)
    })?;
    oid.map(relation::get).transpose()
}
