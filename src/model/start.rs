//! What holds an applied migration back from its first step, and what would let it start.

use crate::model::gate::Waiting;
use crate::model::state::State;

/// Where a migration stands that another one depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has registered it.
    Unknown,
    /// Registered, and nobody has applied it.
    NotApplied,
    /// Applied and not through.
    Under(State),
    /// It goes on only after somebody has acted.
    NeedsPerson(State),
    /// Taken back, and not applied again.
    RolledBack,
    Finished,
}

/// What the engine found out about a migration that was applied and has not started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartFacts {
    /// Id and standing of each migration it depends on.
    pub dependencies: Vec<(String, Standing)>,
    /// Why the release of the database is not the one it starts from; `None`: it is.
    pub version: Option<String>,
    /// From [`crate::model::soak::remaining`].
    pub soak_remaining_us: i64,
    /// Migrations that are under way and touch the same objects: id and name of one object.
    pub objects: Vec<(String, String)>,
    /// The first of the scripts before it, where they run one after the other, that is not through.
    pub before: Option<String>,
    /// Migrations under way, as transmute.max_running counts them.
    pub running: i64,
    pub max_running: i64,
}

/// Codes of what is waited for, in the order of the documentation.
pub const CODES: [&str; 6] = [
    "DEPENDENCY",
    "VERSION",
    "ORDER",
    "SOAK",
    "OBJECT",
    "MAX_RUNNING",
];

/// Before and after the id, what is said of a dependency that was applied and has not begun.
pub const NOT_STARTED: (&str, &str) = ("dependency \"", "\", which has not started yet");

/// Everything that holds the start back; empty: it may start. No clock in the texts: they are stored, and only a change is
/// worth a write.
pub fn waiting(facts: &StartFacts) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    let mut wait = |code: &'static str, text: String| waiting.push(Waiting { code, text });
    for (id, standing) in &facts.dependencies {
        let text = match standing {
            Standing::Finished => continue,
            Standing::Unknown => "is not registered".into(),
            Standing::NotApplied => "has not been applied".into(),
            Standing::RolledBack => "was rolled back".into(),
            Standing::Under(State::Uninitialized) => {
                wait(
                    "DEPENDENCY",
                    format!("{}{id}{}", NOT_STARTED.0, NOT_STARTED.1),
                );
                continue;
            }
            Standing::Under(state) => format!("is {state}"),
            Standing::NeedsPerson(state) => format!("is {state} and needs a person"),
        };
        wait("DEPENDENCY", format!("dependency \"{id}\", which {text}"));
    }
    if let Some(why) = &facts.version {
        wait("VERSION", why.clone());
    }
    if let Some(id) = &facts.before {
        wait(
            "ORDER",
            format!("its turn, behind migration \"{id}\" and whatever else comes before it"),
        );
    }
    if facts.soak_remaining_us > 0 {
        wait(
            "SOAK",
            "the soak before the start, until soak_until; skip_soak ends it now".into(),
        );
    }
    // What others touch changes until then.
    let far = facts
        .dependencies
        .iter()
        .any(|(_, s)| *s == Standing::Under(State::Uninitialized));
    for (id, object) in facts.objects.iter().filter(|_| !far) {
        wait(
            "OBJECT",
            format!("migration \"{id}\", which is under way and touches {object} too"),
        );
    }
    if waiting.is_empty() && facts.running >= facts.max_running {
        waiting.push(Waiting {
            code: "MAX_RUNNING",
            text: format!(
                "its turn: {} under way, transmute.max_running is {}",
                facts.running, facts.max_running
            ),
        });
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn free() -> StartFacts {
        StartFacts {
            max_running: 1,
            ..StartFacts::default()
        }
    }

    fn codes(facts: &StartFacts) -> Vec<&'static str> {
        waiting(facts).into_iter().map(|w| w.code).collect()
    }

    #[test]
    fn nothing_holds_what_is_free() {
        let mut facts = free();
        assert_eq!(waiting(&facts), []);
        facts.dependencies = vec![("a".into(), Standing::Finished)];
        assert_eq!(waiting(&facts), []);
    }

    #[test]
    fn every_dependency_that_is_not_finished_is_named_with_its_standing() {
        let mut facts = free();
        for (standing, text) in [
            (
                Standing::Unknown,
                "dependency \"a\", which is not registered",
            ),
            (
                Standing::NotApplied,
                "dependency \"a\", which has not been applied",
            ),
            (
                Standing::RolledBack,
                "dependency \"a\", which was rolled back",
            ),
            (
                Standing::Under(State::Uninitialized),
                "dependency \"a\", which has not started yet",
            ),
            (
                Standing::Under(State::Running),
                "dependency \"a\", which is RUNNING",
            ),
            (
                Standing::NeedsPerson(State::AwaitingAction),
                "dependency \"a\", which is AWAITING_ACTION and needs a person",
            ),
        ] {
            facts.dependencies = vec![("a".into(), standing), ("b".into(), Standing::Finished)];
            let found = waiting(&facts);
            assert_eq!(found.len(), 1);
            assert_eq!(
                (found[0].code, found[0].text.as_str()),
                ("DEPENDENCY", text)
            );
        }
    }

    #[test]
    fn what_others_touch_is_named_when_its_dependencies_have_begun() {
        let mut facts = free();
        facts.objects = vec![("other".into(), "public.t".into())];
        facts.dependencies = vec![("a".into(), Standing::Under(State::Uninitialized))];
        assert_eq!(codes(&facts), ["DEPENDENCY"]);
        facts.dependencies = vec![("a".into(), Standing::Under(State::Running))];
        assert_eq!(codes(&facts), ["DEPENDENCY", "OBJECT"]);
    }

    #[test]
    fn a_turn_is_waited_for_only_by_what_could_start() {
        let mut facts = free();
        facts.running = 1;
        assert_eq!(codes(&facts), ["MAX_RUNNING"]);
        facts.objects = vec![("other".into(), "public.t".into())];
        facts.soak_remaining_us = 1;
        assert_eq!(codes(&facts), ["SOAK", "OBJECT"]);
        facts.before = Some("first".into());
        assert_eq!(codes(&facts), ["ORDER", "SOAK", "OBJECT"]);
    }

    proptest! {
        #[test]
        fn a_fact_more_never_lets_start(soak in 0..2i64, running in 0..3i64, max in 1..3i64, others in 0..3usize) {
            let facts = StartFacts {
                soak_remaining_us: soak,
                running,
                max_running: max,
                objects: vec![("o".into(), "t".into()); others],
                ..StartFacts::default()
            };
            let may_start = soak == 0 && others == 0 && running < max;
            prop_assert_eq!(waiting(&facts).is_empty(), may_start);
            for w in waiting(&facts) {
                prop_assert!(CODES.contains(&w.code));
            }
        }
    }
}
