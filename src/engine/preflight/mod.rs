//! preflight: whether a migration can succeed on the server and the rows as they are now. It only reads, and keeps the verdict.

mod rows;
mod server;

use super::call::{owned, record, wrong_state};
use super::execute::owner_role;
use crate::catalog::relation::{self, Relation};
use crate::error::{if_accepted, Result};
use crate::model::reason::Reason;
use crate::model::state::State;
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Statement};
use crate::pg::relation as pg_relation;
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use crate::store::migration::{self, Migration};
use crate::store::{preflight, step};
use std::collections::HashMap;

/// One question and its answer.
#[derive(Debug, Clone)]
pub struct Check {
    pub check: &'static str,
    pub ok: bool,
    pub detail: String,
    /// What to do; `None`: nothing.
    pub hint: Option<&'static str>,
}

impl Check {
    fn passed(check: &'static str, detail: impl Into<String>) -> Check {
        Check {
            check,
            ok: true,
            detail: detail.into(),
            hint: None,
        }
    }

    fn failed(check: &'static str, detail: impl Into<String>, hint: &'static str) -> Check {
        Check {
            check,
            ok: false,
            detail: detail.into(),
            hint: Some(hint),
        }
    }
}

/// A statement of the script with the table it works on, if that exists now.
struct Subject {
    number: i32,
    statement: Statement,
    table: Option<Relation>,
}

/// What the rows were found to be, by statement.
type Found = HashMap<i32, Vec<Reason>>;

/// Asks every question; the answers, in a fixed order.
pub fn run(id: &str, caller: &Caller) -> Result<Vec<Check>> {
    let migration = owned(id, caller)?;
    if migration.queued || migration.state != State::Uninitialized {
        return Err(wrong_state(
            &migration,
            "preflight",
            "It is for migrations that have not been applied.",
        ));
    }
    let owner = owner_role(&migration)?;
    let subjects = subjects(&migration, owner)?;
    let steps = step::plan(id)?;
    let mut checks = server::checks(&migration, owner, &subjects, &steps)?;
    let mut found = Found::new();
    checks.extend(rows::checks(&migration, &subjects, &mut found)?);
    for (statement, mut step) in steps {
        let before = step.clone();
        step.set_found(found.get(&statement).map_or(&[][..], Vec::as_slice));
        if step != before {
            step::set_risk(id, &step)?;
        }
    }
    let failed: Vec<String> = checks
        .iter()
        .filter(|c| !c.ok)
        .map(|c| c.check.to_string())
        .collect();
    preflight::record(id, &migration.plan_checksum, &failed)?;
    record(
        &migration,
        caller,
        "preflight",
        serde_json::json!({ "failed": failed, "plan_checksum": migration.plan_checksum }),
    )?;
    Ok(checks)
}

fn subjects(migration: &Migration, owner: Oid) -> Result<Vec<Subject>> {
    let mut all = Vec::new();
    for (i, statement) in parser::parse(&migration::script(&migration.id)?)?
        .into_iter()
        .enumerate()
    {
        let mut table = None;
        if let Some(mention) = statement.subject.mentions.first() {
            let tried = xact::subtransaction(End::Keep, || {
                identity::as_role(owner, &migration.session, || {
                    pg_relation::resolve(mention.schema.as_deref(), &mention.name)
                })
            });
            let oid = if_accepted(tried)?.flatten();
            table = oid.map(relation::get).transpose()?;
        }
        all.push(Subject {
            number: i as i32 + 1,
            statement,
            table: table.filter(|t| matches!(t.kind, 'r' | 'p')),
        });
    }
    Ok(all)
}

/// The tables, each once.
fn tables(subjects: &[Subject]) -> Vec<&Relation> {
    let mut all: Vec<&Relation> = Vec::new();
    for table in subjects.iter().filter_map(|s| s.table.as_ref()) {
        if !all.iter().any(|t| t.oid == table.oid) {
            all.push(table);
        }
    }
    all
}

fn join(items: &[String]) -> String {
    items.join("; ")
}
