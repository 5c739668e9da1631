//! Texts and files.

use super::{call, json, look, need};
use crate::engine::files::{self, Directory, Sent};
use crate::engine::load as loading;
use crate::engine::verbs::verify::{self, Verified};
use crate::error::{Error, Result};
use crate::pg::identity;
use crate::pg::json::Document;
use crate::pg::ErrorReport;
use pgrx::prelude::*;
use pgrx::Array;

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn load(
    source: Option<&str>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(name, Option<String>),
            name!(what, String),
        ),
    >,
    ErrorReport,
> {
    let loaded =
        call(|caller| loading::run(need("source", source)?, &json("meta", meta)?, caller))?;
    Ok(TableIterator::new(
        loaded
            .into_iter()
            .map(|l| (l.id, l.name, l.what.to_string())),
    ))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn load_dir(
    path: Option<&str>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(file, Option<String>),
            name!(line, i64),
            name!(id, String),
            name!(name, Option<String>),
            name!(what, String),
            name!(shape, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rows = call(|caller| {
        let path = need("path", path)?;
        let meta = json("meta", meta)?;
        let directory = files::on_server(path, caller)?;
        loaded(&directory, files::load(&directory, &meta, caller)?)
    })?;
    Ok(TableIterator::new(rows))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(volatile, parallel_unsafe)]
fn load_files(
    directory: Option<&str>,
    names: Option<Vec<Option<String>>>,
    contents: Option<Array<'_, &[u8]>>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(file, Option<String>),
            name!(line, i64),
            name!(id, String),
            name!(name, Option<String>),
            name!(what, String),
            name!(shape, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rows = call(|caller| {
        let directory = sent(directory, names, contents)?;
        let meta = json("meta", meta)?;
        loaded(&directory, files::load(&directory, &meta, caller)?)
    })?;
    Ok(TableIterator::new(rows))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn verify_dir(
    path: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(result, String),
            name!(stored, Option<String>),
            name!(found, Option<String>),
            name!(file, Option<String>),
            name!(line, Option<i32>),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = look(&identity::caller(), |caller| {
        verify::directory(&files::on_server(need("path", path)?, caller)?)
    })?;
    Ok(TableIterator::new(verified.into_iter().map(shown)))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn verify_files(
    directory: Option<&str>,
    names: Option<Vec<Option<String>>>,
    contents: Option<Array<'_, &[u8]>>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(result, String),
            name!(stored, Option<String>),
            name!(found, Option<String>),
            name!(file, Option<String>),
            name!(line, Option<i32>),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = look(&identity::caller(), |_| {
        verify::directory(&sent(directory, names, contents)?)
    })?;
    Ok(TableIterator::new(verified.into_iter().map(shown)))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn verify_checksums(
    sources: Option<Document>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(result, String),
            name!(stored, Option<String>),
            name!(found, Option<String>),
            name!(file, Option<String>),
            name!(line, Option<i32>),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = look(&identity::caller(), |_| {
        verify::texts(&json("sources", sources)?)
    })?;
    Ok(TableIterator::new(verified.into_iter().map(shown)))
}

#[pg_extern(stable, parallel_unsafe)]
fn export_sql(id: Option<&str>) -> std::result::Result<String, ErrorReport> {
    look(&identity::caller(), |_| loading::export(need("id", id)?))
}

/// A row of `load_dir`.
type Row = (
    Option<String>,
    i64,
    String,
    Option<String>,
    String,
    String,
    Option<String>,
);

fn loaded(directory: &Directory, loaded: Vec<loading::Loaded>) -> Result<Vec<Row>> {
    let shape = directory.shape.to_string();
    Ok(loaded
        .into_iter()
        .map(|l| {
            let line = i64::try_from(l.line).unwrap_or(i64::MAX);
            let what = l.what.to_string();
            (l.file, line, l.id, l.name, what, shape.clone(), l.detail)
        })
        .collect())
}

/// A row of `verify_checksums`.
#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn shown(
    v: Verified,
) -> (
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<String>,
) {
    let result = v.result.to_string();
    (v.id, result, v.stored, v.found, v.file, v.line, v.detail)
}

/// The files that a client has sent: each name has a content.
fn sent(
    directory: Option<&str>,
    names: Option<Vec<Option<String>>>,
    contents: Option<Array<'_, &[u8]>>,
) -> Result<Directory> {
    let directory = need("directory", directory)?;
    let (names, contents) = (need("names", names)?, need("contents", contents)?);
    if names.len() != contents.len() {
        return Err(Error::InvalidArgument {
            problem: "names and contents are not of the same length".into(),
            detail: format!("They are {} and {}.", names.len(), contents.len()),
            hint: "Give the content of each name.".into(),
        });
    }
    let files = names
        .into_iter()
        .zip(contents.iter())
        .map(|(name, content)| {
            Ok(Sent {
                name: need("a name", name)?,
                content: need("the content of a file", content)?.to_vec(),
            })
        })
        .collect::<Result<Vec<Sent>>>()?;
    files::sent(directory, &files)
}
