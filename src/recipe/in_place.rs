//! ALTER TABLE without a rewrite: it comes apart into its subcommands, constraints go by their recipes, what remains
//! runs as it stands, as one statement.

use super::add_key::NewKey;
use super::Planner;
use crate::catalog::index::KeyConstraint;
use crate::catalog::relation::Relation;
use crate::catalog::{column, constraint};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::pg::parser::{Action, AlterTable, Command, ConstraintKind, Statement};
use crate::pg::pieces::{self, Constraint, Piece};
use crate::pg::relation::LockMode;
use crate::rewrite::probe;
use std::collections::HashSet;

/// What the recipes share of one ALTER TABLE.
pub(super) struct Plan<'a> {
    pub number: i32,
    pub statement: &'a Statement,
    pub table: &'a Relation,
    pub outcome: &'a probe::Outcome,
    pub only: bool,
    /// `ALTER TABLE [ONLY] name`.
    pub head: String,
    /// When constraints are added: before the data work, or after it where the script fills the table first.
    pub adding: Phase,
    /// Its columns now.
    pub columns: Vec<String>,
    /// Columns that are NOT NULL now.
    pub marked: Vec<String>,
}

/// A constraint to add.
pub(super) struct New {
    pub name: String,
    /// `ADD CONSTRAINT name …`, NOT VALID where rows are to be read.
    pub clause: String,
    /// Rows that exist are to be proved.
    pub validate: bool,
}

/// A column that becomes NOT NULL.
pub(super) struct NotNull {
    pub column: String,
    /// The name that the statement gives, which exists since 18.
    pub name: Option<String>,
}

/// A key as the server made it on the copy, and what stands behind ON table in its CREATE INDEX.
type Tried = (KeyConstraint, String);

/// A foreign key to add, and the table it points at as written.
pub(super) struct ForeignKey {
    pub new: New,
    /// The partitions of its table prove it.
    pub by_leaf: bool,
    pub references: (Option<String>, String),
    /// The same as it is in the catalog, where it is there and another table.
    pub referenced: Option<String>,
}

/// A subcommand that runs as it stands.
pub(super) struct Rest {
    pub command: Command,
    pub text: String,
    pub lock: LockMode,
    pub changes_facts: bool,
}

#[derive(Default)]
struct Parts {
    rest: Vec<Rest>,
    checks: Vec<New>,
    not_null: Vec<NotNull>,
    foreign_keys: Vec<ForeignKey>,
    keys: Vec<NewKey>,
    validate: Vec<String>,
}

impl Parts {
    fn is_only_rest(&self) -> bool {
        self.checks.is_empty()
            && self.not_null.is_empty()
            && self.foreign_keys.is_empty()
            && self.keys.is_empty()
            && self.validate.is_empty()
    }
}

impl Planner<'_> {
    pub(super) fn in_place(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
        table: &Relation,
        outcome: &probe::Outcome,
    ) -> Result<()> {
        let pieces = pieces::of(&statement.text)?;
        let only = pieces.only;
        let mut columns = column::list(table.oid)?;
        columns.retain(|c| !c.dropped);
        let plan = Plan {
            number,
            statement,
            table,
            outcome,
            only,
            head: format!(
                "ALTER TABLE {}{}",
                if only { "ONLY " } else { "" },
                table.name
            ),
            adding: self.adding_phase(table),
            marked: names(columns.iter().filter(|c| c.not_null)),
            columns: names(columns.iter()),
        };
        let mut parts = Parts::default();
        let mut checks = outcome.checks.iter();
        let mut keys: Vec<&Tried> = outcome.keys.iter().collect();
        for (command, piece) in alter.commands.iter().zip(&pieces.list) {
            let found = piece.constraints.first();
            let is_key = matches!(
                found.map(|c| c.kind),
                Some(ConstraintKind::Unique | ConstraintKind::Primary)
            );
            // The partitioned table alone: there is no row to build anything of.
            let alone = only && table.kind == 'p';
            match (command.action, found) {
                (Action::AddConstraint, Some(found)) if is_key && alone => {
                    Self::tried_key(found, &mut keys)?;
                    parts.rest.push(Rest::of(command, piece));
                }
                (Action::AddConstraint, Some(found)) if is_key => {
                    self.sort_out_key(&plan, found, false, &mut keys, &mut parts)?;
                }
                _ => self.sort_out(&plan, command, piece, &mut checks, &mut keys, &mut parts)?,
            }
        }
        let earlier = self.altered.entry(table.oid.to_u32()).or_default();
        earlier.statements.push(statement.text.clone());
        let added = parts.foreign_keys.iter().map(|key| key.new.name.clone());
        earlier.foreign_keys.extend(added);
        let earlier = self.earlier(table.oid, number as usize, &[]);
        if parts.is_only_rest() {
            return self.remaining(&plan, &parts.rest, &statement.text);
        }
        if !parts.rest.is_empty() {
            let clauses: Vec<&str> = parts.rest.iter().map(|r| r.text.as_str()).collect();
            let text = format!("{} {}", plan.head, clauses.join(", "));
            self.remaining(&plan, &parts.rest, &text)?;
        }
        self.add_checks(&plan, &parts.checks);
        self.add_foreign_keys(&plan, &earlier, &parts.foreign_keys)?;
        let proofs = self.prove_not_null(&plan, &parts.not_null)?;
        self.validate_added(&plan, &parts.checks, &parts.foreign_keys, &proofs);
        self.set_not_null(&plan, &proofs);
        self.add_keys(&plan, &parts.keys)?;
        self.validate(&plan, &parts.validate)
    }

    /// Rows that the script itself fills first would fail a constraint that is added before that.
    fn adding_phase(&self, table: &Relation) -> Phase {
        let target = table.name.to_string();
        let filled = self
            .steps
            .iter()
            .any(|p| p.step.phase == Phase::Backfill && p.step.target == target);
        match filled {
            true => Phase::Validate,
            false => Phase::Expand,
        }
    }

    fn sort_out<'c>(
        &mut self,
        plan: &Plan<'_>,
        command: &Command,
        piece: &Piece,
        checks: &mut impl Iterator<Item = &'c constraint::Constraint>,
        keys: &mut Vec<&Tried>,
        parts: &mut Parts,
    ) -> Result<()> {
        let refuse = |what: &str| {
            Err(Error::Unsupported {
                problem: format!("there is no online recipe for {what} yet"),
                detail: format!(
                    "On {} it would read every row under a lock (line {}).",
                    plan.table.name, plan.statement.line
                ),
                hint: "Run it by itself outside of transmute, or take it out of the script.".into(),
            })
        };
        let rest = Rest::of(command, piece);
        // A partitioned table holds no row itself.
        let reads_rows = !(plan.only && plan.table.kind == 'p');
        match (command.action, piece.constraints.first()) {
            (Action::SetNotNull, _) if reads_rows => {
                parts.not_null.push(NotNull {
                    column: command.column.clone().unwrap_or_default(),
                    name: None,
                });
            }
            (Action::AddConstraint, Some(found)) => match found.kind {
                ConstraintKind::Check => {
                    parts.checks.push(self.check(plan, found, checks)?);
                }
                ConstraintKind::Foreign => {
                    parts.foreign_keys.push(self.foreign_key(plan, found)?);
                }
                ConstraintKind::NotNull if found.not_valid || !reads_rows => parts.rest.push(rest),
                ConstraintKind::NotNull => {
                    parts.not_null.extend(found.columns.iter().map(|c| NotNull {
                        column: c.clone(),
                        name: found.name.clone(),
                    }))
                }
                _ => {
                    return Err(Error::Unsupported {
                        problem: "there is no online recipe for ADD EXCLUDE by itself".into(),
                        detail: format!(
                            "On {} it would build its index under ACCESS EXCLUSIVE (line {}).",
                            plan.table.name, plan.statement.line
                        ),
                        hint: "meta {\"exclude\": \"rewrite\"} adds it by a copy of the table."
                            .into(),
                    })
                }
            },
            (Action::AddColumn, Some(_)) => {
                self.add_column(plan, command, piece, checks, keys, parts)?;
            }
            (Action::AddIndexConstraint, _) if plan.table.kind == 'p' => {
                return Err(Error::Unsupported {
                    problem: "ADD CONSTRAINT USING INDEX is not supported on partitioned tables"
                        .into(),
                    detail: format!("On {} (line {}).", plan.table.name, plan.statement.line),
                    hint: "ADD PRIMARY KEY (…) or UNIQUE (…): the partitions get their indexes concurrently.".into(),
                });
            }
            (Action::ValidateConstraint, _) => parts.validate.extend(command.column.clone()),
            (Action::AttachOrInherit, _) => {
                return refuse("a change of inheritance");
            }
            _ => parts.rest.push(rest),
        }
        Ok(())
    }

    /// What the server made of a key on the copy; each is taken once.
    fn tried_key<'k>(found: &Constraint, keys: &mut Vec<&'k Tried>) -> Result<&'k Tried> {
        let primary = found.kind == ConstraintKind::Primary;
        let place = keys.iter().position(|(made, _)| match &found.name {
            Some(name) => made.name == *name,
            None => made.primary == primary && made.columns == found.columns,
        });
        place
            .map(|place| keys.remove(place))
            .ok_or_else(|| Error::Bug(format!("no key was made of {}", found.body)))
    }

    /// UNIQUE or PRIMARY KEY, as a constraint or behind a column, which the statement may mark NOT NULL itself.
    fn sort_out_key(
        &mut self,
        plan: &Plan<'_>,
        found: &Constraint,
        marked: bool,
        keys: &mut Vec<&Tried>,
        parts: &mut Parts,
    ) -> Result<()> {
        let tried = Self::tried_key(found, keys)?;
        parts.keys.push(self.key(plan, found, tried)?);
        // A primary key's columns are proved first, so that it reads no row.
        let nullable = tried.0.columns.iter().filter(|c| {
            tried.0.primary
                && !marked
                && !plan.marked.contains(c)
                && !parts.not_null.iter().any(|n| n.column == **c)
        });
        let proofs: Vec<NotNull> = nullable
            .map(|c| NotNull {
                column: c.clone(),
                name: None,
            })
            .collect();
        parts.not_null.extend(proofs);
        Ok(())
    }

    /// ADD COLUMN with constraints: those that read rows are added by themselves, once the column is there.
    fn add_column<'c>(
        &mut self,
        plan: &Plan<'_>,
        command: &Command,
        piece: &Piece,
        checks: &mut impl Iterator<Item = &'c constraint::Constraint>,
        keys: &mut Vec<&Tried>,
        parts: &mut Parts,
    ) -> Result<()> {
        let exists = command.missing_ok
            && command
                .column
                .as_ref()
                .is_some_and(|name| plan.columns.contains(name));
        let moves: Vec<&Constraint> = piece
            .constraints
            .iter()
            .filter(|c| c.kind != ConstraintKind::NotNull)
            .collect();
        // Rows that exist are NULL there without a default: no foreign key is looked up.
        let foreign_stays = !piece.has_default;
        let stays = moves
            .iter()
            .all(|c| c.kind == ConstraintKind::Foreign && foreign_stays);
        if exists || stays {
            parts.rest.push(Rest::of(command, piece));
            return Ok(());
        }
        let bare = piece
            .bare_column
            .clone()
            .ok_or_else(|| Error::Bug("ADD COLUMN without its text".into()))?;
        let marked = moves.len() < piece.constraints.len();
        for found in moves {
            match found.kind {
                ConstraintKind::Check => parts.checks.push(self.check(plan, found, checks)?),
                ConstraintKind::Unique | ConstraintKind::Primary => {
                    self.sort_out_key(plan, found, marked, keys, parts)?;
                }
                _ => parts.foreign_keys.push(self.foreign_key(plan, found)?),
            }
        }
        let mut rest = Rest::of(command, piece);
        rest.command.constraint = None;
        rest.text = bare;
        parts.rest.push(rest);
        Ok(())
    }

    /// The name of a constraint: its own, or the one that the server would choose.
    pub(super) fn constraint_name(
        &mut self,
        table: &Relation,
        given: Option<&str>,
        addition: Option<&str>,
        label: &str,
    ) -> Result<String> {
        let none = HashSet::new();
        let schema = &table.name.schema;
        let name = match given {
            Some(name) => name.to_string(),
            None => constraint::choose_name(
                schema,
                &table.name.name,
                addition,
                label,
                self.constraint_names.get(schema).unwrap_or(&none),
            )?,
        };
        self.constraint_names
            .entry(schema.clone())
            .or_default()
            .insert(name.clone());
        Ok(name)
    }
}

fn names<'c>(columns: impl Iterator<Item = &'c column::Column>) -> Vec<String> {
    columns.map(|c| c.name.clone()).collect()
}

impl Rest {
    fn of(command: &Command, piece: &Piece) -> Rest {
        Rest {
            command: command.clone(),
            text: piece.text.clone(),
            lock: piece.lock,
            changes_facts: piece.changes_facts,
        }
    }
}

impl Plan<'_> {
    /// `ALTER TABLE name DROP CONSTRAINT a, DROP CONSTRAINT b`.
    pub(super) fn drops<'n>(&self, names: impl Iterator<Item = &'n str>) -> String {
        let drops: Vec<String> = names
            .map(|name| format!("DROP CONSTRAINT {}", quote_ident(name)))
            .collect();
        format!("{} {}", self.head, drops.join(", "))
    }
}
