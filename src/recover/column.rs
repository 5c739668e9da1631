//! A column that is dropped: hidden behind a name of ours, later dropped.

use super::require_unused;
use crate::catalog::relation::{self, Relation};
use crate::catalog::{column, partition};
use crate::error::{Error, Result};
use crate::model::ident::{derived, quote_ident, rename_column};
use crate::pg::identity::{self, Session};
use crate::pg::naming::HIDDEN;
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::{lock, require_free};
use crate::store::artifact::{self, HiddenColumn};
use crate::store::audit_event;

/// A table that has the column: of a partitioned one it is each of its partitions, too.
pub struct Place {
    pub oid: Oid,
    pub name: String,
    pub number: i16,
}

/// The table and its partitions, parents first.
pub fn places(table: &Relation, column: &str) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for member in partition::tree(table.oid)? {
        let found = column::list(member.oid)?
            .into_iter()
            .find(|c| !c.dropped && c.name == column);
        let Some(found) = found else {
            return Err(Error::UndefinedObject {
                problem: "a column that is to be dropped is gone".into(),
                detail: format!("{} has no column \"{column}\".", member.name),
                hint:
                    "Somebody dropped or renamed it: undo that, then transmute.resume(id, reason)."
                        .into(),
            });
        };
        places.push(Place {
            oid: member.oid,
            name: member.name,
            number: found.number,
        });
    }
    Ok(places)
}

/// Refuses what plain DROP COLUMN refuses: others use it, or a table of the tree is partitioned by it.
pub fn require_droppable(places: &[Place]) -> Result<()> {
    for place in places {
        require_unused(&[place.oid], &[place.number], &place.name)?;
        let is_key: Option<bool> = spi::value(
            "SELECT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = $1 AND objsubid = $2 \
               AND refclassid = 'pg_class'::regclass AND refobjid = $1 AND refobjsubid = 0 AND deptype = 'i')",
            &[place.oid.into(), i32::from(place.number).into()],
        )?;
        if is_key == Some(true) {
            return Err(Error::DependentObjects {
                problem: "a table is partitioned by a column that is dropped".into(),
                detail: format!("The partition key of {} has it.", place.name),
                hint: "Leave the column, or move the rows to a table with another key.".into(),
            });
        }
    }
    Ok(())
}

/// Gives the column a name of ours. What plain DROP COLUMN takes along – indexes, constraints, statistics – goes now: it
/// would bind writers who do not know the column. Of a partitioned table also what its partitions have of their own.
/// `whole`: it stays, with the column that is to come back.
pub fn hide(migration_id: &str, table: &Relation, name: &str, whole: bool) -> Result<()> {
    let places = places(table, name)?;
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    let mut locked: Vec<Oid> = places.iter().map(|p| p.oid).collect();
    for place in places.iter().filter(|_| !whole) {
        for partner in parts(place.oid, place.number)?.iter().filter_map(|p| p.1) {
            locked.extend(partition::tree(partner)?.iter().map(|m| m.oid));
        }
    }
    lock::acquire(&locked, LockMode::AccessExclusive, &table.name.to_string())?;
    require_droppable(&places)?;

    let artifact = artifact::insert_column(migration_id, table, name)?;
    let hidden = derived(&format!("{HIDDEN}{artifact}_"), name);
    artifact::set_column(artifact, &hidden)?;
    for place in places.iter().filter(|_| !whole) {
        // What a partition has of its table is gone with that.
        let parts = parts(place.oid, place.number)?;
        identity::as_role(table.owner, &Session::own(), || {
            parts.iter().try_for_each(|(sql, _)| utility::run(sql))
        })?;
    }
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&rename_column(&table.name, name, &hidden))
    })?;
    waitpoint::reach("hide_before_commit")
}

/// Gives a hidden column its name back.
pub fn recover(migration_id: &str, table: &Relation, hidden: &str, name: &str) -> Result<()> {
    require_free(table, migration_id)?;
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    super::take_out(migration_id, &table.name, Some(hidden))?;
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&rename_column(&table.name, hidden, name))
    })?;
    waitpoint::reach("recover_before_commit")
}

/// Gives hidden columns their names back: pairs of the artifact and the name. The caller holds ACCESS EXCLUSIVE.
pub fn show(table: &Relation, columns: &[(HiddenColumn, String)]) -> Result<()> {
    for (hidden, name) in columns {
        identity::as_role(table.owner, &Session::own(), || {
            utility::run(&rename_column(&table.name, &hidden.name, name))
        })?;
        artifact::set_dropped(hidden.id)?;
    }
    Ok(())
}

/// A column that was hidden whole: what would bind writers who do not know it goes now, also of partitions. The caller holds
/// ACCESS EXCLUSIVE on all of them.
pub fn strip(table: &Relation, hidden: &HiddenColumn) -> Result<()> {
    for member in partition::tree(table.oid)? {
        let columns = column::list(member.oid)?;
        let Some(column) = columns.iter().find(|c| !c.dropped && c.name == hidden.name) else {
            continue; // somebody dropped it
        };
        // What a partition has of its table is gone with that.
        for (sql, _) in parts(member.oid, column.number)? {
            identity::as_role(table.owner, &Session::own(), || utility::run(&sql))?;
        }
    }
    Ok(())
}

/// What `strip` locks: the table with its partitions, and tables that lose a foreign key with the column.
pub fn locked_by_strip(table: Oid, column: &str) -> Result<Vec<Oid>> {
    let mut locked = Vec::new();
    for member in partition::tree(table)? {
        locked.push(member.oid);
        let columns = column::list(member.oid)?;
        let Some(column) = columns.iter().find(|c| !c.dropped && c.name == column) else {
            continue;
        };
        for partner in parts(member.oid, column.number)?.iter().filter_map(|p| p.1) {
            locked.extend(partition::tree(partner)?.iter().map(|m| m.oid));
        }
    }
    Ok(locked)
}

/// Constraints and unique indexes that a value of the column could violate, by the SQL that drops them.
pub fn binding(table: Oid, number: i16) -> Result<Vec<String>> {
    let unique: Vec<String> = spi::query(
        "SELECT format('DROP INDEX %s', _transmute.relation_name(indexrelid)) FROM pg_index WHERE indrelid = $1 AND indisunique",
        &[table.into()],
        |row| row.need(1),
    )?;
    let parts = parts(table, number)?.into_iter().map(|(sql, _)| sql);
    Ok(parts
        .filter(|sql| sql.contains(" DROP CONSTRAINT ") || unique.contains(sql))
        .collect())
}

/// What goes with the column: SQL, and the other table that it locks.
fn parts(table: Oid, number: i16) -> Result<Vec<(String, Option<Oid>)>> {
    spi::query(
        include_str!("../../sql/query/column_parts.sql"),
        &[table.into(), number.into()],
        |row| Ok((row.need(1)?, row.get(2)?)),
    )
}

/// Drops a hidden column for good, if it is still there under that name. False: it was not, or it has a new user.
pub fn drop_hidden(hidden: &str) -> Result<bool> {
    // Of a partition that was detached meanwhile, too.
    let found: Vec<Oid> = spi::query(
        "SELECT attrelid FROM pg_attribute WHERE attname = $1::name AND attnum > 0 AND NOT attisdropped AND attinhcount = 0",
        &[hidden.into()],
        |row| row.need(1),
    )?;
    for oid in &found {
        let table = relation::get(*oid)?;
        let tree: Vec<Oid> = partition::tree(*oid)?.iter().map(|m| m.oid).collect();
        lock::acquire(&tree, LockMode::AccessExclusive, &table.name.to_string())?;
        identity::as_role(table.owner, &Session::own(), || {
            utility::run(&format!(
                "ALTER TABLE {} DROP COLUMN {}",
                table.name,
                quote_ident(hidden)
            ))
        })?;
    }
    Ok(!found.is_empty())
}
