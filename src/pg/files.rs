//! Files of the server, by the server's own functions: what these do not read is not read.

use super::error::ServerError;
use super::{identity, spi, xact};
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Whether a role may read them: whoever may use COPY FROM a file.
pub fn may_read(role: pg_sys::Oid) -> bool {
    identity::has_privs_of(role, pg_sys::Oid::from(pg_sys::ROLE_PG_READ_SERVER_FILES))
}

/// What is in a directory: names, as they are, and whether each is a directory itself.
pub fn list(directory: &str) -> Result<Vec<(Vec<u8>, bool)>> {
    told(|| {
        // The server does not look at the encoding of names.
        spi::query(
            r"SELECT pg_catalog.replace(f, '\', '\\')::bytea,
                coalesce((pg_catalog.pg_stat_file($1 || '/' || f, true)).isdir, false) FROM pg_catalog.pg_ls_dir($1) AS f",
            &[directory.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// What a file holds.
pub fn read(path: &str) -> Result<Vec<u8>> {
    told(|| {
        Ok(
            spi::value("SELECT pg_catalog.pg_read_binary_file($1)", &[path.into()])?
                .unwrap_or_default(),
        )
    })
}

fn told<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    xact::subtransaction(xact::End::Keep, f).map_err(|error| {
        match error {
        Error::Server(error) => Error::Server(ServerError {
            detail: error.detail.or(Some(
                "It is a path of the server, which reads it as its own user.".into(),
            )),
            hint: error.hint.or(Some(
                "Check the path and who may read it; transmute_load.psql loads files of the client."
                    .into(),
            )),
            ..error
        }),
        other => other,
    }
    })
}
