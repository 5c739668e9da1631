//! Writes down what the caller's transaction cannot: a refusal is an ERROR, which undoes everything the caller wrote. A
//! process of its own appends the audit event, in its own transaction, once the caller's has let go of the trail.

use super::conductor::transaction;
use super::SCRIBE;
use crate::error::{Error, Result};
use crate::pg::{activity, handover, identity, process, Datum, Oid};
use crate::store::audit_event::{self, Act, Actor};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

/// How long it waits for a transaction that holds the end of the trail.
const PATIENCE: &str = "60s";

/// An act that its own transaction undoes.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    database: u32,
    migration_id: String,
    event: String,
    detail: serde_json::Value,
    actor: Actor,
}

/// Has a refusal of `call` written down. It is in the server's log in any case; without a free worker slot only there.
pub fn refused(error: &Error, call: &str, role: Oid) -> Result<()> {
    let Error::Refused {
        id, code, detail, ..
    } = error
    else {
        return Ok(());
    };
    crate::log::message(format!(
        "{call} of migration \"{id}\" refused by {code}: {detail}"
    ));
    let user = crate::catalog::relation::role_name(role)?;
    let note = Note {
        database: activity::database().to_u32(),
        migration_id: id.clone(),
        event: "refused".into(),
        detail: serde_json::json!({ "call": call, "gate": code, "detail": detail }),
        actor: audit_event::actor(&user)?,
    };
    let Some(handle) = handover::give(&serde_json::to_vec(&note)?) else {
        return Ok(());
    };
    let started = BackgroundWorkerBuilder::new(SCRIBE)
        .set_type(SCRIBE)
        .set_library("transmute")
        .set_function("transmute_scribe_main")
        .set_argument(Oid::from(handle).into_datum())
        .enable_spi_access()
        .load_dynamic();
    if started.is_err() {
        handover::discard(handle);
    }
    Ok(())
}

/// Entry point, by name from the server: the argument is the handle of the note.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_scribe_main(arg: Datum) {
    process::install_signal_handlers();
    let note = handover::take(arg.value() as u32).and_then(|n| serde_json::from_slice(&n).ok());
    let Some(note) = note else {
        process::exit(0);
    };
    let note: Note = note;
    process::connect(Some(Oid::from(note.database)));
    let written = transaction(|| {
        identity::set_for_transaction("lock_timeout", PATIENCE)?;
        audit_event::append(Act {
            migration_id: Some(&note.migration_id),
            event: &note.event,
            detail: Some(note.detail.clone()),
            actor: Some(note.actor.clone()),
            ..Act::default()
        })
    });
    if let Err(error) = written {
        crate::log::message(format!(
            "a refusal could not be written into the audit trail: {error}"
        ));
    }
    process::exit(0);
}
