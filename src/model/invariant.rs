//! What must hold while a migration goes on, as the DBA says it in `meta.invariants`, and when it is looked at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{wrong_kind, MetaError};
use super::nearest::nearest;
use super::state::State;

/// When an invariant is looked at. Spelled as in SQL by `Display`, `FromStr` and serde: `DURING_RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum When {
    /// Once, as the first thing of RUNNING: before a row is moved.
    PreRun,
    /// Again and again between the batches of RUNNING, and once more before it ends.
    DuringRun,
    /// At the end of RUNNING, and again right before FINISHING.
    PreFinalization,
    /// Once, as the last thing of FINISHING. It is reported, and stops nothing: there is no way back.
    PostFinalization,
}

const ALL: [(When, &str); 4] = [
    (When::PreRun, "PRE_RUN"),
    (When::DuringRun, "DURING_RUN"),
    (When::PreFinalization, "PRE_FINALIZATION"),
    (When::PostFinalization, "POST_FINALIZATION"),
];

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = ALL.iter().find(|(when, _)| when == self);
        f.write_str(found.map_or("", |(_, word)| word))
    }
}

/// A text that names no phase of an invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no phase of an invariant")]
pub struct UnknownPhase(pub String);

impl FromStr for When {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<When, UnknownPhase> {
        ALL.iter()
            .find(|(_, word)| *word == text)
            .map(|(when, _)| *when)
            .ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

/// One entry of `meta.invariants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invariant {
    pub name: String,
    pub phase: When,
    /// One query: a single boolean column, true in every row and with at least one row; or counter-examples, none.
    pub sql: String,
    /// An interval in the server's syntax; it may take no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

const KEYS: [&str; 4] = ["name", "phase", "sql", "timeout"];

/// Longest name: it is repeated in messages and signals.
const MAX_NAME_BYTES: usize = 255;

/// Checks the value of `meta.invariants`.
///
/// # Errors
/// The first thing that is wrong, with its path: `meta.invariants[1].phase`.
pub fn check(path: &str, value: &Value) -> Result<(), MetaError> {
    let Some(items) = value.as_array() else {
        let wanted = "a list of objects, for example [{\"name\": \"no negative balance\", \"phase\": \"DURING_RUN\", \
                      \"sql\": \"SELECT id FROM accounts WHERE balance < 0\"}]";
        return Err(wrong_kind(path.to_owned(), value, wanted));
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check_one(&path, item)?;
        let same = |other: &Value| other.get("name") == item.get("name");
        if items[..index].iter().any(same) {
            return Err(MetaError {
                path: format!("{path}.name"),
                message: format!("{} is taken by an earlier one", item["name"]),
                hint: "Give each invariant a name of its own.".into(),
            });
        }
    }
    Ok(())
}

fn check_one(path: &str, item: &Value) -> Result<(), MetaError> {
    let Some(object) = item.as_object() else {
        let wanted = "an object with name, phase, sql and, if need be, timeout";
        return Err(wrong_kind(path.to_owned(), item, wanted));
    };
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(MetaError {
            path: format!("{path}.{key}"),
            message: "is not a known key".into(),
            hint: match nearest(key, KEYS) {
                Some(known) => format!("Perhaps you meant \"{known}\"."),
                None => format!("Known keys: {}.", KEYS.join(", ")),
            },
        });
    }
    for key in KEYS {
        let path = format!("{path}.{key}");
        match object.get(key) {
            None | Some(Value::Null) if key == "timeout" => {}
            None => {
                return Err(MetaError {
                    path,
                    message: "is missing".into(),
                    hint: "An invariant has a name, a phase and a query.".into(),
                })
            }
            Some(Value::String(text)) if text.trim().is_empty() => {
                return Err(MetaError {
                    path,
                    message: "must not be empty".into(),
                    hint: "An invariant has a name, a phase and a query.".into(),
                })
            }
            Some(Value::String(text)) => check_text(path, key, text)?,
            Some(other) => return Err(wrong_kind(path, other, "a text")),
        }
    }
    Ok(())
}

fn check_text(path: String, key: &str, text: &str) -> Result<(), MetaError> {
    let (message, hint) = match key {
        "name" if text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) => (
            "is too long or holds a control character".to_owned(),
            format!("A name has at most {MAX_NAME_BYTES} bytes and no control characters."),
        ),
        "phase" if text.parse::<When>().is_err() => (
            format!("\"{text}\" is not one of the choices"),
            format!("Give one of: {}.", ALL.map(|(_, word)| word).join(", ")),
        ),
        _ => return Ok(()),
    };
    Err(MetaError {
        path,
        message,
        hint,
    })
}

/// What is known of one invariant of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub when: When,
    /// `None`: not looked at yet in this run.
    pub holds: Option<bool>,
    /// When it was last looked at, and how long that took, microseconds.
    pub at_us: i64,
    pub took_us: i64,
    /// It was looked at in AWAITING_FINALIZATION, or that does not matter.
    pub counts: bool,
}

/// Where the migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub state: State,
    /// No step is left before the state ends.
    pub steps_done: bool,
    /// When the last step of the state that is done was done, microseconds; 0: none.
    pub last_step_us: i64,
    /// Nothing but the invariants holds finalization back.
    pub may_finalize: bool,
    pub now_us: i64,
}

/// Between two looks at an invariant of DURING_RUN: a second, or this many times as long as the look takes.
const LEAST_PAUSE_US: i64 = 1_000_000;
const PAUSE_FACTOR: i64 = 20;
/// What was found right before FINISHING counts for so long: the swap may need more than one try for its lock.
const FRESH_US: i64 = 30_000_000;

/// Whether the invariant has to be looked at before anything else is done.
pub fn is_due(seen: &Seen, position: &Position) -> bool {
    let held = seen.holds == Some(true);
    let since_last_step = held && seen.at_us >= position.last_step_us;
    match (position.state, seen.when) {
        (State::Running, When::PreRun) => !held,
        (State::Running, When::DuringRun) if position.steps_done => !since_last_step,
        (State::Running, When::DuringRun) => {
            let pause = LEAST_PAUSE_US.max(seen.took_us.saturating_mul(PAUSE_FACTOR));
            !held || position.now_us.saturating_sub(seen.at_us) >= pause
        }
        (State::Running, When::PreFinalization) => position.steps_done && !since_last_step,
        (State::AwaitingFinalization, When::PreFinalization) => {
            position.may_finalize
                && !(held
                    && seen.counts
                    && (0..FRESH_US).contains(&position.now_us.saturating_sub(seen.at_us)))
        }
        (State::Finishing, When::PostFinalization) => position.steps_done && seen.holds.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn valid() -> Value {
        json!({"name": "n", "phase": "PRE_RUN", "sql": "SELECT true"})
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let mut two_of_one_name = vec![valid(), valid()];
        two_of_one_name[1]["phase"] = json!("DURING_RUN");
        for (value, place) in [
            (json!("x"), "meta.invariants"),
            (json!({"name": "n"}), "meta.invariants"),
            (json!(["SELECT true"]), "meta.invariants[0]"),
            (json!([valid(), null]), "meta.invariants[1]"),
            (json!([{}]), "meta.invariants[0].name"),
            (json!([{"name": "n"}]), "meta.invariants[0].phase"),
            (
                json!([{"name": "n", "phase": "PRE_RUN"}]),
                "meta.invariants[0].sql",
            ),
            (
                json!([{"name": "", "phase": "PRE_RUN", "sql": "x"}]),
                "meta.invariants[0].name",
            ),
            (
                json!([{"name": "a\nb", "phase": "PRE_RUN", "sql": "x"}]),
                "meta.invariants[0].name",
            ),
            (
                json!([{"name": "é".repeat(128), "phase": "PRE_RUN", "sql": "x"}]),
                "meta.invariants[0].name",
            ),
            (
                json!([{"name": "n", "phase": "pre_run", "sql": "x"}]),
                "meta.invariants[0].phase",
            ),
            (
                json!([{"name": "n", "phase": 1, "sql": "x"}]),
                "meta.invariants[0].phase",
            ),
            (
                json!([{"name": "n", "phase": "PRE_RUN", "sql": null}]),
                "meta.invariants[0].sql",
            ),
            (
                json!([{"name": "n", "phase": "PRE_RUN", "sql": "x", "timeout": 5}]),
                "meta.invariants[0].timeout",
            ),
            (
                json!([{"name": "n", "phase": "PRE_RUN", "sql": "x", "query": "y"}]),
                "meta.invariants[0].query",
            ),
            (Value::from(two_of_one_name), "meta.invariants[1].name"),
        ] {
            let error = check("meta.invariants", &value).unwrap_err();
            assert_eq!(error.path, place, "{value}");
            assert!(error.hint.ends_with('.'), "{value}: {error:?}");
        }
        assert_eq!(check("meta.invariants", &json!([])), Ok(()));
        assert_eq!(check("meta.invariants", &json!([valid()])), Ok(()));
    }

    #[test]
    fn phases_are_read_as_they_are_written() {
        for (when, word) in ALL {
            assert_eq!(when.to_string(), word);
            assert_eq!(word.parse(), Ok(when));
            assert_eq!(serde_json::to_value(when).unwrap(), json!(word));
        }
        assert_eq!("".parse::<When>(), Err(UnknownPhase(String::new())));
    }

    fn seen(when: When, holds: Option<bool>, at_us: i64) -> Seen {
        Seen {
            when,
            holds,
            at_us,
            took_us: 1000,
            counts: true,
        }
    }

    fn at(state: State) -> Position {
        Position {
            state,
            steps_done: false,
            last_step_us: 0,
            may_finalize: false,
            now_us: 100_000_000,
        }
    }

    #[test]
    fn each_phase_has_its_moment() {
        let running = at(State::Running);
        let done = Position {
            steps_done: true,
            last_step_us: 90_000_000,
            ..running
        };
        let waits = at(State::AwaitingFinalization);
        let ready = Position {
            may_finalize: true,
            ..waits
        };
        let finishing = at(State::Finishing);
        let last = Position {
            steps_done: true,
            ..finishing
        };
        for (when, holds, at_us, position, due) in [
            (When::PreRun, None, 0, running, true),
            (When::PreRun, Some(false), 99_999_999, running, true),
            (When::PreRun, Some(true), 1, done, false),
            (When::PreRun, None, 0, waits, false),
            (When::DuringRun, None, 0, running, true),
            (When::DuringRun, Some(true), 99_500_000, running, false),
            (When::DuringRun, Some(true), 98_900_000, running, true),
            (When::DuringRun, Some(true), 89_000_000, done, true),
            (When::DuringRun, Some(true), 91_000_000, done, false),
            (When::PreFinalization, None, 0, running, false),
            (When::PreFinalization, None, 0, done, true),
            (When::PreFinalization, Some(true), 91_000_000, done, false),
            (When::PreFinalization, Some(true), 1, waits, false),
            (When::PreFinalization, Some(true), 1, ready, true),
            (When::PreFinalization, Some(true), 99_000_000, ready, false),
            (When::PreFinalization, Some(false), 99_000_000, ready, true),
            // A clock that was set back makes nothing fresh.
            (When::PreFinalization, Some(true), 101_000_000, ready, true),
            (When::PostFinalization, None, 0, finishing, false),
            (When::PostFinalization, None, 0, last, true),
            (When::PostFinalization, Some(false), 1, last, false),
        ] {
            let seen = seen(when, holds, at_us);
            assert_eq!(is_due(&seen, &position), due, "{seen:?} {position:?}");
        }
    }

    #[test]
    fn what_was_found_before_the_soak_is_no_reason_to_finalize() {
        let ready = Position {
            may_finalize: true,
            ..at(State::AwaitingFinalization)
        };
        let mut fresh = seen(When::PreFinalization, Some(true), 99_000_000);
        assert!(!is_due(&fresh, &ready));
        fresh.counts = false;
        assert!(is_due(&fresh, &ready));
    }

    #[test]
    fn what_takes_long_is_looked_at_less_often() {
        let slow = Seen {
            when: When::DuringRun,
            holds: Some(true),
            at_us: 0,
            took_us: 10_000_000,
            counts: true,
        };
        assert!(!is_due(&slow, &at(State::Running)));
        let later = Position {
            now_us: 200_000_000,
            ..at(State::Running)
        };
        assert!(is_due(&slow, &later));
    }

    proptest! {
        #[test]
        fn what_did_not_hold_never_lets_a_state_end(when in 0..3usize, at_us in 0..200_000_000i64, last in 0..200_000_000i64) {
            let broken = seen(ALL[when].0, Some(false), at_us);
            let running = Position { steps_done: true, last_step_us: last, ..at(State::Running) };
            prop_assert!(is_due(&broken, &running));
        }

        #[test]
        fn what_the_check_accepts_serde_accepts(key in 0..4usize, text in "\\PC{0,4}|PRE_RUN") {
            let mut item = valid();
            item[KEYS[key]] = json!(text);
            if check("meta.invariants", &json!([item.clone()])).is_ok() {
                prop_assert!(serde_json::from_value::<Invariant>(item).is_ok());
            }
        }
    }
}
