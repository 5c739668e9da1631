//! Statements that run as they stand, the way back read from the catalog when they run: at the start where everything that
//! they change can be made again, else at the end, behind the point of no return.

use super::draft::Draft;
use super::Planner;
use crate::catalog::fact;
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::affected::{self, Subject, Way};
use crate::pg::parser::Statement;
use crate::pg::xact::{self, End};
use crate::store::step::Kind as StepKind;

/// What a plan shows where the statement that takes a step back is read when it runs.
pub(super) const READ_WHEN_IT_RUNS: &str =
    "-- what it was, read from the catalog when the step runs";
pub(super) const DROPS_WHAT_IT_MADE: &str =
    "-- drops what it made, read from the catalog when the step runs";

/// Statements whose effect ends with their session or transaction, and those that other recipes are for: refused by name.
const REFUSED: [&str; 27] = [
    "SET",
    "RESET",
    "SHOW",
    "LISTEN",
    "UNLISTEN",
    "NOTIFY",
    "LOCK TABLE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "EXPLAIN",
    "COPY",
    "DISCARD",
    "DISCARD ALL",
    "LOAD",
    "DECLARE CURSOR",
    "FETCH",
    "MOVE",
    "CLOSE CURSOR",
    "CHECKPOINT",
    "SET CONSTRAINTS",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "TRUNCATE TABLE",
    "DROP INDEX",
];

/// SQLSTATEs of a name that is not there.
const UNDEFINED: [&str; 5] = ["42883", "42704", "42P01", "3F000", "42703"];

impl Planner<'_> {
    pub(super) fn as_it_stands(&mut self, number: i32, statement: &Statement) -> Result<()> {
        let tag = statement.tag.as_str();
        if REFUSED.contains(&tag) || is_outside(tag) {
            return Err(Error::Unsupported {
                problem: format!("there is no online recipe for {tag} yet"),
                detail: format!("The statement stands in line {}.", statement.line),
                hint: "Run it by itself outside of transmute, or take it out of the script.".into(),
            });
        }
        let found = xact::subtransaction(End::Keep, || {
            self.as_caller(|| affected::of(&statement.text))
        });
        let subject = match found {
            Ok(subject) => subject,
            // An earlier statement of the script makes it: it is looked for when the step runs.
            Err(error)
                if UNDEFINED.contains(&error.sqlstate_text().as_str())
                    && self.builds_on_earlier(number) =>
            {
                self.change(number, statement, READ_WHEN_IT_RUNS, vec![]);
                return Ok(());
            }
            // A part of a table, which an earlier statement changes: it is there at the end.
            Err(error)
                if UNDEFINED.contains(&error.sqlstate_text().as_str())
                    && self.is_about_a_changed(number) =>
            {
                self.at_the_end(number, statement, vec![]);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut reasons = Vec::new();
        if matches!(tag, "GRANT" | "REVOKE" | "ALTER DEFAULT PRIVILEGES") {
            reasons.push(Reason::PrivilegeChange);
        }
        match subject {
            Some(subject) if self.can_be_taken_back(&subject)? => {
                let back = match subject.creates && subject.objects.is_empty() {
                    true => DROPS_WHAT_IT_MADE,
                    false => READ_WHEN_IT_RUNS,
                };
                self.change(number, statement, back, reasons);
            }
            Some(_) => self.at_the_end(number, statement, reasons),
            None => {
                if tag != "SECURITY LABEL" {
                    reasons.push(Reason::UnknownStatement);
                }
                self.at_the_end(number, statement, reasons);
            }
        }
        Ok(())
    }

    /// Whether everything that the statement takes away can be made again.
    fn can_be_taken_back(&self, subject: &Subject) -> Result<bool> {
        if subject.way == Way::Never {
            return Ok(false);
        }
        if !subject.drops {
            return Ok(true);
        }
        for address in &subject.objects {
            let part_of_table = address
                .relation
                .is_some_and(|table| table != address.object);
            let facts = fact::list(address)?;
            let it = facts.iter().find(|f| f.rank == 10);
            if !part_of_table && it.is_none_or(|f| f.make.is_none()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn builds_on_earlier(&self, number: i32) -> bool {
        let index = (number - 1) as usize;
        let effects = &self.statements[index].effects;
        self.statements[..index]
            .iter()
            .any(|earlier| effects.tie_to(&earlier.effects).is_some() || effects.unknown)
    }

    /// Whether an earlier statement changes something that this one is about.
    fn is_about_a_changed(&self, number: i32) -> bool {
        let index = (number - 1) as usize;
        let mentions = &self.statements[index].effects.mentions;
        self.statements[..index]
            .iter()
            .flat_map(|earlier| &earlier.effects.alters)
            .any(|object| mentions.has(object.schema.as_deref(), &object.name))
    }

    /// In expand, with the way back that the step reads when it runs.
    pub(super) fn change(
        &mut self,
        number: i32,
        statement: &Statement,
        back: &str,
        reasons: Vec<Reason>,
    ) {
        let draft = Draft::new(
            StepKind::Change,
            Phase::Expand,
            target(statement),
            &statement.text,
        )
        .naive("runs as it stands", &reasons)
        .reasons(reasons)
        .revert(Some(back.to_string()));
        self.push(number, &Facts::default(), draft);
    }

    fn at_the_end(&mut self, number: i32, statement: &Statement, reasons: Vec<Reason>) {
        let target = target(statement);
        self.execute(number, statement, target, None, Facts::default(), reasons);
    }
}

/// What the server refuses in a transaction, and this project does not run outside of one yet.
fn is_outside(tag: &str) -> bool {
    const OUTSIDE: [&str; 12] = [
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "CLUSTER",
        "CREATE DATABASE",
        "DROP DATABASE",
        "ALTER DATABASE",
        "CREATE TABLESPACE",
        "DROP TABLESPACE",
        "ALTER SYSTEM",
        "CREATE SUBSCRIPTION",
        "DROP SUBSCRIPTION",
    ];
    OUTSIDE.contains(&tag)
}

fn target(statement: &Statement) -> String {
    statement.tag.clone()
}
