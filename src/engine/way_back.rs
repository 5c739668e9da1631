//! What a step keeps of what it takes away, so that the migration can be taken back when it has finished: facts of its tables
//! before it, compared with those after it in a transaction of their own, outside of its locks; for a statement that
//! runs as it stands, both in its own.

use super::change::{self, Before};
use super::enum_back;
use super::execute::{self, owner_role};
use crate::catalog::fact;
use crate::catalog::{column, index, partition, relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::reverse::{self, Fact};
use crate::pg::affected;
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{self, AlterTable, Kind as Statement, PartChange};
use crate::pg::relation as pg_relation;
use crate::pg::xact::{self, End};
use crate::pg::{identity, spi, waitpoint, Oid};
use crate::store::migration::Migration;
use crate::store::step::{self, Kind, Step};
use serde::{Deserialize, Serialize};

/// Facts of one table before a step.
#[derive(Serialize, Deserialize)]
struct Kept {
    table: u32,
    facts: Vec<Fact>,
    /// Nothing but its CHECKs: what else changes, the way back knows already.
    checks: bool,
}

/// Keeps what the catalogs say of these tables now. Parts named in `ours` were made for the step and are no loss.
pub fn note(migration: &Migration, step: &Step, tables: &[Oid], ours: &[String]) -> Result<()> {
    let mut kept = Vec::new();
    for table in tables {
        let mut facts = fact::with_parts(*table)?;
        facts.retain(|f| !ours.iter().any(|name| is_part(&f.name, name)));
        kept.push(Kept {
            table: table.to_u32(),
            facts,
            checks: false,
        });
    }
    step::set_facts(&migration.id, step.step, serde_json::to_value(kept)?)
}

/// Whether a fact is about the index or constraint of this name.
fn is_part(fact: &str, name: &str) -> bool {
    ["index ", "constraint ", "constraint comment "]
        .iter()
        .any(|what| fact.strip_prefix(what) == Some(name))
}

/// Derives the way back of steps that have kept facts; false: there are none.
pub fn settle(migration: &Migration) -> Result<bool> {
    let due = step::with_facts(&migration.id)?;
    for (step, facts) in &due {
        let kept: Vec<Kept> = serde_json::from_value(facts.clone())?;
        let (mut back, mut lost) = (Vec::new(), Vec::new());
        if kept.iter().any(|one| one.checks) {
            back.extend(step.revert_sql.clone());
        }
        for one in kept {
            match of_table(&one)? {
                Ok(sql) => back.extend(sql),
                Err(what) => lost.push(format!(
                    "step {}: nothing makes this again: {what}",
                    step.step
                )),
            }
        }
        step::settle_facts(&migration.id, step.step, &back.join(";\n"), &lost)?;
    }
    if !due.is_empty() {
        waitpoint::reach("way_back_before_commit")?;
    }
    Ok(!due.is_empty())
}

/// What leads a table back to the facts before.
fn of_table(kept: &Kept) -> Result<std::result::Result<Vec<String>, reverse::Irreversible>> {
    let table = Oid::from(kept.table);
    let mut after = fact::with_parts(table)?;
    if after.is_empty() {
        return Ok(Ok(Vec::new())); // dropped since
    }
    if kept.checks {
        after.retain(is_check);
    }
    let (before, after) = (without_proofs(kept.facts.clone()), without_proofs(after));
    let mut back = match reverse::statements(&before, &after) {
        Ok(back) => back,
        Err(what) => return Ok(Err(what)),
    };
    for old in before.iter().filter(|f| f.name.starts_with("type ")) {
        let new = after
            .iter()
            .find(|f| f.name == old.name && f.value != old.value);
        if let (Some(new), Some(make)) = (new, &old.make) {
            if let Some(sql) = converted(table, old, new, make)? {
                let default = old.name.replacen("type", "default", 1);
                let of = |facts: &[Fact]| facts.iter().find(|f| f.name == default).cloned();
                let at = back.iter().position(|b| b == make).unwrap_or(0);
                back[at] = sql;
                // The server converts no default by an expression.
                if let Some(unmake) = of(&after).and_then(|f| f.unmake) {
                    back.retain(|b| *b != unmake);
                    back.insert(0, unmake);
                    let again = of(&before).and_then(|f| f.make);
                    back.extend(again.filter(|make| !back.contains(make)));
                }
            }
        }
    }
    Ok(Ok(back))
}

fn is_check(fact: &Fact) -> bool {
    fact.name.starts_with("constraint ") && fact.value.starts_with("CHECK ")
}

/// Whether a foreign key has been proved yet is no difference.
fn without_proofs(mut facts: Vec<Fact>) -> Vec<Fact> {
    for fact in &mut facts {
        if fact.name.starts_with("constraint ") && fact.value.ends_with(['t', 'f']) {
            fact.value.pop();
        }
    }
    facts
}

/// The change of type with an expression, where the server does not convert by itself.
fn converted(table: Oid, old: &Fact, new: &Fact, make: &str) -> Result<Option<String>> {
    let name = |fact: &Fact| {
        let end = fact.value.rfind(' ').unwrap_or(fact.value.len());
        fact.value[..end].to_string()
    };
    let (old_name, new_name) = (name(old), name(new));
    let by_itself: Option<bool> = spi::value(
        "SELECT o.oid = n.oid OR o.typcategory = 'S' OR EXISTS (SELECT FROM pg_cast c WHERE c.castsource = n.oid \
           AND c.casttarget = o.oid AND c.castcontext <> 'e') \
         FROM pg_type o, pg_type n WHERE o.oid = to_regtype($1) AND n.oid = to_regtype($2)",
        &[old_name.as_str().into(), new_name.as_str().into()],
    )?;
    if by_itself != Some(false) {
        return Ok(None);
    }
    let number: i16 = old.name["type ".len()..].parse().unwrap_or_default();
    let column = column::list(table)?
        .into_iter()
        .find(|c| c.number == number);
    Ok(column.map(|c| {
        let quoted = crate::model::ident::quote_ident(&c.name);
        format!("{make} USING {quoted}::{old_name}")
    }))
}

/// Runs a statement behind the point of no return and keeps what takes it back, where facts tell that.
pub fn execute(migration: &Migration, step: &Step) -> Result<()> {
    let owner = owner_role(migration)?;
    if parser::parse(&step.sql)?.len() != 1 {
        return execute::run(migration, &step.sql);
    }
    if let Some(sql) = attachment(migration, step)? {
        step::set_revert(&migration.id, step.step, Some(&sql))?;
        return execute::run(migration, &step.sql);
    }
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    // An object that is not there is the statement's own error.
    let found = xact::subtransaction(End::Keep, || {
        identity::as_role(owner, &migration.session, || affected::of(&step.sql))
    });
    let subject = match found {
        Ok(Some(subject)) if subject.way != affected::Way::Never && !subject.creates => subject,
        _ => return execute::run(migration, &step.sql),
    };
    if let Some(added) = enum_back::by(&subject)? {
        execute::run(migration, &step.sql)?;
        xact::command_counter_increment();
        return match added.way_back(owner, false)? {
            Ok(back) => step::set_revert(&migration.id, step.step, Some(&back.join("; "))),
            Err(why) => {
                step::set_revert(&migration.id, step.step, Some(""))?;
                step::set_lost(
                    &migration.id,
                    step.step,
                    &[format!("step {}: {}: {why}", step.step, step.sql)],
                )
            }
        };
    }
    let before = Before::of_changed(&subject)?;
    let facts = subject
        .objects
        .iter()
        .map(facts_of)
        .collect::<Result<Vec<_>>>()?;
    execute::run(migration, &step.sql)?;
    xact::command_counter_increment();
    let back = match subject.way {
        affected::Way::Facts => {
            let mut all = Vec::new();
            for (address, facts) in subject.objects.iter().zip(&facts) {
                match reverse::statements(facts, &facts_of(address)?) {
                    Ok(sql) => all.extend(sql),
                    Err(_) => return Ok(()),
                }
            }
            Ok(all)
        }
        _ => change::of_changed(&subject, &before),
    };
    if let Ok(back) = back {
        step::set_revert(&migration.id, step.step, Some(&back.join("; ")))?;
    }
    Ok(())
}

/// What the catalogs say of an object; of a table with its indexes and keys.
fn facts_of(address: &affected::Address) -> Result<Vec<Fact>> {
    match address.class == affected::RELATIONS {
        true => fact::with_parts(address.object),
        false => fact::list(address),
    }
}

/// Before a statement outside of a transaction: what makes again what it drops or detaches.
pub fn before_outside(migration: &Migration, step: &Step) -> Result<()> {
    if step.kind != Kind::Outside || step.revert_sql.is_some() {
        return Ok(());
    }
    let parsed = parser::parse(&step.sql)?.into_iter().next().map(|s| s.kind);
    let back = match parsed {
        Some(Statement::Maintenance(Maintenance::DropIndex(drop))) => {
            let mut all = Vec::new();
            for name in &drop.names {
                let index = find(migration, name.schema.as_deref(), &name.name)?;
                if let Some(index) = index {
                    all.extend(index::again(index)?);
                }
            }
            (!all.is_empty()).then(|| all.join("; "))
        }
        _ => attachment(migration, step)?,
    };
    match back {
        Some(back) => step::set_revert(&migration.id, step.step, Some(&back)),
        None => Ok(()),
    }
}

/// What attaches a partition that the statement detaches.
fn attachment(migration: &Migration, step: &Step) -> Result<Option<String>> {
    let parsed = parser::parse(&step.sql)?.into_iter().next().map(|s| s.kind);
    let Some(Statement::AlterTable(AlterTable {
        schema,
        name,
        commands,
        ..
    })) = parsed
    else {
        return Ok(None);
    };
    let Some(part) = commands.iter().find_map(|c| c.part.as_ref()) else {
        return Ok(None);
    };
    if !matches!(
        part.change,
        PartChange::Detach | PartChange::DetachConcurrently
    ) {
        return Ok(None);
    }
    let table = find(migration, schema.as_deref(), &name)?;
    let child = find(migration, part.schema.as_deref(), &part.name)?;
    let (Some(table), Some(child)) = (table, child) else {
        return Ok(None);
    };
    let bound = partition::bound(child)?;
    if part.change == PartChange::DetachConcurrently {
        // The server leaves a CHECK of the bounds behind.
        let mut facts = fact::with_parts(child)?;
        facts.retain(is_check);
        let kept = [Kept {
            table: child.to_u32(),
            facts,
            checks: true,
        }];
        step::set_facts(&migration.id, step.step, serde_json::to_value(kept)?)?;
    }
    let (table, child) = (relation::get(table)?.name, relation::get(child)?.name);
    Ok(bound.map(|bound| format!("ALTER TABLE {table} ATTACH PARTITION {child} {bound}")))
}

fn find(migration: &Migration, schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
    identity::as_role(owner_role(migration)?, &migration.session, || {
        pg_relation::resolve(schema, name)
    })
}

/// What makes the foreign keys of a table again, with their comments.
pub fn foreign_keys(table: Oid, names: &[String]) -> Result<String> {
    let facts = fact::with_parts(table)?;
    let made: Vec<String> = facts
        .into_iter()
        .filter(|f| names.iter().any(|name| is_part(&f.name, name)))
        .map(|f| {
            f.make
                .ok_or_else(|| Error::Bug(format!("nothing makes {} again", f.name)))
        })
        .collect::<Result<_>>()?;
    Ok(made.join(";\n"))
}
