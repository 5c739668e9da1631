//! Statements that run as they stand.

use super::draft::Draft;
use super::Planner;
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::parser::Statement;
use crate::pg::relation as pg_relation;
use crate::store::step::Kind as StepKind;

/// Statements that only write catalog rows, by command tag.
pub(super) const CATALOG_ONLY: [&str; 22] = [
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

/// Something that a statement makes.
pub(super) struct New<'a> {
    pub object: &'static str,
    pub schema: Option<&'a str>,
    pub name: &'a str,
    pub if_not_exists: bool,
}

impl Planner<'_> {
    pub(super) fn create(
        &mut self,
        number: i32,
        statement: &Statement,
        new: &New<'_>,
    ) -> Result<()> {
        let known = new
            .schema
            .is_some_and(|s| self.created.contains_key(&QualifiedName::new("", s)));
        let (made, target) = match (new.object, new.schema) {
            ("SCHEMA", _) => (QualifiedName::new("", new.name), quote_ident(new.name)),
            (_, Some(schema)) if known => {
                let name = QualifiedName::new(schema, new.name);
                (name.clone(), name.to_string())
            }
            (_, schema) => {
                let schema = self.as_caller(|| pg_relation::creation_schema(schema, new.name))?;
                let name = QualifiedName::new(schema, new.name);
                (name.clone(), name.to_string())
            }
        };
        // What IF NOT EXISTS finds is not ours to drop.
        let revert = (!new.if_not_exists).then(|| format!("DROP {} {target}", new.object));
        self.execute(number, statement, target, revert, Facts::default(), vec![]);
        let phase = self.steps.last().map_or(Phase::Contract, |p| p.step.phase);
        self.created.insert(made, phase);
        Ok(())
    }

    /// A statement that runs as it stands: in expand where it can be taken back, else behind the point of no return.
    pub(super) fn execute(
        &mut self,
        number: i32,
        statement: &Statement,
        target: String,
        revert_sql: Option<String>,
        facts: Facts,
        reasons: Vec<Reason>,
    ) {
        self.execute_text(number, &statement.text, target, revert_sql, facts, reasons);
    }

    /// As `execute`, with a text of our own.
    pub(super) fn execute_text(
        &mut self,
        number: i32,
        sql: &str,
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
        let lock_mode = match facts.rows > 0 || reasons.contains(&Reason::LockAccessExclusive) {
            true => "ACCESS EXCLUSIVE",
            false => "",
        };
        let mut draft = Draft::new(StepKind::Execute, phase, target, sql)
            .lock(lock_mode)
            .naive("runs as it stands", &reasons)
            .reasons(reasons)
            .revert(revert_sql);
        // Nothing was done that would have to be taken back.
        draft.revert_sql.take_if(|sql| sql.is_empty());
        self.push(number, &facts, draft);
    }
}
