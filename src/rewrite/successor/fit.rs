//! Which tables can take another one's place, how rows are found on both sides, and step 1: key log and capture.

use crate::catalog::column::{self, Column};
use crate::catalog::index;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::plain_copy::{PlainCopy, Selected};
use crate::pg::relation::{self as pg_relation, LockMode, Table};
use crate::pg::{identity, plain_copy, spi, waitpoint, Oid};
use crate::rewrite::{capture, expand, require_free, shadow};
use crate::store::migration::Migration;
use crate::store::rewrite::{self, Copied, Successor};
/// What the copy of a table into another one is, once the server has made that one.
pub struct Fitting {
    pub successor: Successor,
    pub key: index::Key,
    /// The index of the successor by which its rows are found.
    pub found_by: String,
}

/// The copy that a statement is; more than that is refused.
pub fn read(insert: &str) -> Result<PlainCopy> {
    plain_copy::of(insert)?.map_err(|why| Error::Unsupported {
        problem: "the copy that takes a table's place is more than a copy".into(),
        detail: format!("As for the INSERT: {why}."),
        hint: "INSERT INTO new SELECT * FROM old, or with a list of columns; other changes in a migration of their own.".into(),
    })
}

/// Refuses by name what this does not do, and says how rows are found on both sides.
pub fn fit(table: &Relation, successor: Oid, copy: &PlainCopy) -> Result<Fitting> {
    require_alone(table)?;
    let new = relation::get(successor)?;
    let unfit = |detail: String| {
        unsupported(
            "a table cannot be filled beside the one that it takes the place of",
            detail,
            "Foreign keys are added by a migration of their own, afterwards; for the rest, change the table that the script makes.",
        )
    };
    let faults: Vec<String> = spi::query_kept(
        include_str!("../../../sql/query/unfit_successor.sql"),
        &[successor.into(), table.oid.into()],
        |row| row.need(1),
    )?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(unfit(format!("{fault}.")));
    }
    let columns = pairs(table, &new, copy)?;
    let into = |number: &i16| columns.iter().find(|(from, _)| from.number == *number);
    let keys = index::keys(table.oid, &[])?;
    let Some(key) = keys
        .into_iter()
        .find(|k| k.columns.iter().all(|n| into(n).is_some()))
    else {
        return Err(unfit(format!(
            "{} has no primary key or unique index of NOT NULL columns that are all copied.",
            table.name
        )));
    };
    let numbers: Vec<i16> = key
        .columns
        .iter()
        .filter_map(|n| into(n).map(|(_, to)| to.number))
        .collect();
    let found_by: Option<String> = spi::first_kept(
        include_str!("../../../sql/query/leading_index.sql"),
        &[successor.into(), numbers.into()],
        |row| row.need(1),
    )?;
    let Some(found_by) = found_by else {
        let list: Vec<String> = key
            .columns
            .iter()
            .filter_map(|n| into(n).map(|(_, to)| quote_ident(&to.name)))
            .collect();
        return Err(unfit(format!(
            "{} has no index that begins with ({}), the key of {}, by which its rows are found.",
            new.name,
            list.join(", "),
            table.name
        )));
    };
    let columns = columns
        .into_iter()
        .map(|(from, to)| Copied {
            into: to.name,
            from: from.name,
        })
        .collect();
    Ok(Fitting {
        successor: Successor { columns },
        key,
        found_by,
    })
}

fn unsupported(problem: &str, detail: String, hint: &str) -> Error {
    Error::Unsupported {
        problem: problem.into(),
        detail,
        hint: hint.into(),
    }
}

/// What means the table by its oid would go on meaning the old rows.
pub(super) fn require_alone(table: &Relation) -> Result<()> {
    let problem = "a table that another one takes the place of is used by something that would stay with the old one";
    if table.kind != 'r' || table.has_inheritance {
        return Err(unsupported(
            "only an ordinary table can be copied into another one that takes its place",
            format!("{} is partitioned, or part of a tree.", table.name),
            "Change its partitions one by one.",
        ));
    }
    let followers: Vec<String> = spi::query_kept(
        include_str!("../../../sql/query/follows_table.sql"),
        &[table.oid.into()],
        |row| row.need(1),
    )?;
    match followers.into_iter().next() {
        None => Ok(()),
        Some(follower) => Err(unsupported(
            problem,
            format!("{follower}, of {}.", table.name),
            "Drop it before the migration and make it again after it.",
        )),
    }
}

/// The columns of both tables that belong together: of one type, so that a copy is the same value.
fn pairs(table: &Relation, new: &Relation, copy: &PlainCopy) -> Result<Vec<(Column, Column)>> {
    let live = |oid: Oid| -> Result<Vec<Column>> {
        let mut columns = column::list(oid)?;
        columns.retain(|c| !c.dropped);
        Ok(columns)
    };
    let (old_columns, new_columns) = (live(table.oid)?, live(new.oid)?);
    let named = |columns: &[Column], name: &str, of: &Relation| {
        let found = columns.iter().find(|c| c.name == name).cloned();
        found.ok_or_else(|| {
            unsupported(
                "the copy that takes a table's place is more than a copy",
                format!("\"{name}\" is no column of {}.", of.name),
                "Name columns, or *.",
            )
        })
    };
    let mut from = Vec::new();
    for selected in &copy.selected {
        match selected {
            Selected::All => from.extend(old_columns.iter().cloned()),
            Selected::Column(name) => from.push(named(&old_columns, name, table)?),
        }
    }
    let to = match &copy.columns {
        None => new_columns.iter().take(from.len()).cloned().collect(),
        Some(names) => names
            .iter()
            .map(|name| named(&new_columns, name, new))
            .collect::<Result<Vec<_>>>()?,
    };
    let pairs: Vec<(Column, Column)> = from.into_iter().zip(to).collect();
    let converted = pairs
        .iter()
        .find(|(a, b)| (a.type_oid, a.typmod) != (b.type_oid, b.typmod));
    match converted {
        None => Ok(pairs),
        Some((a, b)) => Err(unsupported(
            "a table cannot be filled beside the one that it takes the place of",
            format!(
                "Column {} is of type {}, {} of {}.",
                quote_ident(&a.name),
                a.type_name,
                quote_ident(&b.name),
                b.type_name
            ),
            "Change the type in a migration of its own.",
        )),
    }
}

/// A sequence of the table that another table counts with would go with it, if it is not given away.
pub fn require_droppable(table: &Relation, given_away: &[Oid]) -> Result<()> {
    let used: Option<String> = spi::first_kept(
        include_str!("../../../sql/query/owned_sequences_used.sql"),
        &[table.oid.into(), given_away.to_vec().into()],
        |row| row.need(1),
    )?;
    match used {
        None => Ok(()),
        Some(used) => Err(Error::DependentObjects {
            problem: "a sequence of the table that is dropped is used by another one".into(),
            detail: format!("{used}."),
            hint: "ALTER SEQUENCE … OWNED BY the new table's column, before DROP TABLE.".into(),
        }),
    }
}

/// Step 1: key log and capture; the shadow is there, made by the steps before.
pub fn make(migration: &Migration, statement: i32, insert: &str, table: Oid) -> Result<()> {
    let table = relation::get(table)?;
    require_free(&table, &migration.id)?;
    let copy = read(insert)?;
    let new = identity::as_role(table.owner, &migration.session, || {
        let (schema, name) = &copy.into;
        pg_relation::resolve(schema.as_deref(), name)?.ok_or_else(|| Error::UndefinedTable {
            name: name.clone(),
            search_path: migration.session.search_path.clone(),
        })
    })?;
    let fitting = fit(&table, new, &copy)?;
    let id = expand::free_id()?;
    let (new_schema, old_schema) = expand::create_schemas(id, &table)?;
    let fingerprint = relation::fingerprint(table.oid)?;
    let definition = relation::definition(table.oid)?;
    // Rows of the table are read in its shape; nothing is written there.
    let twin = shadow::create_like(&table, &old_schema)?;
    let key = &fitting.key;
    let logs = expand::create_key_logs(id, &table, &new_schema, &key.columns)?;
    expand::hide_from_decoding(&[logs.keys, logs.refused], table.oid)?;
    waitpoint::reach("expand_before_lock")?;
    expand::lock_unchanged(&table, &definition)?;
    capture::on(id, &table, logs.keys, &logs.name, &key.columns)?;
    let end_block = Table::open(table.oid, LockMode::AccessShare).blocks();
    let relfilenode = relation::relfilenode(table.oid)?.unwrap_or(table.relfilenode);
    rewrite::insert(rewrite::New {
        id,
        migration_id: &migration.id,
        statement,
        relation: table.oid,
        shadow: new,
        twin,
        key_log: logs.keys,
        new_schema: &new_schema,
        old_schema: &old_schema,
        key_index: key.index,
        key_columns: &key.columns,
        shadow_key: &fitting.found_by,
        deferred: &[],
        relfilenode,
        end_block,
        rows_estimate: table.rows,
        fingerprint: &fingerprint,
        definition: &definition,
        reverses: None,
    })?;
    rewrite::set_successor(id, &fitting.successor)?;
    rewrite::set_capture_stamp(id, &capture::stamp(id, table.oid)?)?;
    expand::lanes(id, end_block)
}
