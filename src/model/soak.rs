//! Soaks: times that must go by, kept as absolute deadlines so that a changed setting does not move a running one.
//!
//! All values are microseconds (times since the Unix epoch, UTC). `high_water` is the greatest time in the audit trail: what
//! the server's clock is known to have reached. A clock behind it has jumped back. That never shortens a soak: one that
//! starts then is counted from the high water, or its end would come early once the clock is right again; one that runs
//! then goes on until the clock has passed both its deadline and the high water. So a clock set back only makes the wait
//! longer; where that is not wanted (a clock that ran years ahead for a moment) a person calls `skip_soak`.

/// The time to count from: the clock, or the high water where the clock is behind it.
pub fn anchor(now: i64, high_water: i64) -> i64 {
    now.max(high_water)
}

/// End of a soak of `soak_us` (a negative one counts as none) that starts at `now`: give it [`anchor`]'s result.
pub fn deadline(now: i64, soak_us: i64) -> i64 {
    now.saturating_add(soak_us.max(0))
}

/// How long the soak still takes; 0 when it is over.
pub fn remaining(deadline: i64, now: i64, high_water: i64) -> i64 {
    deadline.max(high_water).saturating_sub(now).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn a_soak_ends_at_its_deadline() {
        let end = deadline(10 * HOUR, 4 * HOUR);
        assert_eq!(remaining(end, 10 * HOUR, 10 * HOUR), 4 * HOUR);
        assert_eq!(remaining(end, 14 * HOUR - 1, 11 * HOUR), 1);
        assert_eq!(remaining(end, 14 * HOUR, 11 * HOUR), 0);
        assert_eq!(remaining(end, 20 * HOUR, 11 * HOUR), 0);
    }

    #[test]
    fn a_soak_started_under_a_clock_set_back_is_not_short_when_the_clock_is_right_again() {
        let (right, back) = (10 * HOUR, 9 * HOUR);
        let end = deadline(anchor(back, right), 4 * HOUR);
        assert_eq!(end, 14 * HOUR);
    }

    #[test]
    fn a_clock_set_back_after_the_deadline_has_to_catch_up() {
        assert_eq!(remaining(14 * HOUR, 13 * HOUR, 15 * HOUR), 2 * HOUR);
        assert_eq!(remaining(14 * HOUR, 15 * HOUR, 15 * HOUR), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(deadline(i64::MAX, i64::MAX), i64::MAX);
        assert_eq!(deadline(5, -7), 5);
        assert_eq!(remaining(i64::MAX, i64::MIN, 0), i64::MAX);
        assert_eq!(remaining(i64::MIN, i64::MAX, i64::MIN), 0);
    }

    proptest! {
        #[test]
        fn an_earlier_clock_never_shortens(deadline: i64, a: i64, b: i64, high_water: i64) {
            prop_assert!(remaining(deadline, a.min(b), high_water) >= remaining(deadline, a.max(b), high_water));
        }

        #[test]
        fn a_higher_water_never_shortens(now: i64, soak: i64, deadline_at: i64, a: i64, b: i64) {
            prop_assert!(remaining(deadline_at, now, a.max(b)) >= remaining(deadline_at, now, a.min(b)));
            prop_assert!(deadline(anchor(now, a.max(b)), soak) >= deadline(anchor(now, a.min(b)), soak));
        }
    }
}
