//! What the names of the files of a directory say: which files make a migration, and in which order they run.

use super::natural;
use super::MAX_ID_BYTES;
use std::cmp::Ordering;
use std::fmt;

/// How a directory of migrations is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Files with our own directives.
    Own,
    Numbered,
    Versioned,
    Directories,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Own => "directives",
            Shape::Numbered => "NNN_name.up.sql",
            Shape::Versioned => "VNN__name.sql",
            Shape::Directories => "name/up.sql",
        })
    }
}

/// The files of one text, by their names in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The id that the names give; our own directives give theirs themselves.
    pub id: Option<String>,
    pub up: String,
    pub down: Option<String>,
}

/// What is wrong with a name, or with all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub problem: &'static str,
    pub detail: String,
    pub hint: String,
    /// It is nothing that would be an error elsewhere: it is not done here.
    pub unsupported: bool,
}

const SHAPES: &str = "A directory has files with \"-- migrate: up\" in them, or NNN_name.up.sql and NNN_name.down.sql, or VNN__name.sql and UNN__name.sql, or name/up.sql and name/down.sql.";

struct Part {
    shape: Shape,
    name: String,
    /// What the two directions have in common, and sort by.
    key: Key,
    /// The id, if this is the way there.
    id: Option<String>,
    is_down: bool,
}

#[derive(Clone, Debug)]
enum Key {
    Name(String),
    /// Numbers without zeros in front; the name.
    Numbers(Vec<String>, String),
}

/// Arranges the files of a directory by their names; those that are no `.sql`, or hidden, are none.
///
/// # Errors
/// The first name that fits nowhere, or two that do not fit together.
pub fn arrange(names: &[String]) -> Result<(Shape, Vec<Files>), Misfit> {
    let mut parts: Vec<Part> = Vec::new();
    for name in names.iter().filter(|n| is_sql(n)) {
        parts.push(part(name)?);
    }
    parts.sort_by(|a, b| order(&a.key, &b.key).then_with(|| a.name.cmp(&b.name)));
    if let Some(twice) = parts.windows(2).find(|w| w[0].name == w[1].name) {
        return Err(misfit(
            "two files have the same name",
            format!("It is \"{}\".", twice[0].name),
            "Leave one of them out.",
        ));
    }
    let Some(first) = parts.first() else {
        return Err(misfit(
            "there are no migration files in the directory",
            format!("Of {} names none ends with \".sql\".", names.len()),
            SHAPES,
        ));
    };
    let shape = first.shape;
    if let Some(other) = parts.iter().find(|p| p.shape != shape) {
        return Err(misfit(
            "the files of the directory have different shapes",
            format!(
                "\"{}\" is of the shape {shape}, \"{}\" of {}.",
                first.name, other.name, other.shape
            ),
            "Put them into directories of their own, one a shape.",
        ));
    }
    Ok((shape, pair(parts)?))
}

/// Whether a name is that of a file that is read.
pub fn is_sql(name: &str) -> bool {
    let ending = name.len().checked_sub(4).and_then(|at| name.get(at..));
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    ending.is_some_and(|e| e.eq_ignore_ascii_case(".sql")) && !hidden
}

fn misfit(problem: &'static str, detail: String, hint: impl Into<String>) -> Misfit {
    Misfit {
        problem,
        detail,
        hint: hint.into(),
        unsupported: false,
    }
}

fn part(name: &str) -> Result<Part, Misfit> {
    if name.chars().any(char::is_control) {
        return Err(misfit(
            "the name of a file holds a control character",
            format!("The name is {name:?}."),
            "Give the file another name.",
        ));
    }
    let own = || Part {
        shape: Shape::Own,
        name: name.into(),
        key: Key::Name(name.into()),
        id: None,
        is_down: false,
    };
    if let Some((folder, file)) = name.split_once('/') {
        return match file {
            "up.sql" | "down.sql" => Ok(Part {
                shape: Shape::Directories,
                name: name.into(),
                key: Key::Name(folder.into()),
                id: Some(id(name, folder)?),
                is_down: file == "down.sql",
            }),
            _ => Err(misfit(
                "a directory below the directory holds other files than up.sql and down.sql",
                format!("There is \"{name}\"."),
                "Load the directory below by itself, or move the file elsewhere.",
            )),
        };
    }
    for (ending, is_down) in [(".up.sql", false), (".down.sql", true)] {
        let Some(stem) = name.strip_suffix(ending) else {
            continue;
        };
        let digits = stem.len() - stem.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return Err(misfit(
                "the name of a file has no number",
                format!("It is \"{name}\"."),
                format!("Put a number in front: 001_{name}."),
            ));
        }
        return Ok(Part {
            shape: Shape::Numbered,
            name: name.into(),
            key: Key::Numbers(vec![number(&stem[..digits])], stem[digits..].into()),
            id: Some(id(name, stem)?),
            is_down,
        });
    }
    let Some((front, rest)) = name.split_once("__") else {
        return Ok(own());
    };
    let stem = &name[..name.len() - ".sql".len()];
    let version = front.get(1..).unwrap_or_default();
    let numbers: Vec<&str> = version.split(['.', '_']).collect();
    let is_version = numbers
        .iter()
        .all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    match front.chars().next() {
        Some('R') if version.is_empty() => Err(Misfit {
            problem: "repeatable migrations are not loaded from a directory",
            detail: format!("There is \"{name}\"."),
            hint: format!("Move it elsewhere, and load it with transmute.seed_load('{stem}', …): transmute.seed() runs it again whenever its text has changed."),
            unsupported: true,
        }),
        Some('B') if is_version => Err(Misfit {
            problem: "baseline migrations are not loaded from a directory",
            detail: format!("There is \"{name}\"."),
            hint: "Move it elsewhere; transmute.baseline(id, reason) says which migrations a database has already.".into(),
            unsupported: true,
        }),
        Some(kind @ ('V' | 'U')) if is_version => Ok(Part {
            shape: Shape::Versioned,
            name: name.into(),
            key: Key::Numbers(
                release(&numbers),
                if kind == 'V' { rest.into() } else { String::new() },
            ),
            id: Some(id(name, stem)?),
            is_down: kind == 'U',
        }),
        _ => Ok(own()),
    }
}

/// Without zeros in front: such numbers sort by their lengths, then by their digits.
fn number(digits: &str) -> String {
    digits.trim_start_matches('0').to_string()
}

/// A version; 1.0 is 1.
fn release(numbers: &[&str]) -> Vec<String> {
    let mut numbers: Vec<String> = numbers.iter().map(|n| number(n)).collect();
    while numbers.len() > 1 && numbers.last().is_some_and(String::is_empty) {
        numbers.pop();
    }
    numbers
}

fn id(name: &str, stem: &str) -> Result<String, Misfit> {
    if stem.trim() == stem && stem.len() <= MAX_ID_BYTES {
        return Ok(stem.into());
    }
    Err(misfit(
        "the name of a file is no id of a migration",
        format!(
            "It is \"{name}\": at most {MAX_ID_BYTES} bytes, and no blanks at the beginning or the end."
        ),
        "Give the file another name.",
    ))
}

fn order(a: &Key, b: &Key) -> Ordering {
    match (a, b) {
        (Key::Name(a), Key::Name(b)) => natural::order(a, b),
        (Key::Numbers(a, rest), Key::Numbers(b, other)) => numbers(a, b)
            .then_with(|| rest.is_empty().cmp(&other.is_empty()))
            .then_with(|| natural::order(rest, other)),
        (Key::Name(_), _) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

fn numbers(a: &[String], b: &[String]) -> Ordering {
    (0..a.len().max(b.len()))
        .map(|i| {
            let of = |list: &[String]| list.get(i).cloned().unwrap_or_default();
            let (x, y) = (of(a), of(b));
            x.len().cmp(&y.len()).then(x.cmp(&y))
        })
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Puts the two directions together. The parts are in order.
fn pair(parts: Vec<Part>) -> Result<Vec<Files>, Misfit> {
    let same = |a: &Part, b: &Part| match (&a.key, &b.key) {
        (Key::Numbers(x, _), Key::Numbers(y, _)) => x == y,
        (Key::Name(x), Key::Name(y)) => x == y && a.shape == Shape::Directories,
        _ => false,
    };
    let mut files: Vec<Files> = Vec::new();
    for group in parts.chunk_by(same) {
        let (downs, ups): (Vec<&Part>, Vec<&Part>) = group.iter().partition(|p| p.is_down);
        for twice in [&ups, &downs] {
            if let [one, other, ..] = twice[..] {
                return Err(misfit(
                    "two files have the same number",
                    format!("They are \"{}\" and \"{}\".", one.name, other.name),
                    "Give one of them another number.",
                ));
            }
        }
        let Some(up) = ups.first() else {
            let down = downs.first().map_or("", |d| d.name.as_str());
            return Err(misfit(
                "a way back has no migration that it takes back",
                format!("\"{down}\" has no other file beside it."),
                "Add the file with the statements, or remove this one.",
            ));
        };
        let down = downs.first();
        if let Some(down) = down.filter(|d| up.shape == Shape::Numbered && d.id != up.id) {
            return Err(misfit(
                "two files have the same number",
                format!("They are \"{}\" and \"{}\".", up.name, down.name),
                "Give both directions of a migration the same name, or one of them another number.",
            ));
        }
        files.push(Files {
            id: up.id.clone(),
            up: up.name.clone(),
            down: down.map(|d| d.name.clone()),
        });
    }
    Ok(files)
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
