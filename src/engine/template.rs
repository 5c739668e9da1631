//! Templates: common changes as functions that register plain DDL.

use super::register::{self, Request};
use crate::error::{Error, Result};
use crate::model::template::{self, Column, Ddl};
use crate::pg::identity::Caller;
use crate::pg::xact::{self, End};
use crate::pg::{fragment, spi};
use serde_json::Value;

fn invalid(problem: &str, detail: String, hint: &str) -> Error {
    Error::InvalidArgument {
        problem: problem.into(),
        detail,
        hint: hint.into(),
    }
}

/// A table's name as one writes it in SQL, checked and quoted anew.
fn table(text: &str) -> Result<String> {
    let wrong = |why: String| {
        invalid(
            "the table's name cannot be read",
            why,
            "Write it as in SQL: accounts, sales.accounts, or '\"My table\"'.",
        )
    };
    let parts = xact::subtransaction(End::Keep, || {
        spi::value::<Vec<String>>("SELECT parse_ident($1)", &[text.into()])
    })
    .map_err(|error| error.or_means(|error| wrong(format!("relation is {text}: {error}."))))?
    .unwrap_or_default();
    if let Some(fault) = parts.iter().find_map(|p| template::fault_of_name(p)) {
        return Err(wrong(format!("A part of it {fault}.")));
    }
    template::table(&parts).ok_or_else(|| {
        wrong(format!(
            "relation has {} parts, and a table has one or two.",
            parts.len()
        ))
    })
}

fn name(argument: &str, text: &str) -> Result<()> {
    match template::fault_of_name(text) {
        None => Ok(()),
        Some(fault) => Err(invalid(
            "the column's name is not one",
            format!("{argument} {fault}."),
            "Give the name as it is, without quotes around it.",
        )),
    }
}

fn data_type(argument: &str, text: &str) -> Result<()> {
    let wrong = |why: String| {
        invalid(
            "the type cannot be read",
            format!("{argument} is {text}{why}"),
            "Give a type's name and nothing else, such as 'bigint' or 'numeric(10,2)'.",
        )
    };
    match fragment::is_type_name(text) {
        Ok(true) => Ok(()),
        Ok(false) => Err(wrong(".".into())),
        Err(error) => Err(wrong(format!(": {error}."))),
    }
}

fn expression(argument: &str, text: &str) -> Result<()> {
    let wrong = |why: String| {
        invalid(
            "the expression cannot be read",
            format!("{argument} is {text}{why}"),
            "Give one expression and nothing else, such as '0' or 'lower(email)'.",
        )
    };
    match fragment::is_expression(text) {
        Ok(true) => Ok(()),
        Ok(false) => Err(wrong(".".into())),
        Err(error) => Err(wrong(format!(": {error}."))),
    }
}

fn column(place: &str, new: &Column) -> Result<()> {
    data_type(&format!("{place}type"), &new.data_type)?;
    match &new.default {
        Some(default) => expression(&format!("{place}default"), default),
        None => Ok(()),
    }
}

/// What all templates are given besides.
pub struct Frame<'a> {
    pub id: &'a str,
    pub relation: &'a str,
    pub meta: &'a Value,
}

fn register(frame: &Frame<'_>, ddl: &Ddl, caller: &Caller) -> Result<()> {
    register::run(
        Request {
            id: frame.id,
            up: &ddl.up,
            down: ddl.down.as_deref(),
            meta: frame.meta,
        },
        caller,
    )
}

pub fn add_column(frame: &Frame<'_>, new: &Column, caller: &Caller) -> Result<()> {
    let table = table(frame.relation)?;
    name("name", &new.name)?;
    column("", new)?;
    register(frame, &template::add_column(&table, new), caller)
}

pub fn add_table(frame: &Frame<'_>, columns: &Value, caller: &Caller) -> Result<()> {
    let table = table(frame.relation)?;
    let columns = template::columns(columns).map_err(|e| Error::InvalidArgument {
        problem: "the columns are not valid".into(),
        detail: format!("{}: {}.", e.path, e.message),
        hint: e.hint,
    })?;
    for (i, new) in columns.iter().enumerate() {
        column(&format!("columns[{i}]."), new)?;
    }
    register(frame, &template::add_table(&table, &columns), caller)
}

pub fn drop_column(frame: &Frame<'_>, column: &str, caller: &Caller) -> Result<()> {
    let table = table(frame.relation)?;
    name("name", column)?;
    register(frame, &template::drop_column(&table, column), caller)
}

pub fn rename_column(frame: &Frame<'_>, column: &str, new: &str, caller: &Caller) -> Result<()> {
    let table = table(frame.relation)?;
    name("name", column)?;
    name("new_name", new)?;
    register(frame, &template::rename_column(&table, column, new), caller)
}

pub fn transform_column(
    frame: &Frame<'_>,
    column: &str,
    new_type: &str,
    using: Option<&str>,
    caller: &Caller,
) -> Result<()> {
    let table = table(frame.relation)?;
    name("name", column)?;
    data_type("data_type", new_type)?;
    if let Some(using) = using {
        expression("expression", using)?;
    }
    register(
        frame,
        &template::transform_column(&table, column, new_type, using),
        caller,
    )
}
