//! Comments that have the form of a directive.

use super::Span;
use crate::model::token::block_comment;

/// A comment of the form `-- key: value`.
pub struct Directive<'a> {
    /// Where its line starts, where it starts and where its line has ended.
    pub line: usize,
    pub start: usize,
    pub next: usize,
    pub key: &'a str,
    pub value: &'a str,
    /// Nothing but blanks stands before it in its line.
    pub alone: bool,
    /// The tokens before it.
    pub words: usize,
    /// A colon stands behind the key.
    pub colon: bool,
}

/// Comments between the tokens that have the form of a directive.
pub fn directives<'a>(text: &'a str, words: &[Span]) -> Vec<Directive<'a>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    for i in 0..=words.len() {
        let end = words.get(i).map_or(text.len(), |w| w.start);
        while at < end {
            if bytes[at..end].starts_with(b"/*") {
                at += block_comment(&bytes[at..end]);
            } else if bytes[at..end].starts_with(b"--") {
                let length = bytes[at..end]
                    .iter()
                    .take_while(|b| !matches!(b, b'\n' | b'\r'))
                    .count();
                found.extend(directive(text, at, at + length, i));
                at += length;
            } else {
                at += 1;
            }
        }
        at = words.get(i).map_or(end, |w| w.end);
    }
    found
}

fn directive(text: &str, start: usize, end: usize, words: usize) -> Option<Directive<'_>> {
    let blank = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
    let body = text[start + 2..end].trim_matches(blank);
    // Two words without it are a directive only to who means one.
    let (key, value, colon) = match body.split_once(':') {
        Some((key, value)) => (key, value, true),
        None => body
            .split_once(blank)
            .map(|(key, value)| (key, value, false))?,
    };
    let key = key.trim_matches(blank);
    let form = |c: char| c.is_ascii_alphabetic() || c == '-' || c == '_';
    if key.is_empty() || !key.chars().all(form) {
        return None;
    }
    let line = text[..start].rfind(['\n', '\r']).map_or(0, |i| i + 1);
    let rest = &text[end..];
    let next = end
        + if rest.starts_with("\r\n") {
            2
        } else {
            usize::from(!rest.is_empty())
        };
    Some(Directive {
        line,
        start,
        next,
        key,
        value: value.trim_matches(blank),
        alone: text[line..start].chars().all(blank),
        words,
        colon,
    })
}
