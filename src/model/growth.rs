//! How many dead rows batches may leave in a table: readings in, decision out.

/// A vacuum that did not help is not tried again before.
const AGAIN_MS: f64 = 5_000.0;
/// And one that somebody's lock kept from the table (autovacuum's, when it analyzes) is tried soon, as is one that snapshots which are
/// gone kept from the rows.
const SOON_MS: f64 = 200.0;
/// In smaller tables dead rows are not worth a vacuum: 8 MB.
pub const MIN_BYTES: i64 = 8 << 20;

/// What the statistics say of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rows {
    pub live: f64,
    pub dead: f64,
}

/// The last vacuum that was begun for this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vacuumed {
    /// Dead rows that were there afterwards.
    pub left: f64,
    pub age_ms: f64,
    /// It did not get at the table.
    pub skipped: bool,
    /// Whoever could still see what was left then has gone.
    pub is_unseen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next batch may begin.
    Go,
    /// A vacuum first.
    Vacuum,
    /// It waits: vacuum cannot remove the dead rows now, or nobody here can run it.
    Wait,
}

impl Rows {
    /// Dead rows as a share of the live ones.
    pub fn dead_share(&self) -> f64 {
        self.dead.max(0.0) / self.live.max(1.0)
    }
}

/// Vacuum begins at half of the budget, a share of the live rows: what it frees is filled again before the file has to
/// grow by the other half. From there on no batch begins that may go over the budget, where `ahead` is how many rows are
/// changed until somebody looks again.
pub fn verdict(
    rows: Rows,
    ahead: f64,
    budget: f64,
    last: Option<Vacuumed>,
    can_vacuum: bool,
) -> Verdict {
    let live = rows.live.max(1.0);
    let half = live * budget / 2.0;
    let again = |last: Vacuumed| match last.skipped {
        true => last.age_ms >= SOON_MS,
        false => {
            let pause = if last.is_unseen { SOON_MS } else { AGAIN_MS };
            rows.dead - last.left > half || last.age_ms >= pause
        }
    };
    let due = rows.dead > half && last.is_none_or(again);
    if due && can_vacuum {
        Verdict::Vacuum
    } else if rows.dead > half && rows.dead + ahead.max(0.0) > live * budget {
        Verdict::Wait
    } else {
        Verdict::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn rows(dead: f64) -> Rows {
        Rows { live: 1000.0, dead }
    }

    #[test]
    fn vacuum_comes_at_half_of_the_budget_and_batches_wait_that_may_go_over_it() {
        let of = |dead, ahead, last, can| verdict(rows(dead), ahead, 0.3, last, can);
        assert_eq!(of(150.0, 10.0, None, true), Verdict::Go);
        assert_eq!(of(151.0, 10.0, None, true), Verdict::Vacuum);
        assert_eq!(of(151.0, 10.0, None, false), Verdict::Go);
        assert_eq!(of(291.0, 10.0, None, false), Verdict::Wait);
        assert_eq!(of(301.0, 0.0, None, false), Verdict::Wait);
        // A batch that is larger than half of it begins all the same where there is nothing to remove.
        assert_eq!(of(150.0, 1000.0, None, true), Verdict::Go);
        let vacuumed = |left, age_ms, skipped| {
            Some(Vacuumed {
                left,
                age_ms,
                skipped,
                is_unseen: false,
            })
        };
        let in_vain = vacuumed(301.0, 100.0, false);
        assert_eq!(of(301.0, 0.0, in_vain, true), Verdict::Wait);
        let unseen = |age_ms| {
            Some(Vacuumed {
                is_unseen: true,
                ..vacuumed(301.0, age_ms, false).expect("one")
            })
        };
        assert_eq!(of(301.0, 0.0, unseen(SOON_MS / 2.0), true), Verdict::Wait);
        assert_eq!(of(301.0, 0.0, unseen(SOON_MS), true), Verdict::Vacuum);
        let long_ago = vacuumed(301.0, AGAIN_MS, false);
        assert_eq!(of(301.0, 0.0, long_ago, true), Verdict::Vacuum);
        let helped = vacuumed(0.0, 100.0, false);
        assert_eq!(of(151.0, 10.0, helped, true), Verdict::Vacuum);
        let skipped = vacuumed(151.0, SOON_MS / 2.0, true);
        assert_eq!(of(160.0, 10.0, skipped, true), Verdict::Go);
        assert_eq!(of(295.0, 10.0, skipped, true), Verdict::Wait);
        let skipped = vacuumed(151.0, SOON_MS, true);
        assert_eq!(of(160.0, 10.0, skipped, true), Verdict::Vacuum);
    }

    proptest! {
        /// Batches of any size, with vacuums that leave any share behind or are skipped: never more dead than the budget.
        #[test]
        fn nothing_goes_over_the_budget(
            live in 1.0..1e9f64, budget in 0.01..10.0f64,
            batches in proptest::collection::vec((0.0..0.5f64, 0.0..1.0f64, any::<bool>()), 1..100),
        ) {
            let (mut dead, mut last) = (0.0, None::<Vacuumed>);
            for (batch, leaves, skipped) in batches {
                last = last.map(|l| Vacuumed { age_ms: l.age_ms + 1000.0, ..l });
                let ahead = live * budget * batch;
                match verdict(Rows { live, dead }, ahead, budget, last, true) {
                    Verdict::Go => {
                        dead += ahead;
                        prop_assert!(dead <= live * budget * 1.000_001);
                    }
                    Verdict::Vacuum => {
                        prop_assert!(dead > live * budget / 2.0);
                        if !skipped {
                            dead *= leaves;
                        }
                        last = Some(Vacuumed { left: dead, age_ms: 0.0, skipped, is_unseen: false });
                    }
                    Verdict::Wait => prop_assert!(last.is_some_and(|l| l.age_ms < AGAIN_MS)),
                }
            }
        }

        /// It never waits for ever where vacuum helps: at most five seconds after the obstacle is gone.
        #[test]
        fn it_recovers(live in 1.0..1e9f64, budget in 0.01..10.0f64, left in 1.0..3.0f64, ahead in 0.0..1e9f64) {
            let dead = live * budget * left * 1.01;
            let last = Some(Vacuumed { left: dead, age_ms: AGAIN_MS, skipped: false, is_unseen: false });
            prop_assert_eq!(verdict(Rows { live, dead }, ahead, budget, last, true), Verdict::Vacuum);
            let helped = Some(Vacuumed { left: 0.0, age_ms: 0.0, skipped: false, is_unseen: false });
            prop_assert_eq!(verdict(Rows { live, dead: 0.0 }, ahead, budget, helped, true), Verdict::Go);
        }
    }
}
