//! Where the tokens of an SQL text are. Only what is needed to cut a statement at its commas: what a token means, and
//! whether a cut was right, is for the server's parser to say.

/// One token: its place in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Identifier, keyword, number, quoted identifier.
    Word,
    /// A string in any of its forms.
    Literal,
    /// A character of its own: punctuation, a part of an operator.
    Sign(u8),
}

/// The tokens of a text, without blanks and comments.
pub fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &bytes[at..];
        let kind = if rest[0].is_ascii_whitespace() {
            at += 1;
            continue;
        } else if rest.starts_with(b"--") {
            at += rest.iter().take_while(|b| **b != b'\n').count();
            continue;
        } else if rest.starts_with(b"/*") {
            at += block_comment(rest);
            continue;
        } else if rest[0] == b'\'' {
            at += quoted(rest, b'\'', false);
            Kind::Literal
        } else if rest[0] == b'"' {
            at += quoted(rest, b'"', false);
            Kind::Word
        } else if let Some(length) = dollar_quoted(rest) {
            at += length;
            Kind::Literal
        } else if is_word(rest[0]) {
            at += rest
                .iter()
                .take_while(|b| is_word(**b) || **b == b'$')
                .count();
            let escapes = at - start == 1 && rest[0].eq_ignore_ascii_case(&b'e');
            if escapes && bytes.get(at) == Some(&b'\'') {
                at += quoted(&bytes[at..], b'\'', true);
                Kind::Literal
            } else {
                Kind::Word
            }
        } else {
            at += 1;
            Kind::Sign(rest[0])
        };
        found.push(Token {
            start,
            end: at,
            kind,
        });
    }
    found
}

/// Letters, digits, and every byte of a character beyond ASCII, as the server's scanner has it.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Length of a quoted thing at the start of `text`; the quote is doubled inside, or escaped where that is meant.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < text.len() {
        if escapes && text[at] == b'\\' {
            at += 2;
        } else if text[at] != quote {
            at += 1;
        } else if text.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    text.len()
}

/// Length of a block comment, which nests.
pub fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at + 1 < text.len() {
        match &text[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Length of `$tag$ … $tag$` at the start of `text`; `None`: it is none.
fn dollar_quoted(text: &[u8]) -> Option<usize> {
    if text[0] != b'$' {
        return None;
    }
    let tag = 1 + text[1..].iter().take_while(|b| is_word(**b)).count();
    if text.get(tag) != Some(&b'$') || text[1].is_ascii_digit() {
        return None;
    }
    let delimiter = &text[..=tag];
    let body = &text[tag + 1..];
    let end = body
        .windows(delimiter.len())
        .position(|window| window == delimiter)?;
    Some(delimiter.len() + end + delimiter.len())
}

/// The parts of a text between commas that stand in no bracket, from `start` on: first and last byte of the tokens of each.
pub fn between_commas(text: &str, start: usize) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut depth = 0i32;
    let mut part: Option<(usize, usize)> = None;
    for token in tokens(text).into_iter().filter(|t| t.start >= start) {
        match token.kind {
            Kind::Sign(b',') if depth == 0 => {
                parts.push(part.take().unwrap_or((token.start, token.start)));
                continue;
            }
            Kind::Sign(b'(' | b'[') => depth += 1,
            Kind::Sign(b')' | b']') => depth -= 1,
            _ => {}
        }
        part = Some((part.map_or(token.start, |p| p.0), token.end));
    }
    parts.extend(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> Vec<&str> {
        between_commas(text, 0)
            .into_iter()
            .map(|(a, b)| &text[a..b])
            .collect()
    }

    #[test]
    fn commas_cut_where_no_bracket_string_or_comment_holds_them() {
        for (text, parts) in [
            ("a, b", vec!["a", "b"]),
            (
                "a (1, 2) , b[1, 2] -- c, d\n, e",
                vec!["a (1, 2)", "b[1, 2]", "e"],
            ),
            (
                "'a, ''b', \"c,\"\"d\", E'e\\', f', 'g\\'",
                vec!["'a, ''b'", "\"c,\"\"d\"", "E'e\\', f'", "'g\\'"],
            ),
            (
                "$$a, b$$, $x$ $$, $x$, c$d, 1$",
                vec!["$$a, b$$", "$x$ $$, $x$", "c$d", "1$"],
            ),
            ("/* a, /* b, */ c, */ d, e", vec!["d", "e"]),
            ("ä, é", vec!["ä", "é"]),
            ("a,, b", vec!["a", "", "b"]),
            ("", vec![]),
        ] {
            assert_eq!(cut(text), parts, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "\\PC*") {
            let mut at = 0;
            for token in tokens(&text) {
                prop_assert!(at <= token.start && token.start < token.end);
                prop_assert!(text.is_char_boundary(token.start) && text.is_char_boundary(token.end));
                at = token.end;
            }
            prop_assert!(at <= text.len());
        }

        #[test]
        fn pieces_without_commas_are_found_again(words in proptest::collection::vec("[a-z]{1,5}( \\([a-z],[a-z]\\))?( '[,x]*')?", 1..6)) {
            let joined = words.join(", ");
            prop_assert_eq!(cut(&joined), words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
