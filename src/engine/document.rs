//! Carrying a migration to another database: export and import.

use super::register::{self, Request};
use crate::error::{Error, Result};
use crate::model::document::{Document, Fault};
use crate::pg::identity::{Caller, Session};
use crate::store::migration;
use serde_json::Value;

/// A registered migration as a document.
pub fn export(id: &str) -> Result<Value> {
    let migration = migration::get(id)?;
    if migration::down_and_phases(id)?.1 {
        return Err(Error::Unsupported {
            problem: "hand-written phases and copies are not exported".into(),
            detail: format!(
                "Migration \"{id}\" was registered by register_phases or register_copy."
            ),
            hint: "Call that on the other database, too.".into(),
        });
    }
    let document = Document {
        id: migration.id,
        up: migration::script(id)?,
        down: migration::way_back(id)?,
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
            search_path: document.search_path,
            settings: document.settings,
        },
    };
    let request = Request {
        id: &document.id,
        up: &document.up,
        down: document.down.as_deref(),
        meta: &document.meta,
    };
    register::run(request, &caller)?;
    match migration::checksum(&document.id)? == document.checksum {
        true => Ok(document.id),
        false => Err(tampered("Its checksum is not that of the migration.")),
    }
}

fn tampered(detail: &str) -> Error {
    Error::Corrupted {
        problem: "the document was changed after it was exported".into(),
        detail: detail.into(),
    }
}
