//! ADD FOREIGN KEY: NOT VALID under a moment of SHARE ROW EXCLUSIVE on both tables, the rows proved afterwards.

use super::draft::Draft;
use super::in_place::{ForeignKey, New, Plan};
use super::names::Target;
use super::Planner;
use crate::catalog::partition;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::pieces::Constraint;
use crate::rewrite::probe::Earlier;
use crate::rewrite::reference;
use crate::store::step::Kind;

impl Planner<'_> {
    pub(super) fn foreign_key(
        &mut self,
        plan: &Plan<'_>,
        found: &Constraint,
    ) -> Result<ForeignKey> {
        let table = plan.table;
        let validate = !found.not_valid && found.enforced;
        // One that is NOT VALID, which a partitioned table can have since 18, takes over equal ones of its partitions, and they would
        // go with it on the way back.
        let by_leaf = validate && table.kind == 'p' && !plan.only;
        let name = self.constraint_name(
            table,
            found.name.as_deref(),
            Some(&found.columns.join("_")),
            "fkey",
        )?;
        // Behind a column it begins with REFERENCES.
        let inline = found
            .body
            .get(.."REFERENCES".len())
            .is_some_and(|word| word.eq_ignore_ascii_case("REFERENCES"));
        let columns: Vec<String> = found.columns.iter().map(|c| quote_ident(c)).collect();
        let clause = format!(
            "ADD CONSTRAINT {} {}{}{}",
            quote_ident(&name),
            match inline {
                true => format!("FOREIGN KEY ({}) ", columns.join(", ")),
                false => String::new(),
            },
            found.body,
            if validate && !by_leaf {
                " NOT VALID"
            } else {
                ""
            }
        );
        let references = found
            .references
            .clone()
            .ok_or_else(|| Error::Bug("a foreign key that points nowhere".into()))?;
        let referenced = match self.lookup(references.0.as_deref(), &references.1)? {
            Target::Existing(oid) if oid != table.oid => Some(relation::get(oid)?.name.to_string()),
            _ => None,
        };
        Ok(ForeignKey {
            new: New {
                name,
                clause,
                validate: validate && !by_leaf,
            },
            by_leaf,
            references,
            referenced,
        })
    }

    pub(super) fn add_foreign_keys(
        &mut self,
        plan: &Plan<'_>,
        earlier: &Earlier,
        keys: &[ForeignKey],
    ) -> Result<()> {
        let mut tried = Vec::new();
        for key in keys {
            let referenced = self.referenced(key)?;
            let sql = format!("{} {}", plan.head, key.new.clause);
            if key.by_leaf {
                self.key_by_leaf(plan, key, &sql)?;
                if let Some(other) = referenced {
                    let changed = self.earlier(other.oid, plan.number as usize, &[]);
                    tried.push((sql, other, changed));
                }
                continue;
            }
            let mut naive = vec![Reason::LockShareRowExclusive];
            if key.new.validate {
                naive.extend([Reason::FullScanUnderLock, Reason::ConstraintMayFail]);
            }
            let target = plan.table.name.to_string();
            let mut draft = Draft::new(Kind::Execute, plan.adding, target, &sql)
                .lock("SHARE ROW EXCLUSIVE")
                .reasons([Reason::LockShareRowExclusive])
                .naive(
                    match key.new.validate {
                        true => "looks up every row under SHARE ROW EXCLUSIVE on both tables",
                        false => "runs as it stands",
                    },
                    &naive,
                )
                .revert(Some(plan.drops([key.new.name.as_str()].into_iter())));
            if let Some(other) = referenced.iter().find(|r| r.oid != plan.table.oid) {
                draft = draft.also(Mode::ShareRowExclusive, other.name.to_string());
            }
            self.push(plan.number, &plan.table.facts(), draft);
            if let Some(other) = referenced {
                let changed = self.earlier(other.oid, plan.number as usize, &[]);
                tried.push((sql, other, changed));
            }
        }
        if tried.is_empty() {
            return Ok(());
        }
        reference::probe(
            self.ground,
            plan.table,
            earlier,
            &tried,
            &self.caller.session,
        )
    }

    /// Each partition gets the key and proves it; then the table takes those over.
    fn key_by_leaf(&mut self, plan: &Plan<'_>, key: &ForeignKey, sql: &str) -> Result<()> {
        let facts = plan.table.facts();
        let members = partition::tree(plan.table.oid)?;
        let leaves: Vec<String> = members
            .iter()
            .filter(|m| m.kind == 'r')
            .map(|m| m.name.clone())
            .collect();
        let target = format!("{} {}", plan.table.name, quote_ident(&key.new.name));
        let add = Draft::new(
            Kind::LeafKeys,
            Phase::Validate,
            target.clone(),
            format!("/* on each partition, NOT VALID, then VALIDATE */ {sql}"),
        )
        .only_also(Vec::new())
        .also_all(Mode::ShareRowExclusive, leaves)
        .also_all(Mode::ShareRowExclusive, key.referenced.clone())
        .reasons([Reason::LockShareRowExclusive, Reason::ConstraintMayFail])
        .estimate(Estimate {
            rows: facts.rows,
            bytes: plan.table.table_bytes,
            seconds: 0.0,
        });
        self.push(plan.number, &facts, add);
        let attach = Draft::new(Kind::LeafKeysAttach, Phase::Contract, target, sql)
            .only_also(Vec::new())
            .also_all(Mode::ShareRowExclusive, members.into_iter().map(|m| m.name))
            // The triggers of the keys of the partitions go.
            .also_all(Mode::AccessExclusive, key.referenced.clone())
            .reasons([
                Reason::LockAccessExclusive,
                Reason::LockShareRowExclusive,
                Reason::Irreversible,
            ])
            .naive(
                "looks up every row under SHARE ROW EXCLUSIVE on both tables",
                &[
                    Reason::LockShareRowExclusive,
                    Reason::FullScanUnderLock,
                    Reason::ConstraintMayFail,
                ],
            );
        self.push(plan.number, &facts, attach);
        Ok(())
    }

    /// The table that a foreign key points at; `None`: this script makes it.
    fn referenced(&self, key: &ForeignKey) -> Result<Option<Relation>> {
        let (schema, name) = &key.references;
        match self.lookup(schema.as_deref(), name)? {
            Target::Existing(oid) => Ok(Some(relation::get(oid)?)),
            Target::New => Ok(None),
            Target::Nothing => Err(self.undefined(schema.as_deref(), name)),
        }
    }
}
