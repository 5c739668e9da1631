//! ALTER TABLE: which recipe, and what is refused by name.

use super::as_it_stands::READ_WHEN_IT_RUNS;
use super::in_place::{Plan, Rest};
use super::names::Target;
use super::passthrough::Text;
use super::rewrite::What;
use super::{why, Planner};
use crate::catalog::relation::{self, Relation};
use crate::catalog::{column, constraint, partition};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::identity;
use crate::pg::parser::{Action, AlterTable, ConstraintKind, Statement};
use crate::pg::relation::LockMode;
use crate::rewrite::{dependents, has_two_names, kept, probe, require_free};
use crate::store::rewrite;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn alter_table(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
    ) -> Result<()> {
        let schema = alter.schema.as_deref();
        let oid = match self.lookup(schema, &alter.name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, &alter.name)),
        };
        let mut table = relation::get(oid)?;
        table.name = self.name_now(&table);
        self.require_alterable(&table)?;
        if let [command] = alter.commands.as_slice() {
            if let Some(part) = &command.part {
                return self.change_partition(number, statement, &table, part);
            }
        }
        self.require_in_tree(&table, alter)?;
        self.require_free(&table)?;
        let index = (number - 1) as usize;
        let outcome = self.probe(&table, &statement.text, &[index])?;
        self.require_free_columns(&table, &outcome)?;
        self.require_foreign_keys(&table, &outcome)?;
        let dependents = &outcome.dependents;
        let seen = why::seen(alter, &outcome, !dependents.is_empty());
        self.seen.insert(number, seen);
        // What ALTER refuses to work around, the swap does: a change of type with dependents goes that way too.
        let only_drops = alter
            .commands
            .iter()
            .all(|c| c.action == Action::DropColumn);
        if only_drops && !outcome.dropped.is_empty() && !self.drops_at_once() {
            return self.drop_columns(number, &table, &outcome.dropped);
        }
        // Without partitions there is nothing to copy.
        let empty = table.kind == 'p' && partition::leaves(table.oid)?.is_empty();
        let versioned = !outcome.types.is_empty() && self.has_versions(&table)?;
        let copies =
            outcome.rewrites || !dependents.is_empty() || versioned || self.excludes_by_copy(alter);
        if copies && !empty {
            let what = What {
                script: &statement.text,
                commands: &alter.commands,
                added_for: None,
                part_of: None,
            };
            self.rewrite(index, what, &table, &outcome, dependents)
        } else {
            self.in_place(number, statement, alter, &table, &outcome)
        }
    }

    /// ADD EXCLUDE has no online way of its own; a copy of the table can have the constraint, where the DBA asks for one.
    pub(super) fn excludes_by_copy(&self, alter: &AlterTable) -> bool {
        self.meta.exclude.as_deref() == Some("rewrite")
            && alter
                .commands
                .iter()
                .any(|c| c.constraint == Some(ConstraintKind::Exclusion))
    }

    /// What the server refuses, and what there is no recipe for, of a table with heirs, a partitioned one or a partition.
    fn require_in_tree(&self, table: &Relation, alter: &AlterTable) -> Result<()> {
        let recipes_only = alter.commands.iter().all(|c| {
            matches!(
                c.action,
                Action::SetNotNull | Action::AddConstraint | Action::ValidateConstraint
            )
        });
        let parted = table.kind == 'p' || table.is_partition;
        if table.has_inheritance && !parted && !recipes_only {
            return Err(Error::Unsupported {
                problem: "altering a table with heirs, or an heir, online is not supported".into(),
                detail: format!("{} is part of an inheritance tree.", table.name),
                hint: "Run the plain ALTER in a maintenance window.".into(),
            });
        }
        let shape = alter.commands.iter().any(|c| {
            matches!(
                c.action,
                Action::AddColumn | Action::DropColumn | Action::AlterType
            )
        });
        if table.is_partition && shape {
            return Err(Error::WrongObject {
                problem: "the columns of a partition are those of its table".into(),
                detail: format!("{} is a partition.", table.name),
                hint: "Alter the partitioned table: that alters its partitions.".into(),
            });
        }
        Ok(())
    }

    pub(super) fn require_free(&self, table: &Relation) -> Result<()> {
        if let Some((other, until)) = rewrite::kept_by(table.oid)? {
            return Err(kept(table, &other, &until));
        }
        match rewrite::migration_of(table.oid)? {
            None => Ok(()),
            Some(other) => Err(Error::InUse {
                problem: "another migration is rewriting the table".into(),
                detail: format!("Migration \"{other}\" works on {}.", table.name),
                hint: "Wait until it has finished, or roll it back.".into(),
            }),
        }
    }

    /// Foreign keys that do not fit the new types are an error, unless the script alters the table at their other end.
    fn require_foreign_keys(&self, table: &Relation, outcome: &probe::Outcome) -> Result<()> {
        match outcome
            .foreign_key_faults
            .iter()
            .find(|f| f.partner == table.oid || !self.by_table.contains_key(&f.partner))
        {
            Some(fault) => Err(fault.error.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn undefined(&self, schema: Option<&str>, name: &str) -> Error {
        Error::UndefinedTable {
            name: match schema {
                Some(schema) => QualifiedName::new(schema, name).to_string(),
                None => quote_ident(name),
            },
            search_path: self.caller.session.search_path.clone(),
        }
    }

    pub(super) fn require_alterable(&self, table: &Relation) -> Result<()> {
        if has_two_names(table)? {
            require_free(table, "")?;
        }
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
        self.require_owned(table)
    }

    pub(super) fn require_owned(&self, table: &Relation) -> Result<()> {
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
        if outcome.dropped.is_empty() {
            return Ok(());
        }
        let tree = partition::tree(table.oid)?;
        let users: Vec<String> = dependents::list(table.oid, &outcome.dropped)?
            .into_iter()
            .filter(|d| !d.belongs_to_one_of(&tree))
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
        let mut only_adds = true;
        let mut changes_facts = true;
        for rest in rest {
            let command = &rest.command;
            match (command.action, &command.column) {
                // What IF NOT EXISTS finds is not ours to drop.
                (Action::AddColumn, Some(column))
                    if command.missing_ok && plan.columns.contains(column) => {}
                (Action::AddColumn, Some(column)) => {
                    undo.push(format!("DROP COLUMN {}", quote_ident(column)));
                }
                _ => only_adds = false,
            }
            changes_facts &= rest.changes_facts || self.type_comes_back(plan, rest)?;
            if command.action == Action::DropConstraint {
                changes_facts &= self.constraint_comes_back(plan, command.column.as_deref())?;
            }
        }
        let revert = match (only_adds, undo.is_empty()) {
            (true, true) => Some(String::new()),
            (true, false) => Some(format!("ALTER TABLE {} {}", table.name, undo.join(", "))),
            (false, _) if changes_facts => Some(READ_WHEN_IT_RUNS.into()),
            (false, _) => None,
        };
        let lock = rest.iter().map(|r| r.lock).max();
        let mut reasons: Vec<Reason> = lock.and_then(reason_of).into_iter().collect();
        if rest.iter().any(|r| r.command.action == Action::DropColumn) {
            reasons.push(Reason::DataLoss);
        }
        let text = Text {
            sql,
            lock: lock.map_or("", LockMode::words),
        };
        self.execute_text(
            plan.number,
            text,
            table.name.to_string(),
            revert,
            table.facts(),
            reasons,
        );
        if let (true, Some(last)) = (changes_facts && !only_adds, self.steps.last_mut()) {
            last.step.kind = StepKind::Change.name().into();
        }
        if self
            .steps
            .last()
            .is_some_and(|p| p.step.phase == Phase::Expand)
        {
            for Rest { command, .. } in rest {
                match (command.action, &command.column) {
                    (Action::AddColumn, Some(column)) if !plan.columns.contains(column) => {
                        let step = self.steps.len() - 1;
                        self.added
                            .insert((table.oid.to_u32(), column.clone()), step);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the old type of a retyped column comes back without reading a row, as the new one came.
    fn type_comes_back(&self, plan: &Plan<'_>, rest: &Rest) -> Result<bool> {
        let table = plan.table;
        let old = column::list(table.oid)?
            .into_iter()
            .find(|c| !c.dropped && Some(&c.name) == rest.command.column.as_ref());
        let (Action::AlterType, Some(old)) = (rest.command.action, old) else {
            return Ok(false);
        };
        let mut back = format!(
            "ALTER TABLE {} ALTER COLUMN {} TYPE {}",
            table.name,
            quote_ident(&old.name),
            old.type_name
        );
        if !old.collation.is_empty() {
            back.push_str(&format!(" COLLATE {}", old.collation));
        }
        let earlier = self
            .altered
            .get(&table.oid.to_u32())
            .cloned()
            .unwrap_or_default();
        let session = &self.caller.session;
        let tried = probe::with(self.ground, table, &back, &earlier, session, || Ok(()))?;
        Ok(!tried.rewrites)
    }

    /// CHECK, NOT NULL and foreign keys can be added again and proved; what an index holds up is gone with it.
    fn constraint_comes_back(&self, plan: &Plan<'_>, name: Option<&str>) -> Result<bool> {
        let found = constraint::list(plan.table.oid)?
            .into_iter()
            .find(|c| Some(c.name.as_str()) == name);
        Ok(found.is_none_or(|c| matches!(c.kind, 'c' | 'f' | 'n')))
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
