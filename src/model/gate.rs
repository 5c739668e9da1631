//! What holds a migration back from its point of no return, and what would let it pass.

use crate::model::amount::count;
use crate::model::approval::Verdict;

/// What the engine found out about a migration that is ready to be finalized. Where a gate does not apply (an additive
/// migration, no soak configured) the engine gives the value that passes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FinalizationFacts {
    /// From [`crate::model::soak::remaining`].
    pub soak_remaining_us: i64,
    /// How long the old shape has to be unused yet, and what to say of it.
    pub unused_remaining_us: i64,
    pub unused_text: String,
    pub approvals: Verdict,
    /// Dead letters that are open, and that no approval which counts names.
    pub open_dead_letters: i64,
    /// Whether the comparison of every row has found no difference.
    pub check_passed: bool,
    /// Whether a person has paused the migration.
    pub paused: bool,
    /// Transactions whose snapshot is older than the migration needs: they would see a table that is not theirs.
    pub old_snapshots: i64,
    /// Rows that the application has changed and the new shape has not caught up with yet.
    pub drain_lag: i64,
    /// Most rows that may be left for the moment of the swap.
    pub max_drain_lag: i64,
}

/// Codes of what is waited for, in the order of the documentation.
pub const CODES: [&str; 8] = [
    "PAUSED",
    "DEAD_LETTERS",
    "CHECK",
    "SOAK",
    "USAGE",
    "APPROVAL",
    "DRAIN_LAG",
    "OLD_SNAPSHOTS",
];

/// One thing that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Stable code, one of [`CODES`].
    pub code: &'static str,
    /// What is waited for and what lets it pass, for `status.waiting_for`. No clock in it: it is stored, and only a change
    /// is worth a write.
    pub text: String,
}

/// Everything that holds finalization back, what a person can do something about first; empty = it may go on.
pub fn finalization(facts: &FinalizationFacts) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    let mut wait = |holds: bool, code: &'static str, text: &dyn Fn() -> String| {
        if holds {
            waiting.push(Waiting { code, text: text() });
        }
    };
    wait(facts.paused, "PAUSED", &|| {
        "paused by a person; resume lets it go on".into()
    });
    wait(facts.open_dead_letters > 0, "DEAD_LETTERS", &|| {
        format!(
            "{} open; mend or delete these rows, they are tried again by themselves; amend the statement; or go on without them: discard_dead_letters, or an approval that names them",
            count(facts.open_dead_letters, "dead letter")
        )
    });
    wait(!facts.check_passed, "CHECK", &|| {
        "not every row has been compared with its new shape yet".into()
    });
    wait(facts.soak_remaining_us > 0, "SOAK", &|| {
        "the soak, until soak_until; skip_soak ends it now".into()
    });
    wait(facts.unused_remaining_us > 0, "USAGE", &|| {
        facts.unused_text.clone()
    });
    wait(facts.approvals.missing > 0, "APPROVAL", &|| {
        approval_text(&facts.approvals)
    });
    wait(facts.drain_lag > facts.max_drain_lag, "DRAIN_LAG", &|| {
        let lag = count(facts.drain_lag, "changed row");
        format!(
            "{lag} still to be carried over, at most {} may be left",
            facts.max_drain_lag
        )
    });
    wait(facts.old_snapshots > 0, "OLD_SNAPSHOTS", &|| {
        format!(
            "{} began before the new shape was complete; waits for the end",
            count(facts.old_snapshots, "transaction")
        )
    });
    waiting
}

fn approval_text(verdict: &Verdict) -> String {
    let mut text = format!("{} missing", count(i64::from(verdict.missing), "approval"));
    for reason in &verdict.reasons {
        text.push_str("; ");
        text.push_str(reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passing() -> FinalizationFacts {
        FinalizationFacts {
            check_passed: true,
            drain_lag: 10,
            max_drain_lag: 10,
            ..FinalizationFacts::default()
        }
    }

    #[test]
    fn nothing_holds_back_what_is_ready() {
        assert_eq!(finalization(&passing()), []);
    }

    #[test]
    fn each_gate_refuses_alone_and_says_what_lets_it_pass() {
        let missing = Verdict {
            count: 0,
            missing: 1,
            reasons: vec!["the approval by ann has expired".into()],
        };
        let cases = [
            (
                FinalizationFacts {
                    paused: true,
                    ..passing()
                },
                "PAUSED",
                "paused by a person; resume lets it go on",
            ),
            (
                FinalizationFacts {
                    open_dead_letters: 1,
                    ..passing()
                },
                "DEAD_LETTERS",
                "1 dead letter open; mend or delete these rows, they are tried again by themselves; amend the statement; or go on without them: discard_dead_letters, or an approval that names them",
            ),
            (
                FinalizationFacts {
                    check_passed: false,
                    ..passing()
                },
                "CHECK",
                "not every row has been compared with its new shape yet",
            ),
            (
                FinalizationFacts {
                    soak_remaining_us: 273_906_000_000,
                    ..passing()
                },
                "SOAK",
                "the soak, until soak_until; skip_soak ends it now",
            ),
            (
                FinalizationFacts {
                    unused_remaining_us: 1,
                    unused_text: "the old shape to be unused for 1 day".into(),
                    ..passing()
                },
                "USAGE",
                "the old shape to be unused for 1 day",
            ),
            (
                FinalizationFacts {
                    approvals: missing,
                    ..passing()
                },
                "APPROVAL",
                "1 approval missing; the approval by ann has expired",
            ),
            (
                FinalizationFacts {
                    drain_lag: 11,
                    ..passing()
                },
                "DRAIN_LAG",
                "11 changed rows still to be carried over, at most 10 may be left",
            ),
            (
                FinalizationFacts {
                    old_snapshots: 2,
                    ..passing()
                },
                "OLD_SNAPSHOTS",
                "2 transactions began before the new shape was complete; waits for the end",
            ),
        ];
        for (facts, code, text) in cases {
            assert_eq!(
                finalization(&facts),
                [Waiting {
                    code,
                    text: text.into()
                }]
            );
        }
    }

    proptest! {
        #[test]
        fn all_that_holds_is_named_once(
            paused: bool, check_passed: bool, soak in -1i64..2, dead in 0i64..2, missing in 0u32..2, lag in 0i64..3, old in 0i64..2,
            used in -1i64..2,
        ) {
            let facts = FinalizationFacts {
                soak_remaining_us: soak,
                unused_remaining_us: used,
                unused_text: String::new(),
                approvals: Verdict { missing, ..Verdict::default() },
                open_dead_letters: dead,
                check_passed,
                paused,
                old_snapshots: old,
                drain_lag: lag,
                max_drain_lag: 1,
            };
            let expected = [paused, !check_passed, soak > 0, used > 0, dead > 0, missing > 0, lag > 1, old > 0];
            prop_assert_eq!(finalization(&facts).len(), expected.iter().filter(|holds| **holds).count());
        }
    }
}
