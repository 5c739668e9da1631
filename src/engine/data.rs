//! Data statements: as they stand, or in batches.

use super::execute::owner_role;
use super::finalize;
use super::tick::Next;
use super::work::Worked;
use crate::backfill::batch::{self, Worked as Piece};
use crate::backfill::growth::{self, Before};
use crate::backfill::{self, dead_letter, pace, range, Way, Work};
use crate::error::Result;
use crate::guc;
use crate::model::amount::count;
use crate::pg::parser::{self, Data, Kind, Verb};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{dml, identity, utility, waitpoint, Oid};
use crate::rewrite::{drop_schema, lock};
use crate::store::backfill::{self as store, Backfill};
use crate::store::migration::{self, Migration};
use crate::store::step::{self, Step};
use std::time::Duration;

/// The rest is in other hands: look again soon.
const OTHERS_PAUSE: Duration = Duration::from_millis(20);
/// How often rows that were refused are tried again while somebody mends them.
const RETRY_SECONDS: f64 = 5.0;
/// How often it is looked whether dead rows can be removed.
pub const GROWTH_LOOK: Duration = Duration::from_millis(200);
const RETRY_LOOK: Duration = Duration::from_millis(500);

/// The whole statement in this transaction, as the migration's owner.
pub fn whole(migration: &Migration, sql: &str) -> Result<Worked> {
    let owner = owner_role(migration)?;
    if let Some(Kind::Data(data)) = parser::parse(sql)?.into_iter().next().map(|s| s.kind) {
        if data.verb == Verb::Truncate {
            return truncate(migration, sql, &data);
        }
    }
    // A statement over many rows meets many locks of single rows: each is waited for, but a deadlock is ours to lose.
    identity::set_for_transaction("lock_timeout", "0")?;
    let give_way = format!("{}ms", (guc::lock_timeout_ms() / 2).max(1));
    identity::set_for_transaction("deadlock_timeout", &give_way)?;
    identity::as_role(owner, &migration.session, || {
        // Nothing may be left for the commit in a restricted context; the statement's end is the commit here.
        utility::run("SET CONSTRAINTS ALL IMMEDIATE")?;
        dml::run(sql)
    })?;
    waitpoint::reach("data_before_commit")?;
    Ok(Worked::Done)
}

fn truncate(migration: &Migration, sql: &str, data: &Data) -> Result<Worked> {
    let owner = owner_role(migration)?;
    let mut tables = Vec::new();
    for (schema, name) in &data.targets {
        let oid = identity::as_role(owner, &migration.session, || {
            pg_relation::resolve(schema.as_deref(), name)
        })?;
        // What is not there is the server's to say.
        tables.extend(oid);
    }
    let names: Vec<String> = data.targets.iter().map(|(_, name)| name.clone()).collect();
    lock::acquire(&tables, LockMode::AccessExclusive, &names.join(", "))?;
    identity::as_role(owner, &migration.session, || utility::run(sql))?;
    waitpoint::reach("data_before_commit")?;
    Ok(Worked::Done)
}

/// A piece of a statement that runs in batches: the list, then a batch at a time, at last what was refused.
pub fn batched(migration: &Migration, step: &Step) -> Result<Worked> {
    let owner = owner_role(migration)?;
    let Some(found) = store::find(&migration.id, step.step)? else {
        let decision = backfill::decide(&step.sql, owner, &migration.session)?;
        return match decision.way {
            Way::Whole(_) => whole(migration, &step.sql),
            Way::Batched(driver) => {
                let target = decision.target.oid;
                range::prepare(migration, step.step, &step.sql, owner, target, &driver)?;
                Ok(Worked::More(Next::Again))
            }
        };
    };
    batch::give_way()?;
    let target = found.target;
    if let Some(wait) = hold_in_place(migration, target)? {
        return Ok(wait);
    }
    let work = Work::new(migration, found, &step.sql, owner)?;
    match batch::run(&work)? {
        Piece::Batch { rows, busy_ms, wal } => {
            growth::changed(target, rows);
            Ok(after_batch(pace::rest(&migration.id, busy_ms, wal)))
        }
        Piece::Others => Ok(Worked::More(Next::Wait(OTHERS_PAUSE))),
        Piece::All => finish(migration, &work),
    }
}

/// In a restored copy the tables of statements that are half done have other oids: their names say which they are. The list of
/// keys came along, and rows that lie elsewhere are found by their key.
pub fn find_again(migration: &Migration) -> Result<()> {
    for step in step::all(&migration.id)? {
        let Some(found) = store::find(&migration.id, step.step)?.filter(|found| !found.finished)
        else {
            continue;
        };
        let owner = owner_role(migration)?;
        let decision = backfill::decide(&step.sql, owner, &migration.session)?;
        if let Way::Batched(driver) = decision.way {
            store::set_relations(found.id, driver.relation.oid, decision.target.oid)?;
        }
    }
    Ok(())
}

/// What keeps the next batch of a migration waiting, if anything does.
pub fn hold(migration: &Migration, relation: Oid) -> Result<Option<Worked>> {
    let Some(held) = pace::held(&migration.id, relation)? else {
        return Ok(None);
    };
    if let Some(reason) = &held.reason {
        migration::set_waiting(&migration.id, Some(reason))?;
    }
    Ok(Some(Worked::More(Next::Wait(held.pause))))
}

/// The same for batches that change rows of `relation` in place, and leave dead ones behind.
pub fn hold_in_place(migration: &Migration, relation: Oid) -> Result<Option<Worked>> {
    if let Some(wait) = hold(migration, relation)? {
        return Ok(Some(wait));
    }
    Ok(match growth::before_batch(&migration.id, relation)? {
        None => None,
        Some(Before::Vacuum) => Some(Worked::More(Next::Vacuum(relation))),
        Some(Before::Wait(reason)) => {
            migration::set_waiting(&migration.id, Some(&reason))?;
            Some(Worked::More(Next::Wait(GROWTH_LOOK)))
        }
    })
}

/// When to come back after a batch.
pub fn after_batch(rest: Duration) -> Worked {
    Worked::More(match rest.is_zero() {
        true => Next::Again,
        false => Next::Wait(rest),
    })
}

/// Everything was tried: done when nothing is left that was refused.
fn finish(migration: &Migration, work: &Work) -> Result<Worked> {
    let backfill = &work.backfill;
    if backfill.since_retry.is_none_or(|s| s >= RETRY_SECONDS) {
        dead_letter::retry(work)?;
    }
    let open = finalize::not_waived(migration, finalize::Of::Backfill(backfill.id))?;
    if open > 0 {
        let what = format!(
            "{} that the statement fails on: mend them, see transmute.dead_letters, or the statement, by \
             transmute.amend(id, up, reason); transmute.discard_dead_letters(id, ids, reason) leaves them as they are",
            count(open, "row")
        );
        migration::set_waiting(&work.migration_id, Some(&what))?;
        return Ok(Worked::More(Next::Wait(RETRY_LOOK)));
    }
    finalize::leave_behind(migration, finalize::Of::Backfill(backfill.id))?;
    drop_schema(&backfill.work_schema)?;
    store::set_finished(backfill.id)?;
    waitpoint::reach("batch_done_before_commit")?;
    Ok(Worked::Done)
}

/// The list goes; the rows that were changed are in a table, or in columns, that the steps before take back.
pub fn undo(migration: &Migration, step: &Step) -> Result<()> {
    let Some(found) = store::find(&migration.id, step.step)? else {
        return Ok(());
    };
    forget(&found)
}

fn forget(backfill: &Backfill) -> Result<()> {
    drop_schema(&backfill.work_schema)?;
    crate::store::dead_letter::resolve_backfill(backfill.id)?;
    store::delete(backfill.id)
}
