//! Which known name somebody probably meant.

/// The known name that is most like `given` where one is like it at all: at most a third of its letters differ, whatever the
/// case and the separators.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    within(3, given, known)
}

/// The same where there are few short words, and it must be one of them: at most half of its letters differ.
pub fn nearest_of_few<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    within(2, given, known)
}

fn within<'a>(
    part: usize,
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = letters(given);
    known
        .into_iter()
        .map(|known| (distance(&wanted, &letters(known)), known))
        .min()
        .filter(|(distance, known)| *distance * part <= known.len())
        .map(|(_, known)| known)
}

fn letters(name: &str) -> Vec<char> {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Levenshtein distance, by the two-row form of Wagner and Fischer's algorithm (1974).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = previous[j] + usize::from(x != y);
            current.push(replaced.min(previous[j + 1] + 1).min(current[j] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_like_it_is_found_and_nothing_else() {
        let known = ["accounts-bigint", "orders", "order_lines"];
        assert_eq!(nearest("account_bigint", known), Some("accounts-bigint"));
        assert_eq!(nearest("Orders", known), Some("orders"));
        assert_eq!(nearest("payments", known), None);
        assert_eq!(nearest("x", []), None);
        let few = ["up", "down"];
        assert_eq!(nearest_of_few("upp", few), Some("up"));
        assert_eq!(nearest_of_few("dwon", few), Some("down"));
        assert_eq!(nearest_of_few("sideways", few), None);
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            let d = |x: &str, y: &str| distance(&letters(x), &letters(y));
            prop_assert_eq!(d(&a, &b), d(&b, &a));
            prop_assert_eq!(d(&a, &b) == 0, a == b);
            prop_assert!(d(&a, &c) <= d(&a, &b) + d(&b, &c));
        }
    }
}
