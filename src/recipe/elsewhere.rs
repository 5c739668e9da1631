//! Statements about other databases, other servers and the server itself: refused, with the reason, however a script runs.

use crate::error::{Error, Result};
use crate::pg::parser::Statement;

/// Why each of them is no part of a migration.
const ELSEWHERE: [(&str, &str); 9] = [
    (
        "ALTER SYSTEM",
        "it writes a file of the server, for all of its databases, which no rollback and no standby follows",
    ),
    (
        "CREATE DATABASE",
        "nothing of it shows in this database, so neither a crash nor a rollback could be told from its end",
    ),
    (
        "DROP DATABASE",
        "nothing of it shows in this database, and nothing brings it back",
    ),
    (
        "CREATE TABLESPACE",
        "it makes a directory of the server, for all of its databases",
    ),
    (
        "DROP TABLESPACE",
        "it removes a directory of the server, for all of its databases",
    ),
    (
        "CREATE SUBSCRIPTION",
        "it makes a slot on another server, which no rollback of this one removes",
    ),
    (
        "DROP SUBSCRIPTION",
        "it drops a slot of another server, and nothing brings it back",
    ),
    ("COPY", "its rows come from, or go to, a client, and there is none"),
    (
        "LISTEN",
        "it is about the session that runs it, which ends",
    ),
];

/// An error for a statement that is one of them.
pub(super) fn refuse(statement: &Statement) -> Result<()> {
    let tag = statement.tag.as_str();
    let Some((_, why)) = ELSEWHERE.iter().find(|(name, _)| *name == tag) else {
        return Ok(());
    };
    Err(Error::Unsupported {
        problem: format!("{tag} is not run by a migration"),
        detail: format!(
            "{tag} stands in line {}, column {}: {why}.",
            statement.line, statement.column
        ),
        hint: "Run it by itself outside of transmute, and take it out of the script.".into(),
    })
}
