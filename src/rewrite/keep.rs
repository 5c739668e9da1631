//! The way back of a rewrite, kept open after its swap: changes of the table are captured and drained into the old rows, by
//! the statements that lead back. A rewrite of its own in every respect but one: its shadow is full when it begins.

use super::expand::{self, KeyLogs};
use super::{capture, shadow, Work};
use crate::catalog::column::{self, Column};
use crate::catalog::index::{self, Key};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::row::RowMapper;
use crate::pg::Oid;
use crate::pg::{parser, pieces, spi, utility, xact};
use crate::store::{artifact, rewrite};

/// What is made before the lock of the swap.
pub struct Prepared {
    id: i64,
    new_schema: String,
    logs: KeyLogs,
    key: Key,
    back: String,
}

/// Key log and refused keys of the way back; `None`: none is wanted.
pub fn prepare(work: &Work) -> Result<Option<Prepared>> {
    let Some(back) = work.other.as_ref().filter(|_| work.keeps) else {
        return Ok(None);
    };
    let table = &work.table;
    let changed = relation::get(work.rewrite.shadow)?;
    let key = key(
        changed.oid,
        work.rewrite.twin,
        back,
        table.owner,
        &work.session,
    )?
    .ok_or_else(|| without_key(table))?;
    let id = expand::free_id()?;
    let new_schema = format!("_transmute_{id}_new");
    expand::create_schema(&new_schema, &table.owner_name)?;
    let logs = expand::create_key_logs(id, &changed, &new_schema, &key.columns)?;
    Ok(Some(Prepared {
        id,
        new_schema,
        logs,
        key,
        back: back.clone(),
    }))
}

/// Under the lock of the swap, which is done: from here on writes are captured.
pub fn begin(work: &Work, way: Prepared) -> Result<()> {
    let (done, table) = (&work.rewrite, &work.table);
    let keys = index::keys(table.oid, &[])?;
    let alike = |k: &&Key| k.columns == way.key.columns;
    // The index of a partition may have got another name with that of its table.
    let key = keys
        .iter()
        .filter(alike)
        .find(|k| k.name == way.key.name)
        .or_else(|| keys.iter().find(alike))
        .ok_or_else(|| without_key(table))?;
    capture::on(way.id, table, way.logs.keys, &way.logs.name, &key.columns)?;
    expand::hide_from_decoding(&[done.twin, way.logs.keys, way.logs.refused], table.oid)?;
    let relfilenode = relation::relfilenode(table.oid)?.unwrap_or(table.relfilenode);
    rewrite::insert(rewrite::New {
        id: way.id,
        migration_id: &work.migration_id,
        statement: -done.statement,
        relation: table.oid,
        shadow: done.twin,
        twin: done.twin, // until there is one: `make_twin`
        key_log: way.logs.keys,
        new_schema: &way.new_schema,
        old_schema: &format!("_transmute_{}_old", way.id),
        key_index: key.index,
        key_columns: &key.columns,
        shadow_key: &way.key.name,
        deferred: &[],
        relfilenode,
        end_block: 0,
        rows_estimate: 0.0,
        fingerprint: &done.fingerprint,
        definition: &relation::definition(table.oid)?,
        reverses: Some((done.id, &way.back)),
    })?;
    artifact::expire_with(&done.old_schema, way.id)
}

/// Before the lock of the way back: the empty table that takes the new rows.
pub fn make_twin(work: &mut Work) -> Result<()> {
    expand::create_schema(&work.rewrite.old_schema, &work.table.owner_name)?;
    let twin = shadow::create_like(&work.table, &work.rewrite.old_schema)?;
    shadow::copy_missing_values(work.table.oid, twin)?;
    rewrite::set_twin(work.rewrite.id, twin)?;
    work.rewrite.twin = twin;
    Ok(())
}

/// Columns that the migration added are dropped in the table, and never were in the old rows: they get the place of one.
pub fn fit(table: Oid, old: Oid) -> Result<()> {
    let width = column::list(old)?.len();
    let missing: Vec<Column> = column::list(table)?
        .into_iter()
        .skip(width)
        .filter(|c| c.dropped)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let old_relation = relation::get(old)?;
    identity::as_role(old_relation.owner, &Session::own(), || {
        for column in &missing {
            let name = quote_ident(&shadow::placeholder(column.number));
            utility::run(&format!(
                "ALTER TABLE {} ADD COLUMN {name} int4",
                old_relation.name
            ))?;
            utility::run(&format!(
                "ALTER TABLE {} DROP COLUMN {name}",
                old_relation.name
            ))?;
        }
        Ok(())
    })?;
    shadow::copy_dropped_layout(table, old)
}

/// The index that identifies rows in `new` and `old` alike, where their keys do not become equal on the way back.
pub fn key(new: Oid, old: Oid, back: &str, owner: Oid, session: &Session) -> Result<Option<Key>> {
    let retyped: Vec<i16> = column::list(new)?
        .iter()
        .zip(&column::list(old)?)
        .filter(|(a, b)| (a.type_oid, a.typmod) != (b.type_oid, b.typmod))
        .map(|(a, _)| a.number)
        .collect();
    let kept = index::keys(old, &[])?;
    let common = index::keys(new, &retyped)?.into_iter().filter(|k| {
        kept.iter()
            .any(|o| o.name == k.name && o.columns == k.columns)
    });
    for key in common {
        let apart = !key.touched
            || identity::as_role(owner, session, || {
                Ok(RowMapper::new(new, old, back, false)?.keeps_apart(&key.columns))
            })?;
        if apart {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

fn without_key(table: &Relation) -> Error {
    Error::Unsupported {
        problem: "the old rows cannot be kept current: no key of the table survives the way back"
            .into(),
        detail: format!(
            "{} needs a unique index over NOT NULL columns whose values stay different in the old types.",
            table.name
        ),
        hint: "Leave meta.keep_old out, or give the table another unique index over NOT NULL columns."
            .into(),
    }
}

/// The columns that a table has now, by its name.
pub fn live(columns: &[Column]) -> Vec<(i16, &str)> {
    columns
        .iter()
        .filter(|c| !c.dropped)
        .map(|c| (c.number, c.name.as_str()))
        .collect()
}

/// Proves on empty copies, inside of a transaction that is undone, that `back` leads from the shape that `script` makes
/// to the shape before it. `old` and `new` are these copies.
pub fn prove(
    table: &Relation,
    old: &QualifiedName,
    new: &QualifiedName,
    script: &str,
    back: &str,
    session: &Session,
) -> Result<()> {
    let (old_oid, new_oid) = (shadow::oid_of(old)?, shadow::oid_of(new)?);
    let schema = format!("{}_back", new.schema);
    expand::create_schema(&schema, &table.owner_name)?;
    let copy = shadow::create_like(&relation::get(new_oid)?, &schema)?;
    let name = QualifiedName::new(&schema, &new.name);
    shadow::alter(table, back, &name, &added_foreign_keys(script)?, session)?;
    let wanted = facts(old_oid, &old.schema)?;
    let found = facts(copy, &schema)?;
    let differs = wanted
        .iter()
        .filter(|f| !found.contains(f))
        .map(|f| format!("before: {f}"))
        .chain(
            found
                .iter()
                .filter(|f| !wanted.contains(f))
                .map(|f| format!("after the way back: {f}")),
        )
        .collect::<Vec<_>>();
    if !differs.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "the way back does not lead to the table as it is".into(),
            detail: format!("On {}: {}.", table.name, differs.join("; ")),
            hint: "Give the whole way back as down, or leave meta.keep_old and meta.versioned_views out.".into(),
        });
    }
    let (columns, before) = (column::list(copy)?, column::list(old_oid)?);
    if live(&columns) != live(&before) {
        return Err(Error::Unsupported {
            problem: "old rows are neither kept current nor shown when a column of them is dropped in a copy".into(),
            detail: format!("The statements drop a column of {}.", table.name),
            hint: "Drop it in a migration of its own, which hides it first, or leave meta.keep_old and meta.versioned_views out."
                .into(),
        });
    }
    Ok(())
}

/// Of the same copies: rows are found by their key on the way back.
pub fn require_key(
    table: &Relation,
    old: &QualifiedName,
    new: &QualifiedName,
    back: &str,
    session: &Session,
) -> Result<()> {
    let (old_oid, new_oid) = (shadow::oid_of(old)?, shadow::oid_of(new)?);
    key(new_oid, old_oid, back, table.owner, session)?
        .map(|_| ())
        .ok_or_else(|| without_key(table))
}

/// Names of the foreign keys that a script adds, which the copies do not have.
fn added_foreign_keys(script: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for statement in parser::parse(script)? {
        if super::adds_foreign_keys(&statement) {
            let pieces = pieces::of(&statement.text)?.list;
            let added = pieces.into_iter().flat_map(|p| p.constraints);
            names.extend(added.filter_map(|c| c.name));
        }
    }
    Ok(names)
}

/// What a swap relies on, a fact each; how many columns were dropped does not matter.
fn facts(table: Oid, schema: &str) -> Result<Vec<String>> {
    let text: Option<String> = spi::value("SELECT _transmute.definition($1)", &[table.into()])?;
    Ok(text
        .unwrap_or_default()
        .replace(&format!("{schema}."), "")
        .lines()
        .filter(|l| !l.starts_with("table: columns"))
        .map(str::to_string)
        .collect())
}

/// Runs `f` with two empty copies of the table, one as it is at this place of the script and one that `script` has changed.
/// All of it is undone.
pub fn with_copies<T>(
    table: &Relation,
    script: &str,
    earlier: &super::probe::Earlier,
    session: &Session,
    before: impl FnOnce() -> Result<()>,
    f: impl FnOnce(&QualifiedName, &QualifiedName) -> Result<T>,
) -> Result<T> {
    let base = format!("_transmute_probe_{}", crate::pg::activity::pid());
    xact::subtransaction(xact::End::Undo, || {
        let mut names = Vec::new();
        for schema in [format!("{base}_old"), format!("{base}_new")] {
            expand::create_schema(&schema, &table.owner_name)?;
            names.push(QualifiedName::new(&schema, &table.name.name));
        }
        before()?;
        for name in &names {
            shadow::create_like(table, &name.schema)?;
            super::probe::replay(table, earlier, name, session)?;
        }
        shadow::alter(table, script, &names[1], &earlier.foreign_keys, session)?;
        f(&names[0], &names[1])
    })
}
