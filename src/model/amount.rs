//! A number with its noun, as people write it.

/// `1 row`, `2 rows`.
pub fn count(number: i64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `1 row refers`, `2 rows refer`: the same, and a verb.
pub fn count_that(number: i64, noun: &str, verb: &str) -> String {
    let singular = if number == 1 { "s" } else { "" };
    format!("{} {verb}{singular}", count(number, noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let rows: Vec<String> = (0..3).map(|n| count(n, "row")).collect();
        assert_eq!(rows, ["0 rows", "1 row", "2 rows"]);
        let refer: Vec<String> = (0..3).map(|n| count_that(n, "row", "refer")).collect();
        assert_eq!(refer, ["0 rows refer", "1 row refers", "2 rows refer"]);
    }
}
