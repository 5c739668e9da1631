//! The steps of a rule: old and new columns of a table kept equal, from expand to the end.

use super::data;
use super::execute;
use super::naming;
use super::tick::Next;
use super::work::Worked;
use crate::backfill::{batch::give_way, pace};
use crate::catalog::relation::{self, Relation};
use crate::dualwrite::fill::{self, Checked, Filled, Work};
use crate::dualwrite::rule;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::state::State;
use crate::pg::identity::{self, Session};
use crate::pg::relation::LockMode;
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::rewrite::lock;
use crate::store::audit_event::{self, Act};
use crate::store::dead_letter;
use crate::store::migration::{self, Migration};
use crate::store::rule::{self as store, Kept};
use crate::store::step::{self, Kind, Step};
use std::time::Duration;

/// How often rows that were set aside are tried again while somebody mends them.
const RETRY_SECONDS: f64 = 2.0;
const RETRY_LOOK: Duration = Duration::from_millis(500);

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
        rule::make(&made, &owned(migration, &step.target)?, planned)?;
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
    if let Some(wait) = data::hold(migration, kept.relation)? {
        return Ok(wait);
    }
    match fill::batch(&Work::new(kept, table, &migration.session)?)? {
        Filled::Batch { busy_ms, wal } => {
            let rest = pace::rest(&migration.id, busy_ms, wal);
            Ok(data::after_batch(rest))
        }
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
    let open = match kept.since_retry {
        Some(seconds) if seconds < RETRY_SECONDS => {
            dead_letter::open_of_rule(kept.id)?.len() as i64
        }
        _ => fill::settle(&work)?,
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
        "{open} rows that the rule of the new columns fails on: mend them, see transmute.dead_letters"
    );
    migration::set_waiting(&migration.id, Some(&what))?;
    Ok(Worked::More(Next::Wait(RETRY_LOOK)))
}

/// Tries again what was set aside, in whatever state the migration waits.
pub fn settle_all(migration: &Migration) -> Result<()> {
    if !matches!(
        migration.state,
        State::AwaitingAction | State::AwaitingFinalization
    ) {
        return Ok(());
    }
    for kept in store::with_open_letters(&migration.id)? {
        let due = kept.since_retry.is_none_or(|s| s >= RETRY_SECONDS);
        if due {
            let table = relation::get(kept.relation)?;
            give_way()?;
            fill::settle(&Work::new(&kept, &table, &migration.session)?)?;
        }
    }
    Ok(())
}

/// Whether rows wait to be tried again.
pub fn has_open_letters(id: &str) -> Result<bool> {
    Ok(!store::with_open_letters(id)?.is_empty())
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
    waitpoint::reach("rule_end_before_commit")
}

/// The new column was the old one's other name: the old one, with all that hangs on it, gets the name.
fn take_over(kept: &Kept, table: &Relation) -> Result<()> {
    let (Some(new), Some(old)) = (kept.rule.forth.first(), kept.rule.sources.first()) else {
        return Err(Error::Bug("another name without a column".into()));
    };
    let (new, old) = (quote_ident(&new.column), quote_ident(old));
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!("ALTER TABLE {} DROP COLUMN {new}", table.name))?;
        utility::run(&format!(
            "ALTER TABLE {} RENAME COLUMN {old} TO {new}",
            table.name
        ))
    })
}

/// The rule away, then the columns that were added for it; and the proof that the table is described as it was.
pub fn undo(migration: &Migration, step: &Step) -> Result<()> {
    let Some(kept) = store::find(&migration.id, step.step)? else {
        return Ok(());
    };
    let mut fingerprint = None;
    if let Some(oid) = named(&kept.target)? {
        let table = relation::get(oid)?;
        audit_event::reserve()?;
        lock::acquire(&[oid], LockMode::AccessExclusive, &table.name.to_string())?;
        rule::remove(&kept, &table)?;
        dead_letter::resolve_rule(kept.id)?;
        store::delete(kept.id)?;
        if let Some(sql) = &step.revert_sql {
            execute::run(migration, sql)?;
        }
        fingerprint = Some(relation::fingerprint(oid)?);
    } else {
        dead_letter::resolve_rule(kept.id)?;
        store::delete(kept.id)?;
    }
    // Where the step added the columns itself nothing else was between.
    let same = kept.rule.add.is_none() || fingerprint.as_ref() == Some(&kept.fingerprint);
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "rule undone",
        detail: Some(serde_json::json!({
            "fingerprint_before": kept.fingerprint,
            "fingerprint_after": fingerprint,
            "identical": same,
        })),
        ..Act::default()
    })?;
    if !same {
        pgrx::warning!(
            "transmute: migration \"{}\": the catalog entries of the table differ from those before it; \
             somebody changed them meanwhile",
            migration.id
        );
    }
    waitpoint::reach("rule_undo_before_commit")
}

fn kept(migration: &Migration, step: &Step) -> Result<Kept> {
    store::of_target(&migration.id, &step.target)?.ok_or_else(|| Error::Prerequisite {
        problem: "the rule of the table is gone".into(),
        detail: format!("Nothing keeps the columns of {} equal.", step.target),
        hint: "transmute.rollback(id, reason), then apply again.".into(),
    })
}

fn named(target: &str) -> Result<Option<Oid>> {
    spi::value::<Oid>("SELECT to_regclass($1)::oid", &[target.into()])
}

/// The table of that name, which the migration's owner must still own.
fn owned(migration: &Migration, target: &str) -> Result<Relation> {
    let oid = named(target)?.ok_or_else(|| Error::UndefinedTable {
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
