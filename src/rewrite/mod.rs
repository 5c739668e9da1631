//! The rewrite strategy: any ALTER TABLE that would rewrite its table. `README.md` beside this file has the
//! protocol and what a crash at each commit leaves behind.

pub mod again;
pub mod attach;
pub mod capture;
pub mod check;
pub mod copy;
pub mod dependents;
pub mod drain;
pub mod expand;
pub mod generated;
pub mod ground;
pub mod halving;
pub mod keep;
pub mod lock;
pub mod matview;
pub mod mirror;
pub mod outdated;
pub mod preview;
pub mod probe;
pub mod reference;
pub mod shadow;
pub mod successor;
pub mod swap;
pub mod version;

use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::naming::OLD_NAME_OF;
use crate::pg::parser::{self, Action, Command, ConstraintKind, Kind, Statement};
use crate::pg::row::RowMapper;
use crate::pg::spi;
use crate::store::migration::Migration;
use crate::store::rewrite::{self, Rewrite};
use crate::store::step;

/// Whether a statement adds foreign keys and nothing else: they are made when all tables have been swapped.
pub fn adds_foreign_keys(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::AlterTable(alter) => alter
            .commands
            .iter()
            .all(|c| c.constraint == Some(ConstraintKind::Foreign) && c.not_valid),
        _ => false,
    }
}

/// The subcommands of every ALTER TABLE of a script, but for the foreign keys that follow the swap.
pub fn commands(script: &str) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    for statement in parser::parse(script)? {
        if adds_foreign_keys(&statement) {
            continue;
        }
        if let Kind::AlterTable(alter) = statement.kind {
            commands.extend(alter.commands);
        }
    }
    Ok(commands)
}

/// The index by which the rows of the copy are ordered: where that is all there is to do.
pub fn sorted_by(commands: &[Command]) -> Option<&str> {
    match commands {
        [command] if command.action == Action::ClusterOn => command.column.as_deref(),
        _ => None,
    }
}

/// Two migrations never work on one table: the second waits until the first has ended. Within one migration the order
/// of its steps sees to it.
pub fn require_free(table: &Relation, migration_id: &str) -> Result<()> {
    if has_two_names(table)? {
        return Err(Error::InUse {
            problem: format!("{ANOTHER_MIGRATION} the table"),
            detail: format!(
                "{} is a view while a migration keeps two names of a table, or of a column.",
                table.name
            ),
            hint: "It goes on when that one has finished or was rolled back.".into(),
        });
    }
    if let Some((other, until)) = rewrite::kept_by(table.oid)? {
        if other != migration_id {
            return Err(kept(table, &other, &until));
        }
    }
    match rewrite::migration_of(table.oid)? {
        Some(other) if other != migration_id => Err(Error::InUse {
            problem: format!("{ANOTHER_MIGRATION} the table"),
            detail: format!("Migration \"{other}\" works on {}.", table.name),
            hint: "It goes on when that one has finished or was rolled back.".into(),
        }),
        _ => Ok(()),
    }
}

/// The refusal to change a table whose old rows are kept current.
pub fn kept(table: &Relation, migration_id: &str, until: &str) -> Error {
    Error::InUse {
        problem: format!("{ANOTHER_MIGRATION} the table: it keeps the old rows current"),
        detail: format!("Migration \"{migration_id}\" keeps those of {} until {until}.", table.name),
        hint: "transmute.release_old(id, reason) of that one ends it, and with it the possibility to undo it.".into(),
    }
}

/// Whether it is the view that stands in a table's place for a time.
pub fn has_two_names(relation: &Relation) -> Result<bool> {
    if relation.kind != 'v' {
        return Ok(false);
    }
    let marked: Option<bool> = spi::value(
        "SELECT starts_with(obj_description($1, 'pg_class'), $2)",
        &[relation.oid.into(), OLD_NAME_OF.into()],
    )?;
    Ok(marked == Some(true))
}

/// How the message of a wait for another migration begins; `engine::failure` knows it by this.
pub const ANOTHER_MIGRATION: &str = "another migration is rewriting";

/// One rewrite with what its work needs: the statements, the table as it is now, whom to run as.
pub struct Work {
    pub migration_id: String,
    pub rewrite: Rewrite,
    pub table: Relation,
    /// The DBA's ALTER TABLE, or several, with CREATE INDEX among them.
    pub alter: String,
    pub session: Session,
    /// The statements that lead the other way, where they are known.
    pub other: Option<String>,
    /// The old rows are to follow after the swap.
    pub keeps: bool,
}

impl Work {
    pub fn new(
        migration: &Migration,
        rewrite: Rewrite,
        alter: &str,
        other: Option<String>,
    ) -> Result<Work> {
        let table = relation::get(rewrite.relation)?;
        Ok(Work {
            migration_id: migration.id.clone(),
            table,
            keeps: migration.keeps_old && rewrite.reverses.is_none(),
            rewrite,
            alter: alter.to_string(),
            session: migration.session.clone(),
            other,
        })
    }

    /// Runs `f` as the table's owner, restricted, with the names resolved as at register: everything that
    /// evaluates an expression of the DBA's or of the table's.
    pub fn as_owner<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        identity::as_role(self.table.owner, &self.session, f)
    }

    /// Reads rows of the table, and converts them to the shadow's shape where the shadow is ours.
    fn mapper(&self, with_indexes: bool) -> Result<RowMapper> {
        let rewrite = &self.rewrite;
        match rewrite.successor {
            // The twin has the table's own shape.
            Some(_) => RowMapper::new(rewrite.relation, rewrite.twin, "", false),
            None => RowMapper::new(rewrite.relation, rewrite.shadow, &self.alter, with_indexes),
        }
    }

    /// What a row has to pass, for people: the ALTER of the swap, or the copy that the script has written.
    fn expression(&self) -> Result<String> {
        match self.rewrite.successor {
            Some(_) => step::copy_of(&self.migration_id, self.rewrite.statement),
            None => Ok(self.alter.clone()),
        }
    }

    /// Where table and shadow differ in persistence, a crash has emptied only one of them.
    fn require_no_crash(&self) -> Result<()> {
        let sentinel = QualifiedName::new(&self.rewrite.new_schema, expand::SENTINEL);
        let exists: Option<bool> = spi::value(
            "SELECT to_regclass($1) IS NOT NULL",
            &[sentinel.to_string().into()],
        )?;
        if exists != Some(true) {
            return Ok(());
        }
        let alive: Option<bool> =
            spi::value(&format!("SELECT EXISTS (SELECT FROM {sentinel})"), &[])?;
        if alive == Some(true) {
            return Ok(());
        }
        Err(Error::Prerequisite {
            problem: "the server crashed while an unlogged table was being migrated".into(),
            detail: format!(
                "Crash recovery emptied {} or its shadow, whichever is unlogged.",
                self.table.name
            ),
            hint: "transmute.rollback(id, reason), then apply again.".into(),
        })
    }

    fn shadow_is_gone(&self) -> Error {
        Error::Prerequisite {
            problem: "the shadow table is gone".into(),
            detail: format!(
                "Schema \"{}\" was changed by hand.",
                self.rewrite.new_schema
            ),
            hint: "transmute.rollback(id, reason) clears the migration up.".into(),
        }
    }

    /// The shadow and its log must be what expand made.
    pub fn require_shadow(&self) -> Result<()> {
        if self.rewrite.name.is_empty() {
            return Err(self.shadow_is_gone());
        }
        self.require_no_crash()?;
        let same_key: Option<bool> = spi::value(
            include_str!("../../sql/query/same_key.sql"),
            &[
                self.rewrite.relation.into(),
                self.rewrite.key_log.into(),
                self.rewrite.key_columns.clone().into(),
            ],
        )?;
        if same_key != Some(true) {
            // Both may have gone since the rewrite was read.
            let shadow = self.rewrite.shadow_name();
            if crate::pg::relation::resolve(Some(&shadow.schema), &shadow.name)?.is_none() {
                return Err(self.shadow_is_gone());
            }
            return Err(Error::Prerequisite {
                problem: "the table was changed while it was being migrated".into(),
                detail: format!(
                    "The key of {} is not what it was, or the key log was changed.",
                    self.table.name
                ),
                hint: "Undo that change, or transmute.rollback(id, reason) and apply again.".into(),
            });
        }
        Ok(())
    }
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
