//! What the steps of a rewrite do, and what keeps its shadow current: the engine's side of `crate::rewrite`.

use super::tick::Next;
use super::work::{self, Worked};
use super::{data, execute, finalize, proof, undo, untouched, way_back};
use crate::backfill::{batch, pace};
use crate::catalog::{partition, relation};
use crate::error::{Error, Result};
use crate::model::state::State;
use crate::pg::identity::{self, Session};
use crate::pg::relation::LockMode;
use crate::pg::{dml, neighbours, spi, utility, waitpoint, Oid};
use crate::recover::table;
use crate::rewrite::copy::{self, Copied};
use crate::rewrite::swap::{self, Tree};
use crate::rewrite::{capture, check, drain, drop_schema, expand, lock, matview, successor, Work};
use crate::store::audit_event;
use crate::store::dead_letter;
use crate::store::migration::Migration;
use crate::store::mirror;
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::{self, Kind, Step};
use std::time::Duration;

/// Drains before the lock of the swap, each shorter than the last.
pub(super) const SWAP_DRAINS: usize = 3;
/// The rest of the copy is in other hands: look again soon.
const OTHERS_PAUSE: Duration = Duration::from_millis(20);

/// A piece of a step of a rewrite.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    if step.kind == Kind::RewriteExpand {
        let alter = step::alterations(&migration.id, step.statement)?;
        let table = table_of(migration, step)?;
        expand::run(migration, step.statement, &alter, table)?;
        return Ok(Worked::Done);
    }
    if step.kind == Kind::RewriteInto {
        let insert = step::copy_of(&migration.id, step.statement)?;
        let table = table_of(migration, step)?;
        successor::make(migration, step.statement, &insert, table)?;
        return Ok(Worked::Done);
    }
    if step.kind == Kind::RewriteValidate {
        return Ok(match validate_or_clean_up(migration, step)? {
            true => Worked::Done,
            false => Worked::More(Next::Again),
        });
    }
    if step.kind == Kind::RewriteViews {
        build_views(migration)?;
        return Ok(Worked::Done);
    }
    if step.kind == Kind::RewriteCopy {
        batch::give_way()?;
        let relation = rewrite::of_step(&migration.id, step.statement)?.relation;
        if let Some(wait) = data::hold(migration, relation)? {
            return Ok(wait);
        }
    }
    let work = work(migration, step)?;
    let _heeding = neighbours::heed();
    let done = match step.kind {
        Kind::RewriteCopy => {
            let wal_before = dml::wal_written();
            match copy::batch(&work)? {
                Copied::Batch(busy_ms) => {
                    let wal = dml::wal_written().saturating_sub(wal_before);
                    return Ok(data::after_batch(pace::rest(&migration.id, busy_ms, wal)));
                }
                Copied::Others => return Ok(Worked::More(Next::Wait(OTHERS_PAUSE))),
                Copied::All => true,
            }
        }
        Kind::RewriteIndex if !work.rewrite.deduplicated => {
            copy::deduplicate(&work)?;
            false
        }
        Kind::RewriteIndex if !complete(&work.rewrite) => {
            copy::build_next(&work)?;
            false
        }
        Kind::RewriteIndex => {
            copy::build_next(&work)?; // nothing left to build: statistics
            drain::run(&work)?;
            true
        }
        Kind::RewriteCheck => check::batch(&work)?,
        other => return Err(Error::Bug(format!("{} outside of a swap", other.name()))),
    };
    if !done {
        return Ok(Worked::More(Next::Again));
    }
    waitpoint::reach(&format!("{}_done_before_commit", step.kind.name()))?;
    Ok(Worked::Done)
}

/// Keeps every shadow that is complete up to date, and after the swap the old rows that are kept, in whatever state the
/// migration waits. True if there is one.
pub fn drain_all(migration: &Migration) -> Result<bool> {
    let mut any = false;
    if matches!(migration.state, State::Finishing | State::Finished) {
        any |= undo::drain(migration)?;
    }
    if matches!(
        migration.state,
        State::Uninitialized | State::Initializing | State::Finished
    ) {
        return Ok(any);
    }
    for rewrite in rewrite::list(&migration.id)? {
        if !rewrite.swapped && complete(&rewrite) {
            any = true;
            drain::run(&work_of(migration, rewrite)?)?;
        }
    }
    Ok(any)
}

/// Copied and indexed: from here on it is kept current.
pub fn complete(rewrite: &Rewrite) -> bool {
    rewrite.deduplicated && rewrite.next_definition as usize >= rewrite.deferred.len()
}

fn work(migration: &Migration, step: &Step) -> Result<Work> {
    work_of(migration, rewrite::of_step(&migration.id, step.statement)?)
}

/// A rewrite of the migration with what its work needs.
pub fn work_of(migration: &Migration, rewrite: Rewrite) -> Result<Work> {
    let (alter, other) = match &rewrite.script {
        Some(script) => (
            script.clone(),
            Some(step::alterations(&migration.id, -rewrite.statement)?),
        ),
        None => (
            step::alterations(&migration.id, rewrite.statement)?,
            step::way_back(&migration.id, rewrite.statement)?,
        ),
    };
    Work::new(migration, rewrite, &alter, other)
}

/// The table of a rewrite, which the migration's owner must still own.
fn table_of(migration: &Migration, step: &Step) -> Result<Oid> {
    let owner = execute::owner_role(migration)?;
    let oid = relation::named(&step.target)?.ok_or_else(|| Error::UndefinedTable {
        name: step.target.clone(),
        search_path: migration.session.search_path.clone(),
    })?;
    untouched::require_owned(owner, &relation::get(oid)?)?;
    Ok(oid)
}

/// Makes the new contents of materialized views once all shadows are complete; with several rewrites that is in the last
/// of these steps, or right before the swap.
fn build_views(migration: &Migration) -> Result<()> {
    let works = unswapped(migration)?;
    match works.iter().all(|w| w.rewrite.checked) {
        true => matview::build(&works),
        false => Ok(()),
    }
}

/// Before the swap: makes new contents of materialized views where there are none, or old ones. True if it did.
pub fn renew_views(migration: &Migration) -> Result<bool> {
    let works = unswapped(migration)?;
    let stale = matview::is_stale(&works)?;
    if stale {
        matview::build(&works)?;
    }
    Ok(stale)
}

fn unswapped(migration: &Migration) -> Result<Vec<Work>> {
    rewrite::list(&migration.id)?
        .into_iter()
        .filter(|r| !r.swapped)
        .map(|r| work_of(migration, r))
        .collect()
}

/// What became of the swap.
pub enum Swapped {
    Yes,
    /// The last drain has found rows that are refused.
    NotYet,
    /// There is none to do.
    Nothing,
}

/// Swaps every rewritten table of the migration.
pub fn swap_all(migration: &Migration) -> Result<Swapped> {
    let steps = step::pending(&migration.id, Kind::RewriteSwap)?;
    let roots = step::pending(&migration.id, Kind::RewriteTree)?;
    if steps.is_empty() && roots.is_empty() {
        return Ok(Swapped::Nothing);
    }
    let mut trees = Vec::new();
    for root in &roots {
        let oid = table_of(migration, root)?;
        trees.push(Tree {
            table: relation::get(oid)?,
            alter: root.sql.clone(),
            other: root.revert_sql.clone(),
            session: migration.with_settings(&root.settings).session,
        });
    }
    require_all_in_trees(migration, &steps, &trees)?;
    for root in roots.iter().filter(|r| r.revert_sql.is_none()) {
        way_back::note(migration, root, &[table_of(migration, root)?], &[])?;
    }
    let mut works = Vec::new();
    for step in &steps {
        let mut current = work(migration, step)?;
        let alone = trees.iter().all(|t| t.alter != step.sql);
        if alone && step.revert_sql.is_none() && current.rewrite.successor.is_none() {
            way_back::note(migration, step, &[current.rewrite.relation], &[])?;
        }
        // What can be done outside the lock is done outside: several rounds, each shorter than the last.
        for _ in 0..SWAP_DRAINS {
            let drained = drain::run(&current)?;
            if drain::has_moved(&current.rewrite)? {
                // It was taken anew from its other file, which is not done again under the lock.
                current = work(migration, step)?;
            }
            if drained == 0 {
                break;
            }
        }
        works.push(current);
    }
    let may_pass = || Ok(finalize::not_waived(migration, finalize::Of::All)? == 0);
    let swapped = match works.iter().any(|w| w.rewrite.successor.is_some()) {
        true => successor::swap(&works, may_pass)?,
        false => swap::run(&works, &trees, may_pass)?,
    };
    if !swapped {
        return Ok(Swapped::NotYet);
    }
    for step in steps.iter().chain(&roots) {
        work::worked_on(step)?;
        step::set_done(&migration.id, step.step)?;
    }
    Ok(Swapped::Yes)
}

/// A partition that was copied for its table and is none any more would be altered by itself.
fn require_all_in_trees(migration: &Migration, swaps: &[Step], trees: &[Tree]) -> Result<()> {
    let mut members = Vec::new();
    for tree in trees {
        members.extend(partition::tree(tree.table.oid)?.into_iter().map(|m| m.oid));
    }
    for step in swaps {
        let relation = rewrite::of_step(&migration.id, step.statement)?.relation;
        let own = trees.iter().any(|t| t.alter == step.sql);
        if own && !members.contains(&relation) {
            return Err(Error::Prerequisite {
                problem: "a partition was detached while its table was being migrated".into(),
                detail: format!("{} is no partition any more.", step.target),
                hint: "Attach it again, or transmute.rollback(id, reason) and apply again.".into(),
            });
        }
    }
    Ok(())
}

/// Validates one foreign key, or, when none is left, drops the work schema; true at the end.
fn validate_or_clean_up(migration: &Migration, step: &Step) -> Result<bool> {
    let done = rewrite::of_step(&migration.id, step.statement)?;
    if validate_next(&done)? {
        return Ok(false);
    }
    drop_schema(&matview::schema_of(done.id))?;
    drop_schema(&done.new_schema)?;
    if done.successor.is_some() && !done.keeps_old_rows()? {
        // They are where the script has left them.
        drop_schema(&done.old_schema)?;
    } else if !migration.keeps_old {
        table::forget_sequences(done.twin)?;
    }
    mirror::delete_all(&migration.id)?;
    Ok(true)
}

/// Validates one foreign key that a swap left NOT VALID; false: there is none.
pub fn validate_next(done: &Rewrite) -> Result<bool> {
    let mut left = done.to_validate.clone();
    if let Some(foreign_key) = left.pop() {
        // As the owner of the referencing table: the check applies casts and operators that may be anybody's.
        let owner: Option<Oid> = spi::value(
            "SELECT relowner FROM pg_class WHERE oid = $1::text::regclass",
            &[foreign_key.table.as_str().into()],
        )?;
        let owner = owner.ok_or_else(|| Error::Bug("a foreign key without a table".into()))?;
        identity::as_role(owner, &Session::own(), || {
            utility::run(&format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                foreign_key.table,
                crate::model::ident::quote_ident(&foreign_key.name)
            ))
        })?;
        rewrite::set_to_validate(done.id, &left)?;
        return Ok(true);
    }
    Ok(false)
}

/// Capture off, work schemas away, and the proof that the table is described as it was.
pub fn undo(migration: &Migration, statement: i32) -> Result<()> {
    let Some(rewrite) = rewrite::find(&migration.id, statement)? else {
        return Ok(());
    };
    let mut fingerprint = None;
    // By the trigger, not by oid: in a restored copy of the database oids mean other tables.
    if let Some(oid) = capture::captured(rewrite.id)? {
        let table = relation::get(oid)?;
        audit_event::reserve()?;
        lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
        capture::off(rewrite.id, &table)?;
        fingerprint = Some(relation::fingerprint(oid)?);
    }
    drop_schema(&matview::schema_of(rewrite.id))?;
    mirror::delete_all(&migration.id)?;
    drop_schema(&rewrite.new_schema)?;
    drop_schema(&rewrite.old_schema)?;
    dead_letter::resolve_all(rewrite.id)?;
    rewrite::delete(rewrite.id)?;
    let same = fingerprint.as_ref() == Some(&rewrite.fingerprint);
    proof::append(
        migration,
        "rewrite undone",
        &rewrite.fingerprint,
        fingerprint.as_deref(),
        same,
    )
}
