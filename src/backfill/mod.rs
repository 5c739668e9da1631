//! Batched data work: a statement of the DBA's over many rows, a few at a time.
//!
//! The keys of the rows that it means are listed first, in one scan. Then it runs over one range of the list a
//! transaction, as it was written, with "its key is in this range" added to its conditions. So each row that was there
//! and was meant at the start is worked on once, wherever it has moved meanwhile, if it is still meant when its turn comes.

pub mod batch;
pub mod dead_letter;
pub mod growth;
pub mod keyset;
pub mod pace;
pub mod range;

use crate::catalog::relation::{self, Relation};
use crate::catalog::{column, index};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::quote_ident;
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, Kind, Verb};
use crate::pg::xact::{self, End};
use crate::pg::{dml, outline, Oid};
use crate::store::backfill::Backfill;
use crate::store::migration::Migration;

/// Why a statement over a table without a key cannot run in batches.
pub const NO_KEY: &str = "the table has no key";

/// How a data statement will run.
#[derive(Debug, Clone)]
pub struct Decision {
    pub target: Relation,
    /// Rows that it means, as the planner guesses.
    pub rows: i64,
    pub way: Way,
}

#[derive(Debug, Clone)]
pub enum Way {
    /// A range of rows at a time.
    Batched(Box<Driver>),
    /// As it stands, in one transaction; why.
    Whole(String),
}

/// The relation whose rows a statement goes through, and what identifies them.
#[derive(Debug, Clone)]
pub struct Driver {
    pub relation: Relation,
    /// Columns of the key, quoted, in its order.
    pub key: Vec<String>,
}

/// Asks the server what the statement means to `role`, which must be allowed to run it, and decides. Nothing stays
/// locked.
pub fn decide(sql: &str, role: Oid, session: &Session) -> Result<Decision> {
    let found = xact::subtransaction(End::Undo, || {
        identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
        identity::as_role(role, session, || outline::of(sql))
    })?;
    let target = relation::get(found.target)?;
    let whole = |why: &str| {
        Ok(Decision {
            target: target.clone(),
            rows: found.rows,
            way: Way::Whole(why.to_string()),
        })
    };
    if let Some(why) = found.obstacle {
        return whole(why);
    }
    let Some(driver) = found.driver else {
        return whole("its SELECT is more than rows of one table");
    };
    let driver = relation::get(driver)?;
    if !matches!(driver.kind, 'r' | 'p') || !matches!(target.kind, 'r' | 'p') {
        return whole("it goes through a view or a foreign table");
    }
    if driver.kind == 'r' && driver.has_inheritance && !found.only {
        return whole("the table has inheritance children, which share no key");
    }
    let assigned = &found.assigned;
    if !assigned.is_empty() && index::is_unique_on(target.oid, assigned)? {
        return whole("it changes columns that a unique index compares");
    }
    let Some(key) = index::keys(driver.oid, &[])?.into_iter().next() else {
        return whole(NO_KEY);
    };
    let columns = column::list(driver.oid)?;
    let key = key
        .columns
        .iter()
        .filter_map(|n| columns.iter().find(|c| c.number == *n))
        .map(|c| quote_ident(&c.name))
        .collect();
    Ok(Decision {
        target,
        rows: found.rows,
        way: Way::Batched(Box::new(Driver {
            relation: driver,
            key,
        })),
    })
}

/// A data statement under way, with what its work needs.
pub struct Work {
    pub migration_id: String,
    pub backfill: Backfill,
    pub sql: String,
    owner: Oid,
    session: Session,
    /// UPDATE and DELETE; an INSERT only reads its driver.
    changes_driver: bool,
    /// The driver, qualified, without its inheritance children where it has any.
    table: String,
    /// The name of the driver inside the statement.
    driver_name: String,
    /// The equality of each key column's type.
    equality: Vec<String>,
}

impl Work {
    pub fn new(migration: &Migration, backfill: Backfill, sql: &str, owner: Oid) -> Result<Work> {
        let driver = relation::get(backfill.relation)?;
        let columns = column::list(backfill.relation)?;
        let equality = backfill
            .key_columns
            .iter()
            .map(|name| {
                let column = columns
                    .iter()
                    .find(|c| !c.dropped && quote_ident(&c.name) == *name);
                let column = column.ok_or_else(|| Error::Prerequisite {
                    problem: "the table was changed while its rows were worked on".into(),
                    detail: format!("Key column {name} is gone, or the table is."),
                    hint: "Undo that change, then transmute.resume(id, reason).".into(),
                })?;
                column::equality(column.type_oid)
            })
            .collect::<Result<_>>()?;
        Ok(Work {
            migration_id: migration.id.clone(),
            backfill,
            driver_name: dml::driver_name(sql)?,
            sql: sql.to_string(),
            changes_driver: !matches!(
                parser::parse(sql)?.first().map(|s| &s.kind),
                Some(Kind::Data(data)) if data.verb == Verb::Insert
            ),
            owner,
            session: migration.session.clone(),
            table: match driver.kind {
                'p' => driver.name.to_string(),
                _ => format!("ONLY {}", driver.name),
            },
            equality,
        })
    }

    /// Columns of the key, quoted, each with its equality operator.
    fn key(&self) -> impl Iterator<Item = (&String, &String)> {
        self.backfill.key_columns.iter().zip(&self.equality)
    }

    /// Runs `f` as the migration's owner, restricted, with the names resolved as at register.
    fn as_owner<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        identity::as_role(self.owner, &self.session, f)
    }
}
