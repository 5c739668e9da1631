//! Hand-written phases: what is added first, a batch that a person has written, what is removed at the end. The plain DDL of
//! both ends goes through the planner like any script; the batch stands between them.

use super::draft::{planned, Draft};
use super::{in_order, locks_of, make_with, place, Planned, Script};
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::identity::Caller;
use crate::pg::parser::{self, Kind, Statement, Verb};
use crate::pg::xact::{self, End};
use crate::store::step::Kind as StepKind;

/// What a person has written, checked.
#[derive(Debug)]
pub struct Phases {
    /// The DDL of both ends, as one script.
    pub up: String,
    pub script: Script,
}

impl Phases {
    /// Plans them for `caller`. Nothing is written.
    pub fn make(
        additions: &str,
        batch: &str,
        drops: &str,
        rollback: Option<&str>,
        caller: &Caller,
        meta: &Meta,
    ) -> Result<Phases> {
        let batch = one_batch(batch)?;
        if let Some(rollback) = rollback {
            require_rollback(rollback)?;
        }
        let added = parse("schema_additions", additions)?.len();
        let removed = parse("schema_drops", drops)?.len();
        // Behind a comment, or a semicolon, at the end of the first.
        let up = match (added, removed) {
            (_, 0) => additions.to_string(),
            (0, _) => drops.to_string(),
            _ => format!("{additions}\n;\n{drops}"),
        };
        let mut script = match added + removed {
            0 => Script {
                plain: Vec::new(),
                steps: Vec::new(),
            },
            _ => make_with(&up, None, Some(added), caller, meta)?,
        };
        for step in &script.steps {
            require_phase(step, added as i32, &script)?;
        }
        let mut draft = Draft::new(
            StepKind::HandBatch,
            Phase::Backfill,
            "rows of its own choice",
            &batch,
        )
        .only_also(locks_of(&batch, caller)?)
        .revert(rollback.map(str::to_string));
        if rollback.is_none() {
            draft = draft.reasons([Reason::Irreversible]);
        }
        let number = (added + removed) as i32 + 1;
        script.steps.push(planned(number, &Facts::default(), draft));
        in_order(&mut script.steps);
        Ok(Phases { up, script })
    }
}

fn parse(argument: &str, text: &str) -> Result<Vec<Statement>> {
    xact::subtransaction(End::Keep, || parser::parse(text))
        .map_err(|e| place::of_syntax_error_in(argument, e, text, 0))
}

/// The statement of one batch. A function is called by its name, with or without its argument's type.
fn one_batch(text: &str) -> Result<String> {
    let wrong = |detail: String| {
        Error::InvalidArgument {
        problem: "migrate_batch is not one batch".into(),
        detail,
        hint: "Give one SELECT, INSERT, UPDATE, DELETE or MERGE, in which $1 is the size of a batch, or the name of a function of it."
            .into(),
    }
    };
    if let Some((name, of)) = function(text) {
        return Ok(format!("SELECT {name}($1{of})"));
    }
    let statements = parse("migrate_batch", text)?;
    let [statement] = statements.as_slice() else {
        return Err(wrong(format!("It has {} statements.", statements.len())));
    };
    let is_one = match &statement.kind {
        Kind::Data(data) => data.verb != Verb::Truncate,
        _ => statement.tag == "SELECT",
    };
    match is_one {
        true => Ok(statement.text.clone()),
        false => Err(wrong(format!("It is {}.", statement.tag))),
    }
}

/// A text that is no statement but the name of a function: as regproc or regprocedure print it. Its name, and the cast to its
/// argument's type.
fn function(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let (name, of) = match text.strip_suffix(')') {
        None => (text, String::new()),
        Some(rest) => {
            let (name, argument) = rest.split_once('(')?;
            let known = ["int", "integer", "int4", "bigint", "int8"];
            let argument = argument.trim().to_lowercase();
            (
                name.trim(),
                format!("::{}", known.iter().find(|k| **k == argument)?),
            )
        }
    };
    let parsed = |sql: String| xact::subtransaction(End::Keep, || parser::parse(&sql)).ok();
    // A word that begins a statement is no name.
    let is_name = !name.is_empty()
        && parsed(text.to_string()).is_none()
        && parsed(format!("ALTER FUNCTION {name} RENAME TO x")).is_some_and(|s| s.len() == 1);
    is_name.then(|| (name.to_string(), of))
}

pub(super) fn require_rollback(text: &str) -> Result<()> {
    let statements = parse("rollback", text)?;
    let refuse = |detail: String| {
        Err(Error::InvalidArgument {
            problem: "rollback is not a script that can take the batches back".into(),
            detail,
            hint: "Give statements that undo what migrate_batch did; what schema_additions made is taken back by itself.".into(),
        })
    };
    if statements.is_empty() {
        return refuse("It holds no statement.".into());
    }
    match statements
        .iter()
        .find(|s| matches!(s.kind, Kind::Transaction | Kind::Set(_)))
    {
        Some(s) => refuse(format!("{} stands in line {}.", s.tag, s.line)),
        None => Ok(()),
    }
}

/// Additions end before the point of no return; what is removed is removed behind it.
fn require_phase(planned: &Planned, added: i32, script: &Script) -> Result<()> {
    let words = |number: i32| {
        script
            .plain
            .iter()
            .find(|p| p.number == number)
            .map_or_else(String::new, |p| p.text.clone())
    };
    if planned.statement <= added {
        if planned.step.phase < Phase::Contract {
            return Ok(());
        }
        return Err(Error::InvalidArgument {
            problem: "schema_additions may only add".into(),
            detail: format!(
                "This ends behind the point of no return: {}.",
                words(planned.statement)
            ),
            hint: "Move it to schema_drops, or register it as a migration of its own.".into(),
        });
    }
    let allowed = [
        StepKind::Execute,
        StepKind::Change,
        StepKind::Data,
        StepKind::Batch,
        StepKind::Outside,
        StepKind::RelaxColumn,
        StepKind::HideColumn,
        StepKind::HideTable,
    ];
    if allowed.iter().any(|k| k.name() == planned.step.kind) {
        return Ok(());
    }
    Err(Error::Unsupported {
        problem: "a rewrite, or a rename, has work at the start, and is no drop".into(),
        detail: format!("In schema_drops: {}.", words(planned.statement)),
        hint: "Register it as a migration of its own.".into(),
    })
}
