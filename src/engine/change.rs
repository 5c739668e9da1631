//! Statements that run as they stand and whose way back is read from the catalog when they run: what it said before and what
//! it says after are compared in the transaction of the statement, and the difference is kept with the step.

use super::execute;
use super::tick::Next;
use super::work::Worked;
use crate::catalog::{fact, relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::reverse::{self, Fact, Irreversible};
use crate::pg::affected::{self, Address, Subject, Way};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, Kind, Statement};
use crate::pg::{utility, xact, Oid};
use crate::rewrite::lock;
use crate::store::migration::Migration;
use crate::store::step::{self, Step};
use std::collections::HashSet;

/// What is known of the objects before the statement runs.
pub(super) struct Before {
    objects: Vec<(Address, Vec<Fact>)>,
    default_privileges: Vec<Fact>,
    schemas: Vec<Option<String>>,
    /// All objects there are, where the statement makes new ones.
    pub(super) all: HashSet<(Oid, Oid)>,
}

/// Runs the statement and keeps what takes it back.
pub fn run(migration: &Migration, step: &Step) -> Result<()> {
    let owner = execute::owner_role(migration)?;
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    let subject = identity::as_role(owner, &migration.session, || affected::of(&step.sql))?
        .ok_or_else(|| Error::Bug(format!("nothing is known of: {}", step.sql)))?;
    let mut relations: Vec<Oid> = subject.objects.iter().filter_map(|o| o.relation).collect();
    relations.sort_unstable_by_key(|oid| oid.to_u32());
    relations.dedup();
    if let (Some(mode), false) = (subject.lock, relations.is_empty()) {
        lock::acquire(
            &relations,
            mode,
            &relation::get(relations[0])?.name.to_string(),
        )?;
    }
    let before = Before::look(&subject)?;
    execute::run(migration, &step.sql)?;
    xact::command_counter_increment();
    let back = way_back(&subject, &before)
        .map_err(|what| Error::Prerequisite {
            problem: "the statement cannot be taken back".into(),
            detail: format!("Nothing makes this again: {what}. In: {}", step.sql),
            hint: "transmute.rollback(id, reason), and run the statement by itself.".into(),
        })?
        .join("; ");
    step::set_revert(&migration.id, step.step, Some(&back))
}

impl Before {
    /// As `of_changed`, with all objects there are, where the statement makes new ones.
    fn look(subject: &Subject) -> Result<Before> {
        let mut before = Before::of_changed(subject)?;
        if subject.creates {
            before.all = fact::objects()?;
        }
        Ok(before)
    }

    /// The objects that the statement changes.
    pub(super) fn of_changed(subject: &Subject) -> Result<Before> {
        let mut before = Before {
            objects: Vec::new(),
            default_privileges: Vec::new(),
            schemas: Vec::new(),
            all: HashSet::new(),
        };
        for address in compared(subject) {
            before.schemas.push(fact::schema(&address)?);
            before.objects.push((address, fact::list(&address)?));
        }
        if subject.way == Way::DefaultPrivileges {
            before.default_privileges = fact::default_privileges()?;
        }
        Ok(before)
    }
}

/// The objects whose facts tell what the statement did: a trigger, rule or policy that is dropped is a fact of its table.
pub fn compared(subject: &Subject) -> Vec<Address> {
    let mut found: Vec<Address> = Vec::new();
    for address in &subject.objects {
        let address = match (subject.drops, address.relation) {
            (true, Some(table)) => Address {
                object: table,
                class: crate::pg::affected::RELATIONS,
                part: 0,
                relation: Some(table),
            },
            _ => *address,
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// The outer error is ours, the inner one says what cannot be made again.
fn way_back(subject: &Subject, before: &Before) -> std::result::Result<Vec<String>, Irreversible> {
    let told = |error: Error| Irreversible(error.to_string());
    let mut back = Vec::new();
    if subject.creates && matches!(subject.way, Way::Facts | Way::Never) {
        // The youngest first: nothing depends on what is younger than itself.
        for (class, object) in fact::written_here().map_err(told)?.into_iter().rev() {
            if !before.all.contains(&(class, object)) {
                let address = Address {
                    class,
                    object,
                    part: 0,
                    relation: None,
                };
                let facts = fact::list(&address).map_err(told)?;
                let it = facts.into_iter().find(|f| f.rank == 10);
                back.extend(it.and_then(|f| f.unmake));
            }
        }
    }
    back.extend(of_changed(subject, before)?);
    Ok(back)
}

/// What takes back the changes of objects that were there.
pub(super) fn of_changed(
    subject: &Subject,
    before: &Before,
) -> std::result::Result<Vec<String>, Irreversible> {
    let told = |error: Error| Irreversible(error.to_string());
    let mut back = Vec::new();
    match &subject.way {
        Way::Rename(name) => {
            for address in &subject.objects {
                back.extend(fact::rename_sql(address, name).map_err(told)?);
            }
            return Ok(back);
        }
        Way::SetSchema => {
            for (address, schema) in subject.objects.iter().zip(&before.schemas) {
                if let Some(schema) = schema {
                    back.extend(fact::set_schema_sql(address, schema).map_err(told)?);
                }
            }
            return Ok(back);
        }
        Way::Statement(sql) => return Ok(vec![sql.clone()]),
        Way::DefaultPrivileges => {
            let after = fact::default_privileges().map_err(told)?;
            return reverse::statements(&before.default_privileges, &after);
        }
        // Only what uses the enum then tells (`enum_back`); one that the script has made goes as a whole.
        Way::Value(_) if subject.objects.is_empty() => return Ok(back),
        Way::Value(label) => return Err(Irreversible(format!("without the value '{label}'"))),
        Way::Facts | Way::Never => {}
    }
    for (address, facts) in &before.objects {
        let after = fact::list(address).map_err(told)?;
        back.extend(reverse::statements(facts, &after)?);
    }
    Ok(back)
}

/// Takes the statement back as far as the next COMMIT of the way back; the rest is kept for the next call.
pub fn revert(migration: &Migration, step: &Step) -> Result<Worked> {
    let Some(sql) = &step.revert_sql else {
        return Ok(Worked::Done);
    };
    match take_back(migration, sql)? {
        None => Ok(Worked::Done),
        Some(rest) => {
            step::set_revert(&migration.id, step.step, Some(&rest))?;
            Ok(Worked::More(Next::Again))
        }
    }
}

/// Runs what takes something back as far as its next COMMIT; what is left after that.
pub(super) fn take_back(migration: &Migration, sql: &str) -> Result<Option<String>> {
    let own = Migration {
        session: Session::own(),
        ..migration.clone()
    };
    // A body is what it was; what it uses may be made again only after it.
    identity::set_for_transaction("check_function_bodies", "off")?;
    let statements = parser::parse(sql)?;
    let mut role = None;
    for (i, statement) in statements.iter().enumerate() {
        if matches!(statement.kind, Kind::Transaction) {
            let rest: Vec<&str> = statements[i + 1..]
                .iter()
                .map(|s| s.text.as_str())
                .collect();
            if rest.is_empty() {
                break;
            }
            return Ok(Some(rest.join("; ")));
        }
        match role_of(statement)? {
            Some(name) => role = name,
            None => run_as(&own, role, statement)?,
        }
    }
    Ok(None)
}

/// `SET LOCAL ROLE` of the way back: whose privileges the next statements give or take.
fn role_of(statement: &Statement) -> Result<Option<Option<Oid>>> {
    let Some(name) = statement.text.strip_prefix("SET LOCAL ROLE ") else {
        return Ok(None);
    };
    if name == "NONE" {
        return Ok(Some(None));
    }
    let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_string(),
    };
    let oid = relation::role_oid(&name)?.ok_or_else(|| Error::UndefinedObject {
        problem: "a role that had granted a privilege does not exist any more".into(),
        detail: format!("Role \"{name}\" was dropped."),
        hint: "Make it again, then transmute.resume(id, reason).".into(),
    })?;
    Ok(Some(Some(oid)))
}

fn run_as(migration: &Migration, role: Option<Oid>, statement: &Statement) -> Result<()> {
    match role {
        Some(role) => identity::as_role(role, &migration.session, || utility::run(&statement.text)),
        None => execute::run(migration, &statement.text),
    }
}
