//! A step as a recipe drafts it; the rest of it follows.

use super::{Planned, Planner};
use crate::model::phase::Phase;
use crate::model::plan::{Estimate, Step};
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts};
use crate::store::step::Kind;

/// What a recipe says of a step. `Draft::new` has the defaults: transactional, reversible by nothing being left, no risk.
pub(super) struct Draft {
    pub kind: Kind,
    pub phase: Phase,
    pub target: String,
    /// The statement, or what the step does in words.
    pub sql: String,
    /// PostgreSQL's name of the strongest lock on the target; empty: none.
    pub lock_mode: &'static str,
    pub transactional: bool,
    pub reasons: Vec<Reason>,
    pub revert_sql: Option<String>,
    pub reversible: bool,
    pub estimate: Estimate,
    /// What the plain statement would do here, in words; empty: this step has no counterpart in it.
    pub naive: &'static str,
    pub naive_reasons: Vec<Reason>,
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
            transactional: true,
            reasons: Vec::new(),
            revert_sql: None,
            reversible: phase != Phase::Contract,
            estimate: Estimate::default(),
            naive: "",
            naive_reasons: Vec::new(),
        }
    }

    pub fn lock(mut self, mode: &'static str) -> Draft {
        self.lock_mode = mode;
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

impl Planner {
    /// Adds a step; its number follows when all statements are planned.
    pub(super) fn push(&mut self, statement: i32, facts: &Facts, draft: Draft) {
        let score = risk::score(&draft.reasons, facts);
        self.steps.push(Planned {
            statement,
            naive_score: risk::score(&draft.naive_reasons, facts),
            naive: draft.naive,
            step: Step {
                step: 0,
                phase: draft.phase,
                kind: draft.kind.name().into(),
                target: draft.target,
                sql: draft.sql,
                lock_mode: draft.lock_mode.into(),
                rewrites: false,
                transactional: draft.transactional,
                risk_level: risk::Level::of_score(score),
                risk_score: score,
                reasons: draft.reasons,
                reversible: draft.reversible,
                revert_sql: draft.revert_sql,
                estimate: draft.estimate,
            },
        });
    }
}
