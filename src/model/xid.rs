//! Numbers of transactions, which the server cuts to 32 bits in rows and snapshots.

/// Below it are numbers that stand for no transaction: frozen, bootstrap, none.
const FIRST_NORMAL: u32 = 3;

/// The whole number of a transaction of the last two thousand million, where `next` is the whole number of the one that comes
/// next; 0 for one that is frozen.
pub fn full(next: u64, xid: u32) -> u64 {
    match xid < FIRST_NORMAL {
        true => 0,
        false => next.saturating_sub(u64::from((next as u32).wrapping_sub(xid))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_from_before_the_wrap_belongs_to_the_epoch_before() {
        let next = (7 << 32) + 5;
        assert_eq!(full(next, 4), next - 1);
        assert_eq!(full(next, u32::MAX), (7 << 32) - 1);
        assert_eq!(full(next, 5), next);
    }

    #[test]
    fn frozen_is_older_than_everything() {
        for xid in 0..FIRST_NORMAL {
            assert_eq!(full((7 << 32) + 5, xid), 0);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_epoch_the_number_comes_back(next in (1u64 << 33)..(1 << 62), age in 0u64..(1 << 31)) {
            let xid = next - age;
            prop_assume!(xid as u32 >= FIRST_NORMAL);
            prop_assert_eq!(full(next, xid as u32), xid);
        }
    }
}
