//! ALTER TABLE: which recipe, and what is refused by name.

use super::in_place::{Plan, Rest};
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::{Facts, Level};
use crate::pg::identity;
use crate::pg::parser::{Action, AlterTable, Statement};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::rewrite::{dependents, probe};
use crate::store::rewrite;

impl Planner<'_> {
    pub(super) fn alter_table(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
    ) -> Result<()> {
        let schema = alter.schema.as_deref();
        let Some(oid) = self.as_caller(|| pg_relation::resolve(schema, &alter.name))? else {
            return self.alter_unknown(number, statement, alter);
        };
        let table = relation::get(oid)?;
        self.require_alterable(&table)?;
        let recipes_only = alter.commands.iter().all(|c| {
            matches!(
                c.action,
                Action::SetNotNull | Action::AddConstraint | Action::ValidateConstraint
            )
        });
        let in_tree = table.kind == 'p' || table.is_partition || table.has_inheritance;
        if in_tree && !recipes_only {
            return Err(Error::Unsupported {
                problem: "altering a partitioned or inherited table online is not supported yet"
                    .into(),
                detail: format!("{} is part of a partition or inheritance tree.", table.name),
                hint: "Run the plain ALTER in a maintenance window.".into(),
            });
        }
        if let Some(other) = rewrite::migration_of(oid)? {
            return Err(Error::InUse {
                problem: "another migration is rewriting the table".into(),
                detail: format!("Migration \"{other}\" works on {}.", table.name),
                hint: "Wait until it has finished, or roll it back.".into(),
            });
        }
        let earlier = self.altered.get(&oid.to_u32()).cloned().unwrap_or_default();
        let outcome = probe::run(
            &table,
            &earlier,
            &statement.text,
            &alter.commands,
            &self.caller.session,
        )?;
        self.require_free_columns(&table, &outcome)?;
        let dependents = dependents::list(table.oid, &outcome.retyped)?;
        // What ALTER refuses to work around, the swap does: a change of type with dependents goes that way too.
        if outcome.rewrites || !dependents.is_empty() {
            self.rewrite(number, statement, alter, &table, &outcome, &dependents)
        } else {
            self.in_place(number, statement, alter, &table, &outcome)
        }
    }

    /// A table that this script makes is empty: its statements run as they stand.
    pub(super) fn alter_unknown(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
    ) -> Result<()> {
        let made_here = self
            .created
            .iter()
            .find(|(c, _)| {
                c.name == alter.name
                    && !c.schema.is_empty()
                    && alter
                        .schema
                        .as_ref()
                        .is_none_or(|schema| *schema == c.schema)
            })
            .map(|(_, phase)| *phase);
        let Some(phase) = made_here else {
            let name = match &alter.schema {
                Some(schema) => QualifiedName::new(schema, &alter.name).to_string(),
                None => quote_ident(&alter.name),
            };
            return Err(Error::UndefinedTable {
                name,
                search_path: self.caller.session.search_path.clone(),
            });
        };
        self.execute(
            number,
            statement,
            alter.name.clone(),
            None,
            Facts::default(),
            vec![],
        );
        if let Some(last) = self.steps.last_mut() {
            // Undone with the table itself.
            last.step.phase = phase;
            last.step.reversible = phase == Phase::Expand;
            if last.step.reversible {
                last.step.reasons.clear();
                last.step.risk_score = 0;
                last.step.risk_level = Level::of_score(0);
                last.naive_score = 0;
            }
        }
        Ok(())
    }

    pub(super) fn require_alterable(&self, table: &Relation) -> Result<()> {
        let wrong = |problem: &str, hint: &str| {
            Err(Error::WrongObject {
                problem: problem.into(),
                detail: format!(
                    "{} is not an ordinary table.",
                    match table.persistence {
                        't' => QualifiedName::new("pg_temp", &table.name.name),
                        _ => table.name.clone(),
                    }
                ),
                hint: hint.into(),
            })
        };
        match (table.kind, table.persistence) {
            ('f', _) => {
                return wrong(
                    "foreign tables cannot be migrated online",
                    "Migrate the table on its own server.",
                )
            }
            ('r' | 'p', 't') => {
                return wrong(
                    "temporary tables cannot be migrated online",
                    "Alter it in its own session.",
                )
            }
            _ if table.is_system => {
                return wrong(
                    "system tables cannot be migrated",
                    "Name a table of your own.",
                )
            }
            ('r', _) if table.is_typed => {
                return wrong(
                    "tables of a composite type cannot be migrated online",
                    "ALTER TABLE … NOT OF makes it an ordinary table.",
                )
            }
            ('r' | 'p', _) => {}
            _ => {
                return wrong(
                    "the relation is not a table",
                    "ALTER TABLE on a view or index: run it as it stands.",
                )
            }
        }
        if !identity::has_privs_of(self.caller.role, table.owner) {
            return Err(Error::Privilege {
                problem: "must be owner of the table".into(),
                detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
                hint: "Register it as the owner, or as a member of the owner.".into(),
            });
        }
        Ok(())
    }

    /// Dropping a column that something else uses is an error here as it is in plain ALTER, and before anything runs.
    pub(super) fn require_free_columns(
        &self,
        table: &Relation,
        outcome: &probe::Outcome,
    ) -> Result<()> {
        let users: Vec<String> = dependents::list(table.oid, &outcome.dropped)?
            .into_iter()
            .filter(|d| !d.belongs_to(table))
            .map(|d| d.identity)
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        Err(Error::DependentObjects {
            problem: "other objects depend on a column that is dropped".into(),
            detail: format!("On {}: {}.", table.name, users.join(", ")),
            hint: "Drop or change them first.".into(),
        })
    }

    /// What runs as it stands of an ALTER TABLE on an existing table.
    pub(super) fn remaining(&mut self, plan: &Plan<'_>, rest: &[Rest], sql: &str) -> Result<()> {
        let table = plan.table;
        let mut undo = Vec::new();
        let mut reversible = true;
        for Rest { command, .. } in rest {
            match (command.action, &command.column) {
                // What IF NOT EXISTS finds is not ours to drop.
                (Action::AddColumn, Some(column))
                    if command.missing_ok && plan.columns.contains(column) => {}
                (Action::AddColumn, Some(column)) => {
                    undo.push(format!("DROP COLUMN {}", quote_ident(column)));
                }
                _ => reversible = false,
            }
        }
        let revert = match (reversible, undo.is_empty()) {
            (false, _) => None,
            (true, true) => Some(String::new()),
            (true, false) => Some(format!("ALTER TABLE {} {}", table.name, undo.join(", "))),
        };
        let lock = rest.iter().map(|r| r.lock).max();
        let mut reasons: Vec<Reason> = lock.and_then(reason_of).into_iter().collect();
        if rest.iter().any(|r| r.command.action == Action::DropColumn) {
            reasons.push(Reason::DataLoss);
        }
        self.execute_text(
            plan.number,
            sql,
            table.name.to_string(),
            revert,
            table.facts(),
            reasons,
        );
        if let (Some(last), Some(lock)) = (self.steps.last_mut(), lock) {
            last.step.lock_mode = lock.words().into();
        }
        Ok(())
    }
}

/// What a person is told of a lock.
fn reason_of(lock: LockMode) -> Option<Reason> {
    match lock {
        LockMode::AccessExclusive => Some(Reason::LockAccessExclusive),
        LockMode::ShareRowExclusive => Some(Reason::LockShareRowExclusive),
        LockMode::Share => Some(Reason::LockShare),
        _ => None,
    }
}
