//! Which names an SQL text mentions, whatever they mean there: identifiers, and words inside of strings (a function's body, a
//! `'name'::regclass`). It finds too many rather than too few: what is not mentioned is not used.

use std::collections::HashMap;

use super::ident::MAX_IDENTIFIER_BYTES;

/// Names of a text, with what stood before their dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions(HashMap<String, Vec<Option<String>>>);

impl Mentions {
    pub fn of(text: &str) -> Mentions {
        let mut mentions = Mentions::default();
        mentions.read(text, 0);
        mentions
    }

    /// Whether the text mentions `name`, which is in `schema` where that is known.
    pub fn has(&self, schema: Option<&str>, name: &str) -> bool {
        self.0.get(name).is_some_and(|qualifiers| {
            qualifiers.iter().any(|q| match (q.as_deref(), schema) {
                (Some(q), Some(schema)) => q == schema,
                _ => true,
            })
        })
    }

    /// Every name, in no order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn add(&mut self, qualifier: Option<String>, name: String) {
        let qualifiers = self.0.entry(name).or_default();
        if !qualifiers.contains(&qualifier) {
            qualifiers.push(qualifier);
        }
    }

    fn read(&mut self, text: &str, depth: usize) {
        let mut rest = text;
        // The name before, and whether a dot followed it.
        let mut before: Option<(String, bool)> = None;
        while let Some(first) = rest.chars().next() {
            let taken;
            if let Some((name, length)) = identifier(rest) {
                let qualifier = before.take().and_then(|(name, dot)| dot.then_some(name));
                self.add(qualifier, name.clone());
                before = Some((name, false));
                taken = length;
            } else if let Some((inner, length)) = string(rest) {
                // Strings in strings in strings: no further.
                if depth < 4 {
                    self.read(&inner, depth + 1);
                }
                before = None;
                taken = length;
            } else {
                taken = first.len_utf8();
                if first == '.' {
                    before = before.map(|(name, _)| (name, true));
                } else if !first.is_whitespace() {
                    before = None;
                }
            }
            rest = &rest[taken..];
        }
    }
}

/// An identifier at the beginning of `text`, as the server reads it, and how many bytes it takes.
fn identifier(text: &str) -> Option<(String, usize)> {
    let first = text.chars().next()?;
    if first == '"' {
        let mut name = String::new();
        let mut chars = text.char_indices().skip(1).peekable();
        while let Some((i, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.peek().is_some_and(|(_, next)| *next == '"') {
                name.push('"');
                chars.next();
            } else {
                return Some((cut(name), i + 1));
            }
        }
        return None;
    }
    if !(first.is_alphabetic() || first == '_') {
        return None;
    }
    let length = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .unwrap_or(text.len());
    Some((cut(text[..length].to_ascii_lowercase()), length))
}

/// A string or dollar-quoted string at the beginning of `text`: its inside, and how many bytes it takes. A backslash is no escape
/// here: a string read to an end too early gives more names, not fewer.
fn string(text: &str) -> Option<(String, usize)> {
    if let Some(rest) = text.strip_prefix('\'') {
        let end = rest.find('\'')?;
        return Some((rest[..end].to_owned(), end + 2));
    }
    let tag_end = text.strip_prefix('$')?.find('$')? + 2;
    let tag = &text[..tag_end];
    if tag[1..tag_end - 1].contains(|c: char| !(c.is_alphanumeric() || c == '_')) {
        return None;
    }
    let end = text[tag_end..].find(tag)? + tag_end;
    Some((text[tag_end..end].to_owned(), end + tag_end))
}

/// As the server cuts what is too long.
fn cut(mut name: String) -> String {
    if name.len() > MAX_IDENTIFIER_BYTES {
        let mut end = MAX_IDENTIFIER_BYTES;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        let m =
            Mentions::of(r#"ALTER TABLE Sales."Order" ADD a int DEFAULT nextval('sales.no_seq')"#);
        assert!(m.has(Some("sales"), "Order"));
        assert!(!m.has(Some("other"), "Order"));
        assert!(m.has(None, "Order"));
        assert!(!m.has(None, "order"));
        assert!(m.has(Some("sales"), "no_seq"));
        assert!(
            m.has(Some("whatever"), "a"),
            "unqualified: may be anybody's"
        );
    }

    #[test]
    fn bodies_of_functions_and_quotes_in_quotes_are_read() {
        let m = Mentions::of("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $b$ SELECT count(*) FROM s.\"T\"\"x\" $b$");
        assert!(m.has(Some("s"), "T\"x"));
        let m = Mentions::of("DO $$ BEGIN EXECUTE 'DROP TABLE ' || 'gone'; END $$");
        assert!(m.has(None, "gone"));
    }

    #[test]
    fn long_names_are_cut() {
        let long = "n".repeat(70);
        assert!(Mentions::of(&format!("SELECT 1 FROM {long}")).has(None, &long[..63]));
    }

    proptest! {
        #[test]
        fn never_panics_and_finds_a_quoted_name(text in ".{0,60}", name in "[a-z]{1,10}") {
            let _ = Mentions::of(&text);
            let text = format!("x \"{name}\" {}", text.replace('"', ""));
            prop_assert!(Mentions::of(&text).has(None, &name));
        }
    }
}
