//! What the catalog says of a statement that ran, or was to run, outside of a transaction.

use super::execute::owner_role;
use crate::catalog::{index, partition, relation};
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::pg::identity;
use crate::pg::maintenance::{Maintenance, Name, ReindexTarget};
use crate::pg::parser::{self, AlterTable, Kind};
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
    /// IF NOT EXISTS, IF EXISTS: what is found there will do.
    pub found_is_fine: bool,
}

/// Looks at what the statement of a step would make.
pub fn look(migration: &Migration, sql: &str) -> Result<Evidence> {
    let parsed = parser::parse(sql)?.into_iter().next().map(|s| s.kind);
    match parsed {
        Some(Kind::Maintenance(Maintenance::CreateIndex(create))) => {
            let table = find(migration, &create.table)?
                .map(relation::get)
                .transpose()?;
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
        Some(Kind::Maintenance(Maintenance::DropIndex(drop))) => {
            let index = match drop.names.first() {
                Some(name) => find(migration, name)?,
                None => None,
            };
            let owner = index.map(index::owner_of).transpose()?.flatten();
            Ok(Evidence {
                done: index.is_none(),
                found_is_fine: drop.if_exists,
                ..Evidence::of(owner.map(|(table, ..)| table))?
            })
        }
        Some(Kind::Maintenance(Maintenance::Reindex(reindex))) => {
            let table = match reindex.target {
                ReindexTarget::Table => find(migration, &reindex.name)?,
                ReindexTarget::Index => match find(migration, &reindex.name)? {
                    Some(index) => index::owner_of(index)?.map(|(table, ..)| table),
                    None => None,
                },
                ReindexTarget::Schema | ReindexTarget::Database => None,
            };
            let schema = match reindex.target {
                ReindexTarget::Schema => reindex.name.name.as_str(),
                _ => "",
            };
            let left = index::left_by_reindex(table, schema)?;
            Ok(Evidence {
                leftover: left.map(|name| format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")),
                ..Evidence::of(table)?
            })
        }
        Some(Kind::Maintenance(Maintenance::Refresh(refresh))) => {
            Evidence::of(find(migration, &refresh.name)?)
        }
        Some(Kind::Maintenance(Maintenance::Vacuum(vacuum))) => match vacuum.tables.first() {
            Some(table) => Evidence::of(find(migration, table)?),
            None => Evidence::of(None),
        },
        Some(Kind::AlterTable(alter)) => detached(migration, &alter),
        _ => Err(Error::Bug(format!(
            "no step outside of a transaction: {sql}"
        ))),
    }
}

/// DETACH PARTITION … CONCURRENTLY: two transactions, and whatever ends between them is ended by FINALIZE.
fn detached(migration: &Migration, alter: &AlterTable) -> Result<Evidence> {
    let name = |schema: &Option<String>, name: &str| Name {
        schema: schema.clone(),
        name: name.to_string(),
    };
    let part = alter.commands.iter().find_map(|c| c.part.as_ref());
    let part = part.ok_or_else(|| Error::Bug("an ALTER TABLE outside of a transaction".into()))?;
    let table = find(migration, &name(&alter.schema, &alter.name))?;
    let child = find(migration, &name(&part.schema, &part.name))?;
    let link = match (child, table) {
        (Some(child), Some(table)) => partition::link(child, table)?,
        _ => None,
    };
    let mut evidence = Evidence::of(table)?;
    evidence.done = table.is_some() && link.is_none();
    if let (Some(true), Some(table), Some(child)) = (link, &evidence.table, child) {
        evidence.leftover = Some(format!(
            "ALTER TABLE {} DETACH PARTITION {} FINALIZE",
            table.name,
            relation::get(child)?.name
        ));
    }
    Ok(evidence)
}

impl Evidence {
    /// Of a statement that leaves nothing by which it could be told whether it ran.
    fn of(table: Option<Oid>) -> Result<Evidence> {
        Ok(Evidence {
            table: table.map(relation::get).transpose()?,
            exists: false,
            done: false,
            leftover: None,
            found_is_fine: false,
        })
    }
}

/// What a name means now, to the migration's owner.
fn find(migration: &Migration, name: &Name) -> Result<Option<Oid>> {
    identity::as_role(owner_role(migration)?, &migration.session, || {
        pg_relation::resolve(name.schema.as_deref(), &name.name)
    })
}
