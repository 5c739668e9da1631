//! Whether what a rewrite was made for is still what it was: people may have changed it, past the guard of `foreign_ddl` or
//! with its leave.

use super::execute;
use super::rewriting::work_of;
use crate::catalog::index;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::state::State;
use crate::pg::relation::{try_lock, LockMode};
use crate::pg::{identity, spi, Oid};
use crate::rewrite::{capture, swap};
use crate::store::migration::Migration;
use crate::store::rewrite;
use crate::store::step::{self, Kind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often it is looked, between batches, whether somebody has changed a table that is being rewritten.
const LOOK: Duration = Duration::from_millis(500);
/// And while there is nothing else to do.
const IDLE_LOOK: Duration = Duration::from_secs(2);

thread_local! {
    /// When this process has last looked, by rewrite.
    static LOOKED: RefCell<HashMap<i64, Instant>> = RefCell::default();
}

/// The tables must be what they were when their shadows were made, capture unbroken, and the migration's owner must own
/// them still: whatever people have done since is found here, before the next step.
pub fn require(migration: &Migration) -> Result<()> {
    if !matches!(
        migration.state,
        State::Running | State::AwaitingFinalization
    ) {
        return Ok(());
    }
    let owner = execute::owner_role(migration)?;
    if migration.state == State::AwaitingFinalization {
        require_owned_at_the_end(migration, owner)?;
    }
    for rewrite in rewrite::list(&migration.id)? {
        let recently = migration.state == State::Running && looked_within(LOOK, rewrite.id);
        if rewrite.swapped || recently {
            continue;
        }
        let id = rewrite.id;
        // Nothing waits here: whoever holds it exclusively is looked behind the next time.
        if !try_lock(rewrite.relation, LockMode::AccessShare)? {
            continue;
        }
        let work = work_of(migration, rewrite)?;
        work.require_shadow()?;
        capture::require(&work.rewrite, &work.table)?;
        // One that REINDEX CONCURRENTLY is about to replace, or somebody else builds, is for the swap to judge.
        if !index::any_unfinished(work.rewrite.relation)? {
            swap::require_same_definition(&work)?;
        }
        require_owned(owner, &work.table)?;
        LOOKED.with_borrow_mut(|looked| looked.insert(id, Instant::now()));
    }
    Ok(())
}

/// What takes second names and rules away begins behind the point of no return: whether it may is asked before that.
fn require_owned_at_the_end(migration: &Migration, owner: Oid) -> Result<()> {
    for kind in [Kind::RenameFinish, Kind::AliasDrop, Kind::RuleEnd] {
        for step in step::pending(&migration.id, kind)? {
            // A view that stands in a table's place has the table's owner.
            let relation: Option<Oid> = spi::value(
                "SELECT to_regclass($1)::oid",
                &[step.target.as_str().into()],
            )?;
            if let Some(relation) = relation {
                require_owned(owner, &relation::get(relation)?)?;
            }
        }
    }
    Ok(())
}

fn looked_within(time: Duration, rewrite: i64) -> bool {
    LOOKED.with_borrow(|looked| looked.get(&rewrite).is_some_and(|at| at.elapsed() < time))
}

/// Whether `require` would find something, looked at now and then.
pub fn is_touched(migration: &Migration) -> Result<bool> {
    let rewrites = rewrite::list(&migration.id)?;
    if rewrites.iter().all(|r| looked_within(IDLE_LOOK, r.id)) {
        return Ok(false);
    }
    Ok(require(migration).is_err())
}

pub fn require_owned(owner: Oid, table: &Relation) -> Result<()> {
    if identity::has_privs_of(owner, table.owner) {
        return Ok(());
    }
    Err(Error::Privilege {
        problem: "the migration's owner does not own the table any more".into(),
        detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
        hint: "Grant it membership, then transmute.resume(id, reason).".into(),
    })
}
