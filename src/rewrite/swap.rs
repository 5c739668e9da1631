//! Step 7: the swap. Under one short lock: last drain, old files to the twin, the DBA's ALTER verbatim on the empty
//! table, new files from the shadow, everything that ALTER refused to work around put back.

use super::dependents::Dependent;
use super::{capture, dependents, drain, generated, keep, lock, matview, probe, version, Work};
use crate::catalog::{column, index, relation};
use crate::error::{Error, Result};
use crate::pg::parser::{self, Action, Kind};
use crate::pg::pieces;
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::Oid;
use crate::pg::{spi, swap, utility, waitpoint};
use crate::store::rewrite::{self, ToValidate};
use crate::store::{artifact, audit_event};
use std::time::Instant;

/// Swaps all tables of a migration in the caller's transaction, which also changes the state: all or none.
pub fn run(works: &[Work]) -> Result<()> {
    let (mut lists, mut valid_before) = (Vec::new(), Vec::new());
    for work in works {
        work.require_shadow()?;
        let dependents = tried(work)?.dependents;
        dependents::require_supported(&work.table, &dependents)?;
        lists.push(dependents);
        // Foreign keys that were valid before have to be valid after.
        valid_before.extend(dependents::foreign_keys(work.rewrite.relation, true)?);
    }
    let dependents = dependents::merged(lists);
    let (gone, kept) = dropped_foreign_keys(works, dependents)?;
    let stamps = dependents::stamps(&kept)?;
    let matviews = matview::ready(works, &kept)?;
    let versions = version::of(works)?;
    let mut ways_back = Vec::new();
    for work in works {
        ways_back.push(keep::prepare(work)?);
    }
    // Taken first: inside the tables' locks nothing may wait for another session.
    audit_event::reserve()?;
    waitpoint::reach("swap_before_lock")?;
    // Dependents first, as a reader of a view locks the view before its tables.
    let mut relations: Vec<Oid> = kept
        .iter()
        .chain(&gone)
        .filter_map(|d| d.relation)
        .collect();
    relations.extend(versions.iter().map(|v| v.view));
    let added = added_foreign_keys(works)?;
    relations.extend(added.iter().flat_map(|a| a.relations.iter().copied()));
    relations.extend(works.iter().map(|w| w.rewrite.relation));
    relations.extend(
        works
            .iter()
            .flat_map(|w| [w.rewrite.shadow, w.rewrite.twin]),
    );
    relations.extend(matviews.iter().map(|m| m.mirror));
    let names: Vec<String> = works.iter().map(|w| w.table.name.to_string()).collect();
    lock::acquire(&relations, LockMode::AccessExclusive, &names.join(", "))?;
    let locked = Instant::now();
    dependents::require_unchanged(&kept, &stamps, &names.join(", "))?;
    for work in works {
        capture::require(&work.rewrite, &work.table)?;
        require_same_definition(work)?;
        drain::run(work)?;
    }
    matview::require_unchanged(&matviews)?;
    dependents::drop_all(&kept)?;
    dependents::drop_all(&gone)?;
    versions.iter().try_for_each(version::unmake)?;
    for work in works {
        let constraints: Vec<String> = gone
            .iter()
            .filter(|d| d.belongs_to(&work.table))
            .filter_map(|d| d.constraint.clone())
            .collect();
        swap_locked(work, &constraints)?;
    }
    version::make_again(&versions, works)?;
    dependents::create_all(&kept)?;
    for one in &added {
        one.work
            .as_owner(|| utility::run_for(&one.text, &one.work.table.name, &[]))?;
        valid_before.extend(one.constraints.iter().cloned());
    }
    matview::take_over(&matviews)?;
    for (work, way_back) in works.iter().zip(ways_back) {
        finish(work, &valid_before)?;
        if let Some(way_back) = way_back {
            keep::begin(work, way_back)?;
        }
    }
    waitpoint::reach("swap_before_commit")?;
    let milliseconds = locked.elapsed().as_secs_f64() * 1000.0;
    for work in works {
        rewrite::set_lock_held(work.rewrite.id, milliseconds)?;
    }
    Ok(())
}

/// Foreign keys that a statement adds, NOT VALID, when all tables have been swapped.
struct Added<'a> {
    work: &'a Work,
    text: String,
    /// The tables they point at.
    relations: Vec<Oid>,
    constraints: Vec<ToValidate>,
}

fn added_foreign_keys(works: &[Work]) -> Result<Vec<Added<'_>>> {
    let mut all = Vec::new();
    for work in works {
        for statement in parser::parse(&work.alter)? {
            if !super::adds_foreign_keys(&statement) {
                continue;
            }
            let (mut relations, mut constraints) = (Vec::new(), Vec::new());
            let pieces = pieces::of(&statement.text)?;
            for constraint in pieces.list.iter().flat_map(|p| &p.constraints) {
                if let Some((schema, name)) = &constraint.references {
                    relations
                        .extend(work.as_owner(|| pg_relation::resolve(schema.as_deref(), name))?);
                }
                let table = work.rewrite.relation;
                constraints.push(dependents::to_validate(table, constraint.name.clone())?);
            }
            all.push(Added {
                work,
                text: statement.text,
                relations,
                constraints,
            });
        }
    }
    Ok(all)
}

/// Takes out the foreign keys that the statements themselves drop: those are not put back.
fn dropped_foreign_keys(
    works: &[Work],
    dependents: Vec<Dependent>,
) -> Result<(Vec<Dependent>, Vec<Dependent>)> {
    let mut named = Vec::new();
    for work in works {
        let commands = super::commands(&work.alter)?;
        named.extend(
            commands
                .into_iter()
                .filter(|c| c.action == Action::DropConstraint)
                .filter_map(|c| c.column)
                .map(|constraint| (&work.table, constraint)),
        );
    }
    Ok(dependents.into_iter().partition(|d| {
        named.iter().any(|(table, constraint)| {
            d.belongs_to(table) && d.constraint.as_ref() == Some(constraint)
        })
    }))
}

/// One table, under the lock, with nothing in the way of its statements; these foreign keys of it are gone already.
fn swap_locked(work: &Work, gone: &[String]) -> Result<()> {
    let rewrite = &work.rewrite;
    capture::off(rewrite.id, &work.table)?;
    exchange(
        rewrite.relation,
        rewrite.twin,
        "the table that keeps the old rows",
    )?;
    for statement in parser::parse(&work.alter)? {
        if super::adds_foreign_keys(&statement) {
            continue;
        }
        let run = || work.as_owner(|| utility::run_for(&statement.text, &work.table.name, gone));
        match &statement.kind {
            Kind::AlterTable(alter) => {
                generated::around(rewrite.relation, work.table.owner, &alter.commands, run)?;
            }
            _ => run()?,
        }
    }
    if rewrite.reverses.is_some() {
        keep::fit(rewrite.relation, rewrite.shadow)?;
    }
    exchange(rewrite.relation, rewrite.shadow, "its shadow")?;
    take_over_sequences(work)?;
    take_over_statistics(rewrite.relation, rewrite.shadow)
}

/// With its dependents made again.
fn finish(work: &Work, valid_before: &[ToValidate]) -> Result<()> {
    let rewrite = &work.rewrite;
    renew_trigger_functions(rewrite.relation)?;
    let invalid = dependents::foreign_keys(rewrite.relation, false)?;
    let to_validate: Vec<ToValidate> = invalid
        .into_iter()
        .filter(|i| {
            valid_before
                .iter()
                .any(|v| v.table == i.table && v.name == i.name)
        })
        .collect();
    artifact::insert(
        &work.migration_id,
        &work.table.name.to_string(),
        &rewrite.twin_name(),
        rewrite.rows_estimate,
    )?;
    rewrite::set_swapped(rewrite.id, &to_validate)
}

/// The statement and what depends on it, tried anew: that is what decides, not what was noted once.
fn tried(work: &Work) -> Result<probe::Outcome> {
    probe::run(&work.table, &work.alter, &work.session)
}

fn require_same_definition(work: &Work) -> Result<()> {
    if relation::definition(work.rewrite.relation)? == work.rewrite.definition {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "the table was changed while it was being migrated".into(),
        detail: format!(
            "Columns, indexes or constraints of {} are not those the shadow was made from.",
            work.table.name
        ),
        hint: "Undo that change, or transmute.rollback(id, reason) and apply again.".into(),
    })
}

/// Exchanges the files of a table and its like, heap, TOAST and every index, after proving that they have the
/// same physical shape: the check that stands between us and corrupted data.
pub(super) fn exchange(table: Oid, other: Oid, what: &str) -> Result<()> {
    let mut faults = column::physical_differences(table, other)?;
    let (pairs, unpaired) = index::pairs(table, other)?;
    faults.extend(unpaired);
    if !faults.is_empty() {
        return Err(Error::Prerequisite {
            problem: format!("the table and {what} do not have the same shape"),
            detail: format!("They differ in {}.", faults.join("; ")),
            hint: "transmute.rollback(id, reason) clears the migration up; the table is untouched."
                .into(),
        });
    }
    swap::swap_files(table, other)?;
    for pair in pairs {
        swap::swap_files(pair.a, pair.b)?;
    }
    rename_toast(table, other)
}

/// TOAST tables were swapped by link; their names say whose they are, and a later rewrite relies on it.
fn rename_toast(a: Oid, b: Oid) -> Result<()> {
    let both = [(a, index::toast(a)?), (b, index::toast(b)?)];
    for temporary in [true, false] {
        for (table, toast) in &both {
            if let Some((toast, toast_index)) = toast {
                let name = match temporary {
                    true => format!("_transmute_toast_{}", toast.to_u32()),
                    false => format!("pg_toast_{}", table.to_u32()),
                };
                swap::rename(*toast, &name, false)?;
                swap::rename(*toast_index, &format!("{name}_index"), true)?;
            }
        }
    }
    Ok(())
}

/// New serial and identity columns: the table's sequence goes on where the shadow's stopped.
fn take_over_sequences(work: &Work) -> Result<()> {
    let pairs = spi::query(
        include_str!("../../sql/query/new_sequences.sql"),
        &[
            work.rewrite.relation.into(),
            work.rewrite.shadow.into(),
            work.rewrite.twin.into(),
        ],
        |row| Ok((row.need::<Oid>(1)?, row.need::<String>(2)?)),
    )?;
    for (sequence, source) in pairs {
        spi::execute(
            &format!("SELECT setval($1::oid::regclass, last_value, is_called) FROM {source}"),
            &[sequence.into()],
        )?;
    }
    Ok(())
}

/// A trigger function in PL/pgSQL keeps the types of NEW and OLD it has seen, in every open session, and fails on the
/// new ones (42804). A new version of its pg_proc row makes sessions compile it again.
fn renew_trigger_functions(table: Oid) -> Result<()> {
    spi::execute(
        "UPDATE pg_proc SET proname = proname WHERE oid IN (SELECT tgfoid FROM pg_trigger \
           WHERE tgrelid = $1 AND NOT tgisinternal) \
           AND prolang NOT IN (SELECT oid FROM pg_language WHERE lanname IN ('c', 'internal', 'sql'))",
        &[table.into()],
    )?;
    Ok(())
}

/// The shadow, or mirror, was analyzed; plans must not get worse for want of statistics.
pub(super) fn take_over_statistics(table: Oid, shadow: Oid) -> Result<()> {
    let mut pairs = vec![(table, shadow)];
    pairs.extend(
        index::pairs(table, shadow)?
            .0
            .into_iter()
            .map(|p| (p.a, p.b)),
    );
    for (to, from) in pairs {
        spi::execute(
            "DELETE FROM pg_statistic t USING pg_statistic s WHERE t.starelid = $1 AND s.starelid = $2 \
               AND (t.staattnum, t.stainherit) = (s.staattnum, s.stainherit)",
            &[to.into(), from.into()],
        )?;
        spi::execute(
            "UPDATE pg_statistic SET starelid = $1 WHERE starelid = $2",
            &[to.into(), from.into()],
        )?;
    }
    Ok(())
}
