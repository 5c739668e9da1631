//! Statements that run as they stand, the way back read from the catalog when they run: at the start where everything that
//! they change can be made again, else at the end, behind the point of no return.

use super::draft::Draft;
use super::elsewhere;
use super::Planner;
use crate::catalog::fact;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
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
const REFUSED: [&str; 25] = [
    "SET",
    "RESET",
    "SHOW",
    "UNLISTEN",
    "NOTIFY",
    "LOCK TABLE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "EXPLAIN",
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
        elsewhere::refuse(statement)?;
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
                let target = named(statement);
                self.change(number, statement, target, READ_WHEN_IT_RUNS, vec![]);
                return Ok(());
            }
            // A column that an earlier statement has added by then.
            Err(error)
                if UNDEFINED.contains(&error.sqlstate_text().as_str())
                    && self.is_about_an_added(number) =>
            {
                let target = named(statement);
                self.change(number, statement, target, READ_WHEN_IT_RUNS, vec![]);
                return Ok(());
            }
            // A part of a table, which an earlier statement changes: it is there at the end.
            Err(error)
                if UNDEFINED.contains(&error.sqlstate_text().as_str())
                    && self.is_about_a_changed(number) =>
            {
                self.at_the_end(number, statement, named(statement), vec![]);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let target = match &subject {
            Some(subject) => target(statement, subject)?,
            None => named(statement),
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
                self.change(number, statement, target, back, reasons);
            }
            Some(_) => self.at_the_end(number, statement, target, reasons),
            None => {
                if tag != "SECURITY LABEL" {
                    reasons.push(Reason::UnknownStatement);
                }
                self.at_the_end(number, statement, target, reasons);
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
        let tied = self.tied_to(index);
        let mut earlier = tied.range(..index).map(|i| &self.statements[*i].effects);
        earlier.any(|earlier| effects.tie_to(earlier).is_some() || effects.unknown)
    }

    /// Whether an earlier statement changes something that this one is about.
    fn is_about_a_changed(&self, number: i32) -> bool {
        let index = (number - 1) as usize;
        let mentions = &self.statements[index].effects.mentions;
        let tied = self.tied_to(index);
        let mut changed = tied
            .range(..index)
            .flat_map(|i| &self.statements[*i].effects.alters);
        changed.any(|object| mentions.has(object.schema.as_deref(), &object.name))
    }

    /// Whether it is about a column that an earlier statement adds in expand.
    fn is_about_an_added(&self, number: i32) -> bool {
        let index = (number - 1) as usize;
        let mentions = &self.statements[index].effects.mentions;
        self.added
            .iter()
            .any(|((_, column), _)| mentions.has(None, column))
            && self.is_about_a_changed(number)
    }

    /// In expand, with the way back that the step reads when it runs.
    pub(super) fn change(
        &mut self,
        number: i32,
        statement: &Statement,
        target: String,
        back: &str,
        reasons: Vec<Reason>,
    ) {
        let draft = Draft::new(StepKind::Change, Phase::Expand, target, &statement.text)
            .naive("runs as it stands", &reasons)
            .reasons(reasons)
            .revert(Some(back.to_string()));
        self.push(number, &Facts::default(), draft);
    }

    fn at_the_end(
        &mut self,
        number: i32,
        statement: &Statement,
        target: String,
        reasons: Vec<Reason>,
    ) {
        self.execute(number, statement, target, None, Facts::default(), reasons);
    }
}

/// What the server refuses in a transaction, and this project does not run outside of one yet.
fn is_outside(tag: &str) -> bool {
    const OUTSIDE: [&str; 5] = ["VACUUM", "ANALYZE", "REINDEX", "CLUSTER", "ALTER DATABASE"];
    OUTSIDE.contains(&tag)
}

/// What a statement is about, as the server names it.
fn target(statement: &Statement, subject: &Subject) -> Result<String> {
    match subject.objects.as_slice() {
        [] => Ok(named(statement)),
        [first, rest @ ..] => {
            let first = fact::identity(first)?;
            Ok(match rest.len() {
                0 => first,
                more => format!("{first} and {more} more"),
            })
        }
    }
}

/// The name in the statement of what it is about; the command where it names nothing.
pub(super) fn named(statement: &Statement) -> String {
    let effects = &statement.effects;
    let mut objects = effects
        .makes
        .iter()
        .chain(&effects.drops)
        .chain(&effects.alters);
    objects.next().map_or_else(
        || statement.tag.clone(),
        |object| match &object.schema {
            Some(schema) => QualifiedName::new(schema, &object.name).to_string(),
            None => quote_ident(&object.name),
        },
    )
}
