//! The files of a directory: of the server, or as a client has sent them.

use super::load::{self, Loaded, Reading};
use crate::error::{Error, Result};
use crate::model::place::Place;
use crate::model::source::{self as model, Files, Misfit, Position, Shape, Text};
use crate::pg::files;
use crate::pg::identity::Caller;
use crate::store::source::{self, Found, Known};
use serde_json::Value;

/// What was read of a directory.
pub struct Directory {
    pub path: String,
    pub shape: Shape,
    texts: Vec<Text>,
}

/// A file as it was sent.
pub struct Sent {
    pub name: String,
    pub content: Vec<u8>,
}

/// Reads a directory of the server for somebody who may.
pub fn on_server(path: &str, caller: &Caller) -> Result<Directory> {
    if !files::may_read(caller.role) {
        return Err(Error::Privilege {
            problem: "files of the server are read by members of pg_read_server_files only".into(),
            detail: "The caller is none, and no superuser.".into(),
            hint: "GRANT pg_read_server_files TO …; or load files of the client, with transmute_load.psql.".into(),
        });
    }
    let path = model::directory(path).ok_or_else(|| Error::InvalidArgument {
        problem: "the path is not an absolute one".into(),
        detail: format!("It is \"{path}\", which begins with no slash or leads up."),
        hint: "Give the path of the directory on the server, from its root, without \"..\".".into(),
    })?;
    let mut names = Vec::new();
    for (name, is_directory) in list(&path)? {
        if !is_directory {
            names.push(name);
        } else if !name.starts_with('.') {
            let below = list(&format!("{path}/{name}"))?.into_iter();
            names.extend(below.filter(|b| !b.1).map(|b| format!("{name}/{}", b.0)));
        }
    }
    read(&path, &names, |name| files::read(&format!("{path}/{name}")))
}

fn list(path: &str) -> Result<Vec<(String, bool)>> {
    files::list(path)?
        .into_iter()
        .map(|(name, is_directory)| match String::from_utf8(name) {
            Ok(name) => Ok((name, is_directory)),
            Err(error) => Err(Error::InvalidArgument {
                problem: "the name of a file is not encoded in UTF-8".into(),
                detail: format!(
                    "Directory \"{path}\" has \"{}\".",
                    String::from_utf8_lossy(error.as_bytes())
                ),
                hint: "Give the file another name.".into(),
            }),
        })
        .collect()
}

/// What a client has sent of a directory.
pub fn sent(path: &str, sent: &[Sent]) -> Result<Directory> {
    let wrong = |problem: &str, detail: String, hint: &str| {
        Err(Error::InvalidArgument {
            problem: problem.into(),
            detail,
            hint: hint.into(),
        })
    };
    if path.is_empty() || path.chars().any(char::is_control) {
        return wrong(
            "the directory has no name, or one with a control character",
            format!("It is {path:?}."),
            "Give the path of the directory on the client: what has gone from it is known by that.",
        );
    }
    if let Some(out) = sent.iter().find(|s| !model::inside(&s.name)) {
        return wrong(
            "a name is none of a file in the directory",
            format!("It is {:?}.", out.name),
            "Give names such as \"001_a.sql\" or \"001_a/up.sql\".",
        );
    }
    let names: Vec<String> = sent.iter().map(|s| s.name.clone()).collect();
    read(path, &names, |name| {
        let file = sent.iter().find(|s| s.name == name);
        Ok(file.map(|s| s.content.clone()).unwrap_or_default())
    })
}

fn read(
    path: &str,
    names: &[String],
    content: impl Fn(&str) -> Result<Vec<u8>>,
) -> Result<Directory> {
    let (shape, groups) = model::arrange(names).map_err(|misfit| refused(path, misfit))?;
    let text = |name: &str| {
        let bytes = content(name)?;
        let text = model::decode(&bytes).map_err(|fault| {
            load::told(fault, |place| Position {
                file: Some(name.into()),
                place,
            })
        })?;
        Ok::<String, Error>(text.to_string())
    };
    let texts = groups
        .iter()
        .map(|files| match files {
            Files { id: None, up, .. } => Ok(Text::of_file(up, text(up)?)),
            Files {
                id: Some(id),
                up,
                down,
            } => {
                let (up, down) = (
                    alone(up, text(up)?)?,
                    match down {
                        Some(down) => Some(alone(down, text(down)?)?),
                        None => None,
                    },
                );
                Ok(Text::of_pair(id, files, &up, down.as_deref()))
            }
        })
        .collect::<Result<Vec<Text>>>()?;
    Ok(Directory {
        path: path.into(),
        shape,
        texts,
    })
}

/// What is open at the end of one file must not be closed by the next.
fn alone(name: &str, text: String) -> Result<String> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(&text);
    load::words(body, |place: Place| Position {
        file: Some(name.into()),
        place,
    })?;
    Ok(text)
}

fn refused(path: &str, misfit: Misfit) -> Error {
    let detail = format!("Directory \"{path}\": {}", misfit.detail);
    let problem = misfit.problem.into();
    match misfit.unsupported {
        true => Error::Unsupported {
            problem,
            detail,
            hint: misfit.hint,
        },
        false => Error::InvalidArgument {
            problem,
            detail,
            hint: misfit.hint,
        },
    }
}

impl Directory {
    /// The migrations of all files, each of which has an id of its own.
    pub fn migrations(&self) -> Result<Vec<Reading<'_>>> {
        let mut all: Vec<Reading<'_>> = Vec::new();
        for text in &self.texts {
            for reading in load::read(text)? {
                if let Some(first) = all.iter().find(|a| a.piece.id == reading.piece.id) {
                    return Err(Error::InvalidArgument {
                        problem: "two migrations have the same id".into(),
                        detail: format!(
                            "{}: \"{}\" is the id of {}, too.",
                            reading.position(),
                            reading.piece.id,
                            first.position()
                        ),
                        hint: "Each has an id of its own; transmute.create(name) makes one.".into(),
                    });
                }
                all.push(reading);
            }
        }
        Ok(all)
    }

    /// Those of before that are not there any more.
    pub fn gone(&self, all: &[Reading<'_>]) -> Result<Vec<Known>> {
        let ids: Vec<String> = all.iter().map(|r| r.piece.id.clone()).collect();
        source::gone(&self.path, &ids)
    }
}

/// Registers what is new in a directory, and says of all its migrations what they are.
pub fn load(directory: &Directory, meta: &Value, caller: &Caller) -> Result<Vec<Loaded>> {
    let all = directory.migrations()?;
    let gone = directory.gone(&all)?;
    let mut loaded = load::register_all(&all, Some(&directory.path), meta, caller)?;
    for known in gone {
        let found = Found {
            directory: Some(&directory.path),
            file: known.file.as_deref(),
            line: known.line,
        };
        source::set_found(&known.id, &found)?;
        loaded.push(Loaded {
            name: None,
            what: "missing",
            line: usize::try_from(known.line).unwrap_or_default(),
            detail: Some("it was loaded from there, and is there no more".into()),
            file: known.file,
            id: known.id,
        });
    }
    Ok(loaded)
}
