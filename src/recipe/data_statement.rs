//! Statements that change rows: in batches where that means the same, else as they stand.
//!
//! Rows of a user's table have no way back, so they change behind the point of no return. What the script itself made,
//! a table or a column, goes when it is rolled back, and its rows with it: those are filled before.

use super::draft::Draft;
use super::names::Target;
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
use crate::store::step::Kind as StepKind;

/// Fewer rows in one transaction are nothing to warn of.
const LONG_ROWS: i64 = 100_000;

impl Planner<'_> {
    pub(super) fn data(&mut self, number: i32, statement: &Statement, data: &Data) -> Result<()> {
        if data.verb == Verb::Truncate {
            return self.truncate(number, statement, data);
        }
        let (schema, name) = &data.targets[0];
        let table = self.written_table(schema.as_deref(), name)?;
        if self.fills_new_columns(&table, data) {
            if self.rule(number, statement, &table)? {
                return Ok(());
            }
            self.push_new(
                number,
                statement,
                data,
                table.name.to_string(),
                Phase::Backfill,
            );
            return Ok(());
        }
        let (way, rows) = self.way(&statement.text)?;
        self.push_changes(number, statement, data, &table, way, rows);
        Ok(())
    }

    /// A statement over what this script makes: it goes with it. What copies the rows of a table that is there may take
    /// long.
    pub(super) fn fill_new(
        &mut self,
        number: i32,
        statement: &Statement,
        data: &Data,
        floor: Phase,
    ) -> Result<()> {
        let names: Vec<String> = data
            .targets
            .iter()
            .map(|(schema, name)| written(schema.as_deref(), name))
            .collect();
        let copies = match &data.source {
            Some((schema, name)) => {
                matches!(self.lookup(schema.as_deref(), name)?, Target::Existing(_))
            }
            None => false,
        };
        let phase = match copies {
            true => floor.max(Phase::Backfill),
            false => floor,
        };
        self.push_new(number, statement, data, names.join(", "), phase);
        Ok(())
    }

    /// A table that is there before the script runs.
    fn written_table(&self, schema: Option<&str>, name: &str) -> Result<Relation> {
        let table = match self.lookup(schema, name)? {
            Target::Existing(oid) => relation::get(oid)?,
            Target::New | Target::Nothing => return Err(self.undefined(schema, name)),
        };
        require_writable(&table)?;
        Ok(table)
    }

    /// How it will run; a statement that speaks of what the script makes can only be understood when that is there.
    fn way(&self, sql: &str) -> Result<(Way, i64)> {
        match backfill::decide(sql, self.caller.role, &self.caller.session) {
            Ok(decision) if self.meta.data.as_deref() == Some("single") => {
                Ok((Way::Whole("meta.data is single".into()), decision.rows))
            }
            Ok(decision) => Ok((decision.way, decision.rows)),
            Err(Error::Server(e)) if !self.steps.is_empty() && is_unknown_name(&e) => {
                Ok((Way::Whole(String::new()), 0))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an UPDATE assigns nothing but columns that this script adds before.
    fn fills_new_columns(&self, table: &Relation, data: &Data) -> bool {
        data.verb == Verb::Update
            && !self.rewritten.contains(&table.oid.to_u32())
            && data.columns.iter().all(|column| {
                self.added
                    .contains_key(&(table.oid.to_u32(), column.clone()))
            })
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
            (Verb::Merge | Verb::Truncate, _) | (_, Some("single")) => StepKind::Data,
            _ if phase == Phase::Expand => StepKind::Data,
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
        rows: i64,
    ) {
        let facts = match &way {
            Way::Batched(driver) => driver.relation.facts(),
            Way::Whole(_) => table.facts(),
        };
        let mut reasons = vec![Reason::Irreversible];
        if matches!(data.verb, Verb::Delete) {
            reasons.push(Reason::DataLoss);
        }
        let large = rows >= LONG_ROWS;
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
            rows,
            bytes: facts.bytes,
            seconds: 0.0, // as measured on this server
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
            let table = self.written_table(schema.as_deref(), name)?;
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
