//! An undo that was asked for: the steps of the migration in reverse order, one a transaction, and the swap that brings all old rows
//! back at once.

use super::tick::Next;
use super::undo::{open, require_converted, require_possible, works, IDLE};
use super::work::{self, Worked};
use super::{hidden, proof, rewriting, undo_trees};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::waitpoint;
use crate::rewrite::{copy, drain, keep, matview, swap, Work};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};
use crate::store::rewrite;
use crate::store::step::{self, Kind};
use crate::store::undo as store;

/// The steps in reverse order, one a transaction; the swap back with all around it that there is nothing to do for.
pub fn go_back(migration: &Migration) -> Result<Next> {
    if validate_one(migration)? {
        return Ok(Next::Again);
    }
    if !step::any_reverted(&migration.id)? {
        let open = open(&migration.id)?;
        let possible = undo_trees::require_possible(migration, &open);
        if let Some(wait) = hold_back(migration, possible)? {
            return Ok(wait);
        }
        for kept in &open {
            let possible = require_possible(kept, kept.definition_at_end.as_ref());
            if let Some(wait) = hold_back(migration, possible)? {
                return Ok(wait);
            }
        }
        if let Some(wait) = hold_back(migration, hidden::require_possible(migration))? {
            return Ok(wait);
        }
    }
    let (mut changed, mut swapped) = (false, false);
    let mut quiet = Vec::new();
    for step in step::to_revert(&migration.id)? {
        match step.kind {
            Kind::RewriteSwap | Kind::RewriteTree if swapped => continue, // all at once
            Kind::RewriteSwap | Kind::RewriteTree if changed => return Ok(Next::Again),
            Kind::RewriteSwap | Kind::RewriteTree => {
                if let Some(next) = swap_back(migration)? {
                    return Ok(next);
                }
                (changed, swapped) = (true, true);
            }
            Kind::RewriteExpand => {
                prove(migration, step.statement)?;
                quiet.push(step.step);
            }
            Kind::RewriteCopy
            | Kind::RewriteIndex
            | Kind::RewriteCheck
            | Kind::RewriteViews
            | Kind::RewriteValidate
            | Kind::RuleFill
            | Kind::RuleCheck
            // The old application is there: it lets go by itself, `release_version`.
            | Kind::VersionBefore => quiet.push(step.step),
            _ if changed => return Ok(Next::Again),
            _ => {
                if let Worked::More(next) = work::revert(migration, &step)? {
                    return Ok(next);
                }
                step::set_reverted(&migration.id, step.step)?;
                if step.kind.gives_names_back() {
                    store::set_back(&migration.id)?;
                }
                changed = true;
            }
        }
        if changed {
            for step in quiet.drain(..) {
                step::set_reverted(&migration.id, step)?;
            }
        }
        if swapped && has_to_validate(migration)? {
            return Ok(Next::Again);
        }
    }
    for step in quiet {
        step::set_reverted(&migration.id, step)?;
    }
    store::set_undone(&migration.id)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "undone",
        detail: Some(serde_json::json!({ "reason": migration.undo_reason })),
        ..Act::default()
    })?;
    waitpoint::reach("undo_before_commit")?;
    Ok(Next::Again)
}

fn has_to_validate(migration: &Migration) -> Result<bool> {
    Ok(rewrite::reverses(&migration.id)?
        .iter()
        .any(|way| !way.to_validate.is_empty()))
}

/// Validates one foreign key that the swap back left NOT VALID; false: there is none.
fn validate_one(migration: &Migration) -> Result<bool> {
    for way in rewrite::reverses(&migration.id)? {
        if rewriting::validate_next(&way)? {
            waitpoint::reach("undo_validated_before_commit")?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// When to look again, where the swap back would not be right now; why is shown.
fn hold_back(migration: &Migration, possible: Result<()>) -> Result<Option<Next>> {
    match possible {
        Ok(()) => Ok(None),
        Err(error @ Error::Prerequisite { .. }) => {
            let text = format!("{error}. {}", error.detail().unwrap_or_default());
            migration::set_waiting(&migration.id, Some(text.trim_end()))?;
            Ok(Some(Next::Wait(guc::drain_interval().min(IDLE))))
        }
        Err(error) => Err(error),
    }
}

/// Swaps the old rows of every table in; when to come back, where it has to wait.
fn swap_back(migration: &Migration) -> Result<Option<Next>> {
    let open = open(&migration.id)?;
    let possible = undo_trees::require_possible(migration, &open);
    if let Some(wait) = hold_back(migration, possible)? {
        return Ok(Some(wait));
    }
    let trees = undo_trees::trees(migration, &open)?;
    let mut works = works(migration, open)?;
    for work in &works {
        let possible = require_possible(&work.rewrite, Some(&work.rewrite.definition));
        if let Some(wait) = hold_back(migration, possible)? {
            return Ok(Some(wait));
        }
    }
    // What can be done outside of the lock is done outside, and in a transaction of its own.
    if matview::is_stale(&works)? {
        matview::build(&works)?;
        return Ok(Some(Next::Again));
    }
    if let Some(work) = works.iter().find(|w| !w.rewrite.checked) {
        copy::analyze(work)?;
        rewrite::set_checked(work.rewrite.id)?;
        return Ok(Some(Next::Again));
    }
    migration::set_waiting(&migration.id, None)?;
    for work in &mut works {
        for _ in 0..rewriting::SWAP_DRAINS {
            if drain::run(work)? == 0 {
                break;
            }
        }
        keep::make_twin(work)?;
    }
    swap::run(&works, &trees, || none_refused(&works).map(|()| true))?;
    store::set_back(&migration.id)?;
    for kind in [Kind::RewriteSwap, Kind::RewriteTree] {
        for step in step::begun(&migration.id, kind)? {
            step::set_reverted(&migration.id, step.step)?;
        }
    }
    Ok(None)
}

/// That the catalog says of the table what it said before the migration, into the trail.
fn prove(migration: &Migration, statement: i32) -> Result<()> {
    let Some(done) = rewrite::find(&migration.id, statement)? else {
        return Ok(());
    };
    if undo_trees::is_gone(&done)? {
        return Ok(()); // a partition that was dropped since
    }
    let fingerprint = relation::fingerprint(done.relation)?;
    let same = fingerprint == done.fingerprint;
    proof::append(
        migration,
        "rewrite undone",
        &done.fingerprint,
        Some(&fingerprint),
        same,
    )
}

/// No row of the last moment, either.
fn none_refused(works: &[Work]) -> Result<()> {
    works
        .iter()
        .try_for_each(|w| require_converted(w.rewrite.id, &w.table.name.to_string()))
}
