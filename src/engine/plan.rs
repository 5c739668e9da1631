//! From a script to a plan: classify each statement, choose its recipe, order the steps by phase.

use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::model::phase::Phase;
use crate::model::plan::{Estimate, Plan, Step};
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts};
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Action, AlterTable, ConstraintKind, Kind, Statement};
use crate::pg::relation as pg_relation;
use crate::rewrite::dependents::{self, Dependent};
use crate::rewrite::probe;
use crate::store::rewrite;
use crate::store::step::Kind as StepKind;
use std::collections::HashSet;

/// Rows a second that this kind of machine copied when measured (docs/benchmarks.md), for estimates.
const ROWS_PER_SECOND: f64 = 400_000.0;

/// A planned step with the statement it comes from and what the plain statement would risk.
#[derive(Debug, Clone)]
pub struct Planned {
    pub statement: i32,
    pub step: Step,
    pub naive_score: i32,
    pub naive: &'static str,
}

/// Statements that only write catalog rows, by command tag.
const CATALOG_ONLY: [&str; 22] = [
    "COMMENT",
    "GRANT",
    "REVOKE",
    "SECURITY LABEL",
    "CREATE FUNCTION",
    "CREATE PROCEDURE",
    "CREATE AGGREGATE",
    "CREATE TRIGGER",
    "CREATE POLICY",
    "ALTER POLICY",
    "CREATE RULE",
    "CREATE CAST",
    "CREATE OPERATOR",
    "CREATE STATISTICS",
    "CREATE VIEW",
    "ALTER VIEW",
    "ALTER SEQUENCE",
    "ALTER FUNCTION",
    "ALTER PROCEDURE",
    "ALTER DEFAULT PRIVILEGES",
    "CREATE COLLATION",
    "CREATE EXTENSION",
];

/// Plans a script for `caller`. Nothing is written; what is wrong with it is an error with the line.
pub fn make(script: &str, caller: &Caller) -> Result<Vec<Planned>> {
    let statements = parser::parse(script)?;
    if statements.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "the script holds no statement".into(),
            detail: "Nothing but blanks and comments was given.".into(),
            hint: "Pass the DDL as text: transmute.register('id', $$ALTER TABLE …$$).".into(),
        });
    }
    let mut planner = Planner {
        caller,
        created: HashSet::new(),
        rewritten: HashSet::new(),
        steps: Vec::new(),
    };
    for (i, statement) in statements.iter().enumerate() {
        planner.statement(i as i32 + 1, statement)?;
    }
    let mut steps = planner.steps;
    steps.sort_by_key(|p| p.step.phase);
    for (i, planned) in steps.iter_mut().enumerate() {
        planned.step.step = i as i32 + 1;
    }
    Ok(steps)
}

pub fn plan_of(planned: &[Planned]) -> Plan {
    Plan {
        steps: planned.iter().map(|p| p.step.clone()).collect(),
    }
}

struct Planner<'a> {
    caller: &'a Caller,
    /// Relations this script makes.
    created: HashSet<QualifiedName>,
    /// Tables this script rewrites.
    rewritten: HashSet<u32>,
    steps: Vec<Planned>,
}

impl Planner<'_> {
    fn statement(&mut self, number: i32, statement: &Statement) -> Result<()> {
        match &statement.kind {
            Kind::Transaction => Err(Error::InvalidArgument {
                problem: "the script controls transactions itself".into(),
                detail: format!("{} stands in line {}.", statement.tag, statement.line),
                hint: "Leave it out: each step runs in its own transaction.".into(),
            }),
            Kind::AlterTable(alter) => self.alter_table(number, statement, alter),
            Kind::Create {
                object,
                schema,
                name,
            } => self.create(number, statement, object, schema.as_deref(), name),
            Kind::Other if CATALOG_ONLY.contains(&statement.tag.as_str()) => {
                self.execute(
                    number,
                    statement,
                    statement.tag.clone(),
                    None,
                    Facts::default(),
                    vec![],
                );
                Ok(())
            }
            Kind::Other => Err(Error::Unsupported {
                problem: format!("there is no online recipe for {} yet", statement.tag),
                detail: format!("The statement stands in line {}.", statement.line),
                hint: "Run it by itself outside of transmute, or take it out of the script.".into(),
            }),
        }
    }

    fn as_caller<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        identity::as_role(self.caller.role, &self.caller.session, f)
    }

    fn create(
        &mut self,
        number: i32,
        statement: &Statement,
        object: &'static str,
        schema: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let (target, revert) = if object == "SCHEMA" {
            let quoted = crate::model::ident::quote_ident(name);
            (quoted.clone(), format!("DROP SCHEMA {quoted}"))
        } else {
            let known = schema.is_some_and(|s| self.created.contains(&QualifiedName::new("", s)));
            let schema = match schema {
                Some(schema) if known => schema.to_string(),
                _ => self.as_caller(|| pg_relation::creation_schema(schema, name))?,
            };
            let qualified = QualifiedName::new(schema, name);
            self.created.insert(qualified.clone());
            (qualified.to_string(), format!("DROP {object} {qualified}"))
        };
        if object == "SCHEMA" {
            self.created.insert(QualifiedName::new("", name));
        }
        self.execute(
            number,
            statement,
            target,
            Some(revert),
            Facts::default(),
            vec![],
        );
        Ok(())
    }

    fn alter_table(
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
        // What ALTER refuses to work around, the swap does: a change of type with dependents goes that way too.
        if outcome.rewrites || !dependents.is_empty() {
            self.rewrite(number, statement, alter, &table, &outcome, &dependents)
        } else {
            self.metadata_only(number, statement, alter, &table)
        }
    }

    /// A table that this script makes is empty: its statements run as they stand.
    fn alter_unknown(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
    ) -> Result<()> {
        let made_here = self.created.iter().any(|c| {
            c.name == alter.name
                && alter
                    .schema
                    .as_ref()
                    .is_none_or(|schema| *schema == c.schema)
        });
        if !made_here {
            let name = match &alter.schema {
                Some(schema) => QualifiedName::new(schema, &alter.name).to_string(),
                None => crate::model::ident::quote_ident(&alter.name),
            };
            return Err(Error::UndefinedTable {
                name,
                search_path: self.caller.session.search_path.clone(),
            });
        }
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
            last.step.phase = Phase::Expand;
            last.step.revert_sql = None;
        }
        Ok(())
    }

    fn require_alterable(&self, table: &Relation) -> Result<()> {
        let wrong = |problem: &str, hint: &str| {
            Err(Error::WrongObject {
                problem: problem.into(),
                detail: format!("{} is not an ordinary table.", table.name),
                hint: hint.into(),
            })
        };
        if table.is_system {
            return wrong(
                "system tables cannot be migrated",
                "Name a table of your own.",
            );
        }
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
    fn require_free_columns(&self, table: &Relation, outcome: &probe::Outcome) -> Result<()> {
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

    fn metadata_only(
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
                (Action::AddColumn, Some(column)) => Some(format!(
                    "DROP COLUMN {}",
                    crate::model::ident::quote_ident(column)
                )),
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

    /// A statement that runs as it stands: in expand where it can be taken back, else behind the point of no return.
    fn execute(
        &mut self,
        number: i32,
        statement: &Statement,
        target: String,
        revert_sql: Option<String>,
        facts: Facts,
        mut reasons: Vec<Reason>,
    ) {
        let reversible = revert_sql.is_some();
        if !reversible {
            reasons.push(Reason::Irreversible);
        }
        let phase = match reversible && self.rewritten.is_empty() {
            true => Phase::Expand,
            false => Phase::Contract,
        };
        let score = risk::score(&reasons, &facts);
        let lock_mode = match facts.rows > 0 || reasons.contains(&Reason::LockAccessExclusive) {
            true => "ACCESS EXCLUSIVE",
            false => "",
        };
        self.steps.push(Planned {
            statement: number,
            naive_score: score,
            naive: "runs as it stands",
            step: Step {
                step: 0,
                phase,
                kind: StepKind::Execute.name().into(),
                target,
                sql: statement.text.clone(),
                lock_mode: lock_mode.into(),
                rewrites: false,
                transactional: true,
                risk_level: risk::Level::of_score(score),
                risk_score: score,
                reasons,
                reversible,
                revert_sql,
                estimate: Estimate::default(),
            },
        });
    }

    fn rewrite(
        &mut self,
        number: i32,
        statement: &Statement,
        alter: &AlterTable,
        table: &Relation,
        outcome: &probe::Outcome,
        dependents: &[Dependent],
    ) -> Result<()> {
        probe::require_supported(table, outcome)?;
        self.require_rewritable_commands(alter, table)?;
        dependents::require_supported(table, dependents)?;
        if !self.rewritten.insert(table.oid.to_u32()) {
            return Err(Error::Unsupported {
                problem: "two statements of the script rewrite the same table".into(),
                detail: format!(
                    "{} is rewritten again in line {}.",
                    table.name, statement.line
                ),
                hint: "Write one ALTER TABLE with all subcommands: it is one copy then.".into(),
            });
        }
        if !table.invalid_indexes.is_empty() {
            return Err(Error::Prerequisite {
                problem: "the table has an invalid index".into(),
                detail: format!("On {}: {}.", table.name, table.invalid_indexes),
                hint: "REINDEX INDEX CONCURRENTLY it, or drop it.".into(),
            });
        }
        let facts = table.facts();
        let naive = risk::score(&[Reason::LockAccessExclusive, Reason::TableRewrite], &facts);
        let estimate = Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: facts.rows as f64 / ROWS_PER_SECOND,
        };
        let dropping = alter
            .commands
            .iter()
            .any(|c| c.action == Action::DropColumn);
        let mut swap = vec![Reason::LockAccessExclusive];
        swap.extend((!dependents.is_empty()).then_some(Reason::DependentObjects));
        swap.extend(dropping.then_some(Reason::DataLoss));
        let steps: [(StepKind, Phase, &str, String, Vec<Reason>); 6] = [
            (
                StepKind::RewriteExpand,
                Phase::Expand,
                "SHARE ROW EXCLUSIVE",
                "make the shadow with the statement applied, the key log and the capture triggers"
                    .into(),
                vec![Reason::LockShareRowExclusive],
            ),
            (
                StepKind::RewriteCopy,
                Phase::Backfill,
                "ACCESS SHARE",
                "copy the rows block by block into the shadow".into(),
                vec![Reason::DiskSpace, Reason::ReplicationImpact],
            ),
            (
                StepKind::RewriteIndex,
                Phase::Validate,
                "",
                "build the indexes of the shadow, bring it up to date".into(),
                vec![],
            ),
            (
                StepKind::RewriteCheck,
                Phase::Validate,
                "ACCESS SHARE",
                "compare every row with its row in the shadow".into(),
                vec![],
            ),
            (
                StepKind::RewriteSwap,
                Phase::Contract,
                "ACCESS EXCLUSIVE",
                statement.text.clone(),
                swap,
            ),
            (
                StepKind::RewriteValidate,
                Phase::Contract,
                "SHARE UPDATE EXCLUSIVE",
                "validate foreign keys, drop the work tables, keep the old rows as an artifact"
                    .into(),
                vec![],
            ),
        ];
        for (kind, phase, lock_mode, sql, reasons) in steps {
            let score = risk::score(&reasons, &facts);
            self.steps.push(Planned {
                statement: number,
                naive_score: if kind == StepKind::RewriteSwap {
                    naive
                } else {
                    0
                },
                naive: if kind == StepKind::RewriteSwap {
                    "rewrites the table under ACCESS EXCLUSIVE"
                } else {
                    ""
                },
                step: Step {
                    step: 0,
                    phase,
                    kind: kind.name().into(),
                    target: table.name.to_string(),
                    sql,
                    lock_mode: lock_mode.into(),
                    rewrites: false,
                    transactional: true,
                    risk_level: risk::Level::of_score(score),
                    risk_score: score,
                    reversible: phase != Phase::Contract,
                    reasons,
                    revert_sql: None,
                    estimate: match kind {
                        StepKind::RewriteCopy | StepKind::RewriteCheck => estimate,
                        _ => Estimate::default(),
                    },
                },
            });
        }
        Ok(())
    }

    fn require_rewritable_commands(&self, alter: &AlterTable, table: &Relation) -> Result<()> {
        let foreign = alter
            .commands
            .iter()
            .any(|c| c.constraint == Some(ConstraintKind::Foreign));
        let tree = alter
            .commands
            .iter()
            .any(|c| c.action == Action::AttachOrInherit);
        // On the empty table it would call every foreign key valid.
        let validates = alter
            .commands
            .iter()
            .any(|c| c.action == Action::ValidateConstraint);
        if foreign || tree || validates {
            return Err(Error::Unsupported {
                problem: "a foreign key, VALIDATE CONSTRAINT or a change of inheritance cannot be part of a rewriting ALTER TABLE".into(),
                detail: format!("On {}.", table.name),
                hint: "Give it a statement of its own: a foreign key NOT VALID, validated afterwards.".into(),
            });
        }
        Ok(())
    }
}
