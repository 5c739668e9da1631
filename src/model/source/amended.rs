//! The text of a migration whose script was amended.

/// The text with `up` in the place of `before`, the statements that it has in its section; blanks behind them stay. `None`: it
/// does not have them there.
pub fn amended(text: &str, before: &str, up: &str) -> Option<String> {
    let at = text
        .match_indices(before)
        .map(|(at, _)| at)
        .find(|at| begins_section(&text[..*at]))?;
    let end = at + before.len();
    let blanks = &before[before.trim_end().len()..];
    let separator = match text[end..].is_empty() || blanks.contains('\n') {
        true => "",
        false => "\n",
    };
    Some(format!(
        "{}{}{blanks}{separator}{}",
        &text[..at],
        up.trim_end(),
        &text[end..]
    ))
}

/// Whether what stands before is the line that begins the section.
fn begins_section(head: &str) -> bool {
    let line = head
        .strip_suffix('\n')
        .map(|head| head.strip_suffix('\r').unwrap_or(head))
        .or(head.strip_suffix('\r'))
        .and_then(|head| head.rsplit(['\n', '\r']).next())
        .unwrap_or_default();
    let marker = line
        .trim()
        .strip_prefix("--")
        .and_then(|c| c.split_once(':'));
    marker.is_some_and(|(key, value)| key.trim() == "migrate" && value.trim() == "up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_changes() {
        for (text, before, up, after) in [
            (
                "-- migrate: up\nA;\n\n-- migrate: down\nA;\n",
                "A;\n\n",
                "B",
                Some("-- migrate: up\nB\n\n-- migrate: down\nA;\n"),
            ),
            (
                "-- A\n-- migrate: up\r\nA\r\n",
                "A\r\n",
                "B\n\n",
                Some("-- A\n-- migrate: up\r\nB\r\n"),
            ),
            ("-- migrate: up\nA", "A", "B\n", Some("-- migrate: up\nB")),
            ("-- migrate: up\nA", "C", "B", None),
            ("-- migrate: down\nA", "A", "B", None),
            ("A", "A", "B", None),
        ] {
            assert_eq!(amended(text, before, up).as_deref(), after, "{text}");
        }
    }
}
