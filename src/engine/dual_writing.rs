//! The steps of a rule: old and new columns of a table kept equal, from expand to the end.

use super::data;
use super::execute;
use super::naming;
use super::proof;
use super::tick::Next;
use super::work::Worked;
use crate::backfill::{batch::give_way, growth, pace};
use crate::catalog::relation::{self, Relation};
use crate::dualwrite::fill::{self, Checked, Filled, Work};
use crate::dualwrite::rule;
use crate::error::{Error, Result};
use crate::model::amount::count;
use crate::model::ident::{quote_ident, rename_column};
use crate::model::rule::Rule;
use crate::model::state::State;
use crate::pg::identity::{self, Session};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{utility, waitpoint};
use crate::recover::{self, column};
use crate::rewrite::lock;
use crate::store::artifact;
use crate::store::audit_event;
use crate::store::dead_letter;
use crate::store::migration::{self, Migration};
use crate::store::rule::{self as store, Kept};
use crate::store::step::{self, Kind, Step};
use std::time::Duration;

/// How often rows that were set aside are tried again while somebody mends them.
const RETRY_SECONDS: f64 = 2.0;
const RETRY_LOOK: Duration = Duration::from_millis(500);

/// The rest of a fill is in other hands: look again soon.
const OTHERS_PAUSE: Duration = Duration::from_millis(20);

/// A batch of a hand beside whoever drives the migration; how long it rests after it, `None`: there is nothing to do for it.
pub fn hand_batch(migration: &Migration, kept: &Kept) -> Result<Option<Duration>> {
    // Whoever drives may be in its first batch: nobody else sees yet that the step runs.
    let of_table = |s: &Step| s.kind == Kind::RuleFill && s.target == kept.target;
    let Some(fill) = step::all(&migration.id)?.into_iter().find(of_table) else {
        return Ok(None);
    };
    // Before the lane: whoever takes the rule back locks the table first.
    if !pg_relation::try_lock(kept.relation, LockMode::RowExclusive)? {
        return Ok(Some(OTHERS_PAUSE));
    }
    let migration = migration.with_settings(&fill.settings);
    let table = relation::get(kept.relation)?;
    require_owner(&migration, &table)?;
    if !growth::hand_may_begin(kept.relation)? {
        return Ok(Some(data::GROWTH_LOOK));
    }
    Ok(
        match fill::batch(&Work::new(kept, &table, &migration.session)?)? {
            Filled::Batch { rows, busy_ms, wal } => {
                growth::changed(kept.relation, rows);
                Some(pace::rest(&migration.id, busy_ms, wal))
            }
            Filled::Others | Filled::All => None,
        },
    )
}

/// A piece of a step.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    if step.kind == Kind::RuleMake {
        let planned = step
            .rule
            .as_ref()
            .ok_or_else(|| Error::Bug("a step without its rule".into()))?;
        let made = rule::For {
            migration_id: &migration.id,
            step: step.step,
            session: &migration.session,
            target: &step.target,
        };
        let table = owned(migration, &step.target)?;
        for (hidden, _) in planned.way_back.iter().flat_map(|back| &back.shows) {
            recover::require_kept(&table.name, hidden)?;
        }
        rule::make(&made, &table, planned)?;
        return Ok(Worked::Done);
    }
    let kept = kept(migration, step)?;
    let table = relation::get(kept.relation)?;
    require_owner(migration, &table)?;
    match step.kind {
        Kind::RuleFill => batch(migration, &kept, &table),
        Kind::RuleCheck => check(migration, &kept, &table),
        Kind::RuleEnd => {
            end(migration, step, &kept, &table)?;
            Ok(Worked::Done)
        }
        other => Err(Error::Bug(format!("{} is no step of a rule", other.name()))),
    }
}

fn batch(migration: &Migration, kept: &Kept, table: &Relation) -> Result<Worked> {
    give_way()?;
    if let Some(wait) = data::hold_in_place(migration, kept.relation)? {
        return Ok(wait);
    }
    match fill::batch(&Work::new(kept, table, &migration.session)?)? {
        Filled::Batch { rows, busy_ms, wal } => {
            growth::changed(kept.relation, rows);
            let rest = pace::rest(&migration.id, busy_ms, wal);
            Ok(data::after_batch(rest))
        }
        Filled::Others => Ok(Worked::More(Next::Wait(OTHERS_PAUSE))),
        Filled::All => {
            waitpoint::reach("rule_filled_before_commit")?;
            Ok(Worked::Done)
        }
    }
}

fn check(migration: &Migration, kept: &Kept, table: &Relation) -> Result<Worked> {
    rule::require_in_force(kept, table)?;
    let filled = batch(migration, kept, table)?;
    if filled != Worked::Done {
        return Ok(filled);
    }
    let work = Work::new(kept, table, &migration.session)?;
    let open = match retry_is_due(kept) {
        true => fill::settle(&work)?,
        false => dead_letter::open_of_rule(kept.id)?.len() as i64,
    };
    if open > 0 {
        return set_aside(migration, open);
    }
    match fill::check(&work)? {
        Checked::Equal => Ok(Worked::Done),
        Checked::Mended => Ok(Worked::More(Next::Again)),
        Checked::SetAside(open) => set_aside(migration, open),
    }
}

fn set_aside(migration: &Migration, open: i64) -> Result<Worked> {
    let what = format!(
        "{} that the rule of the new columns fails on: mend them, see transmute.dead_letters",
        count(open, "row")
    );
    migration::set_waiting(&migration.id, Some(&what))?;
    Ok(Worked::More(Next::Wait(RETRY_LOOK)))
}

/// Tries again what was set aside, in whatever state the migration waits.
pub fn settle_all(migration: &Migration) -> Result<()> {
    if !matches!(
        migration.state,
        State::AwaitingAction | State::AwaitingFinalization | State::Finished
    ) {
        return Ok(());
    }
    for kept in store::with_open_letters(&migration.id)? {
        if retry_is_due(&kept) {
            let table = relation::get(kept.relation)?;
            give_way()?;
            fill::settle(&Work::new(&kept, &table, &migration.session)?)?;
        }
    }
    Ok(())
}

/// Whether rows are to be tried again now.
pub fn has_letters_to_try(id: &str) -> Result<bool> {
    Ok(store::with_open_letters(id)?.iter().any(retry_is_due))
}

fn retry_is_due(kept: &Kept) -> bool {
    kept.since_retry.is_none_or(|s| s >= RETRY_SECONDS)
}

/// The rule goes, and with it, in the same transaction, the old columns that it read and the script drops: there is no
/// moment at which one of the two shapes is there and not kept.
fn end(migration: &Migration, step: &Step, kept: &Kept, table: &Relation) -> Result<()> {
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    rule::require_in_force(kept, table)?;
    rule::remove(kept, table)?;
    store::set_ended(kept.id)?;
    if kept.rule.other_name {
        take_over(kept, table)?;
    }
    if let Some(back) = &kept.rule.way_back {
        for (hidden, _) in &back.shows {
            recover::take_out(&migration.id, &table.name, Some(hidden))?;
        }
        for sql in &back.unmakes {
            execute::run(migration, sql)?;
        }
    }
    for hide in step::pending(&migration.id, Kind::HideColumn)? {
        let dropped = kept.rule.sources.iter().any(|s| {
            hide.sql
                .ends_with(&format!(" DROP COLUMN {}", quote_ident(s)))
        });
        if hide.target == step.target && dropped {
            naming::run(migration, &hide)?;
            step::set_done(&migration.id, hide.step)?;
        }
    }
    if let Some(after) = &kept.rule.after {
        keep(migration, step, kept, table, after)?;
    }
    waitpoint::reach("rule_end_before_commit")
}

/// `meta.keep_old`: the old columns, hidden now, follow the new ones.
fn keep(
    migration: &Migration,
    step: &Step,
    kept: &Kept,
    table: &Relation,
    after: &Rule,
) -> Result<()> {
    let mut after = after.clone();
    for assignment in &mut after.forth {
        let hidden = artifact::of_column(&migration.id, &table.name, &assignment.column)?;
        let hidden = hidden.ok_or_else(|| Error::Bug("a column that is not hidden".into()))?;
        assignment.column = hidden.name;
    }
    let made = rule::For {
        migration_id: &migration.id,
        step: step.step,
        session: &migration.session,
        target: &step.target,
    };
    rule::follow(&made, table, &after, kept)
}

/// The end of a rule taken back, in one transaction: as before it both shapes are there, and kept equal both ways.
pub fn undo_end(migration: &Migration, step: &Step) -> Result<()> {
    let kept = kept(migration, step)?;
    let Some(table) = relation::named(&kept.target)? else {
        return Ok(());
    };
    let table = relation::get(table)?;
    require_owner(migration, &table)?;
    let reverse = store::reverse_of(kept.id)?;
    if !kept.rule.other_name && reverse.is_none() {
        return Ok(()); // both shapes are there
    }
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    if let Some(reverse) = reverse {
        rule::require_in_force(&reverse, &table)?;
        require_converted(&reverse)?;
        rule::remove(&reverse, &table)?;
        dead_letter::resolve_rule(reverse.id)?;
        store::delete(reverse.id)?;
        let rule = kept.rule.reopened();
        let rule = rule.ok_or_else(|| Error::Bug("a way back of no rule".into()))?;
        let mut shown = Vec::new();
        for column in &rule.back {
            if let Some(hidden) = artifact::of_column(&migration.id, &table.name, &column.column)? {
                shown.push((hidden, column.column.clone()));
            }
        }
        column::show(&table, &shown)?;
        rule::reopen(&kept, &table, &rule)?;
    } else {
        give_back(&kept, &table)?;
        store::delete(kept.id)?;
        // The second column, which its step made, went at the end.
        for made in step::begun(&migration.id, Kind::RuleMake)? {
            if made.target == step.target {
                step::set_reverted(&migration.id, made.step)?;
            }
        }
    }
    waitpoint::reach("rule_reopened_before_commit")
}

/// Refuses a way back while rows are set aside that did not convert.
pub fn require_converted(reverse: &Kept) -> Result<()> {
    match dead_letter::open_of_rule(reverse.id)?.len() {
        0 => Ok(()),
        rows => Err(Error::Prerequisite {
            problem: "rows were written that do not convert back".into(),
            detail: format!("{rows} of {}, in transmute.dead_letters.", reverse.target),
            hint: "Change or delete these rows: each is tried again by itself. Then transmute.undo(id, reason) again."
                .into(),
        }),
    }
}

/// The column gets the name back that it had before the end.
fn give_back(kept: &Kept, table: &Relation) -> Result<()> {
    let (Some(new), Some(old)) = (kept.rule.forth.first(), kept.rule.sources.first()) else {
        return Err(Error::Bug("another name without a column".into()));
    };
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&rename_column(&table.name, &new.column, old))
    })
}

/// The new column was the old one's other name: the old one, with all that hangs on it, gets the name.
fn take_over(kept: &Kept, table: &Relation) -> Result<()> {
    let (Some(new), Some(old)) = (kept.rule.forth.first(), kept.rule.sources.first()) else {
        return Err(Error::Bug("another name without a column".into()));
    };
    identity::as_role(table.owner, &Session::own(), || {
        let quoted = quote_ident(&new.column);
        utility::run(&format!("ALTER TABLE {} DROP COLUMN {quoted}", table.name))?;
        utility::run(&rename_column(&table.name, old, &new.column))
    })
}

/// The rule away, then the columns that were added for it; and the proof that the table is described as it was.
pub fn undo(migration: &Migration, step: &Step) -> Result<()> {
    let Some(kept) = store::find(&migration.id, step.step)? else {
        return Ok(());
    };
    waitpoint::reach("rule_undo_before_lock")?;
    let mut fingerprint = None;
    if let Some(oid) = relation::named(&kept.target)? {
        let table = relation::get(oid)?;
        audit_event::reserve()?;
        lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
        rule::remove(&kept, &table)?;
        dead_letter::resolve_rule(kept.id)?;
        store::delete(kept.id)?;
        rule::show(&table, &kept.rule, true)?;
        if let Some(sql) = &step.revert_sql {
            execute::run(migration, sql)?;
        }
        fingerprint = Some(relation::fingerprint(oid)?);
    } else {
        dead_letter::resolve_rule(kept.id)?;
        store::delete(kept.id)?;
    }
    // Where the step added the columns itself nothing else was between.
    let alone = kept.rule.add.is_some() || kept.rule.way_back.is_some();
    let same = !alone || fingerprint.as_ref() == Some(&kept.fingerprint);
    proof::append(
        migration,
        "rule undone",
        &kept.fingerprint,
        fingerprint.as_deref(),
        same,
    )?;
    waitpoint::reach("rule_undo_before_commit")
}

fn kept(migration: &Migration, step: &Step) -> Result<Kept> {
    store::of_target(&migration.id, &step.target)?.ok_or_else(|| Error::Prerequisite {
        problem: "the rule of the table is gone".into(),
        detail: format!("Nothing keeps the columns of {} equal.", step.target),
        hint: "transmute.rollback(id, reason), then apply again.".into(),
    })
}

/// The table of that name, which the migration's owner must still own.
fn owned(migration: &Migration, target: &str) -> Result<Relation> {
    let oid = relation::named(target)?.ok_or_else(|| Error::UndefinedTable {
        name: target.to_string(),
        search_path: migration.session.search_path.clone(),
    })?;
    let table = relation::get(oid)?;
    require_owner(migration, &table)?;
    Ok(table)
}

fn require_owner(migration: &Migration, table: &Relation) -> Result<()> {
    if !identity::has_privs_of(execute::owner_role(migration)?, table.owner) {
        return Err(Error::Privilege {
            problem: "the migration's owner does not own the table any more".into(),
            detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
            hint: "Grant it membership, then transmute.resume(id, reason).".into(),
        });
    }
    Ok(())
}
