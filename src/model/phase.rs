//! The four phases of a migration and the states in which their steps run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::state::State;

/// What a step is for. Phases run in this order; `Display`, `FromStr` and serde spell them in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Only what adds: new relations, columns, triggers and constraints that are not validated yet. The old shape stays
    /// complete, every statement of an application that does not know of the migration works as before.
    Expand,
    /// Batched work on rows, one short transaction each, resumable at its last committed position.
    Backfill,
    /// What proves the data and makes it ready for use: NOT NULL and constraint validation, concurrent index builds, the
    /// comparison of every row. Reads, adds, never removes.
    Validate,
    /// The swap and all that removes: old relations, columns, triggers, constraints. Only after it is there no way back.
    Contract,
}

/// A text that names no phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a migration phase")]
pub struct UnknownPhase(pub String);

impl Phase {
    /// All phases, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Expand, Self::Backfill, Self::Validate, Self::Contract];

    /// The name as in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Backfill => "backfill",
            Self::Validate => "validate",
            Self::Contract => "contract",
        }
    }

    /// The state in which steps of this phase run.
    pub const fn state(self) -> State {
        match self {
            Self::Expand => State::Initializing,
            Self::Backfill | Self::Validate => State::Running,
            Self::Contract => State::Finishing,
        }
    }
}

/// The phases whose steps run in `state`, in order; none for a state that waits, has ended or goes back.
pub const fn phase_of_state(state: State) -> &'static [Phase] {
    match state {
        State::Initializing => &[Phase::Expand],
        State::Running => &[Phase::Backfill, Phase::Validate],
        State::Finishing => &[Phase::Contract],
        State::Uninitialized
        | State::AwaitingAction
        | State::AwaitingFinalization
        | State::Finished
        | State::RollingBack => &[],
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(s: &str) -> Result<Self, UnknownPhase> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == s)
            .ok_or_else(|| UnknownPhase(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_serde_agrees() {
        for phase in Phase::ALL {
            assert_eq!(phase.to_string().parse(), Ok(phase));
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
        assert_eq!(
            "EXPAND".parse::<Phase>(),
            Err(UnknownPhase("EXPAND".into()))
        );
    }

    #[test]
    fn every_phase_runs_in_one_state_and_in_order() {
        let by_state: Vec<Phase> = State::ALL
            .iter()
            .flat_map(|s| phase_of_state(*s))
            .copied()
            .collect();
        assert_eq!(by_state, Phase::ALL);
        for phase in Phase::ALL {
            assert!(phase_of_state(phase.state()).contains(&phase));
        }
    }
}
