//! A step as a recipe drafts it; the rest of it follows.

use super::Planner;
use crate::model::lock::{strongest, Lock, Mode};
use crate::model::phase::Phase;
use crate::model::plan::{Estimate, Step};
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts};
use crate::model::rule::Rule;
use crate::store::step::Kind;

/// A planned step with the statement it comes from and what its recipe says of the plain statement.
#[derive(Debug, Clone)]
pub struct Planned {
    pub statement: i32,
    pub step: Step,
    /// It is what the plain statement does, in other words.
    pub naive: &'static str,
    pub naive_reasons: Vec<Reason>,
}

/// What a recipe says of a step. `Draft::new` has the defaults: transactional, reversible by nothing being left, no risk.
pub(super) struct Draft {
    pub kind: Kind,
    pub phase: Phase,
    pub target: String,
    /// The statement, or what the step does in words.
    pub sql: String,
    /// PostgreSQL's name of the strongest lock on the target; empty: none.
    pub lock_mode: &'static str,
    pub also: Vec<Lock>,
    /// The target itself is not locked.
    pub elsewhere: bool,
    pub transactional: bool,
    pub reasons: Vec<Reason>,
    pub revert_sql: Option<String>,
    pub reversible: bool,
    pub estimate: Estimate,
    /// What the plain statement would do here, in words; empty: this step has no counterpart in it.
    pub naive: &'static str,
    pub naive_reasons: Vec<Reason>,
    /// The rule that it makes.
    pub rule: Option<Rule>,
}

impl Draft {
    pub fn new(
        kind: Kind,
        phase: Phase,
        target: impl Into<String>,
        sql: impl Into<String>,
    ) -> Draft {
        Draft {
            kind,
            phase,
            target: target.into(),
            sql: sql.into(),
            lock_mode: "",
            also: Vec::new(),
            elsewhere: false,
            transactional: true,
            reasons: Vec::new(),
            revert_sql: None,
            reversible: phase != Phase::Contract,
            estimate: Estimate::default(),
            naive: "",
            naive_reasons: Vec::new(),
            rule: None,
        }
    }

    pub fn lock(mut self, mode: &'static str) -> Draft {
        self.lock_mode = mode;
        self
    }

    /// A lock on another relation that it takes besides.
    pub fn also(mut self, mode: Mode, relation: impl Into<String>) -> Draft {
        self.also.push(Lock {
            mode,
            relation: relation.into(),
        });
        self
    }

    /// The same lock on several.
    pub fn also_all(mut self, mode: Mode, relations: impl IntoIterator<Item = String>) -> Draft {
        let locks = relations
            .into_iter()
            .map(|relation| Lock { mode, relation });
        self.also.extend(locks);
        self
    }

    /// It has none on its target, which may be no relation: all are on others.
    pub fn only_also(mut self, locks: Vec<Lock>) -> Draft {
        self.lock_mode = locks
            .iter()
            .map(|l| l.mode)
            .max()
            .map_or("", |m| m.as_str());
        self.elsewhere = true;
        self.also.extend(locks);
        self
    }

    /// It runs outside of any transaction.
    pub fn outside(mut self) -> Draft {
        self.transactional = false;
        self
    }

    pub fn reasons(mut self, reasons: impl IntoIterator<Item = Reason>) -> Draft {
        self.reasons.extend(reasons);
        self
    }

    /// The statement that takes it back; `None`: it cannot be taken back.
    pub fn revert(mut self, sql: Option<String>) -> Draft {
        self.reversible = sql.is_some();
        self.revert_sql = sql;
        self
    }

    pub fn estimate(mut self, estimate: Estimate) -> Draft {
        self.estimate = estimate;
        self
    }

    pub fn naive(mut self, words: &'static str, reasons: &[Reason]) -> Draft {
        self.naive = words;
        self.naive_reasons = reasons.to_vec();
        self
    }
}

impl Planner<'_> {
    /// Adds a step; its number follows when all statements are planned.
    pub(super) fn push(&mut self, statement: i32, facts: &Facts, draft: Draft) {
        self.steps.push(planned(statement, facts, draft));
    }
}

/// The step of a draft, without its number.
pub(super) fn planned(statement: i32, facts: &Facts, draft: Draft) -> Planned {
    let reasons = with_size(&draft, facts);
    let score = risk::score(&reasons, facts);
    let own = Mode::of_name(draft.lock_mode).filter(|_| !draft.elsewhere);
    let lock = own.map(|mode| Lock {
        mode,
        relation: draft.target.clone(),
    });
    Planned {
        statement,
        naive: draft.naive,
        naive_reasons: draft.naive_reasons,
        step: Step {
            step: 0,
            phase: draft.phase,
            kind: draft.kind.name().into(),
            target: draft.target,
            sql: draft.sql,
            lock_mode: draft.lock_mode.into(),
            locks: strongest(lock.into_iter().chain(draft.also)),
            operations: Vec::new(),
            rewrites: false,
            transactional: draft.transactional,
            risk_level: risk::Level::of_score(score),
            risk_score: score,
            reasons,
            planned_score: None,
            reversible: draft.reversible,
            revert_sql: draft.revert_sql,
            estimate: draft.estimate,
            settings: Vec::new(),
            rule: draft.rule,
        },
    }
}

/// The reasons of a draft, and what the size and traffic of the table add to them.
fn with_size(draft: &Draft, facts: &Facts) -> Vec<Reason> {
    let mut reasons = draft.reasons.clone();
    let mut when = |holds: bool, reason: Reason| {
        if holds && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let stops = Mode::of_name(draft.lock_mode).is_some_and(Mode::stops_writers);
    when(stops && facts.is_hot(), Reason::HotTable);
    when(
        draft.estimate.rows > 0 && facts.is_large(),
        Reason::LargeTable,
    );
    reasons
}
