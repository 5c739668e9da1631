//! A copy from a query or table into a table, as one step: its statement is written here, and tried without rows.

use super::draft::{planned, Draft};
use super::{in_order, locks_of, Planned};
use crate::backfill::keyset::{Copy, ROW};
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::model::written::Copy as Written;
use crate::pg::identity::{self, Caller};
use crate::pg::xact::{self, End};
use crate::pg::{dml, parser, spi, Oid};
use crate::store::step::Kind as StepKind;
use pgrx::PgSqlErrorCode;

/// What a person asks for.
pub struct Wish<'a> {
    pub written: &'a Written,
    /// `error`, or `skip`: rows that the target has already; `None`: skip where it is a foreign table.
    pub on_conflict: Option<&'a str>,
    pub batch_size: i32,
}

/// Plans a copy for `caller`. Nothing is written.
pub fn make(wish: &Wish<'_>, caller: &Caller) -> Result<(Copy, Vec<Planned>)> {
    let written = wish.written;
    let rollback = written.rollback.as_deref();
    if let Some(rollback) = rollback {
        super::phases::require_rollback(rollback)?;
    }
    let as_caller = |f: &dyn Fn() -> Result<Vec<(String, String)>>| {
        xact::subtransaction(End::Undo, || {
            identity::as_role(caller.role, &caller.session, f)
        })
    };
    let source = source(&written.source, caller)?;
    let target = target(&written.target, caller)?;
    let found = as_caller(&|| spi::columns(&format!("SELECT {ROW}.* FROM {source}")))?;
    let key = key(&written.key, &found)?;
    let list = written.transform.as_deref().unwrap_or("record.*");
    require_list(list)?;
    let made = format!("{source} CROSS JOIN LATERAL (SELECT {list}) AS made");
    let fields = as_caller(&|| spi::columns(&format!("SELECT made.* FROM {made}")))?;
    let mut names: Vec<String> = fields.into_iter().map(|(name, _)| name).collect();
    let mut from = made;
    let mut row = "made";
    if let Some(pipeline) = &written.pipeline {
        let pipeline = format!("{}::pg_catalog.jsonb", quote_literal(&pipeline.to_string()));
        names = as_caller(&|| {
            let empty: serde_json::Map<String, serde_json::Value> = names
                .iter()
                .map(|n| (n.clone(), serde_json::Value::Null))
                .collect();
            let record = quote_literal(&serde_json::Value::Object(empty).to_string());
            let sql = format!("SELECT k, '' FROM pg_catalog.jsonb_object_keys(transmute.transform({record}, {pipeline})) AS k");
            spi::query(&sql, &[], |row| Ok((row.need(1)?, row.need(2)?)))
        })?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
        from = format!(
            "{from} CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::{}, \
             transmute.transform(pg_catalog.to_jsonb(made), {pipeline})) AS sent",
            target.name
        );
        row = "sent";
    }
    require_columns(&target, &names)?;
    let columns: Vec<String> = names.iter().map(|n| quote_ident(n)).collect();
    let values: Vec<String> = columns.iter().map(|c| format!("{row}.{c}")).collect();
    let copy = Copy {
        insert: format!(
            "INSERT INTO {} ({}) SELECT {} FROM {from}",
            target.name,
            columns.join(", "),
            values.join(", ")
        ),
        tail: match wish
            .on_conflict
            .unwrap_or(if target.kind == 'f' { "skip" } else { "error" })
        {
            "skip" => " ON CONFLICT DO NOTHING".into(),
            _ => String::new(),
        },
        source,
        key,
        rollback: written.rollback.clone(),
        batch_size: wish.batch_size,
    };
    // The server says whether it fits, and whether the caller may.
    as_caller(&|| {
        dml::run(&format!("{} WHERE false{}", copy.insert, copy.tail))?;
        Ok(Vec::new())
    })?;
    let mut draft = Draft::new(
        StepKind::CopyRows,
        Phase::Backfill,
        target.name.to_string(),
        format!("{}{}", copy.insert, copy.tail),
    )
    .lock("ROW EXCLUSIVE")
    .revert(written.rollback.clone());
    draft.also = locks_of(&draft.sql, caller)?;
    if rollback.is_none() {
        draft = draft.reasons([Reason::Irreversible]);
    }
    let mut steps = vec![planned(1, &Facts::default(), draft)];
    in_order(&mut steps);
    Ok((copy, steps))
}

/// One select list, and nothing behind it.
fn require_list(text: &str) -> Result<()> {
    let sql = format!("SELECT {text}");
    let parsed = xact::subtransaction(End::Keep, || parser::parse(&sql))
        .map_err(|e| super::place::of_syntax_error_in("transform", e, text, "SELECT ".len()))?;
    match parsed.as_slice() {
        [one] if one.tag == "SELECT" && !text.trim().is_empty() => Ok(()),
        _ => Err(Error::InvalidArgument {
            problem: "transform is not a select list".into(),
            detail: format!("It is {} statements.", parsed.len()),
            hint: "Write what would stand behind SELECT: id, upper(name) AS name.".into(),
        }),
    }
}

fn named(what: &str, text: &str, caller: &Caller) -> Result<Relation> {
    let found = xact::subtransaction(End::Keep, || {
        identity::as_role(caller.role, &caller.session, || {
            spi::value::<Oid>(
                "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid",
                &[text.into()],
            )
        })
    });
    let oid = match found {
        // What cannot be a name names nothing. So says the server itself from 16 on.
        Err(Error::Server(e)) if e.code == PgSqlErrorCode::ERRCODE_INVALID_NAME => None,
        found => found?,
    }
    .ok_or_else(|| Error::UndefinedTable {
        name: format!("{text} ({what})"),
        search_path: caller.session.search_path.clone(),
    })?;
    relation::get(oid)
}

/// What stands behind FROM.
fn source(text: &str, caller: &Caller) -> Result<String> {
    let parsed = xact::subtransaction(End::Keep, || parser::parse(text));
    match parsed.as_deref() {
        Ok([statement]) if statement.tag == "SELECT" => {
            return Ok(format!("({}\n) AS {ROW}", statement.text))
        }
        Ok([]) | Ok([_, ..]) => {
            return Err(Error::InvalidArgument {
                problem: "source is neither a query nor a table".into(),
                detail: "It is not one SELECT.".into(),
                hint: "Give one SELECT, or the name of a table, view or foreign table.".into(),
            })
        }
        Err(_) => {}
    }
    let relation = named("source", text, caller)?;
    if !matches!(relation.kind, 'r' | 'p' | 'v' | 'm' | 'f') {
        return Err(wrong_object("source", &relation));
    }
    Ok(format!("{} AS {ROW}", relation.name))
}

fn target(text: &str, caller: &Caller) -> Result<Relation> {
    let relation = named("target", text, caller)?;
    let plain = matches!(relation.kind, 'r' | 'p' | 'f') && relation.persistence != 't';
    match plain && !relation.is_system {
        true => Ok(relation),
        false => Err(wrong_object("target", &relation)),
    }
}

fn wrong_object(what: &str, relation: &Relation) -> Error {
    Error::WrongObject {
        problem: format!("{what} is no table that a copy can use"),
        detail: format!("{} is not one of the database's own tables of rows.", relation.name),
        hint: "A source is a query, table, view or foreign table; a target is a table or foreign table."
            .into(),
    }
}

/// The key with its types.
fn key(names: &[String], columns: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let wrong = |detail: String| Error::InvalidArgument {
        problem: "key is not a list of columns of the source".into(),
        detail,
        hint: "Name the columns, in the order in which rows are to be copied.".into(),
    };
    if names.is_empty() {
        return Err(wrong("The list is empty.".into()));
    }
    let mut key = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(wrong(format!("\"{name}\" is named twice.")));
        }
        let of = columns
            .iter()
            .find(|(column, _)| column == name)
            .ok_or_else(|| wrong(format!("The source has no column \"{name}\".")))?;
        key.push(of.clone());
    }
    Ok(key)
}

fn require_columns(target: &Relation, names: &[String]) -> Result<()> {
    let columns = column::list(target.oid)?;
    let missing: Vec<&str> = names
        .iter()
        .filter(|n| !columns.iter().any(|c| !c.dropped && c.name == **n))
        .map(String::as_str)
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(_) => Err(Error::InvalidArgument {
            problem: "the target has not all columns of what is copied".into(),
            detail: format!("{} has no column {}.", target.name, missing.join(", ")),
            hint: "Name its columns in transform (expression AS column), or rename the fields in pipeline.".into(),
        }),
    }
}
