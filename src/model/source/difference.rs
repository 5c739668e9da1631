//! Where two texts differ first.

use super::normalised;
use crate::model::place::Place;

/// The most characters of a line that are shown.
const MAX_SHOWN: usize = 60;

/// The first difference of a text from the one that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In the text that was found.
    pub place: Place,
    /// What was there and what is there, for people.
    pub what: String,
}

/// Line ends and a byte order mark make no difference. `None`: there is none.
pub fn difference(known: &str, found: &str) -> Option<Difference> {
    let (known, found) = (normalised(known), normalised(found));
    let same = known
        .chars()
        .zip(found.chars())
        .take_while(|(a, b)| a == b)
        .count();
    let before: usize = found.chars().take(same).map(char::len_utf8).sum();
    if before == known.len() && before == found.len() {
        return None;
    }
    let begin = found[..before].rfind('\n').map_or(0, |at| at + 1);
    let place = Place::of(&found, same);
    Some(Difference {
        what: format!(
            "{} became {}",
            line(&known, begin, place.column),
            line(&found, begin, place.column)
        ),
        place,
    })
}

/// The line that begins there, around a column of it.
fn line(text: &str, begin: usize, column: usize) -> String {
    if begin >= text.len() {
        return "the end of the text".into();
    }
    let line: Vec<char> = text[begin..].chars().take_while(|c| *c != '\n').collect();
    let from = match line.len() > MAX_SHOWN {
        true => column
            .saturating_sub(1 + MAX_SHOWN / 2)
            .min(line.len() - MAX_SHOWN),
        false => 0,
    };
    let shown: String = line.iter().skip(from).take(MAX_SHOWN).collect();
    let (left, right) = (from > 0, from + MAX_SHOWN < line.len());
    format!(
        "\"{}{}{}\"",
        if left { "…" } else { "" },
        shown,
        if right { "…" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_difference_is_shown() {
        let long = "x".repeat(100);
        for (known, found, shown) in [
            ("a", "b", "line 1, column 1: \"a\" became \"b\""),
            (
                "a\nbc\nd",
                "a\r\nbd\nd",
                "line 2, column 2: \"bc\" became \"bd\"",
            ),
            (
                "a\n",
                "a\nb\n",
                "line 2, column 1: the end of the text became \"b\"",
            ),
            (
                "a\nb\n",
                "a\n",
                "line 2, column 1: \"b\" became the end of the text",
            ),
            ("a\n\nb", "a\nb", "line 2, column 1: \"\" became \"b\""),
            (
                "a",
                "",
                "line 1, column 1: \"a\" became the end of the text",
            ),
            ("ü1", "ü2", "line 1, column 2: \"ü1\" became \"ü2\""),
        ] {
            let found = difference(known, found).unwrap();
            assert_eq!(format!("{}: {}", found.place, found.what), shown);
        }
        assert_eq!(difference("\u{feff}a\r\nb", "a\nb"), None);
        let cut = difference(&format!("{long}1{long}"), &format!("{long}2{long}")).unwrap();
        let half = "x".repeat(30);
        assert_eq!(
            cut.what,
            format!(
                "\"…{half}1{}…\" became \"…{half}2{}…\"",
                &half[1..],
                &half[1..]
            )
        );
    }

    proptest! {
        #[test]
        fn only_equal_texts_do_not_differ(a in "[ab\\r\\né]{0,8}", b in "[ab\\r\\né]{0,8}") {
            prop_assert_eq!(difference(&a, &b).is_none(), normalised(&a) == normalised(&b));
        }
    }
}
