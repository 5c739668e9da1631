//! Whether enough people have approved a plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One approval as recorded. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// `session_user` of who approved: a role taken on by SET ROLE does not count as a person.
    pub actor: String,
    /// Checksum of the plan that was approved.
    pub plan_checksum: String,
    pub at_us: i64,
    /// First moment at which it no longer counts.
    pub expires_us: i64,
    pub revoked: bool,
    /// Dead letters that it names: they may stay open.
    #[serde(default)]
    pub waived: Vec<i64>,
}

/// What the approvals of a migration amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// People whose approval counts.
    pub count: u32,
    /// How many more are needed; 0 = enough.
    pub missing: u32,
    /// For each person whose approvals do not count, why the newest one does not; ordered by name.
    pub reasons: Vec<String>,
}

/// Counts the approvals that are for this plan, not revoked, not expired and not by one of `four_eyes_forbidden` (who
/// registered or applied the migration; empty when the rule is off). A person counts once. `now_us` should not run
/// backwards, or an expired approval comes back: give it [`crate::model::soak::anchor`]'s result.
pub fn valid(
    approvals: &[Approval],
    plan_checksum: &str,
    now_us: i64,
    required: u32,
    four_eyes_forbidden: &[String],
) -> Verdict {
    let mut by_actor: BTreeMap<&str, Vec<&Approval>> = BTreeMap::new();
    for approval in approvals {
        by_actor.entry(&approval.actor).or_default().push(approval);
    }
    let mut verdict = Verdict::default();
    for (actor, mut given) in by_actor {
        given.sort_by_key(|approval| approval.at_us);
        let mut objection = None;
        for approval in given {
            objection = objection_to(approval, plan_checksum, now_us, four_eyes_forbidden);
            if objection.is_none() {
                break;
            }
        }
        match objection {
            None => verdict.count = verdict.count.saturating_add(1),
            Some(why) => verdict
                .reasons
                .push(format!("the approval by {actor} {why}")),
        }
    }
    verdict.missing = required.saturating_sub(verdict.count);
    verdict
}

/// Dead letters that an approval names which counts: who approves answers for these rows being left behind.
pub fn waived(
    approvals: &[Approval],
    plan_checksum: &str,
    now_us: i64,
    four_eyes_forbidden: &[String],
) -> BTreeSet<i64> {
    approvals
        .iter()
        .filter(|a| objection_to(a, plan_checksum, now_us, four_eyes_forbidden).is_none())
        .flat_map(|a| a.waived.iter().copied())
        .collect()
}

fn objection_to(
    approval: &Approval,
    plan_checksum: &str,
    now_us: i64,
    forbidden: &[String],
) -> Option<&'static str> {
    if forbidden.contains(&approval.actor) {
        Some("does not count: whoever registered or applied the migration may not approve it (transmute.four_eyes)")
    } else if approval.revoked {
        Some("was revoked")
    } else if approval.plan_checksum != plan_checksum {
        Some("is for another plan: the plan changed since")
    } else if now_us >= approval.expires_us {
        Some("has expired")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn approval(actor: &str) -> Approval {
        Approval {
            actor: actor.into(),
            plan_checksum: "plan".into(),
            at_us: 100,
            expires_us: 200,
            revoked: false,
            waived: Vec::new(),
        }
    }

    #[test]
    fn only_an_approval_that_counts_waives_the_dead_letters_that_it_names() {
        let naming = |actor: &str, waived: &[i64]| Approval {
            waived: waived.to_vec(),
            ..approval(actor)
        };
        let mut given = vec![naming("ann", &[1, 2]), naming("bob", &[2, 7])];
        let at = |given: &[Approval], plan: &str, now, forbidden: &[String]| -> Vec<i64> {
            waived(given, plan, now, forbidden).into_iter().collect()
        };
        assert_eq!(at(&given, "plan", 150, &[]), [1, 2, 7]);
        assert_eq!(at(&given, "plan", 150, &["bob".into()]), [1, 2]);
        assert_eq!(at(&given, "plan", 200, &[]), [0i64; 0]);
        assert_eq!(at(&given, "amended", 150, &[]), [0i64; 0]);
        given[0].revoked = true;
        assert_eq!(at(&given, "plan", 150, &[]), [2, 7]);
        assert_eq!(at(&[approval("ann")], "plan", 150, &[]), [0i64; 0]);
    }

    #[test]
    fn people_are_counted_not_approvals() {
        let given = [approval("ann"), approval("ann"), approval("bob")];
        let verdict = valid(&given, "plan", 150, 3, &[]);
        assert_eq!((verdict.count, verdict.missing), (2, 1));
        assert!(verdict.reasons.is_empty());
        assert_eq!(valid(&given, "plan", 150, 1, &[]).missing, 0);
        assert_eq!(valid(&[], "plan", 150, 0, &[]), Verdict::default());
    }

    #[test]
    fn an_approval_for_a_changed_plan_is_refused() {
        let verdict = valid(&[approval("ann")], "other plan", 150, 1, &[]);
        assert_eq!(verdict.missing, 1);
        assert_eq!(
            verdict.reasons,
            ["the approval by ann is for another plan: the plan changed since"]
        );
    }

    #[test]
    fn an_approval_counts_until_the_moment_it_expires() {
        assert_eq!(valid(&[approval("ann")], "plan", 199, 1, &[]).count, 1);
        assert_eq!(
            valid(&[approval("ann")], "plan", 200, 1, &[]).reasons,
            ["the approval by ann has expired"]
        );
    }

    #[test]
    fn a_revoked_approval_can_be_given_again() {
        let revoked = Approval {
            revoked: true,
            ..approval("ann")
        };
        assert_eq!(
            valid(std::slice::from_ref(&revoked), "plan", 150, 1, &[]).reasons,
            ["the approval by ann was revoked"]
        );
        assert_eq!(
            valid(&[revoked, approval("ann")], "plan", 150, 1, &[]).count,
            1
        );
    }

    #[test]
    fn the_registering_role_may_not_approve() {
        let verdict = valid(
            &[approval("ann"), approval("bob")],
            "plan",
            150,
            2,
            &["ann".into()],
        );
        assert_eq!((verdict.count, verdict.missing), (1, 1));
        assert!(verdict.reasons[0].contains("four_eyes"));
    }

    fn any_approval() -> impl Strategy<Value = Approval> {
        ("[a-c]", "[pq]", 0i64..10, 0i64..20, any::<bool>()).prop_map(
            |(actor, plan_checksum, at_us, expires_us, revoked)| Approval {
                actor,
                plan_checksum,
                at_us,
                expires_us,
                revoked,
                waived: Vec::new(),
            },
        )
    }

    proptest! {
        #[test]
        fn the_count_is_that_of_people_with_a_valid_approval(
            given in proptest::collection::vec(any_approval(), 0..12), now in 0i64..20, required in 0u32..5,
            forbidden in proptest::collection::vec("[a-c]", 0..2),
        ) {
            let verdict = valid(&given, "p", now, required, &forbidden);
            let people = ["a", "b", "c"].into_iter().filter(|person| {
                !forbidden.iter().any(|f| f == person)
                    && given.iter().any(|a| a.actor == *person && a.plan_checksum == "p" && !a.revoked && now < a.expires_us)
            });
            prop_assert_eq!(verdict.count as usize, people.count());
            prop_assert_eq!(verdict.missing, required.saturating_sub(verdict.count));
            let seen: std::collections::BTreeSet<_> = given.iter().map(|a| &a.actor).collect();
            prop_assert_eq!(seen.len(), verdict.count as usize + verdict.reasons.len());
        }

        #[test]
        fn order_does_not_matter(mut given in proptest::collection::vec(any_approval(), 0..8), now in 0i64..20) {
            let before = valid(&given, "p", now, 1, &[]);
            given.reverse();
            prop_assert_eq!(valid(&given, "p", now, 1, &[]).count, before.count);
        }
    }
}
