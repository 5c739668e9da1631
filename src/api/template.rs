//! Templates.

use super::{call, json, need};
use crate::engine::template::{self, Frame};
use crate::error::Result;
use crate::model::template::Column;
use crate::pg::identity::Caller;
use crate::pg::json::Document;
use crate::pg::ErrorReport;
use pgrx::prelude::*;

/// What all templates are given besides, with a migration's id for a result.
fn registered(
    id: Option<&str>,
    relation: Option<&str>,
    meta: Option<Document>,
    f: impl FnOnce(&Frame<'_>, &Caller) -> Result<()>,
) -> std::result::Result<String, ErrorReport> {
    call(|caller| {
        let id = need("id", id)?;
        let frame = Frame {
            id,
            relation: need("relation", relation)?,
            meta: &json("meta", meta)?,
        };
        f(&frame, caller)?;
        Ok(id.to_string())
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn add_column(
    id: Option<&str>,
    relation: Option<&str>,
    name: Option<&str>,
    data_type: Option<&str>,
    default_value: default!(Option<&str>, "NULL"),
    not_null: default!(Option<bool>, "false"),
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    registered(id, relation, meta, |frame, caller| {
        let new = Column {
            name: need("name", name)?.into(),
            data_type: need("data_type", data_type)?.into(),
            default: default_value.map(str::to_string),
            not_null: need("not_null", not_null)?,
            primary_key: false,
        };
        template::add_column(frame, &new, caller)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn add_table(
    id: Option<&str>,
    relation: Option<&str>,
    columns: Option<Document>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    registered(id, relation, meta, |frame, caller| {
        template::add_table(frame, &json("columns", columns)?, caller)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn drop_column(
    id: Option<&str>,
    relation: Option<&str>,
    name: Option<&str>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    registered(id, relation, meta, |frame, caller| {
        template::drop_column(frame, need("name", name)?, caller)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn rename_column(
    id: Option<&str>,
    relation: Option<&str>,
    name: Option<&str>,
    new_name: Option<&str>,
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    registered(id, relation, meta, |frame, caller| {
        let (name, new_name) = (need("name", name)?, need("new_name", new_name)?);
        template::rename_column(frame, name, new_name, caller)
    })
}

#[pg_extern(volatile, parallel_unsafe)]
fn transform_column(
    id: Option<&str>,
    relation: Option<&str>,
    name: Option<&str>,
    data_type: Option<&str>,
    expression: default!(Option<&str>, "NULL"),
    meta: default!(Option<Document>, "'{}'"),
) -> std::result::Result<String, ErrorReport> {
    registered(id, relation, meta, |frame, caller| {
        let (name, data_type) = (need("name", name)?, need("data_type", data_type)?);
        template::transform_column(frame, name, data_type, expression, caller)
    })
}
