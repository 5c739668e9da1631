//! The ordered list of steps of a migration, and the checksum that an approval is bound to.

use serde::{Deserialize, Serialize};

use crate::model::digest::Canonical;
use crate::model::lock::Lock;
use crate::model::operation::Operation;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk;
use crate::model::rule::Rule;

/// Says what the hash is of, and by which version of the encoding.
const CHECKSUM_DOMAIN: &str = "transmute-plan-v1";

/// What a step is expected to touch and to take; from statistics, so only as good as they are. 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub rows: i64,
    pub bytes: i64,
    pub seconds: f64,
}

/// One step: what runs, under which lock, at which risk, and how it is undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Position in the plan, from 1.
    pub step: i32,
    pub phase: Phase,
    /// What the step does, as a stable lower-case word: `shadow`, `capture`, `copy`, `swap`, `statement`, …
    pub kind: String,
    /// What it is done to, ready to print.
    pub target: String,
    pub sql: String,
    /// The strongest lock it takes, in PostgreSQL's words: `ACCESS EXCLUSIVE`; empty for none.
    pub lock_mode: String,
    /// The locks it takes, strongest first.
    #[serde(default)]
    pub locks: Vec<Lock>,
    /// What the statement it comes from is.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Whether the server rewrites the table while it holds the lock.
    pub rewrites: bool,
    /// Whether it runs in one transaction with its state, step row and audit event.
    pub transactional: bool,
    pub risk_level: risk::Level,
    pub risk_score: i32,
    pub reasons: Vec<Reason>,
    /// The score as planned, while a preflight that found bad rows has raised it.
    #[serde(default)]
    pub planned_score: Option<i32>,
    pub reversible: bool,
    /// What undoes it; `None` where nothing has to be done or nothing can.
    pub revert_sql: Option<String>,
    pub estimate: Estimate,
    /// What the script has SET before it, where that is something else than the session's that registers: names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
    /// The rule that the step makes; what it says stands in `sql` too, for people and for the checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

/// All steps of a migration in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    /// SHA-256, in hex, over what decides what will run: of each step, in order, phase, kind, target, SQL and revert, and
    /// what was SET before.
    /// Estimates and risk are left out: they follow the data and would take an approval away while the table grows.
    pub fn checksum(&self) -> String {
        self.steps
            .iter()
            .fold(Canonical::new(CHECKSUM_DOMAIN), |form, step| {
                let form = form
                    .text(step.phase.as_str())
                    .text(&step.kind)
                    .text(&step.target)
                    .text(&step.sql)
                    .optional(step.revert_sql.as_deref());
                step.settings
                    .iter()
                    .fold(form, |form, (name, value)| form.text(name).text(value))
            })
            .finish_hex()
    }

    /// Sum of the scores of all steps: what `risk_budget` limits.
    pub fn total_risk(&self) -> i32 {
        self.steps
            .iter()
            .fold(0, |sum, step| i32::saturating_add(sum, step.risk_score))
    }

    /// Highest score of a step: what `max_risk` limits. 0 for an empty plan.
    pub fn max_risk(&self) -> i32 {
        self.steps
            .iter()
            .map(|step| step.risk_score)
            .max()
            .unwrap_or(0)
    }

    /// Whether nothing is swapped or removed at the end, so that there is nothing to approve or to soak for.
    pub fn is_additive(&self) -> bool {
        self.steps.iter().all(|step| step.phase != Phase::Contract)
    }
}

impl Step {
    /// Takes in what a look at the data has found, in place of what an earlier one found.
    pub fn set_found(&mut self, found: &[Reason]) {
        self.reasons.retain(|r| !r.is_found());
        self.risk_score = self.planned_score.take().unwrap_or(self.risk_score);
        if !found.is_empty() {
            self.planned_score = Some(self.risk_score);
            self.reasons.extend(found);
            let score = risk::score(&self.reasons, &risk::Facts::default());
            self.risk_score = self.risk_score.max(score);
        }
        self.risk_level = risk::Level::of_score(self.risk_score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(number: i32, phase: Phase, sql: &str) -> Step {
        Step {
            step: number,
            phase,
            kind: "statement".into(),
            target: "public.accounts".into(),
            sql: sql.into(),
            lock_mode: "ACCESS EXCLUSIVE".into(),
            locks: vec![],
            operations: vec![],
            rewrites: false,
            transactional: true,
            risk_level: risk::Level::Low,
            risk_score: 7,
            reasons: vec![Reason::LockAccessExclusive],
            planned_score: None,
            reversible: true,
            revert_sql: Some("SELECT 1".into()),
            estimate: Estimate::default(),
            settings: Vec::new(),
            rule: None,
        }
    }

    fn plan() -> Plan {
        Plan {
            steps: vec![
                step(1, Phase::Expand, "CREATE TABLE t ()"),
                step(2, Phase::Contract, "DROP TABLE u"),
            ],
        }
    }

    #[test]
    fn the_checksum_is_stable_between_releases() {
        assert_eq!(
            plan().checksum(),
            "bafadfb7e9232cd57220952acea58c667b13d689e1340c9cf15415bec0f60e13"
        );
    }

    #[test]
    fn what_will_run_decides_the_checksum() {
        let changes: [fn(&mut Step); 6] = [
            |s| s.phase = Phase::Validate,
            |s| s.kind.push('x'),
            |s| s.target.push('x'),
            |s| s.sql.push(' '),
            |s| s.revert_sql = None,
            |s| s.revert_sql = Some(String::new()),
        ];
        let mut seen = vec![plan().checksum()];
        for change in changes {
            let mut changed = plan();
            change(&mut changed.steps[0]);
            assert!(!seen.contains(&changed.checksum()));
            seen.push(changed.checksum());
        }
        let mut reordered = plan();
        reordered.steps.reverse();
        assert!(!seen.contains(&reordered.checksum()));
        assert!(!seen.contains(&Plan::default().checksum()));
    }

    #[test]
    fn estimates_and_risk_do_not_take_an_approval_away() {
        let mut grown = plan();
        let step = &mut grown.steps[0];
        step.estimate = Estimate {
            rows: 9,
            bytes: 9,
            seconds: 9.0,
        };
        step.risk_score = 60;
        step.risk_level = risk::Level::High;
        step.reasons.push(Reason::LargeTable);
        assert_eq!(grown.checksum(), plan().checksum());
    }

    #[test]
    fn risks_are_summed_and_the_highest_is_found() {
        let mut plan = plan();
        plan.steps[1].risk_score = 50;
        assert_eq!((plan.total_risk(), plan.max_risk()), (57, 50));
        assert_eq!(
            (Plan::default().total_risk(), Plan::default().max_risk()),
            (0, 0)
        );
    }

    #[test]
    fn what_is_found_raises_the_risk_until_it_is_found_no_more() {
        let planned = step(1, Phase::Validate, "x");
        let mut found = planned.clone();
        found.set_found(&[Reason::DuplicatesFound]);
        assert_eq!(found.risk_level, risk::Level::Blocked);
        found.set_found(&[Reason::NullsFound]);
        assert!(!found.reasons.contains(&Reason::DuplicatesFound));
        found.set_found(&[]);
        assert_eq!(found, planned);
    }

    #[test]
    fn a_plan_is_additive_without_contract_steps() {
        assert!(!plan().is_additive());
        assert!(Plan {
            steps: plan().steps[..1].to_vec()
        }
        .is_additive());
    }

    proptest! {
        #[test]
        fn text_cannot_move_between_fields(a in "[ab]{0,3}", b in "[ab]{0,3}", c in "[ab]{0,3}", d in "[ab]{0,3}") {
            let with = |kind: &str, target: &str| {
                let mut plan = plan();
                plan.steps[0].kind = kind.into();
                plan.steps[0].target = target.into();
                plan.checksum()
            };
            prop_assert_eq!(with(&a, &b) == with(&c, &d), a == c && b == d);
        }

        #[test]
        fn a_plan_survives_json(sql in "\\PC*", seconds in 0.0..1e6) {
            let mut plan = plan();
            plan.steps[0].sql = sql;
            plan.steps[0].estimate.seconds = f64::floor(seconds);
            let json = serde_json::to_string(&plan).unwrap();
            prop_assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
        }
    }
}
