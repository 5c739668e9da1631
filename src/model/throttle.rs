//! How large the next batch of the copy is, and how long the copy rests between batches.

/// Under this the clock is too coarse to say more than "fast".
const MIN_ELAPSED_MS: f64 = 0.001;
/// Lowest share of time that [`pause_ms`] accepts; less would be a stop, and stopping is `pause`.
const MIN_DUTY: f64 = 0.01;
/// A batch grows and shrinks by no more than this factor at a time …
const STEP: f64 = 2.0;
/// … but shrinks by up to this one when it took longer than this many times the target.
const EMERGENCY: f64 = 4.0;

/// Sizes batches to a time: blocks of the heap in, blocks of the heap out.
///
/// The next size is the one that would have met the target at the cost just seen. Where the cost of a block is constant
/// that is exact after the doubling is through; where a batch has a cost of its own it approaches the target from one
/// side. The step limit keeps one slow batch (a checkpoint, a lock wait) from shrinking the copy to nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSizer {
    /// How long a batch should take.
    pub target_ms: f64,
    /// Smallest batch; 0 counts as 1.
    pub min_blocks: u32,
    /// Largest batch; less than `min_blocks` counts as `min_blocks`.
    pub max_blocks: u32,
}

impl BatchSizer {
    /// Size of the next batch after one of `blocks` that took `elapsed_ms`. A time that cannot be (negative, NaN) counts
    /// as very short.
    pub fn next(&self, blocks: u32, elapsed_ms: f64) -> u32 {
        let min = self.min_blocks.max(1);
        let max = self.max_blocks.max(min);
        let elapsed = elapsed_ms.max(MIN_ELAPSED_MS);
        let shrink = if elapsed > EMERGENCY * self.target_ms {
            EMERGENCY
        } else {
            STEP
        };
        let factor = (self.target_ms / elapsed).clamp(1.0 / shrink, STEP);
        let wanted = (f64::from(blocks.clamp(min, max)) * factor).round();
        // A cast from f64 saturates, so an oversized product is the maximum.
        (wanted as u32).clamp(min, max)
    }
}

impl BatchSizer {
    /// As `next`, knowing the batch before, `last`, blocks and milliseconds. Where most of the time does not depend on
    /// the size – a statement that reads another table anew for each batch – a smaller batch would only pay it more often:
    /// then the size goes up until the rows cost as much as that, so that the whole takes at most twice the shortest time.
    pub fn next_after(&self, last: Option<(u32, f64)>, blocks: u32, elapsed_ms: f64) -> u32 {
        let by_target = self.next(blocks, elapsed_ms);
        let Some((last_blocks, last_ms)) = last else {
            return by_target;
        };
        if !(last_ms.is_finite() && elapsed_ms.is_finite()) {
            return by_target;
        }
        if last_blocks == blocks {
            // Two of one size say nothing of what it costs: a little smaller, or larger where that cannot be, and the
            // next one will.
            let (min, step) = (self.min_blocks.max(1), (blocks / 8).max(1));
            let other = match blocks.saturating_sub(step) {
                smaller if smaller >= min => smaller,
                _ => blocks.saturating_add(step),
            };
            return by_target.max(other.clamp(min, self.max_blocks.max(min)));
        }
        let slope = (elapsed_ms - last_ms) / (f64::from(blocks) - f64::from(last_blocks));
        let each = slope.max(0.0);
        let fixed = elapsed_ms - each * f64::from(blocks);
        if fixed <= self.target_ms / 2.0 {
            return by_target;
        }
        let min = self.min_blocks.max(1);
        let max = self.max_blocks.max(min);
        let wanted = if each > 0.0 {
            fixed / each
        } else {
            f64::INFINITY
        };
        let now = f64::from(blocks.clamp(min, max));
        let larger = wanted.clamp(now / STEP, now * STEP).round() as u32;
        larger.max(by_target).clamp(min, max)
    }
}

/// How long to rest after `busy_ms` of work so that the copy works only the share `duty` of the time (0 < duty ≤ 1; less
/// than 0.01 counts as 0.01, more than 1 as 1), rounded up to a millisecond.
pub fn pause_ms(busy_ms: f64, duty: f64) -> u64 {
    let duty = if duty.is_nan() {
        1.0
    } else {
        duty.clamp(MIN_DUTY, 1.0)
    };
    let pause = busy_ms.max(0.0) * (1.0 - duty) / duty;
    pause.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZER: BatchSizer = BatchSizer {
        target_ms: 100.0,
        min_blocks: 8,
        max_blocks: 100_000,
    };

    #[test]
    fn batches_move_towards_the_target_in_limited_steps() {
        assert_eq!(SIZER.next(100, 100.0), 100);
        assert_eq!(SIZER.next(100, 80.0), 125);
        assert_eq!(SIZER.next(100, 1.0), 200);
        assert_eq!(SIZER.next(100, 125.0), 80);
        assert_eq!(SIZER.next(100, 399.0), 50);
        assert_eq!(SIZER.next(100, 401.0), 25);
        assert_eq!(SIZER.next(100, 1e9), 25);
        assert_eq!(SIZER.next(10, 1e9), 8);
        assert_eq!(SIZER.next(80_000, 1.0), 100_000);
    }

    #[test]
    fn odd_inputs_have_a_meaning() {
        assert_eq!(SIZER.next(0, 100.0), 8);
        assert_eq!(SIZER.next(100, -1.0), 200);
        assert_eq!(SIZER.next(100, f64::NAN), 200);
        assert_eq!(SIZER.next(100, f64::INFINITY), 25);
        let crossed = BatchSizer {
            target_ms: 10.0,
            min_blocks: 0,
            max_blocks: 0,
        };
        assert_eq!(crossed.next(u32::MAX, 1.0), 1);
    }

    #[test]
    fn rests_give_the_duty_asked_for() {
        assert_eq!(pause_ms(100.0, 1.0), 0);
        assert_eq!(pause_ms(100.0, 0.5), 100);
        assert_eq!(pause_ms(100.0, 0.25), 300);
        assert_eq!(pause_ms(1.0, 0.0), 99);
        assert_eq!(pause_ms(-5.0, 0.5), 0);
        assert_eq!(pause_ms(100.0, f64::NAN), 0);
    }

    /// The sizes of 40 batches whose blocks cost `cost_ms`, each batch `overhead_ms` more, times noise.
    fn run(
        sizer: &BatchSizer,
        start: u32,
        cost_ms: f64,
        overhead_ms: f64,
        noise: &[f64],
    ) -> Vec<u32> {
        let mut blocks = start;
        (0..40)
            .map(|i| {
                let elapsed = (overhead_ms + f64::from(blocks) * cost_ms) * noise[i % noise.len()];
                blocks = sizer.next(blocks, elapsed);
                blocks
            })
            .collect()
    }

    proptest! {
        #[test]
        fn batches_stay_in_bounds(
            target in 0.1..10_000.0, min in 0u32..1000, max in 0u32..1_000_000, blocks: u32, elapsed: f64,
        ) {
            let next = BatchSizer { target_ms: target, min_blocks: min, max_blocks: max }.next(blocks, elapsed);
            prop_assert!(next >= min.max(1) && next <= max.max(min).max(1));
        }

        #[test]
        fn a_constant_cost_converges_and_stays(start in 8u32..100_000, cost in 0.002f64..5.0) {
            let ideal = (SIZER.target_ms / cost).clamp(8.0, 100_000.0);
            for blocks in &run(&SIZER, start, cost, 0.0, &[1.0])[20..] {
                prop_assert!((f64::from(*blocks) - ideal).abs() <= 1.0, "{blocks} for {ideal}");
            }
        }

        #[test]
        fn a_cost_per_batch_converges_too(start in 8u32..100_000, cost in 0.01f64..1.0, overhead in 0.0f64..50.0) {
            let ideal = ((SIZER.target_ms - overhead) / cost).clamp(8.0, 100_000.0);
            for blocks in &run(&SIZER, start, cost, overhead, &[1.0])[30..] {
                prop_assert!((f64::from(*blocks) / ideal - 1.0).abs() <= 0.25, "{blocks} for {ideal}");
            }
        }

        #[test]
        fn noise_is_not_amplified(
            start in 8u32..100_000, cost in 0.01..1.0, noise in proptest::collection::vec(0.81..1.3, 1..40),
        ) {
            let ideal = SIZER.target_ms / cost;
            for blocks in &run(&SIZER, start, cost, 0.0, &noise)[20..] {
                prop_assert!((f64::from(*blocks) / ideal - 1.0).abs() <= 0.25, "{blocks} for {ideal}");
            }
        }

        #[test]
        fn the_duty_is_kept(busy in 1.0..10_000.0, duty in 0.01..1.0) {
            let share = busy / (busy + pause_ms(busy, duty) as f64);
            prop_assert!(share <= duty + 1e-9 && share >= busy / (busy / duty + 1.0) - 1e-9);
        }
    }

    /// Batches until the size settles, at a cost of `fixed` and `each` a block.
    fn settle(fixed: f64, each: f64) -> (u32, f64) {
        let cost = |blocks: u32| fixed + each * f64::from(blocks);
        let (mut last, mut blocks) = (None, 8);
        for _ in 0..64 {
            let elapsed = cost(blocks);
            let next = SIZER.next_after(last, blocks, elapsed);
            last = Some((blocks, elapsed));
            blocks = next;
        }
        (blocks, cost(blocks))
    }

    #[test]
    fn a_cost_that_no_batch_size_changes_is_paid_less_often() {
        // A second for another table, 0.1 ms a block: at least half the time goes into rows.
        let (blocks, elapsed) = settle(1000.0, 0.1);
        assert!(blocks >= 5_000, "{blocks}");
        assert!(elapsed <= 4_000.0, "{elapsed}");
        // Without such a cost it is the target that counts.
        let (blocks, _) = settle(0.0, 1.0);
        assert_eq!(blocks, 100);
        let (_, elapsed) = settle(20.0, 1.0);
        assert!((90.0..=110.0).contains(&elapsed), "{elapsed}");
    }

    proptest! {
        #[test]
        fn the_size_stays_within_its_bounds_and_steps(
            last in proptest::option::of((any::<u32>(), any::<f64>())), blocks in any::<u32>(), elapsed in any::<f64>(),
        ) {
            let next = SIZER.next_after(last, blocks, elapsed);
            prop_assert!((8..=100_000).contains(&next));
            let now = blocks.clamp(8, 100_000);
            prop_assert!(f64::from(next) <= f64::from(now) * STEP + 1.0);
            prop_assert!(f64::from(next) >= f64::from(now) / EMERGENCY - 1.0);
        }
    }
}
