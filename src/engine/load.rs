//! Migrations from the text of a file, and the text again.

use super::register::{self, Request};
use super::sight;
use crate::error::{Error, Result};
use crate::model::digest;
use crate::model::place::Place;
use crate::model::source::{self as text, Fault, Part, Piece, Position, Text};
use crate::model::written::Phases;
use crate::pg::error::ServerError;
use crate::pg::identity::Caller;
use crate::pg::lexer;
use crate::pg::xact::{self, End};
use crate::store::source::{self, Found, Known};
use crate::store::{migration, sequence};
use serde_json::{Map, Value};

/// What became of one migration of the text.
pub struct Loaded {
    pub id: String,
    pub name: Option<String>,
    pub what: &'static str,
    pub file: Option<String>,
    pub line: usize,
    /// What has changed, or what else people should know.
    pub detail: Option<String>,
}

/// One migration of a text, and where it stands.
pub struct Reading<'a> {
    pub piece: Piece,
    pub text: &'a Text,
    /// The lines of the text before it.
    before: usize,
}

impl Reading<'_> {
    /// Where it begins.
    pub fn position(&self) -> Position {
        self.at(Place { line: 1, column: 1 })
    }

    /// Where a place of it is.
    pub fn at(&self, place: Place) -> Position {
        self.text.position(Place {
            line: self.before + place.line,
            column: place.column,
        })
    }

    pub fn checksum(&self) -> String {
        checksum(&self.piece.text)
    }

    /// What has become of the text that is known.
    pub fn change(&self, known: &str) -> Option<String> {
        let difference = text::difference(known, &self.piece.text)?;
        Some(format!(
            "{}: {}",
            self.at(difference.place),
            difference.what
        ))
    }
}

/// Registers the migrations of a text that are not known yet, all of them or none. One that is known by another text is
/// reported, and stays as it is.
pub fn run(given: &str, meta: &Value, caller: &Caller) -> Result<Vec<Loaded>> {
    let text = Text::given(given);
    register_all(&read(&text)?, None, meta, caller)
}

/// The migrations of a text.
pub fn read(text: &Text) -> Result<Vec<Reading<'_>>> {
    let given = text.text.as_str();
    // A byte order mark is no part of the first line.
    let body = given.strip_prefix('\u{feff}').unwrap_or(given);
    let words = words(body, |place| text.position(place))?;
    let pieces = match &text.pair {
        Some(pair) => text::parse_pair(body, &words, pair).map(|piece| vec![piece]),
        None => text::parse(body, &words),
    };
    let mut pieces = pieces.map_err(|fault| told(fault, |place| text.position(place)))?;
    if let Some(first) = pieces.first_mut() {
        first.text.insert_str(0, &given[..given.len() - body.len()]);
    }
    let mut before = 0;
    Ok(pieces
        .into_iter()
        .map(|piece| {
            let reading = Reading {
                text,
                before,
                piece,
            };
            before += text::lines(&reading.piece.text);
            reading
        })
        .collect())
}

/// Registers what is not known yet, each behind the one before it. `directory`: where their files are.
pub fn register_all(
    all: &[Reading<'_>],
    directory: Option<&str>,
    meta: &Value,
    caller: &Caller,
) -> Result<Vec<Loaded>> {
    let Value::Object(meta) = meta else {
        return Err(Error::InvalidArgument {
            problem: "the metadata is not valid".into(),
            detail: "meta: is not an object.".into(),
            hint: "Give an object, for example {\"mode\": \"direct\"}.".into(),
        });
    };
    // Also where nothing is new.
    register::parse_meta(&Value::Object(meta.clone()))?;
    for reading in all {
        require_interval(reading)?;
    }
    let mut loaded: Vec<Loaded> = Vec::new();
    for (i, reading) in all.iter().enumerate() {
        let position = reading.position();
        let found = Found {
            directory,
            file: position.file.as_deref(),
            line: i32::try_from(position.place.line).unwrap_or(i32::MAX),
        };
        let id = &reading.piece.id;
        let (what, detail) = match source::find(id)? {
            Some(known) => {
                sight::require_known(id, caller)?;
                seen(reading, &known, &found)?
            }
            None => {
                let before = loaded.last().map(|l| whole(&l.id)).transpose()?;
                register_one(reading, meta, before.as_deref(), caller)
                    .map_err(|error| error.within(&whereabouts(reading)))
                    .or_else(|error| Err(hinted(error, &reading.piece, meta, caller)?))?;
                if has_order(&reading.piece, meta) {
                    sequence::append(id)?;
                }
                source::insert(id, &reading.piece.text, &reading.checksum(), &found)?;
                ("new", put_in_order(id, &all[i + 1..], caller)?)
            }
        };
        loaded.push(Loaded {
            id: id.clone(),
            name: reading.piece.name.clone(),
            what,
            line: position.place.line,
            file: position.file,
            detail,
        });
    }
    Ok(loaded)
}

/// The one directive whose value only the server can read.
fn require_interval(reading: &Reading<'_>) -> Result<()> {
    let Some((soak, place)) = &reading.piece.soak else {
        return Ok(());
    };
    register::interval("-- soak:", soak)
        .map(drop)
        .map_err(|error| error.within(&reading.text.position(*place).to_string()))
}

/// What is not there may be made by a migration that was loaded by another call and is not applied yet.
fn hinted(
    error: Error,
    piece: &Piece,
    meta: &Map<String, Value>,
    caller: &Caller,
) -> Result<Error> {
    // A schema, a relation, a column, another object, a function.
    const NOT_THERE: [&str; 5] = ["3F000", "42P01", "42703", "42704", "42883"];
    let missing = NOT_THERE.contains(&error.sqlstate_text().as_str());
    if !missing || !has_order(piece, meta) || !sight::reads_all(caller)? {
        return Ok(error);
    }
    Ok(match migration::pending()?.as_slice() {
        [] => error,
        [.., last] => error.hinting(&format!(
            "Where a migration that is not applied yet makes it, name that one, for example -- depends: {last}"
        )),
    })
}

/// One that is known.
fn seen(
    reading: &Reading<'_>,
    known: &Known,
    found: &Found<'_>,
) -> Result<(&'static str, Option<String>)> {
    if found.file.is_some() {
        source::set_found(&known.id, found)?;
    }
    if known.checksum == reading.checksum() {
        return Ok(("unchanged", None));
    }
    Ok(("changed", reading.change(&known.source)))
}

/// Scripts that run one after the other do so in the order of the text: what comes late gets its place before those behind it
/// that are known. What is to be said of that.
fn put_in_order(id: &str, behind: &[Reading<'_>], caller: &Caller) -> Result<Option<String>> {
    for other in behind {
        if migration::exists(&other.piece.id)?
            && sequence::put_before(id, &whole(&other.piece.id)?)?
        {
            break;
        }
    }
    let (_, Some(late)) = sequence::out_of_order(id)? else {
        return Ok(None);
    };
    let which = match sight::reads_all(caller)? {
        true => format!("\"{late}\", which"),
        false => "one that".into(),
    };
    Ok(Some(format!("it comes before {which} was applied already: transmute.apply refuses it without allow_out_of_order")))
}

/// The text that a migration was loaded from, byte for byte.
pub fn export(id: &str) -> Result<String> {
    migration::get(id)?;
    let known = source::find(id)?;
    known.map(|k| k.source).ok_or_else(|| Error::Prerequisite {
        problem: "the migration was not loaded from a text".into(),
        detail: format!("Migration \"{id}\" was registered by another call than transmute.load."),
        hint: format!(
            "SELECT transmute.export({}) gives it as a document.",
            crate::model::ident::quote_literal(id)
        ),
    })
}

/// What runs for a migration: the one that it was squashed into, or itself.
fn whole(id: &str) -> Result<String> {
    let into = migration::get(id)?.squashed_into;
    Ok(into.unwrap_or_else(|| id.to_string()))
}

/// The script was amended: its text is, too, so that the file that is mended in the same way is the same again.
pub fn amended(id: &str, before: &str, up: &str) -> Result<()> {
    let Some(known) = source::find(id)? else {
        return Ok(());
    };
    match text::amended(&known.source, before, up) {
        Some(text) => source::set_text(id, &text, &checksum(&text)),
        None => Ok(()),
    }
}

fn checksum(text: &str) -> String {
    digest::sha256_hex(text::normalised(text).as_bytes())
}

fn register_one(
    reading: &Reading<'_>,
    meta: &Map<String, Value>,
    before: Option<&str>,
    caller: &Caller,
) -> Result<()> {
    let piece = &reading.piece;
    let meta = metadata(piece, meta, before);
    match (&piece.up, &piece.backfill) {
        (Some(up), _) => {
            let request = Request {
                id: &piece.id,
                up: &up.sql,
                down: piece.down.as_ref().map(|d| d.sql.as_str()),
                meta: &meta,
            };
            register::run(request, caller)
        }
        (None, Some(batch)) => {
            let sql = |part: &Option<Part>| part.as_ref().map_or(String::new(), |p| p.sql.clone());
            let phases = Phases {
                schema_additions: sql(&piece.expand),
                migrate_batch: batch.sql.clone(),
                schema_drops: sql(&piece.contract),
                rollback: piece.down.as_ref().map(|d| d.sql.clone()),
            };
            register::run_phases(&piece.id, &phases, &meta, caller)
        }
        (None, None) => Err(Error::Bug("a text without statements was read".into())),
    }
}

/// Whether it runs where it stands in its text; one that names what it depends on runs behind that.
fn has_order(piece: &Piece, meta: &Map<String, Value>) -> bool {
    piece.depends_on.is_empty() && !meta.contains_key("depends_on")
}

/// What the call says of all of them, and the directives of each. Planned steps are made when what they build on is there: a
/// migration of a text waits for the one before it, unless it names others.
fn metadata(piece: &Piece, meta: &Map<String, Value>, before: Option<&str>) -> Value {
    let mut meta = meta.clone();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            meta.insert(key.into(), value);
        }
    };
    let text = |text: &str| Value::String(text.into());
    set("name", piece.name.as_deref().map(text));
    set("source_version", piece.version.as_ref().map(|v| text(&v.0)));
    set("target_version", piece.version.as_ref().map(|v| text(&v.1)));
    set(
        "pre_finalization_soak",
        piece.soak.as_ref().map(|(soak, _)| text(soak)),
    );
    set("transaction", piece.no_transaction.then(|| text("none")));
    let mut depends_on = piece.depends_on.clone();
    let direct = meta.get("mode").and_then(Value::as_str) == Some("direct");
    if has_order(piece, &meta) && !direct {
        depends_on.extend(before.map(str::to_string));
    }
    if !depends_on.is_empty() {
        meta.insert("depends_on".into(), depends_on.into());
    }
    Value::Object(meta)
}

/// Which migration it is; lines of a section are counted from its first.
fn whereabouts(reading: &Reading<'_>) -> String {
    let piece = &reading.piece;
    let line = [&piece.up, &piece.backfill]
        .into_iter()
        .flatten()
        .next()
        .map_or(1, |part| part.line);
    // Lines of sections are those of the whole text.
    let position = reading.text.position(Place { line, column: 1 });
    let of = match &position.file {
        Some(file) => format!("file \"{file}\""),
        None => "the text".to_string(),
    };
    format!(
        "Migration \"{}\", whose statements begin in line {} of {of}",
        piece.id, position.place.line
    )
}

/// The tokens of a text, the lexer's own error with its place as people count.
pub fn words(text: &str, position: impl Fn(Place) -> Position) -> Result<Vec<text::Span>> {
    xact::subtransaction(End::Keep, || lexer::words(text)).map_err(|error| match error {
        Error::Server(ServerError {
            message,
            position: Some(at),
            ..
        }) => Error::InvalidArgument {
            problem: "the text cannot be read as SQL".into(),
            detail: format!("{}: {message}.", position(Place::of(text, at - 1))),
            hint: "Close what is open there: a string, a quoted name or a comment.".into(),
        },
        other => other,
    })
}

pub fn told(fault: Fault, position: impl Fn(Place) -> Position) -> Error {
    Error::InvalidArgument {
        problem: fault.problem.into(),
        detail: format!("{}: {}", position(fault.place), fault.detail),
        hint: fault.hint,
    }
}
