//! The order of names as people count: file2 before file10.

use std::cmp::Ordering;

/// Numbers by their value, everything else by its characters; names that differ are never equal.
pub fn order(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        let (n, m) = (digits(x), digits(y));
        if n > 0 && m > 0 {
            let (i, j) = (
                x[..n].trim_start_matches('0'),
                y[..m].trim_start_matches('0'),
            );
            let by_value = i.len().cmp(&j.len()).then_with(|| i.cmp(j));
            if by_value.is_ne() {
                return by_value;
            }
            (x, y) = (&x[n..], &y[m..]);
            continue;
        }
        let (mut rest_x, mut rest_y) = (x.chars(), y.chars());
        match (rest_x.next(), rest_y.next()) {
            (None, None) => return a.cmp(b),
            (c, d) if c != d => return c.cmp(&d),
            _ => (x, y) = (rest_x.as_str(), rest_y.as_str()),
        }
    }
}

fn digits(text: &str) -> usize {
    text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_by_their_value() {
        let mut names = vec![
            "10_a",
            "9_a",
            "1_b",
            "01_a",
            "1_a",
            "b",
            "a10",
            "a9",
            "a",
            "é",
            "2024-01-02",
            "2024-1-1",
            "99999999999999999999999_a",
            "100000000000000000000000_a",
        ];
        names.sort_by(|a, b| order(a, b));
        assert_eq!(
            names,
            [
                "01_a",
                "1_a",
                "1_b",
                "9_a",
                "10_a",
                "2024-1-1",
                "2024-01-02",
                "99999999999999999999999_a",
                "100000000000000000000000_a",
                "a",
                "a9",
                "a10",
                "b",
                "é"
            ]
        );
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-2a_é]{0,6}", b in "[0-2a_é]{0,6}", c in "[0-2a_é]{0,6}") {
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            prop_assert_eq!(order(&a, &b).is_eq(), a == b);
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                prop_assert!(order(&a, &c).is_le());
            }
        }
    }
}
