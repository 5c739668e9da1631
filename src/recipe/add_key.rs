//! ADD UNIQUE and ADD PRIMARY KEY: the index is built concurrently, then the constraint takes it over, which is catalog work.

use super::draft::Draft;
use super::in_place::Plan;
use super::leaves::{OnLeaves, PartitionedIndex};
use super::Planner;
use crate::catalog::index::KeyConstraint;
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::pieces::Constraint;
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::store::step::Kind;

/// A key to add.
pub(super) struct NewKey {
    name: String,
    primary: bool,
    /// What stands behind ON table in CREATE INDEX.
    definition: String,
    timing: String,
    /// UNIQUE or PRIMARY KEY with all behind it, as written.
    body: String,
}

impl Planner<'_> {
    /// `tried`: what the server made of it on the copy.
    pub(super) fn key(
        &mut self,
        plan: &Plan<'_>,
        found: &Constraint,
        tried: &(KeyConstraint, String),
    ) -> Result<NewKey> {
        let (made, definition) = tried;
        let name = match &found.name {
            Some(name) => name.clone(),
            None if made.primary => {
                pg_relation::choose_index_name(plan.table.oid, &[], "pkey", true)?
            }
            None => {
                pg_relation::choose_index_name(plan.table.oid, &made.index_columns, "key", true)?
            }
        };
        Ok(NewKey {
            name: self.constraint_name(plan.table, Some(&name), None, "")?,
            primary: made.primary,
            definition: definition.clone(),
            timing: made.timing.clone(),
            body: found.body.clone(),
        })
    }

    pub(super) fn add_keys(&mut self, plan: &Plan<'_>, keys: &[NewKey]) -> Result<()> {
        let facts = plan.table.facts();
        for key in keys {
            if plan.table.kind == 'p' && !plan.only {
                self.key_of_partitions(plan, key)?;
                continue;
            }
            let name = quote_ident(&key.name);
            let index = QualifiedName::new(&plan.table.name.schema, &key.name).to_string();
            let build = Draft::new(
                Kind::Outside,
                Phase::Validate,
                index.clone(),
                format!(
                    "CREATE UNIQUE INDEX CONCURRENTLY {name} ON {} {}",
                    plan.table.name, key.definition
                ),
            )
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional, Reason::ConstraintMayFail])
            .estimate(Estimate {
                rows: facts.rows,
                bytes: facts.bytes,
                seconds: 0.0,
            })
            .revert(Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")));
            self.push(plan.number, &facts, build);
            let what = if key.primary { "PRIMARY KEY" } else { "UNIQUE" };
            let add = Draft::new(
                Kind::Execute,
                Phase::Validate,
                plan.table.name.to_string(),
                format!(
                    "{} ADD CONSTRAINT {name} {what} USING INDEX {name}{}",
                    plan.head, key.timing
                ),
            )
            .lock("ACCESS EXCLUSIVE")
            .reasons([Reason::LockAccessExclusive])
            .naive(
                "builds the index under ACCESS EXCLUSIVE",
                &[
                    Reason::LockAccessExclusive,
                    Reason::FullScanUnderLock,
                    Reason::ConstraintMayFail,
                ],
            )
            .revert(Some(format!("{} DROP CONSTRAINT {name}", plan.head)));
            self.push(plan.number, &facts, add);
        }
        Ok(())
    }

    fn key_of_partitions(&mut self, plan: &Plan<'_>, key: &NewKey) -> Result<()> {
        let statement = format!(
            "{} ADD CONSTRAINT {} {}",
            plan.head,
            quote_ident(&key.name),
            key.body
        );
        let new = PartitionedIndex {
            name: key.name.clone(),
            on: plan.table.name.to_string(),
            definition: format!(" {}", key.definition),
        };
        self.on_leaves(
            plan.number,
            plan.table,
            &OnLeaves {
                unique: true,
                new: &new,
                statement,
                lock: LockMode::AccessExclusive,
                naive: "builds the index of every partition under ACCESS EXCLUSIVE",
            },
        )
    }
}
