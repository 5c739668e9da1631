//! Recipes: from a script to a plan. Each statement is classified, its recipe chooses the steps, the steps are
//! ordered by phase. `names` knows what names mean at a place of the script, `order` what has to wait for what;
//! `alter_table` decides, `rewrite` and `passthrough` make the steps.

mod alter_table;
mod bundle;
mod draft;
mod names;
mod order;
mod passthrough;
mod referencing;
mod rewrite;
mod sequence;

use crate::error::{Error, Result};
use crate::model::plan::{Plan, Step};
use crate::model::risk::Facts;
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Kind, Statement};
use crate::pg::xact::{self, End};
use crate::store::step::Kind as StepKind;
use bundle::Bundle;
use names::Names;
use passthrough::{New, CATALOG_ONLY};
use std::collections::HashSet;
use std::rc::Rc;

/// A planned step with the statement it comes from and what the plain statement would risk.
#[derive(Debug, Clone)]
pub struct Planned {
    pub statement: i32,
    pub step: Step,
    pub naive_score: i32,
    pub naive: &'static str,
}

/// What of the metadata decides how a script is planned.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Columns of other tables that refer to a key that is retyped are retyped with it.
    pub include_referencing: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            include_referencing: true,
        }
    }
}

/// Plans a script for `caller`. Nothing is written; what is wrong with it is an error with the line.
pub fn make(script: &str, caller: &Caller, options: Options) -> Result<Vec<Planned>> {
    let statements =
        xact::subtransaction(End::Keep, || parser::parse(script)).map_err(|e| placed(e, 1))?;
    if statements.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "the script holds no statement".into(),
            detail: "Nothing but blanks and comments was given.".into(),
            hint: "Pass the DDL as text: transmute.register('id', $$ALTER TABLE …$$).".into(),
        });
    }
    let mut planner = Planner {
        caller: caller.clone(),
        options,
        statements: statements.into_iter().map(Rc::new).collect(),
        bundles: Vec::new(),
        added: Vec::new(),
        names: Names::default(),
        late: Vec::new(),
        rewritten: HashSet::new(),
        steps: Vec::new(),
    };
    let written = planner.statements.len();
    planner.find_bundles()?;
    for i in 0..written {
        planner.in_turn(i)?;
        let added: Vec<usize> = planner
            .added
            .iter()
            .filter(|(_, root)| *root == i)
            .map(|(added, _)| *added)
            .collect();
        for one in added {
            planner.in_turn(one)?;
        }
    }
    let mut steps = planner.steps;
    // Swaps come first in contract: they commit with FINISHING, all or none, and nothing before them may change a table.
    steps.sort_by_key(|p| (p.step.phase, p.step.kind != StepKind::RewriteSwap.name()));
    for (i, planned) in steps.iter_mut().enumerate() {
        planned.step.step = i as i32 + 1;
    }
    Ok(steps)
}

/// An error of the server's own gets the place in the script and what to do, where it has none.
fn placed(error: Error, line: usize) -> Error {
    match error {
        Error::Server(mut e) => {
            e.detail.get_or_insert_with(|| {
                format!("In the statement that begins in line {line} of the script.")
            });
            e.hint
                .get_or_insert_with(|| "Correct the statement; nothing was written.".into());
            Error::Server(e)
        }
        other => other,
    }
}

pub fn plan_of(planned: &[Planned]) -> Plan {
    Plan {
        steps: planned.iter().map(|p| p.step.clone()).collect(),
    }
}

struct Planner {
    /// Who registers; the search_path is that of the statement that is planned.
    caller: Caller,
    options: Options,
    /// The script, and behind it what was added to it.
    statements: Rc<[Rc<Statement>]>,
    /// Statements that are one copy of a table.
    bundles: Vec<Bundle>,
    /// Statements that were added, and the one of the script that each belongs to.
    added: Vec<(usize, usize)>,
    /// What names mean after the statements that were planned.
    names: Names,
    /// Statements that were planned and end later than expand.
    late: Vec<order::Placed>,
    /// Tables this script rewrites.
    rewritten: HashSet<u32>,
    steps: Vec<Planned>,
}

impl Planner {
    /// Plans one statement behind those that it builds on.
    fn in_turn(&mut self, index: usize) -> Result<()> {
        let statement = self.statements[index].clone();
        self.plan(index, &statement)
            .map_err(|e| placed(e, statement.line))
    }

    fn plan(&mut self, index: usize, statement: &Statement) -> Result<()> {
        if self.is_absorbed(index) {
            return self.note_names(&statement.effects);
        }
        let floor = self.floor(index);
        let first = self.steps.len();
        if let Some(bundle) = self.bundle_of(index) {
            self.plan_bundle(index, bundle)?;
        } else if self.changes_only_new(&statement.effects)? {
            self.on_new(index as i32 + 1, statement, floor.phase);
        } else if !self.name_of_new(index as i32 + 1, statement, floor.phase)? {
            self.statement(index as i32 + 1, statement)?;
        }
        self.place(index, first, floor)?;
        self.note_names(&statement.effects)
    }

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
                if_not_exists,
            } => {
                let new = New {
                    object,
                    schema: schema.as_deref(),
                    name,
                    if_not_exists: *if_not_exists,
                };
                self.create(number, statement, &new)
            }
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
}
