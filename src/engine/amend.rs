//! Amending a script: before it is applied anything, later the expressions of what has not been finished. The plan's
//! checksum changes, so approvals lapse.
//!
//! What is done is done: rows that a data statement has changed keep what the text of then made of them, and the amended text
//! is for the others, those that were refused among them. A rewrite has shown its rows to nobody, so it converts all
//! of them again.

use super::call::{record, require_owner, require_reason, wrong_state};
use super::execute::owner_role;
use super::{advance, load, planning, register, rewriting};
use crate::backfill::{self, Way};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::plan::Plan;
use crate::model::state::{Event, State};
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Data, Kind, Statement, Verb};
use crate::pg::waitpoint;
use crate::pg::xact::{self, End};
use crate::rewrite::{again, probe};
use crate::store::migration::{self, Migration};
use crate::store::step::{self, Kind as StepKind};
use crate::store::{backfill as backfills, driver, rewrite};

/// How long whoever drives the migration is waited for: longer than a batch, shorter than people's patience.
const DRIVER_WAIT_MS: i32 = 5000;

/// Replaces the script; the checksum of the plan as it is now.
pub fn run(id: &str, up: &str, reason: &str, caller: &Caller) -> Result<String> {
    require_reason(reason)?;
    require_owner(&migration::get(id)?, caller)?;
    lock_driver(id)?;
    let migration = migration::lock(id)?;
    let before = migration::script(id)?;
    if migration::down_and_phases(id)?.1 {
        return Err(Error::Unsupported {
            problem: "hand-written phases are not amended".into(),
            detail: format!("Migration \"{id}\" was registered by register_phases or register_copy."),
            hint: "A function that its batch calls can be replaced at any time; else roll back, and register it again.".into(),
        });
    }
    if up == before {
        return Err(Error::InvalidArgument {
            problem: "nothing is amended".into(),
            detail: "up is the script as it is.".into(),
            hint: "Give the whole script as it should have been.".into(),
        });
    }
    let amended = match migration.state {
        State::Uninitialized if !migration.queued => {
            plan_anew(&migration, up)?;
            Vec::new()
        }
        State::Running | State::AwaitingAction | State::AwaitingFinalization | State::Finishing
            if migration.rollback_reason.is_none() =>
        {
            let changed = changed(&before, up)?;
            let mut again = false;
            for (number, old, new) in &changed {
                again |= amend_statement(&migration, *number, old, new)?;
            }
            if again {
                migration::forget_soak(id)?;
            }
            if again && migration.state == State::AwaitingFinalization {
                advance::change_state(&migration, Event::Amend, "running again", None)?;
            }
            changed
        }
        _ => {
            return Err(wrong_state(
                &migration,
                "amend",
                "A script is amended before it is applied, or from RUNNING to FINISHING.",
            ))
        }
    };
    let plan = Plan {
        steps: step::plan(id)?.into_iter().map(|(_, step)| step).collect(),
    };
    let plan_checksum = plan.checksum();
    let checksum = register::checksum_of(id, up)?;
    migration::set_script(id, up, &checksum, &plan_checksum)?;
    load::amended(id, &before, up)?;
    let statements: Vec<serde_json::Value> = amended
        .iter()
        .map(|(number, old, new)| {
            serde_json::json!({ "statement": number, "before": old.text, "after": new.text })
        })
        .collect();
    record(
        &migration,
        caller,
        "amended",
        serde_json::json!({
            "reason": reason,
            "statements": statements,
            "checksum": checksum,
            "plan_checksum_before": migration.plan_checksum,
            "plan_checksum": plan_checksum,
        }),
    )?;
    waitpoint::reach("amend_before_commit")?;
    Ok(plan_checksum)
}

/// Nobody drives the migration until this transaction ends.
fn lock_driver(id: &str) -> Result<()> {
    identity::set_for_transaction("lock_timeout", &DRIVER_WAIT_MS.to_string())?;
    xact::subtransaction(End::Keep, || driver::lock(id)).map_err(|error| {
        match error.sqlstate_text().as_str() {
            "55P03" => Error::InUse {
                problem: "a step of the migration is under way".into(),
                detail: format!("It did not end within {} s.", DRIVER_WAIT_MS / 1000),
                hint: "transmute.pause(id, reason) stops it; then amend, then transmute.resume(id, reason).".into(),
            },
            _ => error,
        }
    })
}

/// Nothing has run: another script, another plan.
fn plan_anew(migration: &Migration, up: &str) -> Result<()> {
    let owner = Caller {
        role: owner_role(migration)?,
        session: migration.session.clone(),
    };
    let down = migration::way_back(&migration.id)?;
    let plan = planning::make(up, down.as_deref(), &owner, &migration.meta)?;
    planning::store(&migration.id, &plan)
}

/// Statements whose text differs, with their numbers.
fn changed(before: &str, after: &str) -> Result<Vec<(i32, Statement, Statement)>> {
    let (old, new) = (parser::parse(before)?, parser::parse(after)?);
    let same_tags = old.len() == new.len() && old.iter().zip(&new).all(|(o, n)| o.tag == n.tag);
    if !same_tags {
        return Err(Error::Unsupported {
            problem: "amend changes expressions, not the statements of a script that runs".into(),
            detail: format!(
                "The script has {} statements, the amended one {}, and each must stay what it is.",
                old.len(),
                new.len()
            ),
            hint: "transmute.rollback(id, reason), and register another script.".into(),
        });
    }
    let changed: Vec<(i32, Statement, Statement)> = old
        .into_iter()
        .zip(new)
        .enumerate()
        .filter(|(_, (o, n))| o.text != n.text)
        .map(|(i, (o, n))| (i as i32 + 1, o, n))
        .collect();
    if changed.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "nothing is amended".into(),
            detail: "Every statement is what it was.".into(),
            hint: "Give the whole script as it should have been.".into(),
        });
    }
    Ok(changed)
}

/// Puts the new text in place of the old one; true if rows are brought over again.
fn amend_statement(
    migration: &Migration,
    number: i32,
    old: &Statement,
    new: &Statement,
) -> Result<bool> {
    let undone = step::undone(&migration.id)?;
    let plan = step::plan(&migration.id)?;
    for (_, tree) in plan
        .iter()
        .filter(|(_, s)| s.kind == StepKind::RewriteTree.name())
    {
        if let Some(sql) = replaced(&tree.sql, &old.text, &new.text)? {
            if !undone.contains(&tree.step) {
                return Err(finished(number));
            }
            amend_tree(migration, &tree.sql, &sql)?;
            return Ok(true);
        }
    }
    for (statement, mut planned) in plan {
        let of_data = ["batch", "data"].contains(&planned.kind.as_str())
            && statement == number
            && planned.sql == old.text;
        let rewrite = planned.kind == StepKind::RewriteSwap.name();
        let Some(sql) = (match (of_data, rewrite) {
            (true, _) => Some(new.text.clone()),
            (_, true) => replaced(&planned.sql, &old.text, &new.text)?,
            _ => None,
        }) else {
            continue;
        };
        if !undone.contains(&planned.step) {
            return Err(finished(number));
        }
        if rewrite {
            convert_again(migration, statement, &sql)?;
        } else {
            require_same_work(migration, &planned, old, new)?;
        }
        planned.sql = sql;
        step::set_sql(&migration.id, &planned)?;
        return Ok(rewrite);
    }
    Err(Error::Unsupported {
        problem: "this statement cannot be amended while the migration is under way".into(),
        detail: format!(
            "Statement {number}, {}: only data statements and the ALTER TABLE of a rewrite have expressions to amend.",
            old.tag
        ),
        hint: "transmute.rollback(id, reason), and register another script.".into(),
    })
}

fn finished(number: i32) -> Error {
    Error::Prerequisite {
        problem: "the statement has been finished".into(),
        detail: format!("Statement {number} is done."),
        hint: "What is done stays done: write another migration.".into(),
    }
}

/// A partitioned table and each of its partitions, which have the same statements.
fn amend_tree(migration: &Migration, old: &str, new: &str) -> Result<()> {
    let kinds = [StepKind::RewriteSwap.name(), StepKind::RewriteTree.name()];
    for (statement, mut planned) in step::plan(&migration.id)? {
        if !kinds.contains(&planned.kind.as_str()) || planned.sql != old {
            continue;
        }
        if planned.kind == StepKind::RewriteSwap.name() {
            convert_again(migration, statement, new)?;
        } else if let Some(table) = relation::named(&planned.target)? {
            let session = migration.with_settings(&planned.settings).session;
            probe::run(&relation::get(table)?, new, &session)?;
        }
        planned.sql = new.to_string();
        step::set_sql(&migration.id, &planned)?;
    }
    Ok(())
}

/// The statements of a rewrite with one of them replaced; `None`: it is not among them.
fn replaced(script: &str, old: &str, new: &str) -> Result<Option<String>> {
    let mut texts: Vec<String> = parser::parse(script)?.into_iter().map(|s| s.text).collect();
    let Some(at) = texts.iter().position(|text| text == old) else {
        return Ok(None);
    };
    texts[at] = new.to_string();
    Ok(Some(texts.join(";\n")))
}

/// All rows of a rewrite once more, by other statements.
fn convert_again(migration: &Migration, statement: i32, sql: &str) -> Result<()> {
    let work = rewriting::work_of(migration, rewrite::of_step(&migration.id, statement)?)?;
    // Old rows that are kept, and versions, convert by it.
    if migration.keeps_old || work.other.is_some() {
        return Err(Error::Unsupported {
            problem: "a rewrite whose way back was proved is not amended".into(),
            detail: "meta.keep_old is given, or versions show the table.".into(),
            hint: "transmute.rollback(id, reason), then amend, then apply again.".into(),
        });
    }
    if work.rewrite.successor.is_some() {
        return Err(Error::Unsupported {
            problem: "what gives a copy the name of its table is not amended while it is under way"
                .into(),
            detail: "The copy is a table of the script's own.".into(),
            hint: "transmute.rollback(id, reason), then amend, then apply again.".into(),
        });
    }
    again::run(&work, sql)?;
    let kinds = [
        StepKind::RewriteCopy,
        StepKind::RewriteIndex,
        StepKind::RewriteCheck,
        StepKind::RewriteViews,
    ];
    step::set_pending(&migration.id, statement, &kinds)
}

/// An amended data statement writes the same columns of the same table, and goes through the same rows.
fn require_same_work(
    migration: &Migration,
    planned: &crate::model::plan::Step,
    old: &Statement,
    new: &Statement,
) -> Result<()> {
    let writes = |statement: &Statement| -> Option<Data> {
        match &statement.kind {
            Kind::Data(data) => Some(data.clone()),
            _ => None,
        }
    };
    let same = writes(old)
        .zip(writes(new))
        .is_some_and(|(o, n)| (o.verb, &o.targets, &o.columns) == (n.verb, &n.targets, &n.columns));
    let other = |how: &str| {
        Error::Unsupported {
        problem: "an amended statement must change the same columns of the same rows".into(),
        detail: format!("Of {}: {how}.", planned.target),
        hint: "Amend the expressions, or the condition, which can leave out rows; or register another migration.".into(),
    }
    };
    if !same || writes(new).is_some_and(|n| n.verb == Verb::Truncate) {
        return Err(other("it names another table or other columns"));
    }
    let owner = owner_role(migration)?;
    let session = migration.with_settings(&planned.settings).session;
    let found = backfills::find(&migration.id, planned.step)?;
    let decision = match backfill::decide(&new.text, owner, &session) {
        // What it speaks of may be made by a step before it.
        Err(Error::Server(_)) if found.is_none() && planned.kind == StepKind::Batch.name() => {
            return Ok(())
        }
        decided => decided?,
    };
    match (found, decision.way) {
        (None, _) => Ok(()),
        (Some(begun), Way::Batched(driver)) if driver.relation.oid == begun.relation => Ok(()),
        (Some(_), Way::Batched(_)) => Err(other("it goes through another table")),
        (Some(_), Way::Whole(why)) => Err(other(&format!("it cannot go on in batches: {why}"))),
    }
}
