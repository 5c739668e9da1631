//! The way back: reverts in reverse order, until the catalog is what it was.

use super::tick::Next;
use super::{advance, execute};
use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::model::state::{Event, State};
use crate::pg::relation::LockMode;
use crate::pg::{identity, spi, waitpoint};
use crate::rewrite::{capture, lock};
use crate::store::audit_event::{self, Act};
use crate::store::dead_letter;
use crate::store::migration::{self, Migration};
use crate::store::rewrite::{self, Rewrite};
use crate::store::step::{self, Kind};

/// One step back.
pub fn tick(migration: &Migration) -> Result<Next> {
    if migration.state != State::RollingBack {
        if migration.state == State::Uninitialized {
            migration::unqueue(&migration.id)?;
            return Ok(Next::Done);
        }
        let reason = migration.rollback_reason.clone().unwrap_or_default();
        advance::change_state(
            migration,
            Event::Rollback,
            "rolling back",
            Some(serde_json::json!({ "reason": reason })),
        )?;
        return Ok(Next::Again);
    }
    let Some(step) = step::last_to_revert(&migration.id)? else {
        advance::change_state(migration, Event::RolledBack, "rolled back", None)?;
        return Ok(Next::Done);
    };
    match step.kind {
        Kind::RewriteExpand => {
            if let Some(rewrite) = rewrite::find(&migration.id, step.statement)? {
                undo_rewrite(migration, &rewrite)?;
            }
        }
        Kind::Execute => {
            if let Some(sql) = &step.revert_sql {
                execute::run(migration, sql)?;
            }
        }
        // What they made is in the work schemas, which go with the expand step.
        _ => {}
    }
    step::set_reverted(&migration.id, step.step)?;
    waitpoint::reach("rollback_before_commit")?;
    Ok(Next::Again)
}

/// Capture off, work schemas away, and the proof that the table is described as it was.
fn undo_rewrite(migration: &Migration, rewrite: &Rewrite) -> Result<()> {
    let mut fingerprint = None;
    // By the trigger, not by oid: in a restored copy of the database oids mean other tables.
    if let Some(oid) = capture::captured(rewrite.id)? {
        let table = relation::get(oid)?;
        audit_event::reserve()?;
        lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
        capture::off(rewrite.id, &table)?;
        fingerprint = Some(relation::fingerprint(oid)?);
    }
    drop_schema(&rewrite.new_schema)?;
    drop_schema(&rewrite.old_schema)?;
    dead_letter::resolve_all(rewrite.id)?;
    rewrite::delete(rewrite.id)?;
    let same = fingerprint.as_ref() == Some(&rewrite.fingerprint);
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "rewrite undone",
        detail: Some(serde_json::json!({
            "fingerprint_before": rewrite.fingerprint,
            "fingerprint_after": fingerprint,
            "identical": same,
        })),
        ..Act::default()
    })?;
    if !same {
        pgrx::warning!(
            "transmute: migration \"{}\": the catalog entries of the table differ from those before it; \
             somebody changed them meanwhile",
            migration.id
        );
    }
    Ok(())
}

/// Drops a work schema with everything in it, if it is there.
pub fn drop_schema(name: &str) -> Result<()> {
    // What goes with it is listed in NOTICEs otherwise, in the log or to whoever calls transmute.run.
    identity::set_for_transaction("client_min_messages", "warning")?;
    spi::execute(
        &format!("DROP SCHEMA IF EXISTS {} CASCADE", quote_ident(name)),
        &[],
    )?;
    Ok(())
}
