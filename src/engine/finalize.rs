//! What holds a migration back from its point of no return.

use super::usage;
use crate::catalog::blocker;
use crate::error::Result;
use crate::guc;
use crate::model::approval;
use crate::model::gate::{self, FinalizationFacts, Waiting};
use crate::model::soak;
use crate::store::approval as approvals;
use crate::store::audit_event::{self, Act};
use crate::store::dead_letter::{self, Open};
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};

/// Everything it waits for; empty: it may go on. Asked inside the transaction that would finalize.
pub fn waiting(
    migration: &Migration,
    rewrites: &[Rewrite],
    has_contract_steps: bool,
) -> Result<Vec<Waiting>> {
    if !has_contract_steps && migration.paused_reason.is_none() {
        return Ok(Vec::new()); // purely additive: there is nothing to be sorry about
    }
    let (now, high_water) = migration::clock()?;
    let mut old_snapshots = 0;
    for rewrite in rewrites.iter().filter(|r| !r.swapped) {
        old_snapshots += match &rewrite.awaited {
            Some(transactions) => blocker::still_running(transactions)?,
            None => 1, // not looked yet: `look_for_old_snapshots` comes first
        };
    }
    let unused = usage::holding(migration, now, high_water)?;
    let facts = FinalizationFacts {
        unused_remaining_us: unused.as_ref().map_or(0, |(left, _)| *left),
        unused_text: unused.map(|(_, text)| text).unwrap_or_default(),
        soak_remaining_us: migration
            .soak_until_us
            .map_or(0, |deadline| soak::remaining(deadline, now, high_water)),
        approvals: approval::valid(
            &approvals::list(&migration.id)?,
            &migration.plan_checksum,
            soak::anchor(now, high_water),
            migration.required_approvals as u32,
            &forbidden(migration),
        ),
        open_dead_letters: not_waived(migration, Of::All)?,
        check_passed: rewrites.iter().all(|r| r.checked),
        paused: migration.paused_reason.is_some(),
        old_snapshots,
        drain_lag: rewrites.iter().map(|r| r.lag).max().unwrap_or(0),
        max_drain_lag: guc::max_drain_lag(),
    };
    Ok(gate::finalization(&facts))
}

/// Which dead letters of a migration.
#[derive(Clone, Copy)]
pub enum Of {
    All,
    /// Of a data statement.
    Backfill(i64),
    /// Of the step of a copy.
    Copy(i32),
}

/// Who may not approve it, where four eyes are asked for.
fn forbidden(migration: &Migration) -> Vec<String> {
    match guc::four_eyes() {
        true => std::iter::once(migration.registered_by.clone())
            .chain(migration.applied_by.clone())
            .collect(),
        false => Vec::new(),
    }
}

/// Dead letters that are open, and that no approval which counts names.
pub fn not_waived(migration: &Migration, of: Of) -> Result<i64> {
    let open = open(migration, of)?;
    if open.is_empty() {
        return Ok(0);
    }
    let (now, high_water) = migration::clock()?;
    let waived = approval::waived(
        &approvals::list(&migration.id)?,
        &migration.plan_checksum,
        soak::anchor(now, high_water),
        &forbidden(migration),
    );
    Ok(open.iter().filter(|d| !waived.contains(&d.id)).count() as i64)
}

fn open(migration: &Migration, of: Of) -> Result<Vec<Open>> {
    let mut open = dead_letter::open(&migration.id)?;
    open.retain(|d| match of {
        Of::All => true,
        Of::Backfill(id) => d.backfill_id == Some(id),
        Of::Copy(step) => d.copy_step == Some(step),
    });
    Ok(open)
}

/// Goes on without the rows whose dead letters are open, those of `not_waived`: all of them are waived.
pub fn leave_behind(migration: &Migration, of: Of) -> Result<()> {
    let ids: Vec<i64> = open(migration, of)?.into_iter().map(|d| d.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let count = dead_letter::discard(&migration.id, &ids, "waived by an approval that names it")?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "dead letters waived",
        detail: Some(serde_json::json!({ "dead_letters": count, "ids": ids })),
        ..Act::default()
    })?;
    Ok(())
}

/// Notes, once a rewrite and in a transaction after the one of its first drain, which transactions have to end before
/// the swap: to them the swapped-in file would look empty. What CREATE INDEX CONCURRENTLY waits for in the end.
pub fn look_for_old_snapshots(rewrites: &[Rewrite]) -> Result<()> {
    for rewrite in rewrites
        .iter()
        .filter(|r| !r.swapped && r.awaited.is_none())
    {
        if let Some(xid) = &rewrite.drain_xid {
            blocker::look_anew()?;
            rewrite::set_awaited(rewrite.id, &blocker::old_snapshots(xid)?)?;
        }
    }
    Ok(())
}
