//! Semantic versions (semver.org): of releases, and of what a migration starts from and leads to.

use std::cmp::Ordering;

pub use semver::Version;

/// For whoever gave something else.
pub const HINT: &str = "Give MAJOR.MINOR.PATCH, for example 1.4.0 or 2.0.0-rc.1.";

/// A text that is no semantic version, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAVersion {
    pub why: String,
}

/// Reads a version: exactly three numbers, no `v` in front.
pub fn parse(text: &str) -> Result<Version, NotAVersion> {
    Version::parse(text).map_err(|error| NotAVersion {
        why: error.to_string(),
    })
}

/// The order of releases: build metadata (`+…`) says nothing about it.
pub fn order(one: &Version, other: &Version) -> Ordering {
    one.cmp_precedence(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(text: &str) -> Version {
        parse(text).unwrap()
    }

    #[test]
    fn versions_have_three_numbers() {
        for text in [
            "",
            " ",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            " 1.0.0",
            "1.0.0 ",
            "01.0.0",
            "1.0.-1",
            "1.0.0-",
            "1.0.0+",
            "1.0.0-01",
            "99999999999999999999.0.0",
            "1.0.0-ü",
            "1.x.0",
            "1.0.0\n",
        ] {
            assert!(!parse(text).unwrap_err().why.is_empty(), "{text:?}");
        }
        assert!(parse("1.0").unwrap_err().why.contains("unexpected end"));
    }

    #[test]
    fn the_order_is_that_of_the_specification() {
        let rising = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.10",
            "1.2.0",
            "10.0.0",
        ];
        for pair in rising.windows(2) {
            assert_eq!(order(&v(pair[0]), &v(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(order(&v("1.0.0+a"), &v("1.0.0+b")), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(a: u64, b: u64, c: u64, pre in "(-[a-z]{1,5}(\\.[1-9][0-9]{0,3})?)?") {
            let text = format!("{a}.{b}.{c}{pre}");
            prop_assert_eq!(v(&text).to_string(), text);
        }

        #[test]
        fn never_panics(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
