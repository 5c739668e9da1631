//! A migration whose two directions are files of their own. Their comments are theirs: but for `-- migrate: no-transaction`
//! nothing in them is a directive.

use super::comments::directives;
use super::piece::finish;
use super::text::Pair;
use super::{fault, Draft, Fault, Piece, Section, Span, NO_TRANSACTION, SECTIONS};

/// Reads the text that the files were put into, of which `words` are the tokens.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse_pair(text: &str, words: &[Span], pair: &Pair) -> Result<Piece, Fault> {
    let mut draft = Draft {
        name: Some(&pair.id),
        ..Draft::default()
    };
    for (kind, span) in [("up", Some(pair.up)), ("down", pair.down)] {
        let Some(span) = span else { continue };
        draft.sections.push(Section { kind, span });
        for d in directives(text, words) {
            let inside = d.start >= span.start && d.start < span.end;
            if !inside || !d.alone || !d.colon || d.key != "migrate" {
                continue;
            }
            if SECTIONS.contains(&d.value) {
                return Err(fault(
                    text,
                    d.start,
                    "the file has the name of one shape and the text of another",
                    format!("Its name says what it is, and it has \"-- migrate: {}\".", d.value),
                    "Give the file another name, without up or down, V or U; or take the comment out.",
                ));
            }
            if d.value == NO_TRANSACTION {
                let begun = words[..d.words].iter().any(|w| w.start >= span.start);
                if kind == "down" || begun {
                    return Err(fault(
                        text,
                        d.start,
                        "a directive stands in the middle of a section",
                        "\"-- migrate: no-transaction\" is about the whole migration.".into(),
                        "Put it before the first statement of the way there.",
                    ));
                }
                draft.no_transaction = true;
            }
        }
    }
    finish(text, words, &mut draft, text.len())
}

#[cfg(test)]
mod tests {
    use super::super::{Files, Text};
    use super::*;
    use crate::model::token;

    fn read(up: &str, down: Option<&str>) -> Result<Piece, String> {
        let files = Files {
            id: None,
            up: "U".into(),
            down: down.map(|_| "D".into()),
        };
        let text = Text::of_pair("1_a", &files, up, down);
        let words: Vec<Span> = token::tokens(&text.text)
            .into_iter()
            .map(|t| Span {
                start: t.start,
                end: t.end,
            })
            .collect();
        let pair = text.pair.as_ref().unwrap();
        parse_pair(&text.text, &words, pair)
            .map_err(|f| format!("{}: {}", text.position(f.place), f.problem))
    }

    #[test]
    fn comments_of_the_files_are_theirs() {
        let up = "-- Migration: it\n-- id: 5\n-- version: 1\n-- depends:\nSELECT 1; -- migrate: up\n-- migrated: x";
        let piece = read(up, Some("-- migration: back\nSELECT 2")).unwrap();
        assert_eq!(
            (piece.id.as_str(), piece.name.as_deref()),
            ("1_a", Some("1_a"))
        );
        assert_eq!(piece.up.as_ref().unwrap().sql, up);
        assert_eq!(
            piece.down.as_ref().unwrap().sql,
            "-- migration: back\nSELECT 2"
        );
        assert!(!piece.no_transaction && piece.depends_on.is_empty() && piece.version.is_none());
        // The way back of nothing is none.
        assert_eq!(read("SELECT 1", Some("-- nothing")).unwrap().down, None);
        assert!(
            read("-- x\n-- migrate: no-transaction\nVACUUM", None)
                .unwrap()
                .no_transaction
        );
    }

    #[test]
    fn faults_name_the_file() {
        for (up, down, told) in [
            ("", None, "file \"U\", line 1, column 1: a section holds no statement"),
            ("-- x\n;", Some("SELECT 1"), "file \"U\", line 1, column 1: a section holds no statement"),
            ("SELECT 1;\n BEGIN", None, "file \"U\", line 2, column 2: the section begins or ends a transaction"),
            ("SELECT 1", Some("SELECT 1;\n\nCOMMIT"), "file \"D\", line 3, column 1: the section begins or ends a transaction"),
            ("SELECT 1;\n-- migrate: down\nSELECT 2", None, "file \"U\", line 2, column 1: the file has the name of one shape and the text of another"),
            ("SELECT 1", Some("-- migrate: up\n"), "file \"D\", line 1, column 1: the file has the name of one shape and the text of another"),
            ("SELECT 1;\n-- migrate: no-transaction", None, "file \"U\", line 2, column 1: a directive stands in the middle of a section"),
            ("SELECT 1", Some("-- migrate: no-transaction"), "file \"D\", line 1, column 1: a directive stands in the middle of a section"),
        ] {
            assert_eq!(read(up, down).unwrap_err(), told);
        }
    }
}
