//! The eight lock modes of relations, in PostgreSQL's order of strength.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mode of LOCK TABLE. Ordered from the weakest to the strongest, as lockdefs.h numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    #[serde(rename = "ACCESS SHARE")]
    AccessShare,
    #[serde(rename = "ROW SHARE")]
    RowShare,
    #[serde(rename = "ROW EXCLUSIVE")]
    RowExclusive,
    #[serde(rename = "SHARE UPDATE EXCLUSIVE")]
    ShareUpdateExclusive,
    #[serde(rename = "SHARE")]
    Share,
    #[serde(rename = "SHARE ROW EXCLUSIVE")]
    ShareRowExclusive,
    #[serde(rename = "EXCLUSIVE")]
    Exclusive,
    #[serde(rename = "ACCESS EXCLUSIVE")]
    AccessExclusive,
}

impl Mode {
    /// All modes, weakest first.
    pub const ALL: [Mode; 8] = [
        Mode::AccessShare,
        Mode::RowShare,
        Mode::RowExclusive,
        Mode::ShareUpdateExclusive,
        Mode::Share,
        Mode::ShareRowExclusive,
        Mode::Exclusive,
        Mode::AccessExclusive,
    ];

    /// As the documentation and LOCK TABLE write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::AccessShare => "ACCESS SHARE",
            Mode::RowShare => "ROW SHARE",
            Mode::RowExclusive => "ROW EXCLUSIVE",
            Mode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Mode::Share => "SHARE",
            Mode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Mode::Exclusive => "EXCLUSIVE",
            Mode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// As pg_locks.mode spells it.
    pub const fn server_name(self) -> &'static str {
        match self {
            Mode::AccessShare => "AccessShareLock",
            Mode::RowShare => "RowShareLock",
            Mode::RowExclusive => "RowExclusiveLock",
            Mode::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Mode::Share => "ShareLock",
            Mode::ShareRowExclusive => "ShareRowExclusiveLock",
            Mode::Exclusive => "ExclusiveLock",
            Mode::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// The mode of this name, in either spelling.
    pub fn of_name(name: &str) -> Option<Mode> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == name || mode.server_name() == name)
    }

    /// The mode of this number of lockdefs.h.
    pub fn of_number(number: i32) -> Option<Mode> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Mode::ALL.get(index).copied()
    }

    /// Whether an application that reads and writes the relation has to wait.
    pub const fn stops_writers(self) -> bool {
        matches!(
            self,
            Mode::Share | Mode::ShareRowExclusive | Mode::Exclusive | Mode::AccessExclusive
        )
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A lock on one relation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lock {
    pub mode: Mode,
    /// Qualified and quoted.
    pub relation: String,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.mode, self.relation)
    }
}

/// The strongest lock on each relation, strongest first, then by name.
pub fn strongest(locks: impl IntoIterator<Item = Lock>) -> Vec<Lock> {
    let mut all: Vec<Lock> = locks.into_iter().collect();
    all.sort_by(|a, b| a.relation.cmp(&b.relation).then(b.mode.cmp(&a.mode)));
    all.dedup_by(|next, kept| next.relation == kept.relation);
    all.sort_by(|a, b| b.mode.cmp(&a.mode).then(a.relation.cmp(&b.relation)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_numbers_read_back() {
        for (i, mode) in Mode::ALL.into_iter().enumerate() {
            assert_eq!(Mode::of_name(mode.as_str()), Some(mode));
            assert_eq!(Mode::of_name(mode.server_name()), Some(mode));
            assert_eq!(Mode::of_number(i as i32 + 1), Some(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
        assert_eq!(Mode::of_number(0), None);
        assert_eq!(Mode::of_number(9), None);
        assert_eq!(Mode::of_name("NO LOCK"), None);
    }

    proptest! {
        #[test]
        fn one_lock_a_relation_and_none_is_stronger(
            given in proptest::collection::vec((0usize..8, "[ab]"), 0..12)
        ) {
            let locks: Vec<Lock> = given
                .into_iter()
                .map(|(mode, relation)| Lock { mode: Mode::ALL[mode], relation })
                .collect();
            let kept = strongest(locks.clone());
            for lock in &locks {
                let same: Vec<_> = kept.iter().filter(|k| k.relation == lock.relation).collect();
                prop_assert_eq!(same.len(), 1);
                prop_assert!(same[0].mode >= lock.mode);
            }
            prop_assert!(kept.iter().all(|k| locks.contains(k)));
            prop_assert!(kept.windows(2).all(|w| w[0].mode >= w[1].mode));
        }
    }
}
