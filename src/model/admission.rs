//! What keeps `apply` from queueing a migration: the gates before anything is written. Those before the point of no return are
//! in [`crate::model::gate`].

use std::str::FromStr;

use crate::model::operation::{Effect, Operation};
use crate::model::phase::Phase;
use crate::model::plan::{Plan, Step};
use crate::model::reason::Reason;
use crate::model::risk::Level;

/// What the gates compare with. `None` and empty lists let everything pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Sum of the scores of all steps.
    pub risk_budget: Option<i32>,
    /// Score of one step.
    pub max_risk: Option<i32>,
    pub blocked_kinds: Vec<Operation>,
    pub blocked_reasons: Vec<Reason>,
    pub additive_first: bool,
    pub require_preflight: bool,
    /// The name of the database must be given.
    pub confirmation: bool,
}

/// The last preflight of a migration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preflight {
    /// It looked at the plan as it is now.
    pub of_this_plan: bool,
    pub age_seconds: i64,
    /// Checks that were not passed.
    pub failed: Vec<String>,
}

/// What is known of a migration that is to be applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub plan: Plan,
    pub preflight: Option<Preflight>,
    /// Migrations registered before it that only add, and are not finished.
    pub additive_before: Vec<String>,
    pub database: String,
    pub confirm: Option<String>,
}

/// A preflight says something of the data for so long.
pub const PREFLIGHT_SECONDS: i64 = 86_400;

/// Codes of the gates, in the order in which they are asked.
pub const CODES: [&str; 7] = [
    "CONFIRMATION",
    "BLOCKED_KIND",
    "BLOCKED_REASON",
    "MAX_RISK",
    "RISK_BUDGET",
    "ADDITIVE_FIRST",
    "PREFLIGHT",
];

/// A gate that does not let a migration pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`CODES`].
    pub code: &'static str,
    /// The step it is about; `None`: the whole plan.
    pub step: Option<i32>,
    /// Which operation, which reason, which limit.
    pub detail: String,
    /// What lets it pass.
    pub hint: String,
}

/// The first gate that refuses; `None`: all let it pass.
pub fn refusal(request: &Request, limits: &Limits) -> Option<Refusal> {
    refusals(request, limits).into_iter().next()
}

/// Every gate that refuses, at most once each, in the order of [`CODES`].
pub fn refusals(request: &Request, limits: &Limits) -> Vec<Refusal> {
    let steps = &request.plan.steps;
    let mut all = Vec::new();
    all.extend(confirmation(request, limits));
    let kind = |s: &&Step| {
        s.operations
            .iter()
            .any(|o| limits.blocked_kinds.contains(o))
    };
    all.extend(steps.iter().find(kind).map(|s| Refusal {
        code: "BLOCKED_KIND",
        step: Some(s.step),
        detail: format!("{}, which transmute.blocked_kinds lists.", name(s)),
        hint: "Take the statement out, or have an administrator take the kind off the list.".into(),
    }));
    all.extend(steps.iter().find_map(|s| {
        let reason = s
            .reasons
            .iter()
            .find(|r| limits.blocked_reasons.contains(r))?;
        Some(Refusal {
            code: "BLOCKED_REASON",
            step: Some(s.step),
            detail: format!(
                "{}, has the reason {reason}, which transmute.blocked_reasons lists: {}",
                name(s),
                reason.text()
            ),
            hint: "Take away the reason, or have an administrator take it off the list.".into(),
        })
    }));
    all.extend(max_risk(steps, limits));
    let total = request.plan.total_risk();
    all.extend(limits.risk_budget.filter(|budget| total > *budget).map(|budget| Refusal {
        code: "RISK_BUDGET",
        step: None,
        detail: format!(
            "The scores of all {} steps add up to {total}, more than the budget of {budget}.",
            steps.len()
        ),
        hint: "Split the script into several migrations, or have an administrator raise transmute.risk_budget.".into(),
    }));
    all.extend(additive_first(request, limits));
    all.extend(preflight(request, limits));
    all
}

fn name(step: &Step) -> String {
    let words: Vec<&str> = step.operations.iter().map(|o| o.as_str()).collect();
    let what = match words.is_empty() {
        true => step.kind.clone(),
        false => words.join(", "),
    };
    format!("Step {}, {what} on {}", step.step, step.target)
}

fn confirmation(request: &Request, limits: &Limits) -> Option<Refusal> {
    let database = &request.database;
    let detail = match &request.confirm {
        None if !limits.confirmation => return None,
        Some(given) if given == database => return None,
        None => "transmute.environment is a production one, and confirm is not given.".to_string(),
        Some(given) => format!("confirm is \"{given}\", this database is \"{database}\"."),
    };
    Some(Refusal {
        code: "CONFIRMATION",
        step: None,
        detail,
        hint: "If this is the database you mean, add confirm => current_database().".into(),
    })
}

fn max_risk(steps: &[Step], limits: &Limits) -> Option<Refusal> {
    let limit = limits.max_risk?;
    let worst = steps.iter().max_by_key(|s| s.risk_score)?;
    if worst.risk_score <= limit {
        return None;
    }
    let reasons: Vec<&str> = worst.reasons.iter().map(|r| r.as_str()).collect();
    Some(Refusal {
        code: "MAX_RISK",
        step: Some(worst.step),
        detail: format!(
            "{}, has risk {} ({}: {}), more than {limit}.",
            name(worst),
            worst.risk_score,
            Level::of_score(worst.risk_score),
            reasons.join(", ")
        ),
        hint: "Choose a way that risks less, or raise max_risk of the call or transmute.max_risk, whichever is lower.".into(),
    })
}

/// Whether an operation takes away what somebody may use, at the end of the plan.
fn removes(step: &Step) -> bool {
    step.phase == Phase::Contract
        && step
            .operations
            .iter()
            .any(|o| o.effect() == Effect::Removes)
}

fn additive_first(request: &Request, limits: &Limits) -> Option<Refusal> {
    if !limits.additive_first {
        return None;
    }
    let step = request.plan.steps.iter().find(|s| removes(s))?;
    let adds = request
        .plan
        .steps
        .iter()
        .find(|s| s.operations.iter().any(|o| o.effect() == Effect::Adds));
    let detail = match (adds, request.additive_before.first()) {
        (Some(adds), _) => format!(
            "{}, removes something in the same migration in which step {} adds something.",
            name(step),
            adds.step
        ),
        (None, Some(before)) => format!(
            "{}, removes something while migration \"{before}\", which only adds, is not finished.",
            name(step)
        ),
        (None, None) => return None,
    };
    Some(Refusal {
        code: "ADDITIVE_FIRST",
        step: Some(step.step),
        detail,
        hint: "Apply what adds first, in a migration of its own; what removes afterwards.".into(),
    })
}

fn preflight(request: &Request, limits: &Limits) -> Option<Refusal> {
    if !limits.require_preflight {
        return None;
    }
    let detail = match &request.preflight {
        None => "No preflight was made.".to_string(),
        Some(made) if !made.of_this_plan => "The last preflight was of another plan.".into(),
        Some(made) if made.age_seconds > PREFLIGHT_SECONDS => {
            format!(
                "The last preflight is {} hours old.",
                made.age_seconds / 3600
            )
        }
        Some(made) if !made.failed.is_empty() => {
            format!(
                "The last preflight did not pass: {}.",
                made.failed.join(", ")
            )
        }
        Some(_) => return None,
    };
    Some(Refusal {
        code: "PREFLIGHT",
        step: None,
        detail,
        hint:
            "SELECT * FROM transmute.preflight(id) says what to mend; apply once every check is ok."
                .into(),
    })
}

/// A word of a list that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not known")]
pub struct UnknownWord(pub String);

/// The words of a setting: separated by commas or blanks, in any case.
pub fn list<T: FromStr>(text: &str, upper: bool) -> Result<Vec<T>, UnknownWord> {
    text.split([',', ' ', '\t', '\n'])
        .filter(|word| !word.is_empty())
        .map(|word| {
            let cased = match upper {
                true => word.to_uppercase(),
                false => word.to_lowercase(),
            };
            cased.parse().map_err(|_| UnknownWord(word.to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::Estimate;
    use crate::model::risk::{self, Facts};
    use proptest::prelude::*;

    fn step(number: i32, phase: Phase, operation: Operation, reasons: &[Reason]) -> Step {
        let score = risk::score(reasons, &Facts::default());
        Step {
            step: number,
            phase,
            kind: "execute".into(),
            target: "public.t".into(),
            sql: String::new(),
            lock_mode: String::new(),
            locks: vec![],
            operations: vec![operation],
            rewrites: false,
            transactional: true,
            risk_level: Level::of_score(score),
            risk_score: score,
            reasons: reasons.to_vec(),
            planned_score: None,
            reversible: true,
            revert_sql: None,
            estimate: Estimate::default(),
            settings: Vec::new(),
            rule: None,
        }
    }

    fn request() -> Request {
        Request {
            plan: Plan {
                steps: vec![
                    step(
                        1,
                        Phase::Expand,
                        Operation::AddColumn,
                        &[Reason::LockAccessExclusive],
                    ),
                    step(
                        2,
                        Phase::Contract,
                        Operation::DropColumn,
                        &[Reason::DataLoss, Reason::Irreversible],
                    ),
                ],
            },
            database: "shop".into(),
            ..Request::default()
        }
    }

    fn refuses(limits: Limits) -> Vec<(&'static str, Option<i32>)> {
        let all = refusals(&request(), &limits);
        assert!(all.iter().all(|r| CODES.contains(&r.code)));
        assert!(all
            .iter()
            .all(|r| r.detail.ends_with('.') && r.hint.ends_with('.')));
        all.into_iter().map(|r| (r.code, r.step)).collect()
    }

    /// The first cells, in back quotes, of the tables of a chapter of docs/risk.md.
    fn documented(chapter: &str) -> Vec<String> {
        let text = include_str!("../../docs/risk.md");
        let chapter = text
            .split("\n## ")
            .find(|c| c.starts_with(chapter))
            .unwrap();
        chapter
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(str::to_string)
            .collect()
    }

    #[test]
    fn the_documentation_lists_what_the_code_has() {
        let operations: Vec<String> = Operation::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(documented("Operations"), operations);
        let reasons: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(documented("Reasons"), reasons);
        let gates = documented("Gates");
        assert_eq!(gates[..CODES.len()], CODES);
        assert_eq!(gates[CODES.len()..], crate::model::gate::CODES);
        assert!(operations.len() >= 31 && reasons.len() >= 24 && gates.len() >= 8);
    }

    #[test]
    fn without_limits_everything_passes() {
        assert_eq!(refuses(Limits::default()), []);
    }

    #[test]
    fn each_gate_refuses_what_it_is_for() {
        let none = Limits::default;
        assert_eq!(
            refuses(Limits {
                confirmation: true,
                ..none()
            }),
            [("CONFIRMATION", None)]
        );
        assert_eq!(
            refuses(Limits {
                blocked_kinds: vec![Operation::DropColumn],
                ..none()
            }),
            [("BLOCKED_KIND", Some(2))]
        );
        assert_eq!(
            refuses(Limits {
                blocked_kinds: vec![Operation::DropTable],
                ..none()
            }),
            []
        );
        assert_eq!(
            refuses(Limits {
                blocked_reasons: vec![Reason::LockAccessExclusive],
                ..none()
            }),
            [("BLOCKED_REASON", Some(1))]
        );
        assert_eq!(
            refuses(Limits {
                max_risk: Some(89),
                ..none()
            }),
            [("MAX_RISK", Some(2))]
        );
        assert_eq!(
            refuses(Limits {
                max_risk: Some(90),
                ..none()
            }),
            []
        );
        assert_eq!(
            refuses(Limits {
                risk_budget: Some(92),
                ..none()
            }),
            [("RISK_BUDGET", None)]
        );
        assert_eq!(
            refuses(Limits {
                risk_budget: Some(93),
                ..none()
            }),
            []
        );
        assert_eq!(
            refuses(Limits {
                additive_first: true,
                ..none()
            }),
            [("ADDITIVE_FIRST", Some(2))]
        );
        assert_eq!(
            refuses(Limits {
                require_preflight: true,
                ..none()
            }),
            [("PREFLIGHT", None)]
        );
    }

    #[test]
    fn a_confirmation_names_the_database() {
        let asked = |confirm: Option<&str>, confirmation| {
            let request = Request {
                confirm: confirm.map(str::to_string),
                ..request()
            };
            refusal(
                &request,
                &Limits {
                    confirmation,
                    ..Limits::default()
                },
            )
            .map(|r| r.code)
        };
        assert_eq!(asked(Some("shop"), true), None);
        assert_eq!(asked(Some("shop"), false), None);
        assert_eq!(asked(Some("SHOP"), true), Some("CONFIRMATION"));
        assert_eq!(asked(Some("other"), false), Some("CONFIRMATION"));
        assert_eq!(asked(None, false), None);
    }

    #[test]
    fn what_removes_waits_for_what_adds() {
        let limits = Limits {
            additive_first: true,
            ..Limits::default()
        };
        let mut request = request();
        request.plan.steps.remove(0);
        assert_eq!(refusal(&request, &limits), None);
        request.additive_before.push("earlier".into());
        assert_eq!(
            refusal(&request, &limits).map(|r| r.code),
            Some("ADDITIVE_FIRST")
        );
        request.plan.steps[0] = step(1, Phase::Expand, Operation::AddColumn, &[]);
        assert_eq!(refusal(&request, &limits), None);
    }

    #[test]
    fn a_preflight_has_to_be_of_this_plan_new_and_passed() {
        let limits = Limits {
            require_preflight: true,
            ..Limits::default()
        };
        let passed = |preflight: Preflight| {
            let request = Request {
                preflight: Some(preflight),
                ..request()
            };
            refusal(&request, &limits).is_none()
        };
        let good = Preflight {
            of_this_plan: true,
            age_seconds: PREFLIGHT_SECONDS,
            failed: vec![],
        };
        assert!(passed(good.clone()));
        assert!(!passed(Preflight {
            of_this_plan: false,
            ..good.clone()
        }));
        assert!(!passed(Preflight {
            age_seconds: PREFLIGHT_SECONDS + 1,
            ..good.clone()
        }));
        assert!(!passed(Preflight {
            failed: vec!["nulls".into()],
            ..good
        }));
    }

    #[test]
    fn lists_are_read_in_any_case_and_nonsense_is_an_error() {
        assert_eq!(
            list::<Operation>(" Drop_Table,truncate\n", false),
            Ok(vec![Operation::DropTable, Operation::Truncate])
        );
        assert_eq!(list::<Reason>("cascade", true), Ok(vec![Reason::Cascade]));
        assert_eq!(
            list::<Operation>("drop", false),
            Err(UnknownWord("drop".into()))
        );
        assert_eq!(list::<Reason>("", true), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn a_higher_limit_never_refuses_more(a in 0i32..200, b in 0i32..200) {
            let count = |n: i32| refusals(&request(), &Limits {
                risk_budget: Some(n), max_risk: Some(n), ..Limits::default()
            }).len();
            prop_assert!(count(a.max(b)) <= count(a.min(b)));
        }

        #[test]
        fn a_longer_list_never_refuses_less(
            kinds in proptest::sample::subsequence(Operation::ALL, 0..Operation::ALL.len()),
            more in proptest::sample::select(Operation::ALL),
        ) {
            let count = |blocked_kinds: Vec<Operation>| refusals(&request(), &Limits {
                blocked_kinds, ..Limits::default()
            }).len();
            let longer = [kinds.clone(), vec![more]].concat();
            prop_assert!(count(longer) >= count(kinds));
        }
    }
}
