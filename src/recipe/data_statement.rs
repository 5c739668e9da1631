//! Statements that change rows: in batches where that means the same, else as they stand.
//!
//! Rows of a user's table have no way back, so they change behind the point of no return. What the script itself made,
//! a table or a column, goes when it is rolled back, and its rows with it: those are filled before.

use super::draft::Draft;
use super::Planner;
use crate::backfill::{self, Way};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::parser::{Data, Statement, Verb};
use crate::pg::relation as pg_relation;
use crate::store::step::Kind as StepKind;

/// Rows a second that batches changed when measured (docs/benchmarks.md), for estimates.
const ROWS_PER_SECOND: f64 = 100_000.0;
/// Fewer rows in one transaction are nothing to warn of.
const LONG_ROWS: i64 = 100_000;

impl Planner<'_> {
    pub(super) fn data(&mut self, number: i32, statement: &Statement, data: &Data) -> Result<()> {
        if data.verb == Verb::Truncate {
            return self.truncate(number, statement, data);
        }
        let (schema, name) = &data.targets[0];
        if let Some(phase) = self.made_here(schema.as_deref(), name) {
            let phase = self.behind_changes(phase.max(Phase::Backfill));
            self.push_new(number, statement, data, name.clone(), phase);
            return Ok(());
        }
        let resolved = self.as_caller(|| pg_relation::resolve(schema.as_deref(), name))?;
        let Some(oid) = resolved else {
            return Err(Error::UndefinedTable {
                name: written(schema.as_deref(), name),
                search_path: self.caller.session.search_path.clone(),
            });
        };
        let table = relation::get(oid)?;
        require_writable(&table)?;
        if self.fills_new_columns(&table, data) {
            let phase = self.behind_changes(Phase::Backfill);
            self.push_new(number, statement, data, table.name.to_string(), phase);
            return Ok(());
        }
        let way = self.way(&statement.text, data)?;
        self.push_changes(number, statement, data, &table, way);
        Ok(())
    }

    /// How it will run; a statement that speaks of what the script makes can only be understood when that is there.
    fn way(&self, sql: &str, data: &Data) -> Result<Way> {
        if data.verb == Verb::Merge {
            return Ok(Way::Whole("MERGE runs as it stands".into()));
        }
        match backfill::decide(sql, self.caller.role, &self.caller.session) {
            Ok(_) if self.meta.data.as_deref() == Some("single") => {
                Ok(Way::Whole("meta.data is single".into()))
            }
            Ok(decision) => Ok(decision.way),
            Err(Error::Server(e)) if self.makes_something() && is_unknown_name(&e) => {
                Ok(Way::Whole(String::new()))
            }
            Err(error) => Err(error),
        }
    }

    fn makes_something(&self) -> bool {
        !self.created.is_empty() || !self.added.is_empty() || !self.steps.is_empty()
    }

    /// The phase in which this script makes the relation of this name.
    fn made_here(&self, schema: Option<&str>, name: &str) -> Option<Phase> {
        self.created
            .iter()
            .find(|(made, _)| {
                made.name == name
                    && !made.schema.is_empty()
                    && schema.is_none_or(|s| s == made.schema)
            })
            .map(|(_, phase)| *phase)
    }

    /// Whether an UPDATE assigns nothing but columns that this script adds before.
    fn fills_new_columns(&self, table: &Relation, data: &Data) -> bool {
        data.verb == Verb::Update
            && !self.rewritten.contains(&table.oid.to_u32())
            && data
                .columns
                .iter()
                .all(|column| self.added.contains(&(table.oid.to_u32(), column.clone())))
    }

    /// What a data statement reads may be what an earlier one changes: they run in the order of the script.
    fn behind_changes(&self, phase: Phase) -> Phase {
        let late = self.steps.iter().any(|p| {
            p.step.phase == Phase::Contract
                && [StepKind::Data.name(), StepKind::Batch.name()].contains(&p.step.kind.as_str())
        });
        match late || !self.rewritten.is_empty() {
            true => Phase::Contract,
            false => phase,
        }
    }

    /// Rows that go when the script is rolled back.
    fn push_new(
        &mut self,
        number: i32,
        statement: &Statement,
        data: &Data,
        target: String,
        phase: Phase,
    ) {
        let kind = match (data.verb, self.meta.data.as_deref()) {
            (Verb::Merge, _) | (_, Some("single")) => StepKind::Data,
            _ => StepKind::Batch,
        };
        let mut draft = Draft::new(kind, phase, target, &statement.text)
            .lock("ROW EXCLUSIVE")
            .naive("changes all rows in one transaction", &[]);
        if phase == Phase::Contract {
            draft = draft.reasons([Reason::Irreversible]);
        }
        self.push(number, &Facts::default(), draft);
    }

    fn push_changes(
        &mut self,
        number: i32,
        statement: &Statement,
        data: &Data,
        table: &Relation,
        way: Way,
    ) {
        let facts = match &way {
            Way::Batched(driver) => driver.relation.facts(),
            Way::Whole(_) => table.facts(),
        };
        let mut reasons = vec![Reason::Irreversible];
        if matches!(data.verb, Verb::Delete) {
            reasons.push(Reason::DataLoss);
        }
        let large = facts.rows >= LONG_ROWS;
        let mut naive = reasons.clone();
        naive.extend(large.then_some(Reason::LongTransaction));
        let kind = match &way {
            Way::Batched(_) => StepKind::Batch,
            // Understood when what it speaks of is there.
            Way::Whole(why) if why.is_empty() => StepKind::Batch,
            Way::Whole(why) => {
                reasons.extend((why == backfill::NO_KEY).then_some(Reason::NoKey));
                reasons.extend(large.then_some(Reason::LongTransaction));
                StepKind::Data
            }
        };
        if large {
            reasons.push(Reason::ReplicationImpact);
        }
        let estimate = Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: facts.rows as f64 / ROWS_PER_SECOND,
        };
        let draft = Draft::new(
            kind,
            Phase::Contract,
            table.name.to_string(),
            &statement.text,
        )
        .lock("ROW EXCLUSIVE")
        .reasons(reasons)
        .estimate(estimate)
        .naive("changes all rows in one transaction", &naive);
        self.push(number, &facts, draft);
    }

    fn truncate(&mut self, number: i32, statement: &Statement, data: &Data) -> Result<()> {
        if data.cascade {
            return Err(Error::Unsupported {
                problem: "TRUNCATE … CASCADE is not run by a migration".into(),
                detail: format!(
                    "It empties tables that the script does not name (line {}).",
                    statement.line
                ),
                hint: "Name every table: TRUNCATE a, b.".into(),
            });
        }
        let mut facts = Facts::default();
        let mut names = Vec::new();
        for (schema, name) in &data.targets {
            if self.made_here(schema.as_deref(), name).is_some() {
                names.push(quote_ident(name));
                continue;
            }
            let resolved = self.as_caller(|| pg_relation::resolve(schema.as_deref(), name))?;
            let oid = resolved.ok_or_else(|| Error::UndefinedTable {
                name: written(schema.as_deref(), name),
                search_path: self.caller.session.search_path.clone(),
            })?;
            let table = relation::get(oid)?;
            require_writable(&table)?;
            self.require_truncate(&table)?;
            let of = table.facts();
            facts.rows += of.rows;
            facts.bytes += of.bytes;
            facts.writes_per_second += of.writes_per_second;
            names.push(table.name.to_string());
        }
        let reasons = [
            Reason::LockAccessExclusive,
            Reason::DataLoss,
            Reason::Irreversible,
        ];
        let draft = Draft::new(
            StepKind::Data,
            Phase::Contract,
            names.join(", "),
            &statement.text,
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons(reasons)
        .naive("runs as it stands", &reasons);
        self.push(number, &facts, draft);
        Ok(())
    }

    fn require_truncate(&self, table: &Relation) -> Result<()> {
        if relation::may_truncate(table.oid, self.caller.role)? {
            return Ok(());
        }
        Err(Error::Privilege {
            problem: "permission denied to truncate the table".into(),
            detail: format!("On {}.", table.name),
            hint: "Register it as a role that may, or GRANT TRUNCATE.".into(),
        })
    }
}

fn written(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => QualifiedName::new(schema, name).to_string(),
        None => quote_ident(name),
    }
}

/// A name that an earlier statement of the script may make.
fn is_unknown_name(error: &crate::pg::error::ServerError) -> bool {
    // undefined_table, undefined_column, undefined_function, undefined_object, invalid_schema_name
    ["42P01", "42703", "42883", "42704", "3F000"]
        .contains(&crate::pg::error::sqlstate_text(error.code).as_str())
}

fn require_writable(table: &Relation) -> Result<()> {
    let (problem, hint) = match (table.kind, table.persistence) {
        _ if table.is_system => (
            "system tables cannot be migrated",
            "Name a table of your own.",
        ),
        (_, 't') => (
            "temporary tables cannot be migrated online",
            "Change it in its own session.",
        ),
        ('r' | 'p' | 'v' | 'f', _) => return Ok(()),
        _ => (
            "the relation holds no rows that a statement can change",
            "Name a table.",
        ),
    };
    let name = match table.persistence {
        't' => QualifiedName::new("pg_temp", &table.name.name),
        _ => table.name.clone(),
    };
    Err(Error::WrongObject {
        problem: problem.into(),
        detail: format!("{name} is not an ordinary table."),
        hint: hint.into(),
    })
}
