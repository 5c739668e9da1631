//! The text of migration files: directives are comments of a line of their own, `-- key: value`; where the comments are, the
//! server's lexer has said.

mod amended;
mod comments;
mod difference;
mod natural;
mod pair;
mod path;
mod piece;
mod shape;
mod text;

use super::ident;
use super::nearest::{nearest, nearest_of_few};
use super::place::Place;
use super::version;
pub use amended::amended;
use comments::{directives, Directive};
pub use difference::{difference, Difference};
pub use pair::parse_pair;
pub use path::{directory, inside};
use piece::finish;
pub use shape::{arrange, is_sql, Files, Misfit, Shape};
pub use text::{decode, lines, Position, Text};

/// Bytes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// One migration of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Its part of the text; the parts are the whole text, one behind the other.
    pub text: String,
    pub id: String,
    pub name: Option<String>,
    pub depends_on: Vec<String>,
    /// From which release to which.
    pub version: Option<(String, String)>,
    /// With the place of the directive.
    pub soak: Option<(String, Place)>,
    pub no_transaction: bool,
    pub up: Option<Part>,
    pub down: Option<Part>,
    pub expand: Option<Part>,
    pub backfill: Option<Part>,
    pub contract: Option<Part>,
}

/// The statements of a section, and the line at which they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub sql: String,
    pub line: usize,
}

/// What is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub problem: &'static str,
    pub detail: String,
    pub hint: String,
}

const KEYS: [&str; 6] = ["migration", "id", "migrate", "depends", "version", "soak"];
const SECTIONS: [&str; 5] = ["up", "down", "expand", "backfill", "contract"];
const NO_TRANSACTION: &str = "no-transaction";
/// With room for what is put behind the id of the way back.
const MAX_ID_BYTES: usize = 250;

struct Section {
    kind: &'static str,
    span: Span,
}

#[derive(Default)]
struct Draft<'a> {
    start: usize,
    name: Option<&'a str>,
    id: Option<(&'a str, usize)>,
    depends: Option<&'a str>,
    version: Option<(&'a str, &'a str)>,
    soak: Option<(&'a str, usize)>,
    no_transaction: bool,
    sections: Vec<Section>,
}

/// The text as its checksum has it.
pub fn normalised(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Reads a text, of which `words` are the tokens.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(text: &str, words: &[Span]) -> Result<Vec<Piece>, Fault> {
    let mut done: Vec<Draft<'_>> = Vec::new();
    let mut draft = Draft::default();
    for directive in directives(text, words) {
        read(text, words, &directive, &mut draft, &mut done)?;
    }
    done.push(draft);
    let mut pieces: Vec<Piece> = Vec::new();
    for i in 0..done.len() {
        let end = done.get(i + 1).map_or(text.len(), |d| d.start);
        let piece = finish(text, words, &mut done[i], end)?;
        if pieces.iter().any(|p| p.id == piece.id) {
            let at = done[i].id.map_or(done[i].start, |(_, at)| at);
            return Err(fault(
                text,
                at,
                "two migrations have the same id",
                format!(
                    "\"{}\" is the id of an earlier migration of the text.",
                    piece.id
                ),
                "Each has an id of its own; transmute.create(name) makes one.",
            ));
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn fault(
    text: &str,
    at: usize,
    problem: &'static str,
    detail: String,
    hint: impl Into<String>,
) -> Fault {
    Fault {
        place: Place::of(text, text[..at].chars().count()),
        problem,
        detail,
        hint: hint.into(),
    }
}

fn read<'a>(
    text: &str,
    words: &[Span],
    d: &Directive<'a>,
    draft: &mut Draft<'a>,
    done: &mut Vec<Draft<'a>>,
) -> Result<(), Fault> {
    let section = draft.sections.last().map(|s| s.span.start);
    let inside = section.is_some_and(|start| {
        d.words
            .checked_sub(1)
            .map(|i| &words[i])
            .is_some_and(|w| w.start >= start && &text[w.start..w.end] != ";")
    });
    let wrong =
        |problem, detail: String, hint: String| Err(fault(text, d.start, problem, detail, hint));
    let is_marker = d.key == "migrate" || d.key == "migration";
    if !d.colon {
        return match d.alone && !inside && is_marker_without_colon(d) {
            true => wrong(
                "unknown directive",
                format!("\"-- {} {}\" is none: it has no colon.", d.key, d.value),
                "Perhaps you meant \"-- migrate: …\"; write the comment otherwise if it is one."
                    .replace('…', &d.value.to_lowercase()),
            ),
            false => Ok(()),
        };
    }
    if !d.alone {
        return match is_marker {
            true => wrong(
                "a directive does not stand on a line of its own",
                format!(
                    "Before \"-- {}:\" there is something else in its line.",
                    d.key
                ),
                "Put it on a line of its own, or write the comment otherwise.".into(),
            ),
            false => Ok(()),
        };
    }
    if !KEYS.contains(&d.key) {
        let known: &[&str] = match section {
            None => &KEYS,
            Some(_) if inside => &[],
            Some(_) => &["migrate", "migration"],
        };
        let meant = match section {
            None if d.key.len() == 3 => nearest_of_few(d.key, ["id"]),
            _ => None,
        };
        return match meant.or_else(|| nearest(d.key, known.iter().copied())) {
            Some(meant) => wrong(
                "unknown directive",
                format!("\"-- {}:\" is none.", d.key),
                format!(
                    "Perhaps you meant \"-- {meant}:\"; write the comment otherwise if it is one."
                ),
            ),
            None => Ok(()),
        };
    }
    if !is_marker && section.is_some() {
        return match inside {
            true => Ok(()),
            false => wrong(
                "a directive stands behind the first section",
                format!("\"-- {}:\" belongs to the head of a migration.", d.key),
                "Put it before \"-- migrate: up\".".into(),
            ),
        };
    }
    if d.value.is_empty() {
        return wrong(
            "a directive has no value",
            format!("Behind \"-- {}:\" there is nothing.", d.key),
            "Write the value in the same line.".into(),
        );
    }
    let twice = |given: bool| match given {
        false => Ok(()),
        true => Err(fault(
            text,
            d.start,
            "a directive stands there twice",
            format!("The migration has a \"-- {}:\" already.", d.key),
            "Leave one of them out.",
        )),
    };
    match d.key {
        "migration" => {
            if draft.name.is_some() || section.is_some() {
                let next = Draft {
                    start: d.line,
                    ..Draft::default()
                };
                done.push(std::mem::replace(draft, next));
            }
            draft.name = Some(d.value);
            end_section(done.last_mut(), d.line);
        }
        "id" => {
            twice(draft.id.is_some())?;
            check_id(text, d)?;
            draft.id = Some((d.value, d.start));
        }
        "depends" => {
            twice(draft.depends.is_some())?;
            if d.value.split(',').any(|id| id.trim().is_empty()) {
                return wrong(
                    "a name is missing in the list",
                    format!("The list is \"{}\".", d.value),
                    "Write ids with commas between them.".into(),
                );
            }
            draft.depends = Some(d.value);
        }
        "version" => {
            twice(draft.version.is_some())?;
            let parts: Vec<&str> = d.value.split("->").map(str::trim).collect();
            let [from, to] = parts[..] else {
                return wrong(
                    "the versions cannot be read",
                    format!("They are \"{}\".", d.value),
                    "Write \"-- version: 1.0.0 -> 1.1.0\".".into(),
                );
            };
            if let Some(wrong_one) = [from, to].into_iter().find(|v| version::parse(v).is_err()) {
                return wrong(
                    "the versions cannot be read",
                    format!(
                        "Of \"{}\", \"{wrong_one}\" is no MAJOR.MINOR.PATCH.",
                        d.value
                    ),
                    "Write \"-- version: 1.0.0 -> 1.1.0\".".into(),
                );
            }
            draft.version = Some((from, to));
        }
        "soak" => {
            twice(draft.soak.is_some())?;
            draft.soak = Some((d.value, d.start));
        }
        _ => {
            let begun =
                section.is_some_and(|start| words[..d.words].iter().any(|w| w.start >= start));
            return migrate(text, d, draft, begun);
        }
    }
    Ok(())
}

/// Whether it is a marker of a section but for the colon: what stands behind it would be a part of the section before.
fn is_marker_without_colon(d: &Directive<'_>) -> bool {
    let value = d.value.to_lowercase();
    nearest(d.key, ["migrate"]).is_some()
        && SECTIONS
            .iter()
            .chain([&NO_TRANSACTION])
            .any(|s| *s == value)
}

fn end_section(draft: Option<&mut Draft<'_>>, at: usize) {
    if let Some(section) = draft.and_then(|d| d.sections.last_mut()) {
        section.span.end = section.span.end.min(at);
    }
}

fn migrate(text: &str, d: &Directive<'_>, draft: &mut Draft<'_>, begun: bool) -> Result<(), Fault> {
    let wrong =
        |problem, detail: String, hint: String| Err(fault(text, d.start, problem, detail, hint));
    if d.value == NO_TRANSACTION {
        if draft.no_transaction {
            return wrong(
                "a directive stands there twice",
                "The migration has a \"-- migrate: no-transaction\" already.".into(),
                "Leave one of them out.".into(),
            );
        }
        if begun || draft.sections.len() > 1 {
            return wrong(
                "a directive stands in the middle of a section",
                "\"-- migrate: no-transaction\" is about the whole migration.".into(),
                "Put it before \"-- migrate: up\".".into(),
            );
        }
        draft.no_transaction = true;
        return Ok(());
    }
    let Some(kind) = SECTIONS.into_iter().find(|s| *s == d.value) else {
        let known = SECTIONS.into_iter().chain([NO_TRANSACTION]);
        let hint = match nearest_of_few(d.value, known.clone()) {
            Some(meant) => format!("Perhaps you meant \"-- migrate: {meant}\"."),
            None => format!("There are: {}.", known.collect::<Vec<_>>().join(", ")),
        };
        return wrong(
            "unknown section",
            format!("\"-- migrate: {}\" is none.", d.value),
            hint,
        );
    };
    if draft.sections.iter().any(|s| s.kind == kind) {
        return wrong(
            "a section stands there twice",
            format!("The migration has a \"-- migrate: {kind}\" already."),
            "Put all its statements into one.".into(),
        );
    }
    let script = kind == "up";
    if kind != "down"
        && draft
            .sections
            .iter()
            .any(|s| s.kind != "down" && (s.kind == "up") != script)
    {
        return wrong(
            "a migration has either up or phases",
            "It has both, up and one of expand, backfill, contract.".into(),
            "Make two migrations of them.".into(),
        );
    }
    end_section(Some(draft), d.line);
    draft.sections.push(Section {
        kind,
        span: Span {
            start: d.next,
            end: text.len(),
        },
    });
    Ok(())
}

fn check_id(text: &str, d: &Directive<'_>) -> Result<(), Fault> {
    let good = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let problem = if d.value.len() > MAX_ID_BYTES {
        "the id is too long"
    } else if !d.value.chars().all(good) {
        "the id is not one"
    } else {
        return Ok(());
    };
    let detail = match problem {
        "the id is not one" => format!("It is {}.", ident::quote_literal(d.value)),
        _ => format!(
            "It has {} bytes, and {MAX_ID_BYTES} is the most.",
            d.value.len()
        ),
    };
    Err(fault(
        text,
        d.start,
        problem,
        detail,
        "An id has letters, digits, \".\", \"_\" and \"-\"; transmute.create(name) makes one.",
    ))
}

#[cfg(test)]
mod tests;
