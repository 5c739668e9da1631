//! Recipes: from a script to a plan. Each statement is classified, its recipe chooses the steps, the steps are
//! ordered by phase. `names` knows what names mean at a place of the script, `order` what has to wait for what;
//! `alter_table` decides, the others make the steps.

mod add_check;
mod add_foreign_key;
mod add_key;
mod added_keys;
mod alter_table;
mod as_it_stands;
mod bundle;
mod composable;
pub mod copying;
mod data_statement;
mod direct;
mod draft;
mod drop_index;
mod dual_write;
mod earlier;
mod elsewhere;
mod enum_value;
mod in_place;
mod index;
mod keep;
mod leaves;
mod names;
mod order;
mod partition;
mod passthrough;
mod phases;
mod place;
mod plain;
mod referencing;
mod refresh;
mod reindex;
mod rename_by_rule;
mod rename_column;
mod rename_table;
mod replaced;
mod report;
mod rewrite;
mod rewrite_tree;
mod rule_reading;
mod sequence;
mod set_not_null;
mod setting;
mod soft_drop;
mod successor;
mod type_name;
mod vacuum;
mod validate;
mod version;
mod why;
mod write_anew;

use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::lock;
use crate::model::meta::Meta;
use crate::model::phase::Phase;
use crate::model::plan::Plan;
use crate::model::risk;
use crate::model::ties::Ties;
use crate::pg::identity::{self, Caller};
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{self, Kind, Statement};
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use crate::rewrite::ground::{self, Ground};
use crate::rewrite::probe;
use crate::store::rate;
use crate::store::step::Kind as StepKind;
use bundle::Bundle;
pub use direct::back;
pub use draft::Planned;
pub use dual_write::rule_back;
use index::require_plain;
use names::Names;
use passthrough::New;
pub use phases::Phases;
pub use place::of_error;
use plain::Observer;
pub use plain::Plain;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use why::Seen;

/// A script as planned: each statement as it would run by itself, and the steps that run instead.
#[derive(Debug, Clone)]
pub struct Script {
    pub plain: Vec<Plain>,
    pub steps: Vec<Planned>,
}

/// Plans a script for `caller`. Nothing is written; what is wrong with it is an error with the line.
pub fn make(script: &str, caller: &Caller, meta: &Meta) -> Result<Script> {
    with_way_back(script, None, caller, meta)
}

/// The same, with the way back as it was given.
pub fn with_way_back(
    script: &str,
    down: Option<&str>,
    caller: &Caller,
    meta: &Meta,
) -> Result<Script> {
    make_with(script, down, None, caller, meta)
}

/// The same for what takes a finished migration back; these views of versions go with it.
pub fn make_back(script: &str, caller: &Caller, meta: &Meta, going: &[i64]) -> Result<Script> {
    let statements = parse_script(script)?;
    ground::with(|ground| {
        let mut planner = Planner::new(script, statements, caller, meta, ground);
        planner.going = going.to_vec();
        planner.whole(None)
    })
}

/// The same; statements from the place `drops_from` on begin behind the point of no return.
fn make_with(
    script: &str,
    down: Option<&str>,
    drops_from: Option<usize>,
    caller: &Caller,
    meta: &Meta,
) -> Result<Script> {
    let statements = parse_script(script)?;
    if meta.is_direct() {
        let statements: Vec<Rc<Statement>> = statements.into_iter().map(Rc::new).collect();
        return direct::plan(script, &statements, caller, meta);
    }
    ground::with(|ground| {
        let mut planner = Planner::new(script, statements, caller, meta, ground);
        planner.drops_from = drops_from;
        planner.whole(down)
    })
}

fn parse_script(script: &str) -> Result<Vec<Statement>> {
    let statements = xact::subtransaction(End::Keep, || parser::parse(script))
        .map_err(|e| place::of_syntax_error(e, script))?;
    if statements.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "the script holds no statement".into(),
            detail: "Nothing but blanks and comments was given.".into(),
            hint: "Pass the DDL as text: transmute.register('id', $$ALTER TABLE …$$).".into(),
        });
    }
    Ok(statements)
}

impl<'a> Planner<'a> {
    fn new(
        script: &str,
        statements: Vec<Statement>,
        caller: &Caller,
        meta: &'a Meta,
        ground: &'a Ground,
    ) -> Planner<'a> {
        let mut ties = Ties::default();
        for statement in &statements {
            ties.push(&statement.effects);
        }
        Planner {
            caller: caller.clone(),
            meta,
            ground,
            drops_from: None,
            script: script.to_string(),
            statements: statements.into_iter().map(Rc::new).collect(),
            ties,
            tied: RefCell::default(),
            by_table: HashMap::new(),
            bundles: Vec::new(),
            followers: Vec::new(),
            settings: Vec::new(),
            names: Names::default(),
            late: Vec::new(),
            copied_late: HashSet::new(),
            successions: Vec::new(),
            rewritten: HashSet::new(),
            added: HashMap::new(),
            ruled: HashMap::new(),
            constraint_names: HashMap::new(),
            proved: HashSet::new(),
            altered: HashMap::new(),
            down: keep::Down::default(),
            versioned: Vec::new(),
            going: Vec::new(),
            steps: Vec::new(),
            seen: HashMap::new(),
        }
    }

    fn whole(mut self, down: Option<&str>) -> Result<Script> {
        let planner = &mut self;
        let written = planner.statements.len();
        if let Some(down) = down {
            planner.read_down(down)?;
        }
        planner.find_replaced()?;
        planner.find_versioned()?;
        planner.find_bundles()?;
        for i in 0..written {
            planner.in_turn(i)?;
            let added: Vec<usize> = planner
                .followers
                .iter()
                .filter(|(_, root)| *root == i)
                .map(|(added, _)| *added)
                .collect();
            for one in added {
                planner.in_turn(one)?;
            }
        }
        planner.require_reverses_used()?;
        planner.require_one_swap()?;
        planner.steps.retain(|p| !p.step.kind.is_empty());
        planner.plan_versions()?;
        let (mut steps, seen) = (
            std::mem::take(&mut planner.steps),
            std::mem::take(&mut planner.seen),
        );
        in_order(&mut steps);
        planner.require_undoable(&steps)?;
        let plain = observe(&planner.statements, &seen, &mut steps, &planner.caller)?;
        Ok(Script { plain, steps })
    }
}

/// Sorts steps by phase, and numbers them.
fn in_order(steps: &mut [Planned]) {
    // Swaps come first in contract: they commit with FINISHING, all or none, and nothing before them may change a table.
    let swaps = [StepKind::RewriteSwap.name(), StepKind::RewriteTree.name()];
    steps.sort_by_key(|p| (p.step.phase, !swaps.contains(&p.step.kind.as_str())));
    for (i, planned) in steps.iter_mut().enumerate() {
        planned.step.step = i as i32 + 1;
    }
}

/// What each statement of a script would do by itself, whether there is a recipe for it or not. Nothing is tried but queries,
/// which are planned; statements see the database as it is now.
pub fn plain(script: &str, caller: &Caller) -> Result<Vec<Plain>> {
    let statements = xact::subtransaction(End::Keep, || parser::parse(script))
        .map_err(|e| place::of_syntax_error(e, script))?;
    let statements: Vec<Rc<Statement>> = statements.into_iter().map(Rc::new).collect();
    observe(&statements, &HashMap::new(), &mut [], caller)
}

/// What steps that take others back lock: what their statements do by themselves.
pub fn observe_back(steps: &mut [Planned], caller: &Caller) -> Result<()> {
    for planned in steps {
        let step = &mut planned.step;
        if step.kind.starts_with("rule_") || step.kind.starts_with("version_") {
            continue; // words
        }
        let locks = locks_of(&step.sql, caller)?;
        if let Some(first) = locks.first() {
            step.lock_mode = first.mode.to_string();
            step.locks = locks;
        }
    }
    Ok(())
}

/// The strongest locks of statements that run in one transaction.
fn locks_of(script: &str, caller: &Caller) -> Result<Vec<lock::Lock>> {
    let plain = plain(script, caller)?;
    Ok(lock::strongest(plain.into_iter().flat_map(|p| p.locks)))
}

/// What each statement would do by itself, and what that tells of the steps: their operations, the locks of what they run.
fn observe(
    statements: &[Rc<Statement>],
    seen: &HashMap<i32, Seen>,
    steps: &mut [Planned],
    caller: &Caller,
) -> Result<Vec<Plain>> {
    let rates = rate::all()?;
    let mut observer = Observer::new(caller, &rates);
    let mut own: HashMap<i32, Vec<Planned>> = HashMap::new();
    for planned in steps.iter() {
        let of_statement = own.entry(planned.statement).or_default();
        of_statement.push(planned.clone());
    }
    let mut all = Vec::new();
    for (i, statement) in statements.iter().enumerate() {
        let number = i as i32 + 1;
        let nothing = Seen::default();
        let seen = seen.get(&number).unwrap_or(&nothing);
        let own = own.remove(&number).unwrap_or_default();
        all.push(observer.plain(number, statement, seen, &own)?);
    }
    for planned in steps {
        let Some(plain) = all.get(planned.statement as usize - 1) else {
            continue;
        };
        let step = &mut planned.step;
        step.operations.clone_from(&plain.operations);
        if step.estimate.rows > 0 && step.estimate.seconds == 0.0 {
            step.estimate.seconds = rates.seconds(&step.kind, step.estimate.rows);
        }
        let locks = match step.sql == plain.text {
            _ if !runs_as_it_stands(&step.kind) && step.kind != StepKind::Batch.name() => None,
            true => Some(plain.locks.clone()).filter(|l| !l.is_empty()),
            false => observer.locks_of_sql(&step.sql)?,
        };
        if step.sql == plain.text && runs_as_it_stands(&step.kind) {
            // It is the plain statement: what is said of that holds for the step.
            step.reasons.extend(&plain.reasons);
            step.reasons.sort();
            step.reasons.dedup();
            step.risk_score = risk::score(&step.reasons, &plain.facts);
            step.risk_level = risk::Level::of_score(step.risk_score);
            step.estimate = plain.estimate;
        }
        if let Some(mut locks) = locks {
            // What the recipe says of other relations: the statement alone does not know what earlier steps have made.
            locks.extend(step.locks.drain(..).filter(|l| l.relation != step.target));
            let locks = lock::strongest(locks);
            step.lock_mode = locks
                .first()
                .map(|l| l.mode.to_string())
                .unwrap_or_default();
            step.locks = locks;
        }
    }
    Ok(all)
}

/// Whether a step runs the statement that it shows; the others do something else in its stead.
fn runs_as_it_stands(kind: &str) -> bool {
    ![
        "rewrite_", "alias_", "hide_", "rename_", "rule_", "batch", "hand_", "copy_", "leaf_",
        "version_",
    ]
    .iter()
    .any(|others| kind.starts_with(others))
}

pub fn plan_of(planned: &[Planned]) -> Plan {
    Plan {
        steps: planned.iter().map(|p| p.step.clone()).collect(),
    }
}

struct Planner<'a> {
    /// Who registers; the search_path is that of the statement that is planned.
    caller: Caller,
    /// What the DBA chose for this migration.
    meta: &'a Meta,
    /// Where statements are tried.
    ground: &'a Ground,
    /// Place of the first statement that only removes, where a person has said so.
    drops_from: Option<usize>,
    script: String,
    /// The statements, and behind it what was added to it.
    statements: Rc<[Rc<Statement>]>,
    /// Which of them may be tied to which.
    ties: Ties,
    /// What was asked of it, by the place of the statement.
    tied: RefCell<HashMap<usize, Rc<BTreeSet<usize>>>>,
    /// ALTER TABLE and CREATE INDEX statements, by the table of the catalog that they are about.
    by_table: HashMap<Oid, Vec<usize>>,
    /// Statements that are one copy of a table.
    bundles: Vec<Bundle>,
    /// Statements that were added, and the one of the script that each belongs to.
    followers: Vec<(usize, usize)>,
    /// What the script has SET so far.
    settings: Vec<(String, String)>,
    /// What names mean after the statements that were planned.
    names: Names,
    /// Statements that were planned and end later than expand.
    late: Vec<order::Placed>,
    /// Statements that copy rows which the script deletes later.
    copied_late: HashSet<usize>,
    /// Copies that take the place of their tables.
    successions: Vec<successor::Succession>,
    /// Tables this script rewrites.
    rewritten: HashSet<u32>,
    /// Columns that it adds in expand to tables that are there, and the step that does.
    added: HashMap<(u32, String), usize>,
    /// Tables whose new columns it keeps equal to old ones.
    ruled: HashMap<u32, dual_write::Ruled>,
    /// Statements that change a table in place, by its oid: what a later one is tried behind.
    altered: HashMap<u32, probe::Earlier>,
    /// Names that the plan gives to constraints, by schema.
    constraint_names: HashMap<String, HashSet<String>>,
    /// Foreign keys that a swap has proved anew.
    proved: HashSet<u32>,
    /// How it gets back after the end, as it was given.
    down: keep::Down,
    /// Tables that versions show, and whether the script drops them.
    versioned: Vec<(Relation, bool)>,
    /// Views of versions that go before, or with, what changes their tables.
    going: Vec<i64>,
    steps: Vec<Planned>,
    /// What was seen when a statement was tried, by its number.
    seen: HashMap<i32, Seen>,
}

impl Planner<'_> {
    /// Plans one statement behind those that it builds on.
    fn in_turn(&mut self, index: usize) -> Result<()> {
        let statement = self.statements[index].clone();
        self.plan(index, &statement)
            .map_err(|e| self.placed(e, index))
    }

    /// An error of the statement at `index` says where in the script that is.
    fn placed(&self, error: Error, index: usize) -> Error {
        let several = self.statements.len() > 1;
        match self.followers.iter().find(|(added, _)| *added == index) {
            None => place::of_error(error, &self.script, &self.statements[index], several),
            Some((_, root)) => place::of_error(
                place::without_position(error),
                &self.script,
                &self.statements[*root],
                several,
            ),
        }
    }

    fn plan(&mut self, index: usize, statement: &Statement) -> Result<()> {
        if let Some(other) = self.absorbed_by(index) {
            let seen = self.seen.entry(index as i32 + 1).or_default();
            seen.with = Some(other as i32 + 1);
            return self.note_names(&statement.effects);
        }
        if self.builds_on_a_copy(index) {
            require_plain(statement)?;
            self.seen.insert(index as i32 + 1, Seen::of_new());
            self.on_new(index as i32 + 1, statement, Phase::Validate);
            return self.note_names(&statement.effects);
        }
        let floor = self.floor(index);
        let first = self.steps.len();
        if let Some(succession) = self.succession_at(index) {
            self.succeed(statement, &succession)?;
        } else if let Some(bundle) = self.bundle_of(index) {
            self.plan_bundle(index, bundle)?;
        } else if self.changes_only_new(&statement.effects)? {
            require_plain(statement)?;
            self.seen.insert(index as i32 + 1, Seen::of_new());
            match &statement.kind {
                Kind::Data(data) => {
                    self.fill_new(index as i32 + 1, statement, data, floor.phase)?
                }
                _ => self.on_new(index as i32 + 1, statement, floor.phase),
            }
        } else if !self.name_of_new(index as i32 + 1, statement, floor.phase)? {
            self.statement(index as i32 + 1, statement)?;
        }
        self.place(index, first, floor)?;
        self.give_settings(statement, first)?;
        self.note_names(&statement.effects)
    }

    fn statement(&mut self, number: i32, statement: &Statement) -> Result<()> {
        match &statement.kind {
            Kind::Transaction => Err(Error::InvalidArgument {
                problem: "the script controls transactions itself".into(),
                detail: format!(
                    "{} stands in line {}, column {}.",
                    statement.tag, statement.line, statement.column
                ),
                hint: "Leave it out: each step runs in its own transaction.".into(),
            }),
            Kind::Set(setting) => self.set(statement, setting),
            Kind::AlterTable(alter) => self.alter_table(number, statement, alter),
            Kind::Data(data) => self.data(number, statement, data),
            Kind::Maintenance(maintenance) => match maintenance {
                Maintenance::CreateIndex(create) => self.create_index(number, statement, create),
                Maintenance::DropIndex(drop) => self.drop_index(number, drop),
                Maintenance::Reindex(reindex) => self.reindex(number, statement, reindex),
                Maintenance::Refresh(refresh) => self.refresh(number, refresh),
                Maintenance::Vacuum(vacuum) => self.vacuum(number, statement, vacuum),
                Maintenance::Cluster {
                    table,
                    index,
                    options,
                } => {
                    let order = index
                        .as_deref()
                        .map_or(write_anew::Order::AsBefore, write_anew::Order::By);
                    self.write_anew(number, statement, table, &order, options)
                }
                Maintenance::AddEnumValue => self.add_enum_value(number, statement),
                Maintenance::RenameEnumValue { of, old, new } => {
                    self.rename_enum_value(number, statement, of, old, new)
                }
                Maintenance::RenameType { of, new } => self.rename_type(number, statement, of, new),
                Maintenance::DropType { .. } => self.drop_type(number, statement),
            },
            Kind::RenameTable(rename) => self.rename_table(number, statement, rename),
            Kind::RenameColumn(rename) => self.rename_column(number, statement, rename),
            Kind::DropTable(drop) => self.drop_table(number, statement, drop),
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
            Kind::Other => self.as_it_stands(number, statement),
        }
    }

    fn as_caller<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        identity::as_role(self.caller.role, &self.caller.session, f)
    }
}
