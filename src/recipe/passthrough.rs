//! Statements that run as they stand.

use super::{Planned, Planner};
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::plan::{Estimate, Step};
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts};
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

impl Planner<'_> {
    pub(super) fn create(
        &mut self,
        number: i32,
        statement: &Statement,
        object: &'static str,
        schema: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let (target, revert) = if object == "SCHEMA" {
            let quoted = quote_ident(name);
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

    /// A statement that runs as it stands: in expand where it can be taken back, else behind the point of no return.
    pub(super) fn execute(
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
}
