//! The states of a migration and the one table of allowed transitions (`engine::advance` is its only caller; the database
//! guards it a second time with a trigger made from [`ALLOWED`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a migration stands. Spelled as in SQL by `Display`, `FromStr` and serde: `AWAITING_FINALIZATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Registered and planned; waits for apply, dependencies, version and pre-execution soak.
    Uninitialized,
    /// The expand steps run. An error leaves the migration here, with its error recorded: nothing of it is visible yet.
    Initializing,
    /// The backfill and validate steps run.
    Running,
    /// A person must act: a declared gate, retries exhausted, a failed invariant, too many dead letters.
    AwaitingAction,
    /// Everything is ready for the swap; soak, approval and invariants are waited for.
    AwaitingFinalization,
    /// The contract steps run: the point of no return is passed.
    Finishing,
    /// Done. Terminal.
    Finished,
    /// The reverts run in reverse order.
    RollingBack,
}

/// What moves a migration from one state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// Apply was asked for and nothing holds it back.
    Apply,
    /// The last expand step committed.
    Expanded,
    /// The migration cannot go on without a person.
    NeedAction,
    /// A person asked to go on.
    Resume,
    /// The last validate step committed.
    Ready,
    /// A person amended a statement whose work is done again.
    Amend,
    /// No finalization gate refuses.
    Finalize,
    /// The last contract step committed.
    Finish,
    /// A rollback was asked for.
    Rollback,
    /// The last revert committed; the catalog is as before.
    RolledBack,
}

/// The table. Whatever is not in it is refused.
const TRANSITIONS: [(State, Event, State); 14] = [
    (State::Uninitialized, Event::Apply, State::Initializing),
    (State::Initializing, Event::Expanded, State::Running),
    (State::Initializing, Event::Rollback, State::RollingBack),
    (State::Running, Event::NeedAction, State::AwaitingAction),
    (State::Running, Event::Ready, State::AwaitingFinalization),
    (State::Running, Event::Rollback, State::RollingBack),
    (State::AwaitingAction, Event::Resume, State::Running),
    (State::AwaitingAction, Event::Rollback, State::RollingBack),
    (State::AwaitingFinalization, Event::Amend, State::Running),
    (
        State::AwaitingFinalization,
        Event::NeedAction,
        State::AwaitingAction,
    ),
    (
        State::AwaitingFinalization,
        Event::Finalize,
        State::Finishing,
    ),
    (
        State::AwaitingFinalization,
        Event::Rollback,
        State::RollingBack,
    ),
    (State::Finishing, Event::Finish, State::Finished),
    (State::RollingBack, Event::RolledBack, State::Uninitialized),
];

/// Every allowed change of state, in the order of the table: what the guarding trigger in the database is made from.
pub const ALLOWED: &[(State, State)] = &allowed_pairs();

const fn allowed_pairs() -> [(State, State); TRANSITIONS.len()] {
    let mut pairs = [(State::Uninitialized, State::Uninitialized); TRANSITIONS.len()];
    let mut i = 0;
    while i < TRANSITIONS.len() {
        pairs[i] = (TRANSITIONS[i].0, TRANSITIONS[i].2);
        i += 1;
    }
    pairs
}

/// An event that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible in state {from}")]
pub struct IllegalTransition {
    pub from: State,
    pub event: Event,
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a migration state")]
pub struct UnknownState(pub String);

/// The state that `event` leads to from `from`.
///
/// # Errors
/// [`IllegalTransition`] when the table has no such row.
pub fn transition(from: State, event: Event) -> Result<State, IllegalTransition> {
    TRANSITIONS
        .iter()
        .find(|row| row.0 == from && row.1 == event)
        .map(|row| row.2)
        .ok_or(IllegalTransition { from, event })
}

/// Whether any event leads from `from` to `to`.
pub fn is_allowed(from: State, to: State) -> bool {
    ALLOWED.contains(&(from, to))
}

impl State {
    /// All states, in the order of the life of a migration.
    pub const ALL: [Self; 8] = [
        Self::Uninitialized,
        Self::Initializing,
        Self::Running,
        Self::AwaitingAction,
        Self::AwaitingFinalization,
        Self::Finishing,
        Self::Finished,
        Self::RollingBack,
    ];

    /// The name as in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uninitialized => "UNINITIALIZED",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::AwaitingAction => "AWAITING_ACTION",
            Self::AwaitingFinalization => "AWAITING_FINALIZATION",
            Self::Finishing => "FINISHING",
            Self::Finished => "FINISHED",
            Self::RollingBack => "ROLLING_BACK",
        }
    }

    /// Whether nothing leads out of this state.
    pub fn is_terminal(self) -> bool {
        self == Self::Finished
    }

    /// Whether `rollback` is possible: something may have been done, and the point of no return is not passed.
    pub fn can_roll_back(self) -> bool {
        matches!(
            self,
            Self::Initializing | Self::Running | Self::AwaitingAction | Self::AwaitingFinalization
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(s: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| UnknownState(s.to_owned()))
    }
}

impl Event {
    /// All events.
    pub const ALL: [Self; 10] = [
        Self::Apply,
        Self::Expanded,
        Self::NeedAction,
        Self::Resume,
        Self::Ready,
        Self::Amend,
        Self::Finalize,
        Self::Finish,
        Self::Rollback,
        Self::RolledBack,
    ];
}

/// The name as it appears in messages.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Apply => "APPLY",
            Self::Expanded => "EXPANDED",
            Self::NeedAction => "NEED_ACTION",
            Self::Resume => "RESUME",
            Self::Ready => "READY",
            Self::Amend => "AMEND",
            Self::Finalize => "FINALIZE",
            Self::Finish => "FINISH",
            Self::Rollback => "ROLLBACK",
            Self::RolledBack => "ROLLED_BACK",
        })
    }
}

/// A migration's state in one word for people and dashboards; derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// Not begun.
    Pending,
    /// Under way, also while it waits for a gate or is being rolled back.
    Running,
    /// Finished.
    Completed,
    /// Stopped by an error; goes on after `resume` or ends after `rollback`.
    Failed,
    /// Rolled back; the catalog is as before.
    RolledBack,
    /// Finished, and taken back after that; the catalog is as before.
    Undone,
}

/// The outcome of a migration in `state`. `has_error`: a final error is recorded and no one has resumed since (one that is
/// being retried is none). `was_rolled_back`: the last run ended in a rollback. `undo`: an undo of it was asked for, and whether
/// it has ended.
pub fn outcome(
    state: State,
    has_error: bool,
    was_rolled_back: bool,
    undo: Option<bool>,
) -> Outcome {
    match state {
        State::Finished if undo == Some(true) => Outcome::Undone,
        State::Finished if undo.is_none() => Outcome::Completed,
        State::Uninitialized if was_rolled_back => Outcome::RolledBack,
        _ if has_error => Outcome::Failed,
        State::Uninitialized => Outcome::Pending,
        _ => Outcome::Running,
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Undone => "UNDONE",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use State::{
        AwaitingAction, AwaitingFinalization, Finished, Finishing, Initializing, RollingBack,
        Running, Uninitialized,
    };

    /// The table of the life cycle's description, written a second time by hand: each state with what may follow it.
    const NEXT: [(State, &[State]); 8] = [
        (Uninitialized, &[Initializing]),
        (Initializing, &[Running, RollingBack]),
        (
            Running,
            &[AwaitingAction, AwaitingFinalization, RollingBack],
        ),
        (AwaitingAction, &[Running, RollingBack]),
        (
            AwaitingFinalization,
            &[Running, AwaitingAction, Finishing, RollingBack],
        ),
        (Finishing, &[Finished]),
        (Finished, &[]),
        (RollingBack, &[Uninitialized]),
    ];

    #[test]
    fn every_pair_of_states_is_allowed_or_refused_as_described() {
        for (from, next) in NEXT {
            for to in State::ALL {
                assert_eq!(is_allowed(from, to), next.contains(&to), "{from} to {to}");
                let reaching = Event::ALL
                    .iter()
                    .filter(|event| transition(from, **event) == Ok(to));
                assert_eq!(
                    reaching.count(),
                    usize::from(next.contains(&to)),
                    "{from} to {to}"
                );
            }
        }
    }

    #[test]
    fn an_event_outside_the_table_is_refused_by_name() {
        let mut accepted = 0;
        for from in State::ALL {
            for event in Event::ALL {
                match transition(from, event) {
                    Ok(to) => {
                        accepted += 1;
                        assert!(is_allowed(from, to));
                    }
                    Err(error) => assert_eq!(error, IllegalTransition { from, event }),
                }
            }
        }
        assert_eq!(accepted, ALLOWED.len());
        assert_eq!(
            transition(Initializing, Event::NeedAction)
                .unwrap_err()
                .to_string(),
            "NEED_ACTION is not possible in state INITIALIZING"
        );
    }

    #[test]
    fn allowed_has_no_pair_twice() {
        assert_eq!(ALLOWED.iter().collect::<HashSet<_>>().len(), ALLOWED.len());
    }

    #[test]
    fn predicates_agree_with_the_table() {
        for state in State::ALL {
            assert_eq!(
                state.is_terminal(),
                !ALLOWED.iter().any(|pair| pair.0 == state)
            );
            assert_eq!(
                state.can_roll_back(),
                transition(state, Event::Rollback).is_ok()
            );
        }
    }

    #[test]
    fn every_state_has_a_way_to_an_end() {
        for start in State::ALL {
            let mut reached = HashSet::from([start]);
            for _ in State::ALL {
                let next: Vec<State> = ALLOWED
                    .iter()
                    .filter(|p| reached.contains(&p.0))
                    .map(|p| p.1)
                    .collect();
                reached.extend(next);
            }
            assert!(reached.contains(&Finished), "{start} is a dead end");
        }
    }

    #[test]
    fn names_read_back_and_serde_agrees() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
        for event in Event::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.to_string());
        }
        assert_eq!(
            "running".parse::<State>(),
            Err(UnknownState("running".into()))
        );
    }

    #[test]
    fn outcomes_are_what_a_person_would_say() {
        assert_eq!(outcome(Uninitialized, false, false, None), Outcome::Pending);
        assert_eq!(
            outcome(Uninitialized, true, true, None),
            Outcome::RolledBack
        );
        assert_eq!(outcome(Finished, true, false, None), Outcome::Completed);
        assert_eq!(outcome(AwaitingAction, true, false, None), Outcome::Failed);
        assert_eq!(
            outcome(AwaitingAction, false, false, None),
            Outcome::Running
        );
        assert_eq!(outcome(Initializing, true, true, None), Outcome::Failed);
        assert_eq!(outcome(Running, false, true, None), Outcome::Running);
        assert_eq!(outcome(RollingBack, false, false, None), Outcome::Running);
        assert_eq!(
            outcome(Finished, false, false, Some(false)),
            Outcome::Running
        );
        assert_eq!(outcome(Finished, true, false, Some(false)), Outcome::Failed);
        assert_eq!(outcome(Finished, true, false, Some(true)), Outcome::Undone);
        for outcome in [
            Outcome::Pending,
            Outcome::Running,
            Outcome::Completed,
            Outcome::Failed,
            Outcome::RolledBack,
            Outcome::Undone,
        ] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.to_string());
        }
    }
}
