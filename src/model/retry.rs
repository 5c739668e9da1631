//! Which errors are worth another try, and how long to wait before it.

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// The lock was not to be had in time. Retried without limit within the step's deadline: nothing is wrong.
    LockTimeout,
    /// Something around the statement, not the statement: retried up to `max_retries`.
    Transient,
    /// The statement or the data: would fail again.
    Final,
}

/// The class of an SQLSTATE (five characters; anything else is final).
///
/// | SQLSTATE | why it is retried |
/// | --- | --- |
/// | 55P03 | lock_not_available: `lock_timeout` or NOWAIT |
/// | 40000, 40001, 40003, 40P01 | rolled back by the server because of others: serialization, deadlock; what had been committed is known from the committed position |
/// | class 08 | a connection broke, or could not be made |
/// | class 53 | disk, memory, connections or a configured limit is used up: often there again later |
/// | 25P03, 25P04, 57P05 | a timeout of the session or transaction, set by someone else |
/// | 55006 | object_in_use: another session uses the object, or has pending trigger events on it |
/// | 57014 | query_canceled: `statement_timeout` or `pg_cancel_backend` hit one batch; whoever wants the migration to stop calls `pause`, and a statement that is always too slow uses up its retries |
/// | 57P01, 57P02, 57P03 | the server stops, restarts or starts |
/// | 72000 | snapshot_too_old (up to PostgreSQL 16): a new snapshot helps |
///
/// 57P04 (database_dropped), 58030 (io_error) and class XX (internal, corruption) are final: a person must look; but see
/// `may_have_gone`.
pub fn classify(sqlstate: &str) -> RetryClass {
    if sqlstate.len() != 5 {
        return RetryClass::Final;
    }
    match sqlstate {
        "55P03" => RetryClass::LockTimeout,
        "40000" | "40001" | "40003" | "40P01" => RetryClass::Transient,
        "25P03" | "25P04" | "57P05" => RetryClass::Transient,
        "55006" | "57014" | "57P01" | "57P02" | "57P03" | "72000" => RetryClass::Transient,
        other if other.starts_with("08") || other.starts_with("53") => RetryClass::Transient,
        _ => RetryClass::Final,
    }
}

/// Whether the error is what the server says when something that was found a moment ago is gone when it is opened: "could not open
/// relation with OID", "cache lookup failed" (XX000), or a name that means nothing any more (42P01). Another try finds out.
pub fn may_have_gone(sqlstate: &str) -> bool {
    matches!(sqlstate, "XX000" | "42P01")
}

/// How long to wait before try number `attempt` + 1 (the first failure is attempt 0): a random share, `random01` in
/// [0, 1), of `base_ms` × 2^`attempt`, which is at most `cap_ms`. That is "full jitter" of Marc Brooker, "Exponential
/// Backoff And Jitter", AWS Architecture Blog, 2015: of the variants compared there it causes the least contention.
pub fn backoff_ms(attempt: u32, base_ms: u64, cap_ms: u64, random01: f64) -> u64 {
    let doubled = 1u64
        .checked_shl(attempt)
        .and_then(|factor| base_ms.checked_mul(factor))
        .unwrap_or(u64::MAX);
    let ceiling = if base_ms == 0 { 0 } else { doubled.min(cap_ms) };
    let share = if random01.is_nan() {
        1.0
    } else {
        random01.clamp(0.0, 1.0)
    };
    ((ceiling as f64 * share) as u64).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_are_classified_as_documented() {
        assert_eq!(classify("55P03"), RetryClass::LockTimeout);
        for transient in [
            "40001", "40P01", "08006", "08P01", "53100", "53200", "53300", "55006", "57014",
            "57P01", "57P03", "25P04",
        ] {
            assert_eq!(classify(transient), RetryClass::Transient, "{transient}");
        }
        for last in [
            "22P02", "23505", "40002", "42P01", "42501", "0A000", "57P04", "58030", "XX000",
            "XX001", "", "53", "531000",
        ] {
            assert_eq!(classify(last), RetryClass::Final, "{last}");
        }
        assert!(["XX000", "42P01"].into_iter().all(may_have_gone));
        assert!(!["XX001", "42703", "40001", ""]
            .into_iter()
            .any(may_have_gone));
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let longest: Vec<u64> = (0..6)
            .map(|attempt| backoff_ms(attempt, 100, 1000, 1.0))
            .collect();
        assert_eq!(longest, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff_ms(3, 100, 1000, 0.5), 400);
        assert_eq!(backoff_ms(3, 100, 1000, 0.0), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(backoff_ms(u32::MAX, u64::MAX, 5, f64::NAN), 5);
        assert_eq!(backoff_ms(70, 0, 1000, 1.0), 0);
        assert_eq!(backoff_ms(63, 3, 1000, 2.0), 1000);
    }

    proptest! {
        #[test]
        fn waits_stay_within_the_ceiling_and_grow_with_it(
            attempt in 0u32..100, base in 0u64..100_000, cap in 0u64..10_000_000, random in 0.0..1.0,
        ) {
            let wait = backoff_ms(attempt, base, cap, random);
            prop_assert!(wait <= cap);
            prop_assert!(wait <= backoff_ms(attempt + 1, base, cap, random));
        }

        #[test]
        fn any_text_has_a_class(text in "\\PC{0,6}") {
            let class = classify(&text);
            prop_assert!(text.len() == 5 || class == RetryClass::Final);
        }
    }
}
