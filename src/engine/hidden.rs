//! `meta.keep_old` where no table is copied: hidden columns that follow the new ones, and names, until the time is over.

use super::dual_writing;
use super::naming;
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::dualwrite::rule;
use crate::error::{Error, Result};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{waitpoint, Oid};
use crate::recover::column as recover;
use crate::rewrite::lock;
use crate::store::artifact::{self, HiddenColumn};
use crate::store::audit_event::{self, Act};
use crate::store::dead_letter;
use crate::store::migration::Migration;
use crate::store::rule::{self as rules, Kept};
use crate::store::step::{self, Kind};
use crate::store::undo as store;

/// What was hidden is there, and every row of it is as the way back wants it.
pub fn require_possible(migration: &Migration) -> Result<()> {
    for reverse in rules::reverses(&migration.id)? {
        rule::require_in_force(&reverse, &relation::get(reverse.relation)?)?;
        dual_writing::require_converted(&reverse)?;
    }
    for step in step::begun(&migration.id, Kind::HideColumn)? {
        let (table, name) = naming::hidden_by(&step)?;
        let hidden = artifact::of_column(&migration.id, &table, &name)?;
        let there = match hidden {
            Some(hidden) => found(&hidden)?.is_some(),
            None => false,
        };
        if !there {
            return Err(Error::Prerequisite {
                problem: "a column that was hidden is gone".into(),
                detail: format!("{name} of {table}."),
                hint: "transmute.release_old(id, reason) ends the possibility to undo.".into(),
            });
        }
    }
    Ok(())
}

/// The table of a hidden column, if both are there.
fn found(hidden: &HiddenColumn) -> Result<Option<Relation>> {
    let named = pg_relation::resolve(Some(&hidden.table.schema), &hidden.table.name)?;
    let Some(table) = named else {
        return Ok(None);
    };
    let columns = column::list(table)?;
    let there = columns.iter().any(|c| !c.dropped && c.name == hidden.name);
    there.then(|| relation::get(table)).transpose()
}

/// The time is over: nothing follows any more, nothing of the old shape binds who writes, and the columns are purged by and by.
pub fn let_go(migration: &Migration) -> Result<()> {
    let reverses = rules::reverses(&migration.id)?;
    let mut columns = Vec::new();
    for hidden in artifact::columns(&migration.id)? {
        let table = found(&hidden)?;
        columns.push((hidden, table));
    }
    if reverses.is_empty() && columns.is_empty() {
        return store::set_let_go(&migration.id);
    }
    audit_event::reserve()?;
    lock_all(&reverses, &columns)?;
    for reverse in &reverses {
        rule::remove(reverse, &relation::get(reverse.relation)?)?;
        dead_letter::resolve_rule(reverse.id)?;
        rules::delete(reverse.id)?;
    }
    for (hidden, table) in &columns {
        if let Some(table) = table {
            recover::strip(table, hidden)?;
        }
        artifact::set_expired(hidden.id)?;
    }
    store::set_let_go(&migration.id)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "old columns let go",
        detail: Some(serde_json::json!({ "columns": columns.len() })),
        ..Act::default()
    })?;
    waitpoint::reach("let_go_columns_before_commit")
}

fn lock_all(reverses: &[Kept], columns: &[(HiddenColumn, Option<Relation>)]) -> Result<()> {
    let mut locked: Vec<Oid> = reverses.iter().map(|r| r.relation).collect();
    let mut names: Vec<&str> = reverses.iter().map(|r| r.target.as_str()).collect();
    let texts: Vec<String> = columns.iter().map(|(h, _)| h.table.to_string()).collect();
    names.extend(texts.iter().map(String::as_str));
    for (hidden, table) in columns {
        if let Some(table) = table {
            locked.extend(recover::locked_by_strip(table.oid, &hidden.name)?);
        }
    }
    locked.sort_unstable_by_key(|oid| oid.to_u32());
    locked.dedup();
    names.sort_unstable();
    names.dedup();
    match locked.is_empty() {
        true => Ok(()),
        false => lock::acquire(&locked, LockMode::AccessExclusive, &names.join(", ")),
    }
}
