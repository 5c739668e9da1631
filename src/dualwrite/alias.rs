//! A table under two names: the table has the new one, a view of the same rows the old one. The view is one that the
//! server writes through by itself, with the table's owner and privileges.

use super::make_view;
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::naming::OLD_NAME_OF;
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{lock, require_free};
use crate::store::audit_event;

/// Renames the table and makes the view, in one transaction. `rename` is the statement with qualified names.
pub fn make(migration_id: &str, table: &Relation, rename: &str, new: &QualifiedName) -> Result<()> {
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    // Deparsed while the table still has the name that the view gets.
    let grants: Vec<String> = spi::query(
        "SELECT unnest(_transmute.grant_sql($1))",
        &[table.oid.into()],
        |row| row.need(1),
    )?;
    identity::as_role(table.owner, &Session::own(), || utility::run(rename))?;
    let columns: Vec<String> = column::list(table.oid)?
        .iter()
        .filter(|c| !c.dropped)
        .map(|c| quote_ident(&c.name))
        .collect();
    make_view(table, &table.name, new, &columns)?;
    for sql in &grants {
        spi::execute(sql, &[])?;
    }
    waitpoint::reach("alias_before_commit")
}

/// Drops the view, and where `back` is given runs that statement on the table: the way back. Both names are locked
/// first, in one order.
pub fn remove(old: &QualifiedName, new: &QualifiedName, back: Option<&str>) -> Result<()> {
    audit_event::reserve()?;
    let view = view(old)?;
    let table = pg_relation::resolve(Some(&new.schema), &new.name)?;
    let locked: Vec<Oid> = match back {
        Some(_) => view.into_iter().chain(table).collect(),
        None => view.into_iter().collect(),
    };
    lock::acquire(&locked, LockMode::AccessExclusive, &old.to_string())?;
    if view.is_some() {
        utility::run(&format!("DROP VIEW {old}"))?;
    }
    if let (Some(back), Some(table)) = (back, table) {
        let owner = relation::get(table)?.owner;
        identity::as_role(owner, &Session::own(), || utility::run(back))?;
    }
    waitpoint::reach("alias_before_commit")
}

/// The view under the old name, if it is there and ours.
fn view(old: &QualifiedName) -> Result<Option<Oid>> {
    let Some(oid) = pg_relation::resolve(Some(&old.schema), &old.name)? else {
        return Ok(None);
    };
    let comment: Option<String> =
        spi::value("SELECT obj_description($1, 'pg_class')", &[oid.into()])?;
    if relation::get(oid)?.kind != 'v' || !comment.is_some_and(|c| c.starts_with(OLD_NAME_OF)) {
        return Err(Error::WrongObject {
            problem: "the old name belongs to something else now".into(),
            detail: format!("{old} is not the view that was made for the old application."),
            hint: "Give that object another name, then transmute.resume(id, reason).".into(),
        });
    }
    Ok(Some(oid))
}
