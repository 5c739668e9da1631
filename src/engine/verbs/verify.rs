//! Texts as they are kept elsewhere against what was registered.

use crate::engine::files::Directory;
use crate::engine::load::Reading;
use crate::error::{Error, Result};
use crate::model::digest::sha256_hex;
use crate::model::source::{difference, normalised, Difference};
use crate::store::migration;
use crate::store::source::{self, Known};
use serde_json::Value;

/// What is to be said of one migration.
pub struct Verified {
    pub id: String,
    pub result: &'static str,
    /// Checksums: of what was registered, of what was found.
    pub stored: Option<String>,
    pub found: Option<String>,
    pub file: Option<String>,
    pub line: Option<i32>,
    pub detail: Option<String>,
}

/// The files of a directory against what was loaded from it.
pub fn directory(directory: &Directory) -> Result<Vec<Verified>> {
    let all = directory.migrations()?;
    let mut verified = Vec::new();
    for reading in &all {
        verified.push(one(reading)?);
    }
    let gone = directory.gone(&all)?;
    verified.extend(gone.into_iter().map(|known| Verified {
        detail: Some("it was loaded from there, and is there no more".into()),
        ..missing(known.id.clone(), None, Some(known))
    }));
    Ok(verified)
}

fn one(reading: &Reading<'_>) -> Result<Verified> {
    let id = &reading.piece.id;
    let position = reading.position();
    let found = reading.checksum();
    let (result, stored, detail) = match source::find(id)? {
        Some(known) if known.checksum == found => ("ok", Some(known.checksum), None),
        Some(known) => {
            let detail = reading.change(&known.source);
            ("changed", Some(known.checksum), detail)
        }
        None if migration::exists(id)? => {
            let script = migration::script(id)?;
            let same = reading.piece.up.as_ref().is_some_and(|up| up.sql == script);
            let detail = "it was registered by another call than transmute.load".to_string();
            let stored = Some(sha256_hex(script.as_bytes()));
            (if same { "ok" } else { "changed" }, stored, Some(detail))
        }
        None => ("extra", None, None),
    };
    Ok(Verified {
        id: id.clone(),
        result,
        stored,
        found: Some(found),
        file: position.file,
        line: i32::try_from(position.place.line).ok(),
        detail,
    })
}

/// Scripts or whole texts, by id, against everything that was registered.
pub fn texts(given: &Value) -> Result<Vec<Verified>> {
    let mut given = read(given)?;
    let mut verified = Vec::new();
    for (id, script, known) in source::all()? {
        verified.push(match given.remove(&id) {
            None => missing(id, Some(&script), known),
            Some(text) => compared(id, &script, known, &text),
        });
    }
    verified.extend(given.into_iter().map(|(id, text)| Verified {
        id,
        result: "extra",
        stored: None,
        found: Some(sha256_hex(text.as_bytes())),
        file: None,
        line: None,
        detail: None,
    }));
    Ok(verified)
}

fn read(given: &Value) -> Result<std::collections::BTreeMap<String, String>> {
    let wrong = |problem: &str, detail: String| {
        Err(Error::InvalidArgument {
            problem: problem.into(),
            detail,
            hint: "Give {\"id\": \"text of the migration\", …}.".into(),
        })
    };
    let Some(object) = given.as_object() else {
        return wrong(
            "sources is not an object",
            format!("It is of type {}.", kind(given)),
        );
    };
    if let Some((id, value)) = object.iter().find(|(_, v)| !v.is_string()) {
        return wrong(
            "a source is not a text",
            format!("That of \"{id}\" is of type {}.", kind(value)),
        );
    }
    Ok(object
        .iter()
        .filter_map(|(id, v)| Some((id.clone(), v.as_str()?.to_string())))
        .collect())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The script, or the text with its directives: what is given may be either, and is taken for the one that it is more like.
fn compared(id: String, script: &str, known: Option<Known>, text: &str) -> Verified {
    let of_text = sha256_hex(normalised(text).as_bytes());
    let from_script = if script == text {
        None
    } else {
        differs(script, text)
    };
    let from_source = known
        .as_ref()
        .map(|k| (k.checksum.clone(), difference(&k.source, text)));
    let far = |d: &Option<Difference>| {
        d.as_ref()
            .map_or((usize::MAX, 0), |d| (d.place.line, d.place.column))
    };
    let (stored, found, difference) = match from_source {
        Some((checksum, from_source)) if far(&from_source) > far(&from_script) => {
            (checksum, of_text, from_source)
        }
        _ => (
            sha256_hex(script.as_bytes()),
            sha256_hex(text.as_bytes()),
            from_script,
        ),
    };
    Verified {
        id,
        result: if difference.is_none() {
            "ok"
        } else {
            "changed"
        },
        stored: Some(stored),
        found: Some(found),
        file: known.as_ref().and_then(|k| k.file.clone()),
        line: known.map(|k| k.line),
        detail: difference.map(|d| format!("{}: {}", d.place, d.what)),
    }
}

/// Scripts are kept as they are: other line ends are another script.
fn differs(script: &str, text: &str) -> Option<Difference> {
    difference(script, text).or_else(|| {
        Some(Difference {
            place: crate::model::place::Place { line: 1, column: 1 },
            what: "only line ends have changed".into(),
        })
    })
}

fn missing(id: String, script: Option<&str>, known: Option<Known>) -> Verified {
    Verified {
        id,
        result: "missing",
        stored: match &known {
            Some(known) => Some(known.checksum.clone()),
            None => script.map(|s| sha256_hex(s.as_bytes())),
        },
        found: None,
        file: known.as_ref().and_then(|k| k.file.clone()),
        line: known.map(|k| k.line),
        detail: None,
    }
}
