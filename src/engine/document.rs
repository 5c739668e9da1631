//! Carrying a migration to another database: export and import.

use super::register::{self, Request};
use crate::error::{Error, Result};
use crate::model::document::{Document, Fault};
use crate::model::meta::MetaError;
use crate::model::written::{Copy, Phases, Written};
use crate::pg::identity::{Caller, Session};
use crate::store::migration;
use serde_json::Value;

/// A registered migration as a document.
pub fn export(id: &str) -> Result<Value> {
    let migration = migration::get(id)?;
    let document = Document {
        id: migration.id,
        written: written(id)?,
        meta: serde_json::to_value(&migration.meta)?,
        search_path: migration.session.search_path,
        settings: migration.session.settings,
        checksum: migration::checksum(id)?,
    };
    Ok(document.to_json())
}

/// Registers what a document describes, under the settings it was registered with; the caller becomes its owner. Its id.
pub fn import(json: &Value, caller: &Caller) -> Result<String> {
    let document =
        Document::from_json(json, &Session::settings_kept()).map_err(|fault| match fault {
            Fault::Seal => tampered("Its seal is not that of its contents."),
            Fault::Form {
                path,
                message,
                hint,
            } => Error::InvalidArgument {
                problem: "the document is not valid".into(),
                detail: format!("{path}: {message}."),
                hint,
            },
        })?;
    let caller = Caller {
        role: caller.role,
        session: Session {
            search_path: document.search_path.clone(),
            settings: document.settings.clone(),
        },
    };
    register(&document, &caller)?;
    match migration::checksum(&document.id)? == document.checksum {
        true => Ok(document.id),
        false => Err(tampered("Its checksum is not that of the migration.")),
    }
}

/// What it was registered with.
pub(super) fn written(id: &str) -> Result<Written> {
    let stored = migration::phases(id)?;
    let unreadable = |error: MetaError| Error::Corrupted {
        problem: "what was registered cannot be read".into(),
        detail: error.to_string(),
        hint: "Register it anew, under another id.".into(),
    };
    Ok(match (&stored, stored.get(register::COPY)) {
        (Value::Null, _) => Written::Script {
            up: migration::script(id)?,
            down: migration::way_back(id)?,
        },
        (_, Some(copy)) => Written::Copy(Copy::from_json(copy, "copy").map_err(unreadable)?),
        (_, None) => {
            let mut phases = stored;
            if let Some(object) = phases.as_object_mut() {
                object.remove(register::BATCH_ROWS);
            }
            Written::Phases(Phases::from_json(&phases, "phases").map_err(unreadable)?)
        }
    })
}

fn register(document: &Document, caller: &Caller) -> Result<()> {
    register_written(&document.id, &document.written, &document.meta, caller)
}

/// Registers what was written, under an id.
pub(super) fn register_written(
    id: &str,
    written: &Written,
    meta: &Value,
    caller: &Caller,
) -> Result<()> {
    match written {
        Written::Script { up, down } => {
            let request = Request {
                id,
                up,
                down: down.as_deref(),
                meta,
            };
            register::run(request, caller)
        }
        Written::Phases(phases) => register::run_phases(id, phases, meta, caller),
        Written::Copy(copy) => register::run_copy(id, copy, meta, caller),
    }
}

fn tampered(detail: &str) -> Error {
    Error::Corrupted {
        problem: "the document was changed after it was exported".into(),
        detail: detail.into(),
        hint: "Export it again where it comes from.".into(),
    }
}
