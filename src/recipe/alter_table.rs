//! ALTER TABLE: which recipe, and what is refused by name.

use super::names::Target;
use super::{why, Planner};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::reason::Reason;
use crate::pg::identity;
use crate::pg::parser::{Action, AlterTable, ConstraintKind, Statement};
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
        let oid = match self.lookup(schema, &alter.name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, &alter.name)),
        };
        let table = relation::get(oid)?;
        self.require_alterable(&table)?;
        if table.kind == 'p' || table.is_partition || table.has_inheritance {
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
        let outcome = probe::run(
            &table,
            &statement.text,
            &alter.commands,
            &self.caller.session,
        )?;
        self.require_free_columns(&table, &outcome)?;
        let dependents = dependents::list(table.oid, &outcome.retyped)?;
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
        if outcome.rewrites || !dependents.is_empty() {
            self.rewrite(number, statement, alter, &table, &outcome, &dependents)
        } else {
            self.metadata_only(number, statement, alter, &table)
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

    pub(super) fn metadata_only(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
        table: &Relation,
    ) -> Result<()> {
        for command in &alter.commands {
            let scan = match (command.action, command.constraint) {
                (Action::SetNotNull, _) => Some("SET NOT NULL"),
                (Action::ValidateConstraint, _) => Some("VALIDATE CONSTRAINT"),
                (Action::AddConstraint, _) if command.not_valid => None,
                (Action::AddConstraint, Some(ConstraintKind::Check)) => Some("ADD CHECK"),
                (Action::AddConstraint, Some(ConstraintKind::Foreign)) => Some("ADD FOREIGN KEY"),
                (Action::AddConstraint, Some(ConstraintKind::NotNull)) => Some("ADD NOT NULL"),
                (Action::AddConstraint, Some(_)) => Some("ADD UNIQUE, PRIMARY KEY or EXCLUDE"),
                (Action::AddColumn, Some(_)) => {
                    Some("ADD COLUMN with a constraint that is checked on every row")
                }
                (Action::AttachOrInherit, _) => Some("a change of inheritance or partitions"),
                _ => None,
            };
            if let Some(what) = scan {
                return Err(Error::Unsupported {
                    problem: format!("there is no online recipe for {what} yet"),
                    detail: format!(
                        "On {} it would read every row under a lock (line {}).",
                        table.name, statement.line
                    ),
                    hint: "Constraints: add them NOT VALID here and VALIDATE them by hand; \
                           together with a change that rewrites the table they need no extra scan."
                        .into(),
                });
            }
        }
        let additions: Option<Vec<String>> = alter
            .commands
            .iter()
            .map(|c| match (c.action, &c.column) {
                (Action::AddColumn, Some(column)) if !c.missing_ok => {
                    Some(format!("DROP COLUMN {}", quote_ident(column)))
                }
                _ => None,
            })
            .collect();
        let revert =
            additions.map(|drops| format!("ALTER TABLE {} {}", table.name, drops.join(", ")));
        let mut reasons = vec![Reason::LockAccessExclusive];
        if alter
            .commands
            .iter()
            .any(|c| c.action == Action::DropColumn)
        {
            reasons.push(Reason::DataLoss);
        }
        self.execute(
            number,
            statement,
            table.name.to_string(),
            revert,
            table.facts(),
            reasons,
        );
        Ok(())
    }
}
