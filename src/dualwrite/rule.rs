//! A rule on its table: made, proved to be in force, ended. Two mechanisms behind one seam: generated columns of the
//! server's, or the trigger of ours.

use crate::catalog::column::{self, Column};
use crate::catalog::index;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::{quote_ident, quote_literal, rename_column};
use crate::model::rule::{Argument, Mechanism, Rule};
use crate::pg::expression::canonical;
use crate::pg::generated::{self, Generation};
use crate::pg::identity::{self, Session};
use crate::pg::relation::{LockMode, Table};
use crate::pg::{dual_write, spi, utility, waitpoint, Oid};
use crate::rewrite::{lock, require_free};
use crate::store::rule::{self as store, Kept};
use crate::store::{audit_event, progress};

/// First batch of blocks: 1 MB.
const FIRST_BATCH_BLOCKS: i32 = 128;
/// A table of less is filled by one.
const MIN_LANE_BLOCKS: i64 = 256;

/// What a rule is made for.
pub struct For<'a> {
    pub migration_id: &'a str,
    pub step: i32,
    /// How names of the statement that adds the columns are understood.
    pub session: &'a Session,
    pub target: &'a str,
}

/// Adds the columns and makes the rule, in one transaction under one lock: no row is ever written without it.
pub fn make(made: &For<'_>, table: &Relation, rule: &Rule) -> Result<()> {
    require_free(table, made.migration_id)?;
    audit_event::reserve()?;
    lock::acquire(
        &[table.oid],
        LockMode::AccessExclusive,
        &table.name.to_string(),
    )?;
    let fingerprint = relation::fingerprint(table.oid)?;
    if let Some(add) = &rule.add {
        identity::as_role(table.owner, made.session, || utility::run(add))?;
    }
    show(table, rule, false)?;
    let id = store::next_id()?;
    let columns = column::list(table.oid)?;
    match rule.mechanism {
        Mechanism::Rule => generate(table, rule, &columns)?,
        Mechanism::Trigger => trigger(id, table, rule, &columns, false)?,
    }
    let blocks = Table::open(table.oid, LockMode::AccessShare).blocks();
    store::insert(store::New {
        id,
        migration_id: made.migration_id,
        step: made.step,
        relation: table.oid,
        target: made.target,
        rule,
        end_block: blocks,
        rows: table.rows,
        fingerprint: &fingerprint,
        reverses: None,
    })?;
    lanes(id, blocks)?;
    waitpoint::reach("rule_make_before_commit")
}

/// Columns that were hidden have their names, or are hidden as they were. The caller holds ACCESS EXCLUSIVE.
pub fn show(table: &Relation, rule: &Rule, hide: bool) -> Result<()> {
    for (hidden, name) in rule.way_back.iter().flat_map(|back| &back.shows) {
        let (from, to) = match hide {
            true => (name, hidden),
            false => (hidden, name),
        };
        identity::as_role(table.owner, &Session::own(), || {
            utility::run(&rename_column(&table.name, from, to))
        })?;
    }
    Ok(())
}

/// Behind the end of `ended`, in its transaction: hidden columns follow the new ones from here on. `rule` names them as they
/// are called now.
pub fn follow(made: &For<'_>, table: &Relation, rule: &Rule, ended: &Kept) -> Result<()> {
    let id = store::next_id()?;
    trigger(id, table, rule, &column::list(table.oid)?, true)?;
    store::insert(store::New {
        id,
        migration_id: made.migration_id,
        step: made.step,
        relation: table.oid,
        target: made.target,
        rule,
        end_block: 0,
        rows: 0.0,
        fingerprint: &ended.fingerprint,
        reverses: Some(ended.id),
    })
}

/// A rule that had ended is made again, both ways: its old columns are there under their names.
pub fn reopen(ended: &Kept, table: &Relation, rule: &Rule) -> Result<()> {
    trigger(ended.id, table, rule, &column::list(table.oid)?, false)?;
    store::reopen(ended.id, rule)
}

/// Cuts the table into lanes, one a hand: two that write side by side write to places of their own.
pub(super) fn lanes(id: i64, blocks: i64) -> Result<()> {
    let wanted = i64::from(guc::max_parallel_backfill());
    let lanes = wanted.min(blocks / MIN_LANE_BLOCKS).max(1);
    progress::insert(progress::Of::Rule(id), blocks, lanes, FIRST_BATCH_BLOCKS)
}

fn number(columns: &[Column], name: &str, table: &Relation) -> Result<i16> {
    columns
        .iter()
        .find(|c| !c.dropped && c.name == name)
        .map(|c| c.number)
        .ok_or_else(|| Error::UndefinedColumn {
            table: table.name.to_string(),
            column: name.into(),
        })
}

/// The new columns become stored generated ones; rows that are there are not touched.
fn generate(table: &Relation, rule: &Rule, columns: &[Column]) -> Result<()> {
    for assignment in &rule.forth {
        let number = number(columns, &assignment.column, table)?;
        identity::as_role(table.owner, &canonical(), || {
            generated::set(
                table.oid,
                number,
                Generation::Stored,
                &assignment.expression,
            )
        })?;
    }
    Ok(())
}

fn trigger_name(id: i64) -> String {
    format!("{}{id}", dual_write::NAME)
}

fn trigger(
    id: i64,
    table: &Relation,
    rule: &Rule,
    columns: &[Column],
    follows: bool,
) -> Result<()> {
    let name = trigger_name(id);
    let later: Option<String> = spi::first(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgtype & 3 = 3 \
           AND tgname COLLATE \"C\" > $2::name COLLATE \"C\" LIMIT 1",
        &[table.oid.into(), name.as_str().into()],
        |row| row.need(1),
    )?;
    if let Some(later) = later {
        return Err(Error::Unsupported {
            problem: "a trigger of the table would fire after the one that keeps its columns equal"
                .into(),
            detail: format!("Trigger \"{later}\" on {}.", table.name),
            hint: "Give it a name that sorts before \"~\".".into(),
        });
    }
    let argument = Argument {
        follows,
        ..argument(id, table, rule, columns)?
    };
    let text = quote_literal(&serde_json::to_string(&argument)?);
    let quoted = quote_ident(&name);
    utility::run(&format!(
        "CREATE TRIGGER {quoted} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION _transmute.dual_write({text})",
        table.name
    ))?;
    utility::run(&format!(
        "ALTER TABLE {} ENABLE ALWAYS TRIGGER {quoted}",
        table.name
    ))?;
    let trigger: Option<Oid> = spi::value(
        "SELECT oid FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2::name",
        &[table.oid.into(), name.as_str().into()],
    )?;
    let trigger = trigger.ok_or_else(|| Error::Bug("the trigger was not made".into()))?;
    identity::as_role(table.owner, &canonical(), || {
        dual_write::depend(trigger, table.oid, &argument)
    })
}

fn argument(id: i64, table: &Relation, rule: &Rule, columns: &[Column]) -> Result<Argument> {
    let key = match rule.sets_aside {
        true => key_columns(table.oid, columns)?,
        false => Vec::new(),
    };
    let both = rule.forth.iter().chain(&rule.back);
    let mut names: Vec<&String> = both
        .map(|a| &a.column)
        .chain(&rule.sources)
        .chain(&key)
        .collect();
    names.sort_unstable();
    names.dedup();
    // A way back may read any column of the table.
    if rule.is_two_way() {
        names = columns
            .iter()
            .filter(|c| !c.dropped)
            .map(|c| &c.name)
            .collect();
    }
    let numbered = names
        .into_iter()
        .map(|name| Ok((number(columns, name, table)?, name.clone())))
        .collect::<Result<Vec<_>>>()?;
    Ok(Argument {
        rule: id,
        table: table.oid.to_u32(),
        columns: numbered,
        sources: rule.sources.clone(),
        forth: rule.forth.clone(),
        back: rule.back.clone(),
        key,
        sets_aside: rule.sets_aside,
        follows: false,
    })
}

/// Columns that identify a row, in the order of their index; none: the table has no key.
pub fn key_columns(table: Oid, columns: &[Column]) -> Result<Vec<String>> {
    let Some(key) = index::keys(table, &[])?.into_iter().next() else {
        return Ok(Vec::new());
    };
    Ok(key
        .columns
        .iter()
        .filter_map(|n| columns.iter().find(|c| c.number == *n))
        .map(|c| c.name.clone())
        .collect())
}

/// The rule must still be what was made: rows may have been written without it otherwise.
pub fn require_in_force(kept: &Kept, table: &Relation) -> Result<()> {
    let columns = column::list(table.oid)?;
    let in_force = match kept.rule.mechanism {
        Mechanism::Rule => kept.rule.forth.iter().all(|assignment| {
            columns
                .iter()
                .any(|c| !c.dropped && c.name == assignment.column && c.generated == "s")
        }),
        Mechanism::Trigger => {
            spi::value::<bool>(
                "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2::name AND tgenabled = 'A')",
                &[table.oid.into(), trigger_name(kept.id).into()],
            )? == Some(true)
        }
    };
    if in_force {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "old and new columns are not kept equal any more".into(),
        detail: format!(
            "The {} of {} was dropped, disabled or changed; rows may have been written without it.",
            match kept.rule.mechanism {
                Mechanism::Rule => "generation expression",
                Mechanism::Trigger => "dual-write trigger",
            },
            table.name
        ),
        hint: "transmute.rollback(id, reason), then apply again.".into(),
    })
}

/// Takes the rule away; the columns keep their values. The caller holds ACCESS EXCLUSIVE.
pub fn remove(kept: &Kept, table: &Relation) -> Result<()> {
    match kept.rule.mechanism {
        Mechanism::Rule => {
            let columns = column::list(table.oid)?;
            for assignment in &kept.rule.forth {
                let generated = columns
                    .iter()
                    .any(|c| !c.dropped && c.name == assignment.column && c.generated == "s");
                if generated {
                    identity::as_role(table.owner, &Session::own(), || {
                        utility::run(&format!(
                            "ALTER TABLE {} ALTER COLUMN {} DROP EXPRESSION",
                            table.name,
                            quote_ident(&assignment.column)
                        ))
                    })?;
                }
            }
            Ok(())
        }
        Mechanism::Trigger => utility::run(&format!(
            "DROP TRIGGER IF EXISTS {} ON {}",
            quote_ident(&trigger_name(kept.id)),
            table.name
        )),
    }
}
