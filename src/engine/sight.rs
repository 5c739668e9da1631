//! Who may know which migrations there are.

use super::call;
use crate::error::{Error, Result};
use crate::pg::identity::Caller;
use crate::pg::spi;
use crate::store::migration;

/// Whether the caller may read all migrations: the views, or the calls that show them.
pub fn reads_all(caller: &Caller) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT has_table_privilege($1, 'transmute.status'::regclass, 'SELECT') \
           OR has_function_privilege($1, 'transmute.plan(text)'::regprocedure, 'EXECUTE')",
        &[caller.role.into()],
    )? == Some(true))
}

/// What a call tells of a migration that is there goes to who may read migrations and to who may act for its owner. To anybody else
/// its name is taken, no more.
pub fn require_known(id: &str, caller: &Caller) -> Result<()> {
    if reads_all(caller)? {
        return Ok(());
    }
    call::require_owner(&migration::get(id)?, caller).map_err(|error| match error {
        Error::NotYours { id, .. } => Error::AlreadyRegistered { id },
        other => other,
    })
}

/// The error as the caller may know it: to whom may not read migrations, one that is not there and one of somebody else's are the same.
pub fn as_told(error: Error, caller: &Caller) -> Error {
    let (Error::UnknownMigration { id } | Error::NotYours { id, .. }) = &error else {
        return error;
    };
    match reads_all(caller) {
        Ok(true) => error,
        Ok(false) => Error::Hidden { id: id.clone() },
        Err(other) => other,
    }
}
