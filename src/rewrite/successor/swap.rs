//! Step 7: the statements of the script that give the successor the table's name, in the lock.

use super::fit::require_alone;
use super::Into;
use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::pg::parser::{self, Kind};
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::swap::require_same_definition;
use crate::rewrite::{capture, drain, lock, Work};
use crate::store::rewrite::{self, Copied};
use crate::store::{artifact, audit_event};
use std::time::Instant;
/// Foreign keys of a table, and the tables that they point at.
fn foreign_keys(table: Oid) -> Result<Vec<(String, Oid)>> {
    spi::query_kept(
        "SELECT conname::text, confrelid FROM pg_constraint WHERE conrelid = $1 AND contype = 'f' ORDER BY 1",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// Step 7: every successor of a migration takes its table's place, in the caller's transaction, which also changes the state.
/// `may_pass` is asked after the last drain; where it says no, that drain is all that was done.
pub fn swap(works: &[Work], may_pass: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let mut relations = Vec::new();
    for work in works {
        work.require_shadow()?;
        require_alone(&work.table)?;
        if drops_table(&work.alter)? {
            relations.extend(
                foreign_keys(work.table.oid)?
                    .into_iter()
                    .map(|(_, other)| other),
            );
        }
    }
    // Taken first: inside the tables' locks nothing may wait for another session.
    audit_event::reserve()?;
    waitpoint::reach("swap_before_lock")?;
    for work in works {
        relations.extend([work.rewrite.relation, work.rewrite.shadow]);
    }
    let names: Vec<String> = works.iter().map(|w| w.table.name.to_string()).collect();
    lock::acquire(&relations, LockMode::AccessExclusive, &names.join(", "))?;
    let locked = Instant::now();
    for work in works {
        // Others may have been made while the lock was waited for.
        require_alone(&work.table)?;
        capture::require(&work.rewrite, &work.table)?;
        require_same_definition(work)?;
        drain::run(work)?;
    }
    if !may_pass()? {
        return Ok(false);
    }
    for work in works {
        if let Some(into) = Into::of(work) {
            into.succeed()?;
        }
    }
    waitpoint::reach("swap_before_commit")?;
    let milliseconds = locked.elapsed().as_secs_f64() * 1000.0;
    for work in works {
        rewrite::set_lock_held(work.rewrite.id, milliseconds)?;
    }
    Ok(true)
}

/// Whether the script drops the table instead of giving it another name.
fn drops_table(script: &str) -> Result<bool> {
    let statements = parser::parse(script)?;
    Ok(statements
        .iter()
        .any(|s| matches!(s.kind, Kind::DropTable(_))))
}

impl Into<'_> {
    /// Under the lock and behind the last drain: the statements of the script that give the successor the table's name.
    fn succeed(&self) -> Result<()> {
        let rewrite = &self.work.rewrite;
        capture::off(rewrite.id, &self.work.table)?;
        self.take_over_sequences()?;
        for statement in parser::parse(&self.work.alter)? {
            match &statement.kind {
                Kind::DropTable(_) => self.put_away()?,
                _ => self.work.as_owner(|| utility::run(&statement.text))?,
            }
        }
        rewrite::set_swapped(rewrite.id, &[])?;
        rewrite::set_succeeded(rewrite.id, rewrite.relation)
    }

    /// Instead of DROP TABLE: the old rows are an artifact. Nothing is kept from being deleted for their sake.
    fn put_away(&self) -> Result<()> {
        let rewrite = &self.work.rewrite;
        // The script may have given it another name before.
        let table = relation::get(rewrite.relation)?;
        let twin = rewrite.old_name(&self.work.table.name.name);
        let keys = foreign_keys(table.oid)?;
        self.work.as_owner(|| {
            utility::run(&format!("DROP TABLE {twin}"))?;
            for (key, _) in &keys {
                let key = quote_ident(key);
                utility::run(&format!("ALTER TABLE {} DROP CONSTRAINT {key}", table.name))?;
            }
            let schema = quote_ident(&rewrite.old_schema);
            utility::run(&format!("ALTER TABLE {} SET SCHEMA {schema}", table.name))
        })?;
        artifact::insert(
            &self.work.migration_id,
            &self.work.table.name.to_string(),
            &rewrite.old_name(&table.name.name),
            rewrite.rows_estimate,
        )
    }

    /// The successor's own sequences go on where those of the table stand.
    fn take_over_sequences(&self) -> Result<()> {
        let owned = |table: Oid, columns: Vec<String>| {
            spi::query_kept(
                include_str!("../../../sql/query/sequences_to_succeed.sql"),
                &[table.into(), columns.into()],
                |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
            )
        };
        let columns = &self.successor.columns;
        let names = |name: fn(&Copied) -> &String| columns.iter().map(name).cloned().collect();
        let old = owned(self.work.rewrite.relation, names(|c| &c.from))?;
        let new = owned(self.work.rewrite.shadow, names(|c| &c.into))?;
        for (column, sequence) in new {
            let from = columns.iter().find(|c| c.into == column).map(|c| &c.from);
            let Some((_, source)) = old.iter().find(|(name, _)| Some(name) == from) else {
                continue;
            };
            spi::execute(
                &format!("SELECT pg_catalog.setval($1::pg_catalog.regclass, last_value, is_called) FROM {source}"),
                &[sequence.into()],
            )?;
        }
        Ok(())
    }
}
