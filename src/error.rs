// SPDX-License-Identifier: Apache-2.0
//! The one error type. Each variant is a fact with its data; SQLSTATE, DETAIL and HINT are decided
//! here and nowhere else (style: message without values that may be secret, DETAIL with the value
//! at fault, HINT with the next call).

use crate::pg::error::ServerError;
use crate::pg::ErrorReport;
use pgrx::PgSqlErrorCode;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("migration does not exist")]
    UnknownMigration { id: String },
    #[error("must be a member of the migration's owner")]
    NotYours { id: String, owner: String },
    /// One of the two above, to whom may not know which.
    #[error("must be a member of the migration's owner")]
    Hidden { id: String },
    #[error("migration is already registered")]
    AlreadyRegistered { id: String },
    #[error("{problem}")]
    InvalidArgument {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("the state of the migration does not allow {call}")]
    WrongState {
        id: String,
        state: String,
        call: &'static str,
        hint: String,
    },
    #[error("{problem}")]
    Prerequisite {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("a gate refuses to apply the migration")]
    Refused {
        id: String,
        code: &'static str,
        detail: String,
        hint: String,
    },
    #[error("{call} has to be confirmed here")]
    Unconfirmed { call: &'static str, detail: String },
    #[error("{problem}")]
    InUse {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("could not get the lock on {relation} in time")]
    LockNotAvailable { relation: String, detail: String },
    #[error("{problem}")]
    Privilege {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("{problem}")]
    Unsupported {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("{problem}")]
    WrongObject {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("{problem}")]
    UndefinedObject {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("relation does not exist")]
    UndefinedTable { name: String, search_path: String },
    #[error("relation already exists")]
    DuplicateTable { name: String },
    #[error("column already exists")]
    DuplicateColumn { table: String, column: String },
    #[error("column does not exist")]
    UndefinedColumn { table: String, column: String },
    #[error("{problem}")]
    DependentObjects {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("cannot change migrations in a read-only transaction")]
    ReadOnly { standby: bool },
    #[error("could not serialize access due to a change of the table by a migration")]
    Outdated { relation: String, migration: String },
    #[error("{problem}")]
    Corrupted {
        problem: String,
        detail: String,
        hint: String,
    },
    #[error("transmute bug: {0}")]
    Bug(String),
    /// An error of the server itself, passed on as it came.
    #[error("{}", .0.message)]
    Server(ServerError),
}

/// What was tried, `None` where the server refused it; an interrupt is no answer.
pub fn if_accepted<T>(tried: Result<T>) -> Result<Option<T>> {
    match tried {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_interrupt() => Err(error),
        Err(_) => Ok(None),
    }
}

impl Error {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            Error::UnknownMigration { .. } | Error::UndefinedObject { .. } => {
                ERRCODE_UNDEFINED_OBJECT
            }
            Error::UndefinedTable { .. } => ERRCODE_UNDEFINED_TABLE,
            Error::AlreadyRegistered { .. } => ERRCODE_DUPLICATE_OBJECT,
            Error::DuplicateTable { .. } => ERRCODE_DUPLICATE_TABLE,
            Error::DuplicateColumn { .. } => ERRCODE_DUPLICATE_COLUMN,
            Error::UndefinedColumn { .. } => ERRCODE_UNDEFINED_COLUMN,
            Error::InvalidArgument { .. } => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::WrongState { .. }
            | Error::Prerequisite { .. }
            | Error::Refused { .. }
            | Error::Unconfirmed { .. } => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::InUse { .. } => ERRCODE_OBJECT_IN_USE,
            Error::LockNotAvailable { .. } => ERRCODE_LOCK_NOT_AVAILABLE,
            Error::Privilege { .. } | Error::NotYours { .. } | Error::Hidden { .. } => {
                ERRCODE_INSUFFICIENT_PRIVILEGE
            }
            Error::Unsupported { .. } => ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::WrongObject { .. } => ERRCODE_WRONG_OBJECT_TYPE,
            Error::DependentObjects { .. } => ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            Error::ReadOnly { .. } => ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Error::Outdated { .. } => ERRCODE_T_R_SERIALIZATION_FAILURE,
            Error::Corrupted { .. } => ERRCODE_DATA_CORRUPTED,
            Error::Bug(_) => ERRCODE_INTERNAL_ERROR,
            Error::Server(e) => e.code,
        }
    }

    /// The SQLSTATE as its five characters.
    pub fn sqlstate_text(&self) -> String {
        crate::pg::error::sqlstate_text(self.sqlstate())
    }

    /// Whether somebody, or a timeout, wants the call to end: no answer to what was tried.
    pub fn is_interrupt(&self) -> bool {
        self.sqlstate_text().starts_with("57")
    }

    /// Itself where it is an interrupt, else what it means here.
    pub fn or_means(self, meaning: impl FnOnce(&Error) -> Error) -> Error {
        match self.is_interrupt() {
            true => self,
            false => meaning(&self),
        }
    }

    pub fn detail(&self) -> Option<String> {
        match self {
            Error::UnknownMigration { id } => Some(format!("No migration is named \"{id}\".")),
            Error::NotYours { id, owner } => {
                Some(format!("Migration \"{id}\" belongs to \"{owner}\"."))
            }
            Error::Hidden { id } => Some(format!(
                "Migration \"{id}\" does not exist, or belongs to a role that this one is no member of."
            )),
            Error::AlreadyRegistered { id } => {
                Some(format!("A migration named \"{id}\" exists already."))
            }
            Error::UndefinedTable { name, search_path } => Some(format!(
                "There is no table {name}; search_path is {search_path}."
            )),
            Error::DuplicateColumn { table, column } => {
                Some(format!("{table} has a column \"{column}\" already."))
            }
            Error::UndefinedColumn { table, column } => {
                Some(format!("{table} has no column \"{column}\"."))
            }
            Error::DuplicateTable { name } => Some(format!("{name} is taken.")),
            Error::WrongState { id, state, .. } => {
                Some(format!("Migration \"{id}\" is in state {state}."))
            }
            Error::Refused {
                id, code, detail, ..
            } => Some(format!("{code}: migration \"{id}\". {detail}")),
            Error::Unconfirmed { detail, .. } => Some(format!("CONFIRMATION: {detail}")),
            Error::LockNotAvailable { detail, .. } | Error::Corrupted { detail, .. } => {
                Some(detail.clone())
            }
            Error::InvalidArgument { detail, .. }
            | Error::Prerequisite { detail, .. }
            | Error::InUse { detail, .. }
            | Error::Privilege { detail, .. }
            | Error::Unsupported { detail, .. }
            | Error::WrongObject { detail, .. }
            | Error::DependentObjects { detail, .. }
            | Error::UndefinedObject { detail, .. } => Some(detail.clone()),
            Error::ReadOnly { standby: true } => Some("This server is a standby.".into()),
            Error::ReadOnly { .. } => Some("transaction_read_only is on.".into()),
            Error::Outdated {
                relation,
                migration,
            } => Some(format!(
                "The snapshot of this transaction is older than what migration \"{migration}\" brought into {relation}: rows would be missed."
            )),
            Error::Bug(_) => None,
            Error::Server(e) => e.detail.clone(),
        }
    }

    /// The DETAIL of an error that was made here, to be added to; none for one whose DETAIL is made of its parts.
    pub fn detail_mut(&mut self) -> Option<&mut String> {
        match self {
            Error::InvalidArgument { detail, .. }
            | Error::Prerequisite { detail, .. }
            | Error::InUse { detail, .. }
            | Error::Privilege { detail, .. }
            | Error::Unsupported { detail, .. }
            | Error::WrongObject { detail, .. }
            | Error::DependentObjects { detail, .. }
            | Error::UndefinedObject { detail, .. } => Some(detail),
            _ => None,
        }
    }

    /// With something in front of its DETAIL.
    pub fn within(mut self, what: &str) -> Error {
        if let Some(detail) = self.detail_mut() {
            *detail = format!("{what}: {detail}");
            return self;
        }
        let mut said = self.said();
        said.detail = Some(match said.detail {
            Some(detail) => format!("{what}: {detail}"),
            None => format!("{what}."),
        });
        Error::Server(said)
    }

    /// With another HINT, where its own is about another call.
    pub fn with_hint(self, hint: &str) -> Error {
        let mut said = self.said();
        said.hint = Some(hint.to_string());
        Error::Server(said)
    }

    /// With something behind its HINT.
    pub fn hinting(self, what: &str) -> Error {
        let mut said = self.said();
        said.hint = Some(match said.hint {
            Some(hint) => format!("{hint} {what}"),
            None => what.to_string(),
        });
        Error::Server(said)
    }

    /// As it is told, without the place in a text that is not the caller's.
    fn said(&self) -> ServerError {
        ServerError {
            code: self.sqlstate(),
            message: self.to_string(),
            detail: self.detail(),
            hint: self.hint(),
            position: None,
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Error::UnknownMigration { .. } => {
                Some("SELECT id, state FROM transmute.status lists the migrations.".into())
            }
            Error::NotYours { .. } => Some("SET ROLE to it, or ask its owner.".into()),
            Error::Hidden { .. } => Some(
                "SET ROLE to its owner; members of transmute_reader see which migrations there are."
                    .into(),
            ),
            Error::AlreadyRegistered { id } => Some(format!(
                "Choose another id, or look at it: SELECT * FROM transmute.plan({}).",
                crate::model::ident::quote_literal(id)
            )),
            Error::WrongState { hint, .. }
            | Error::Refused { hint, .. }
            | Error::InvalidArgument { hint, .. }
            | Error::Prerequisite { hint, .. }
            | Error::InUse { hint, .. }
            | Error::Privilege { hint, .. }
            | Error::Unsupported { hint, .. }
            | Error::WrongObject { hint, .. }
            | Error::DependentObjects { hint, .. }
            | Error::UndefinedObject { hint, .. } => Some(hint.clone()),
            Error::Unconfirmed { .. } => {
                Some("If this is the database you mean, add confirm => current_database().".into())
            }
            Error::UndefinedColumn { .. } => Some("Check the spelling.".into()),
            Error::DuplicateTable { .. } | Error::DuplicateColumn { .. } => {
                Some("Choose another name.".into())
            }
            Error::LockNotAvailable { .. } => Some("It is tried again by itself.".into()),
            Error::UndefinedTable { .. } => {
                Some("Check the spelling, or write the schema in front.".into())
            }
            Error::ReadOnly { standby: true } => Some("Call it on the primary.".into()),
            Error::ReadOnly { .. } => Some("Use a read-write transaction.".into()),
            Error::Outdated { .. } => Some("Run the transaction again.".into()),
            Error::Corrupted { hint, .. } => Some(hint.clone()),
            Error::Bug(_) => {
                Some("Report it with the server log and the text of the migration.".into())
            }
            Error::Server(e) => e.hint.clone(),
        }
    }
}

impl From<Error> for ErrorReport {
    #[track_caller]
    fn from(error: Error) -> Self {
        let mut report = ErrorReport::new(error.sqlstate(), error.to_string(), "transmute");
        if let Some(detail) = error.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint() {
            report = report.set_hint(hint);
        }
        report
    }
}

impl From<pgrx::spi::SpiError> for Error {
    fn from(error: pgrx::spi::SpiError) -> Self {
        Error::Bug(format!("SPI: {error}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Bug(format!("JSON: {error}"))
    }
}
