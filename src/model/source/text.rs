//! A text of migrations, and the files that its lines stand in.

use super::{Fault, Files, Span};
use crate::model::place::Place;

/// What is read at once: a text somebody has given, a file, or both directions of a migration, put together as one text with
/// our directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    /// Its sections, if they are files of their own.
    pub pair: Option<Pair>,
    origins: Vec<Origin>,
}

/// The two directions of a migration, in their text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub id: String,
    pub up: Span,
    pub down: Option<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    file: String,
    /// The lines of the text before the file's first.
    before: usize,
}

/// The file of a line, if there are files, and the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub file: Option<String>,
    pub place: Place,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.file {
            Some(file) => write!(f, "file \"{file}\", {}", self.place),
            None => write!(f, "{}", self.place),
        }
    }
}

impl Text {
    /// One that somebody has given.
    pub fn given(text: &str) -> Text {
        Text {
            text: text.into(),
            pair: None,
            origins: Vec::new(),
        }
    }

    pub fn of_file(name: &str, text: String) -> Text {
        let origin = Origin {
            file: name.into(),
            before: 0,
        };
        Text {
            text,
            pair: None,
            origins: vec![origin],
        }
    }

    /// The files of a migration without our directives. A byte order mark would stand in the middle.
    pub fn of_pair(id: &str, files: &Files, up: &str, down: Option<&str>) -> Text {
        let bare = |text: &str| text.strip_prefix('\u{feff}').unwrap_or(text).to_string();
        let mut text = format!("-- migration: {id}\n-- migrate: up\n");
        let mut origins = vec![Origin {
            file: files.up.clone(),
            before: 2,
        }];
        let start = text.len();
        text += &bare(up);
        let mut pair = Pair {
            id: id.into(),
            up: Span {
                start,
                end: text.len(),
            },
            down: None,
        };
        if let (Some(down), Some(name)) = (down, &files.down) {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text += "-- migrate: down\n";
            origins.push(Origin {
                file: name.clone(),
                before: lines(&text),
            });
            let start = text.len();
            text += &bare(down);
            pair.down = Some(Span {
                start,
                end: text.len(),
            });
        }
        Text {
            text,
            pair: Some(pair),
            origins,
        }
    }

    /// Where people find what stands at a place of the text.
    pub fn position(&self, place: Place) -> Position {
        let origin = self
            .origins
            .iter()
            .rev()
            .find(|o| place.line >= o.before)
            .or(self.origins.first());
        let Some(origin) = origin else {
            return Position { file: None, place };
        };
        let within = place.line > origin.before;
        Position {
            file: Some(origin.file.clone()),
            place: match within {
                true => Place {
                    line: place.line - origin.before,
                    column: place.column,
                },
                // What was put before it.
                false => Place { line: 1, column: 1 },
            },
        }
    }
}

/// How many lines have ended.
pub fn lines(text: &str) -> usize {
    text.matches('\n').count()
}

/// The text of a file.
///
/// # Errors
/// Bytes that are no UTF-8, and the zero byte, which no text of the server holds.
pub fn decode(bytes: &[u8]) -> Result<&str, Fault> {
    let wrong = |valid: &[u8], problem, byte: u8| {
        let before = String::from_utf8_lossy(valid);
        Fault {
            place: Place::of(&before, before.chars().count()),
            problem,
            detail: format!("The byte there is 0x{byte:02x}."),
            hint: "Save the file as UTF-8.".into(),
        }
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or_default();
            return Err(wrong(
                &bytes[..at],
                "the file is not encoded in UTF-8",
                byte,
            ));
        }
    };
    match text.find('\0') {
        Some(at) => Err(wrong(&bytes[..at], "the file holds a zero byte", 0)),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(down: Option<&str>) -> Files {
        Files {
            id: Some("1_a".into()),
            up: "1_a.up.sql".into(),
            down: down.map(Into::into),
        }
    }

    #[test]
    fn lines_are_those_of_the_files() {
        let at = |text: &Text, line, column| text.position(Place { line, column }).to_string();
        let text = Text::of_pair(
            "1_a",
            &files(Some("1_a.down.sql")),
            "\u{feff}A\nB",
            Some("C\r\nD"),
        );
        assert_eq!(
            text.text,
            "-- migration: 1_a\n-- migrate: up\nA\nB\n-- migrate: down\nC\r\nD"
        );
        for (line, column, place) in [
            (1, 4, "file \"1_a.up.sql\", line 1, column 1"),
            (2, 4, "file \"1_a.up.sql\", line 1, column 1"),
            (3, 4, "file \"1_a.up.sql\", line 1, column 4"),
            (4, 1, "file \"1_a.up.sql\", line 2, column 1"),
            (5, 7, "file \"1_a.down.sql\", line 1, column 1"),
            (6, 7, "file \"1_a.down.sql\", line 1, column 7"),
            (7, 1, "file \"1_a.down.sql\", line 2, column 1"),
        ] {
            assert_eq!(at(&text, line, column), place);
        }
        let alone = Text::of_pair("1_a", &files(None), "A", None);
        assert_eq!(alone.text, "-- migration: 1_a\n-- migrate: up\nA");
        assert_eq!(
            at(&Text::of_file("a.sql", "A".into()), 1, 2),
            "file \"a.sql\", line 1, column 2"
        );
        assert_eq!(at(&Text::given("A"), 3, 2), "line 3, column 2");
    }

    #[test]
    fn what_is_no_text_is_told_with_its_place() {
        assert_eq!(
            decode("a\u{2028}\u{feff}\r\n".as_bytes()),
            Ok("a\u{2028}\u{feff}\r\n")
        );
        for (bytes, place, problem) in [
            (
                &b"\xff\xfea\0"[..],
                "line 1, column 1",
                "the file is not encoded in UTF-8",
            ),
            (
                b"\xc3\xbc\nab\xfc",
                "line 2, column 3",
                "the file is not encoded in UTF-8",
            ),
            (
                b"a\nb\xc3",
                "line 2, column 2",
                "the file is not encoded in UTF-8",
            ),
            (
                b"\xc3\xbc\0",
                "line 1, column 2",
                "the file holds a zero byte",
            ),
            (
                b"a\xed\xa0\x80",
                "line 1, column 2",
                "the file is not encoded in UTF-8",
            ),
        ] {
            let fault = decode(bytes).unwrap_err();
            assert_eq!(
                (fault.place.to_string().as_str(), fault.problem),
                (place, problem)
            );
        }
    }
}
