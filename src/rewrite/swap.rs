//! Step 7: the swap. Under one short lock: last drain, old files to the twin, the DBA's ALTER verbatim on the empty
//! table, new files from the shadow, everything that ALTER refused to work around put back.

use super::dependents::Dependent;
use super::{
    capture, dependents, drain, generated, keep, lock, matview, probe, shadow, version, Work,
};
use crate::catalog::partition::Member;
use crate::catalog::relation::Relation;
use crate::catalog::{column, index, partition, relation};
use crate::error::{Error, Result};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, Action, Kind};
use crate::pg::pieces;
use crate::pg::relation::{self as pg_relation, LockMode, Table};
use crate::pg::Oid;
use crate::pg::{spi, swap, utility, waitpoint};
use crate::store::rewrite::{self, ToValidate};
use crate::store::{artifact, audit_event};
use std::time::Instant;

/// A partitioned table whose partitions are among the works.
pub struct Tree {
    pub table: Relation,
    /// The DBA's statements, which run on it while its partitions are empty.
    pub alter: String,
    /// Those that lead back, where it is known.
    pub other: Option<String>,
    pub session: Session,
}

/// A partition that came while the others were copied has no shadow: the statement rewrites it under the lock, if it is no larger.
pub const LATE_BLOCKS: i64 = 64;

/// Swaps all tables of a migration in the caller's transaction, which also changes the state: all or none. `may_pass` is
/// asked after the last drain; where it says no, that drain is all that was done.
pub fn run(
    works: &[Work],
    trees: &[Tree],
    may_pass: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    let (mut lists, mut valid_before) = (Vec::new(), Vec::new());
    for work in works {
        work.require_shadow()?;
        let dependents = tried(work)?.dependents;
        dependents::require_supported(&work.table, &dependents)?;
        lists.push(dependents);
        // Foreign keys that were valid before have to be valid after.
        valid_before.extend(dependents::foreign_keys(work.rewrite.relation, true)?);
    }
    let mut members = Vec::new();
    for tree in trees {
        let dependents = probe::run(&tree.table, &tree.alter, &tree.session)?.dependents;
        dependents::require_supported(&tree.table, &dependents)?;
        lists.push(dependents);
        let own = partition::tree(tree.table.oid)?;
        for member in own.iter().filter(|m| m.kind == 'p') {
            valid_before.extend(dependents::foreign_keys(member.oid, true)?);
        }
        members.push(own.into_iter().map(|m| m.oid).collect::<Vec<_>>());
    }
    let dependents = dependents::merged(lists);
    let (gone, kept) = dropped_foreign_keys(works, dependents)?;
    let stamps = dependents::stamps(&kept)?;
    let matviews = matview::ready(works, &kept)?;
    let versions = version::of(works, trees)?;
    version::require_unused(&versions, works)?;
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
    relations.extend(members.iter().flatten().copied());
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
    for (tree, members) in trees.iter().zip(&members) {
        require_same_partitions(tree, members, works)?;
    }
    for work in works {
        capture::require(&work.rewrite, &work.table)?;
        require_same_definition(work)?;
        drain::run(work)?;
    }
    if !may_pass()? {
        return Ok(false);
    }
    matview::require_unchanged(&matviews)?;
    dependents::drop_all(&kept)?;
    dependents::drop_all(&gone)?;
    versions.iter().try_for_each(version::unmake)?;
    for work in works {
        let rewrite = &work.rewrite;
        capture::off(rewrite.id, &work.table)?;
        let twin = "the table that keeps the old rows";
        exchange(rewrite.relation, rewrite.twin, twin)?;
    }
    for work in works {
        let in_tree = members.iter().any(|m| m.contains(&work.rewrite.relation));
        if !in_tree {
            alter(work, &gone)?;
        }
    }
    for tree in trees {
        alter_tree(tree)?;
    }
    for work in works {
        let rewrite = &work.rewrite;
        if rewrite.reverses.is_some() {
            keep::fit(rewrite.relation, rewrite.shadow)?;
        }
        if rewrite.is_by_address() {
            let name = rewrite.shadow_name();
            shadow::drop_address(work.table.owner, rewrite.shadow, &name, rewrite.relation)?;
        }
        exchange(rewrite.relation, rewrite.shadow, "its shadow")?;
        take_over_sequences(work)?;
        take_over_statistics(rewrite.relation, rewrite.shadow)?;
    }
    version::make_again(&versions, works, trees)?;
    dependents::create_all(&kept)?;
    for one in &added {
        one.work
            .as_owner(|| utility::run_for(&one.text, &one.work.table.name, &[]))?;
        valid_before.extend(one.constraints.iter().cloned());
    }
    matview::take_over(&matviews)?;
    let mut seen = Vec::new();
    for (work, way_back) in works.iter().zip(ways_back) {
        let tree = members
            .iter()
            .find(|m| m.contains(&work.rewrite.relation))
            .map_or(&[][..], Vec::as_slice);
        // The foreign keys of a partitioned table are validated behind the first of its partitions.
        let first = works
            .iter()
            .find(|w| tree.contains(&w.rewrite.relation))
            .is_some_and(|w| w.rewrite.id == work.rewrite.id);
        let with = if first { tree } else { &[] };
        finish(work, with, &valid_before, &mut seen)?;
        if let Some(way_back) = way_back {
            keep::begin(work, way_back)?;
        }
    }
    waitpoint::reach("swap_before_commit")?;
    let milliseconds = locked.elapsed().as_secs_f64() * 1000.0;
    for work in works {
        rewrite::set_lock_held(work.rewrite.id, milliseconds)?;
    }
    Ok(true)
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

/// The statements of one table, which is empty, with nothing in their way; these foreign keys are gone already.
fn alter(work: &Work, gone: &[Dependent]) -> Result<()> {
    let gone: Vec<String> = gone
        .iter()
        .filter(|d| d.belongs_to(&work.table))
        .filter_map(|d| d.constraint.clone())
        .collect();
    for statement in parser::parse(&work.alter)? {
        if super::adds_foreign_keys(&statement) {
            continue;
        }
        let table = &work.table;
        let run = || work.as_owner(|| utility::run_for(&statement.text, &table.name, &gone));
        around_generated(table, &statement.kind, run)?;
    }
    Ok(())
}

/// The statements of a partitioned table, whose partitions are empty.
fn alter_tree(tree: &Tree) -> Result<()> {
    let table = &tree.table;
    for statement in parser::parse(&tree.alter)? {
        let run = || {
            identity::as_role(table.owner, &tree.session, || {
                utility::run_for(&statement.text, &table.name, &[])
            })
        };
        around_generated(table, &statement.kind, run)?;
    }
    Ok(())
}

fn around_generated(table: &Relation, kind: &Kind, run: impl FnOnce() -> Result<()>) -> Result<()> {
    match kind {
        Kind::AlterTable(alter) => {
            generated::around(table.oid, table.owner, &alter.commands, run).map(|_| ())
        }
        _ => run(),
    }
}

/// Under the lock: the partitions are those that were copied; others may have come if there is next to nothing in them.
fn require_same_partitions(tree: &Tree, locked: &[Oid], works: &[Work]) -> Result<()> {
    let table = &tree.table.name;
    let now = partition::tree(tree.table.oid)?;
    if now.iter().map(|m| m.oid).ne(locked.iter().copied()) {
        return Err(Error::LockNotAvailable {
            relation: table.to_string(),
            detail: "A partition came or went while the lock was waited for.".into(),
        });
    }
    let copied: Vec<Oid> = works.iter().map(|w| w.rewrite.relation).collect();
    match late(&now, &copied, LockMode::AccessExclusive) {
        None => Ok(()),
        Some(member) => Err(Error::Prerequisite {
            problem: "a partition was added while the table was being migrated".into(),
            detail: format!(
                "{} of {table} has more than {LATE_BLOCKS} blocks, which are not copied.",
                member.name
            ),
            hint: "Detach it and attach it again afterwards, or transmute.rollback(id, reason) and apply again.".into(),
        }),
    }
}

/// The first of these partitions that is too large to be rewritten under the lock, and not among those that are `copied`.
pub fn late<'a>(members: &'a [Member], copied: &[Oid], lock: LockMode) -> Option<&'a Member> {
    members.iter().filter(|m| m.kind != 'p').find(|member| {
        let small = || member.kind == 'r' && Table::open(member.oid, lock).blocks() <= LATE_BLOCKS;
        !copied.contains(&member.oid) && !small()
    })
}

/// With its dependents made again; `with`: the tables of its tree, whose foreign keys are seen to as well; `seen`: those that
/// another table of the swap has proved.
fn finish(
    work: &Work,
    with: &[Oid],
    valid_before: &[ToValidate],
    seen: &mut Vec<ToValidate>,
) -> Result<()> {
    let rewrite = &work.rewrite;
    renew_trigger_functions(rewrite.relation)?;
    let mut to_validate: Vec<ToValidate> = Vec::new();
    for table in [rewrite.relation].iter().chain(with) {
        for invalid in dependents::foreign_keys(*table, false)? {
            let same = |v: &ToValidate| v.table == invalid.table && v.name == invalid.name;
            if valid_before.iter().any(same) && !seen.iter().any(same) {
                seen.push(invalid.clone());
                to_validate.push(invalid);
            }
        }
    }
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

pub fn require_same_definition(work: &Work) -> Result<()> {
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
