//! How fast a server does each kind of work: measured where it has done it before, else what was measured elsewhere.

use std::collections::HashMap;

/// Rows a second where this server has not measured any (docs/benchmarks.md, two cores, cold cache).
const DEFAULTS: [(&str, f64); 6] = [
    ("rewrite_copy", 400_000.0),
    ("rewrite_index", 1_000_000.0),
    ("rewrite_check", 1_500_000.0),
    ("update", 150_000.0),
    ("data", 150_000.0),
    ("batch", 120_000.0),
];
/// For kinds that are not in the list: between a scan and an update.
const DEFAULT: f64 = 500_000.0;
/// Steps over fewer rows say more of the overhead than of the rate.
pub const LEAST_ROWS: i64 = 10_000;

/// Rows a second by kind of step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates(HashMap<String, f64>);

impl Rates {
    /// From measured (kind, rows, seconds); what cannot be a rate is left out.
    pub fn measured(rates: impl IntoIterator<Item = (String, f64, f64)>) -> Rates {
        let rates = rates.into_iter().filter_map(|(kind, rows, seconds)| {
            let rate = rows / seconds;
            (rate.is_finite() && rate > 0.0).then_some((kind, rate))
        });
        Rates(rates.collect())
    }

    pub fn rows_per_second(&self, kind: &str) -> f64 {
        self.0.get(kind).copied().unwrap_or_else(|| {
            DEFAULTS
                .iter()
                .find(|(known, _)| *known == kind)
                .map_or(DEFAULT, |(_, rate)| *rate)
        })
    }

    /// How long `rows` rows take.
    pub fn seconds(&self, kind: &str, rows: i64) -> f64 {
        rows.max(0) as f64 / self.rows_per_second(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_measured_here_wins() {
        let rates = Rates::measured([
            ("rewrite_copy".to_string(), 1000.0, 2.0),
            ("update".to_string(), 1.0, 0.0),
            ("x".to_string(), f64::NAN, 1.0),
        ]);
        assert_eq!(rates.rows_per_second("rewrite_copy"), 500.0);
        assert_eq!(rates.rows_per_second("update"), 150_000.0);
        assert_eq!(rates.rows_per_second("x"), DEFAULT);
        assert_eq!(rates.seconds("rewrite_copy", 1000), 2.0);
        assert_eq!(rates.seconds("rewrite_copy", -5), 0.0);
    }

    proptest! {
        #[test]
        fn more_rows_take_no_less_time(a in 0i64..1 << 40, b in 0i64..1 << 40, rows in 1.0..1e12, seconds in 1e-3..1e9) {
            let rates = Rates::measured([("k".to_string(), rows, seconds)]);
            prop_assert!(rates.seconds("k", a.max(b)) >= rates.seconds("k", a));
            prop_assert!(rates.seconds("k", a).is_finite());
        }
    }
}
