//! The index, or key, of a partitioned table: each partition gets its own concurrently, then the statement itself runs and the
//! server takes those over instead of building anything.

use super::draft::Draft;
use super::Planner;
use crate::catalog::partition::{self, Member};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::maintenance::CreateIndex;
use crate::pg::relation::LockMode;
use crate::store::step::Kind;

/// An index of a partitioned table.
pub(super) struct PartitionedIndex {
    pub name: String,
    /// The table, as it will be called.
    pub on: String,
    /// What stands behind it.
    pub definition: String,
}

/// What the two steps of an index or key have in common.
pub(super) struct OnLeaves<'a> {
    pub unique: bool,
    pub new: &'a PartitionedIndex,
    /// The statement that makes it of the partitioned table, and its lock.
    pub statement: String,
    pub lock: LockMode,
    pub naive: &'static str,
}

impl Planner<'_> {
    pub(super) fn index_of_partitions(
        &mut self,
        number: i32,
        create: &CreateIndex,
        table: &Relation,
        new: &PartitionedIndex,
    ) -> Result<()> {
        let unique = if create.unique { "UNIQUE " } else { "" };
        let if_not_exists = if create.if_not_exists {
            "IF NOT EXISTS "
        } else {
            ""
        };
        let name = quote_ident(&new.name);
        let target = QualifiedName::new(&table.name.schema, &new.name);
        let there = create.if_not_exists && relation_exists(&target)?;
        if create.only || there {
            let only = if create.only { "ONLY " } else { "" };
            let sql = format!(
                "CREATE {unique}INDEX {if_not_exists}{name} ON {only}{}{}",
                new.on, new.definition
            );
            let revert = match there {
                true => String::new(),
                false => format!("DROP INDEX IF EXISTS {target}"),
            };
            let draft = Draft::new(Kind::Execute, Phase::Validate, table.name.to_string(), sql)
                .lock("SHARE")
                .reasons([Reason::LockShare])
                .revert(Some(revert));
            self.push(number, &table.facts(), draft);
            return Ok(());
        }
        let statement = format!(
            "CREATE {unique}INDEX {if_not_exists}{name} ON {}{}",
            new.on, new.definition
        );
        self.on_leaves(
            number,
            table,
            &OnLeaves {
                unique: create.unique,
                new,
                statement,
                lock: LockMode::Share,
                naive: "builds the index of every partition under SHARE",
            },
        )
    }

    pub(super) fn on_leaves(
        &mut self,
        number: i32,
        table: &Relation,
        what: &OnLeaves<'_>,
    ) -> Result<()> {
        let members = partition::tree(table.oid)?;
        let leaves = self.require_indexable_leaves(table, &members, what.unique)?;
        let facts = table.facts();
        let target = QualifiedName::new(&table.name.schema, &what.new.name).to_string();
        let mut reasons = vec![Reason::NotTransactional];
        reasons.extend(what.unique.then_some(Reason::ConstraintMayFail));
        let mut build = Draft::new(
            Kind::LeafIndexes,
            Phase::Validate,
            target.clone(),
            format!(
                "/* on each partition, {leaves} now */ CREATE {}INDEX CONCURRENTLY {} ON {}{}",
                if what.unique { "UNIQUE " } else { "" },
                quote_ident(&what.new.name),
                what.new.on,
                what.new.definition
            ),
        )
        .outside()
        .reasons(reasons)
        .estimate(Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: 0.0,
        });
        for leaf in members.iter().filter(|m| m.kind == 'r') {
            build = build.also(Mode::ShareUpdateExclusive, leaf.name.clone());
        }
        self.push(number, &facts, build);
        let (mode, reason) = match what.lock {
            LockMode::Share => (Mode::Share, Reason::LockShare),
            _ => (Mode::AccessExclusive, Reason::LockAccessExclusive),
        };
        let mut attach = Draft::new(
            Kind::LeafAttach,
            Phase::Contract,
            target,
            what.statement.clone(),
        )
        .reasons([reason, Reason::Irreversible])
        .naive(what.naive, &[reason, Reason::FullScanUnderLock]);
        attach.lock_mode = what.lock.words();
        for member in &members {
            attach = attach.also(mode, member.name.clone());
        }
        self.push(number, &facts, attach);
        // The lock is on the tables, not on the index, which is not there yet.
        for planned in self.steps.iter_mut().rev().take(2) {
            let target = planned.step.target.clone();
            planned.step.locks.retain(|l| l.relation != target);
        }
        Ok(())
    }

    /// How many partitions hold rows; what is wrong with one of them.
    fn require_indexable_leaves(
        &self,
        table: &Relation,
        members: &[Member],
        unique: bool,
    ) -> Result<usize> {
        let mut leaves = 0;
        for member in members {
            if member.kind == 'f' {
                if unique {
                    return Err(Error::WrongObject {
                        problem:
                            "a partitioned table with foreign partitions can have no unique index"
                                .into(),
                        detail: format!(
                            "{} is a foreign table, a partition of {}.",
                            member.name, table.name
                        ),
                        hint: "Detach it first, or make an index that is not unique.".into(),
                    });
                }
                continue;
            }
            let relation = relation::get(member.oid)?;
            self.require_alterable(&relation)?;
            if member.kind == 'r' {
                leaves += 1;
                if !relation.invalid_indexes.is_empty() {
                    return Err(Error::Prerequisite {
                        problem: "a partition has an invalid index".into(),
                        detail: format!("On {}: {}.", relation.name, relation.invalid_indexes),
                        hint: "REINDEX INDEX CONCURRENTLY it, or drop it: the server might take it over.".into(),
                    });
                }
            }
            if member.detaching {
                return Err(Error::Prerequisite {
                    problem: "a partition is being detached".into(),
                    detail: format!("{}, of {}.", relation.name, table.name),
                    hint: "ALTER TABLE … DETACH PARTITION … FINALIZE ends it.".into(),
                });
            }
        }
        Ok(leaves)
    }
}

fn relation_exists(name: &QualifiedName) -> Result<bool> {
    Ok(crate::pg::spi::value::<bool>(
        "SELECT to_regclass($1) IS NOT NULL",
        &[name.to_string().into()],
    )? == Some(true))
}
