//! The risk of one operation: a score from 0 to 100 and the level it falls into.
//!
//! The score is a sum of points, one entry of [`weight`] for each distinct reason. A reason whose harm grows with the table
//! adds points for each decade of its size or of its write rate. Many small reasons never add up to a class of their own:
//! without a reason that removes something the sum stops at the top of `high`, without one that is certain to fail at the
//! top of `destructive`. The weights are this project's judgement; what is promised is that they are deterministic, that a
//! further reason never lowers a score, and neither does a larger or busier table.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::reason::Reason;

/// Highest score.
pub const MAX_SCORE: i32 = 100;

/// First score of each level above `safe`.
const LOW: i32 = 1;
const MEDIUM: i32 = 20;
const HIGH: i32 = 40;
const DESTRUCTIVE: i32 = 70;
const BLOCKED: i32 = 95;

/// A size below these is no size: the first decade begins here.
const FIRST_DECADE_ROWS: i64 = 10_000;
const FIRST_DECADE_BYTES: i64 = 1 << 20;
const FIRST_DECADE_WRITES_PER_SECOND: f64 = 1.0;
/// Beyond 10^6 times the first decade nothing gets worse.
const MAX_DECADES: i32 = 7;

/// What a score means. Spelled in lower case by `Display`, `FromStr` and serde; ordered by severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// 0: nothing to say.
    Safe,
    /// 1 to 19: felt for a moment at most.
    Low,
    /// 20 to 39: somebody should have read the plan.
    Medium,
    /// 40 to 69: can stop the application or fail late.
    High,
    /// 70 to 94: removes something for good.
    Destructive,
    /// 95 to 100: certain to fail as the data is now.
    Blocked,
}

/// A text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a risk level")]
pub struct UnknownLevel(pub String);

impl Level {
    /// All levels, mildest first.
    pub const ALL: [Self; 6] = [
        Self::Safe,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Destructive,
        Self::Blocked,
    ];

    /// The level of a score; one outside 0 to 100 counts as the nearer end.
    pub const fn of_score(score: i32) -> Self {
        match score {
            BLOCKED.. => Self::Blocked,
            DESTRUCTIVE.. => Self::Destructive,
            HIGH.. => Self::High,
            MEDIUM.. => Self::Medium,
            LOW.. => Self::Low,
            _ => Self::Safe,
        }
    }

    /// The name as in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Destructive => "destructive",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(s: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == s)
            .ok_or_else(|| UnknownLevel(s.to_owned()))
    }
}

/// What is known of the table that an operation touches. Unknown (never analyzed) is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    pub rows: i64,
    /// Heap, TOAST and indexes together.
    pub bytes: i64,
    pub writes_per_second: f64,
}

/// From here a table is large (LARGE_TABLE): what touches every row takes seconds at least.
const LARGE_ROWS: i64 = 1_000_000;
const LARGE_BYTES: i64 = 1 << 30;
/// From here a table is hot (HOT_TABLE): whoever locks it stops somebody at once.
const HOT_WRITES_PER_SECOND: f64 = 10.0;
/// From here one transaction is a long one (LONG_TRANSACTION): vacuum waits for it everywhere.
pub const LONG_TRANSACTION_SECONDS: f64 = 60.0;

impl Facts {
    pub fn is_large(&self) -> bool {
        self.rows >= LARGE_ROWS || self.bytes >= LARGE_BYTES
    }

    pub fn is_hot(&self) -> bool {
        self.writes_per_second >= HOT_WRITES_PER_SECOND
    }
}

/// Points of one reason: always, for each decade of size, for each decade of write rate.
struct Weight(i32, i32, i32);

const fn weight(reason: Reason) -> Weight {
    match reason {
        Reason::LockAccessExclusive => Weight(3, 0, 1),
        Reason::LockShareRowExclusive | Reason::LockShare => Weight(2, 0, 1),
        Reason::TableRewrite => Weight(5, 8, 2),
        Reason::FullScanUnderLock => Weight(3, 6, 2),
        Reason::LargeTable => Weight(2, 1, 0),
        Reason::HotTable => Weight(2, 0, 1),
        Reason::DataLoss => Weight(DESTRUCTIVE, 0, 0),
        Reason::Irreversible => Weight(MEDIUM, 0, 0),
        Reason::NotTransactional => Weight(3, 0, 0),
        Reason::BreaksOldClients | Reason::BreaksNewClients => Weight(25, 0, 0),
        Reason::DependentObjects => Weight(5, 0, 0),
        Reason::NarrowingCast => Weight(MEDIUM, 0, 0),
        Reason::VolatileDefault => Weight(5, 0, 0),
        Reason::ConstraintMayFail | Reason::PrivilegeChange => Weight(10, 0, 0),
        Reason::DuplicatesFound | Reason::OrphansFound | Reason::NullsFound => {
            Weight(BLOCKED, 0, 0)
        }
        Reason::Cascade | Reason::UnknownStatement => Weight(HIGH, 0, 0),
        Reason::LongTransaction => Weight(10, 2, 0),
        Reason::ReplicationImpact | Reason::DiskSpace => Weight(2, 1, 0),
        Reason::NoKey => Weight(5, 1, 0),
    }
}

/// The score of an operation with these reasons on such a table, 0 to [`MAX_SCORE`]. A reason counts once.
pub fn score(reasons: &[Reason], facts: &Facts) -> i32 {
    let size = decades(facts.rows as f64, FIRST_DECADE_ROWS as f64)
        .max(decades(facts.bytes as f64, FIRST_DECADE_BYTES as f64));
    let heat = decades(facts.writes_per_second, FIRST_DECADE_WRITES_PER_SECOND);
    let distinct: BTreeSet<Reason> = reasons.iter().copied().collect();
    let (mut sum, mut worst) = (0, 0);
    for Weight(always, by_size, by_heat) in distinct.into_iter().map(weight) {
        sum += always + by_size * size + by_heat * heat;
        worst = worst.max(always);
    }
    let limit = match worst {
        BLOCKED.. => MAX_SCORE,
        DESTRUCTIVE.. => BLOCKED - 1,
        _ => DESTRUCTIVE - 1,
    };
    sum.min(limit)
}

/// How many decades `value` has reached: 0 below `first`, 1 from `first`, 2 from 10 × `first`, and so on.
fn decades(value: f64, first: f64) -> i32 {
    let mut count = 0;
    let mut threshold = first;
    while count < MAX_DECADES && value >= threshold {
        count += 1;
        threshold *= 10.0;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Facts = Facts {
        rows: 100,
        bytes: 8192,
        writes_per_second: 0.0,
    };
    const LARGE_AND_HOT: Facts = Facts {
        rows: 50_000_000,
        bytes: 10 << 30,
        writes_per_second: 500.0,
    };

    fn level(reasons: &[Reason], facts: &Facts) -> Level {
        Level::of_score(score(reasons, facts))
    }

    #[test]
    fn levels_begin_where_the_documentation_says() {
        for (score, level) in [
            (-5, Level::Safe),
            (0, Level::Safe),
            (1, Level::Low),
            (19, Level::Low),
            (20, Level::Medium),
            (39, Level::Medium),
            (40, Level::High),
            (69, Level::High),
            (70, Level::Destructive),
            (94, Level::Destructive),
            (95, Level::Blocked),
            (100, Level::Blocked),
            (1000, Level::Blocked),
        ] {
            assert_eq!(Level::of_score(score), level, "{score}");
        }
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.to_string());
        }
    }

    #[test]
    fn judgements_that_must_not_drift() {
        use Reason::{
            DataLoss, DiskSpace, DuplicatesFound, FullScanUnderLock, LockAccessExclusive,
            ReplicationImpact, TableRewrite, UnknownStatement,
        };
        assert_eq!(score(&[], &LARGE_AND_HOT), 0);
        assert_eq!(level(&[LockAccessExclusive], &LARGE_AND_HOT), Level::Low);
        assert_eq!(
            level(&[LockAccessExclusive, TableRewrite], &SMALL),
            Level::Low
        );
        assert_eq!(
            level(&[LockAccessExclusive, TableRewrite], &LARGE_AND_HOT),
            Level::High
        );
        assert_eq!(
            level(&[LockAccessExclusive, FullScanUnderLock], &LARGE_AND_HOT),
            Level::High
        );
        assert_eq!(
            level(
                &[LockAccessExclusive, DiskSpace, ReplicationImpact],
                &LARGE_AND_HOT
            ),
            Level::Medium
        );
        assert_eq!(level(&[DataLoss], &SMALL), Level::Destructive);
        assert_eq!(level(&[UnknownStatement], &SMALL), Level::High);
        assert_eq!(level(&[DuplicatesFound], &SMALL), Level::Blocked);
    }

    #[test]
    fn no_heap_of_reasons_reaches_a_class_that_none_of_them_has() {
        let mild: Vec<Reason> = Reason::ALL
            .iter()
            .copied()
            .filter(|r| weight(*r).0 < DESTRUCTIVE)
            .collect();
        assert_eq!(score(&mild, &LARGE_AND_HOT), DESTRUCTIVE - 1);
        let lossy: Vec<Reason> = Reason::ALL
            .iter()
            .copied()
            .filter(|r| weight(*r).0 < BLOCKED)
            .collect();
        assert_eq!(score(&lossy, &LARGE_AND_HOT), BLOCKED - 1);
        assert_eq!(score(Reason::ALL, &LARGE_AND_HOT), MAX_SCORE);
    }

    #[test]
    fn nonsense_facts_count_as_unknown() {
        let nonsense = Facts {
            rows: -1,
            bytes: i64::MIN,
            writes_per_second: f64::NAN,
        };
        assert_eq!(
            score(Reason::ALL, &nonsense),
            score(Reason::ALL, &Facts::default())
        );
    }

    fn facts() -> impl Strategy<Value = Facts> {
        (0i64..1 << 50, 0i64..1 << 50, 0.0..1e9).prop_map(|(rows, bytes, writes_per_second)| {
            Facts {
                rows,
                bytes,
                writes_per_second,
            }
        })
    }

    proptest! {
        #[test]
        fn a_reason_more_never_lowers(
            reasons in proptest::sample::subsequence(Reason::ALL, 0..=Reason::ALL.len()),
            more in proptest::sample::select(Reason::ALL),
            facts in facts(),
        ) {
            let before = score(&reasons, &facts);
            let after = score(&[reasons.clone(), vec![more]].concat(), &facts);
            prop_assert!((0..=MAX_SCORE).contains(&before));
            prop_assert!(after >= before);
            prop_assert!(after > before || reasons.contains(&more) || before >= DESTRUCTIVE - 1);
        }

        #[test]
        fn a_larger_or_busier_table_never_lowers(
            reasons in proptest::sample::subsequence(Reason::ALL, 0..=Reason::ALL.len()),
            (a, b) in (facts(), facts()),
        ) {
            let larger = Facts {
                rows: a.rows.max(b.rows),
                bytes: a.bytes.max(b.bytes),
                writes_per_second: a.writes_per_second.max(b.writes_per_second),
            };
            prop_assert!(score(&reasons, &larger) >= score(&reasons, &a));
        }
    }
}
