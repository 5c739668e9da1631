//! What people call about dead letters: try again, go on without them, forget them.

use super::call::{owned, record, require_reason, wrong_state};
use super::rewriting;
use crate::error::{Error, Result};
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::rewrite::drain;
use crate::store::dead_letter::{self, Open};
use crate::store::migration::Migration;
use crate::store::{backfill, hand_batch, rewrite};

/// The open dead letters of a migration with these ids; without ids all of them.
pub fn chosen(migration: &Migration, ids: Option<&[i64]>) -> Result<Vec<Open>> {
    let open = dead_letter::open(&migration.id)?;
    let Some(ids) = ids else {
        return Ok(open);
    };
    if ids.is_empty() {
        return Err(Error::InvalidArgument {
            problem: "no dead letter is named".into(),
            detail: "The list of ids is empty.".into(),
            hint:
                "Give the numbers that transmute.dead_letters shows; NULL means all that are open."
                    .into(),
        });
    }
    let unknown: Vec<String> = ids
        .iter()
        .filter(|id| !open.iter().any(|d| d.id == **id))
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(Error::UndefinedObject {
            problem: "there is no such open dead letter".into(),
            detail: format!(
                "Not open, or not of migration \"{}\": {}.",
                migration.id,
                unknown.join(", ")
            ),
            hint: "SELECT dead_letter, key, status FROM transmute.dead_letters lists them.".into(),
        });
    }
    Ok(open.into_iter().filter(|d| ids.contains(&d.id)).collect())
}

/// Those of `chosen` that can be left behind: what a dual-write rule refuses is a value of a row that stays.
pub fn dispensable(migration: &Migration, ids: Option<&[i64]>) -> Result<Vec<Open>> {
    let mut chosen = chosen(migration, ids)?;
    if let (Some(_), Some(of_rule)) = (ids, chosen.iter().find(|d| d.rule_id.is_some())) {
        return Err(Error::Unsupported {
            problem: "a row that a dual-write rule fails on cannot be left behind".into(),
            detail: format!("Dead letter {}, {}.", of_rule.id, of_rule.key),
            hint: "Mend the row: it is tried again by itself.".into(),
        });
    }
    chosen.retain(|d| d.rule_id.is_none());
    Ok(chosen)
}

/// Where rows are brought over or changed.
fn require_under_way(migration: &Migration, call: &'static str) -> Result<()> {
    match migration.state {
        State::Running | State::AwaitingAction | State::AwaitingFinalization | State::Finishing => {
            Ok(())
        }
        _ => Err(wrong_state(
            migration,
            call,
            "Dead letters are tried, or left behind, while the migration goes forward.",
        )),
    }
}

/// Has these rows tried again now, by whoever drives the migration; how many.
///
/// A key is put into the key log, as a write of the row would do it. So nothing depends on what is under way: a drain that
/// runs has not seen it, the next one does.
pub fn replay(id: &str, ids: Option<&[i64]>, caller: &Caller) -> Result<i64> {
    let migration = owned(id, caller)?;
    require_under_way(&migration, "replay_dead_letters")?;
    let open = chosen(&migration, ids)?;
    for rewrite in rewrite::list(id)? {
        let keys: Vec<String> = open
            .iter()
            .filter(|d| d.rewrite_id == Some(rewrite.id))
            .map(|d| d.key.clone())
            .collect();
        if !keys.is_empty() && !rewrite.swapped {
            drain::log_again(&rewriting::work_of(&migration, rewrite)?, &keys)?;
        }
    }
    let mut statements: Vec<i64> = open.iter().filter_map(|d| d.backfill_id).collect();
    statements.dedup();
    for statement in statements {
        backfill::ask_retry(statement)?;
    }
    let mut steps: Vec<i32> = open.iter().filter_map(|d| d.copy_step).collect();
    steps.dedup();
    for step in steps {
        hand_batch::ask_retry(id, step)?;
    }
    record(
        &migration,
        caller,
        "dead letters replayed",
        serde_json::json!({ "dead_letters": open.len(), "ids": numbers(&open) }),
    )?;
    Ok(open.len() as i64)
}

/// Goes on without these rows; how many. A data statement leaves them as they are, a rewrite leaves them out of the table:
/// they are in the old rows that it keeps.
pub fn discard(id: &str, ids: Option<&[i64]>, reason: &str, caller: &Caller) -> Result<i64> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    require_under_way(&migration, "discard_dead_letters")?;
    let open = dispensable(&migration, ids)?;
    let count = dead_letter::discard(id, &numbers(&open), reason)?;
    record(
        &migration,
        caller,
        "dead letters discarded",
        serde_json::json!({ "reason": reason, "dead_letters": count, "ids": numbers(&open) }),
    )?;
    Ok(count)
}

/// Forgets dead letters that are settled; how many.
pub fn purge(id: &str, status: &str, caller: &Caller) -> Result<i64> {
    let hint = "status is 'resolved' or 'discarded'; what is open is discarded first.";
    if !["resolved", "discarded"].contains(&status) {
        return Err(Error::InvalidArgument {
            problem: match status {
                "open" => "open dead letters are not purged",
                _ => "unknown status of dead letters",
            }
            .into(),
            detail: format!("status is \"{status}\"."),
            hint: hint.into(),
        });
    }
    let migration = owned(id, caller)?;
    let settled = matches!(migration.state, State::Finished | State::Uninitialized);
    if status == "discarded" && !settled {
        return Err(wrong_state(
            &migration,
            "purge_dead_letters",
            "They say which rows are left out: they are purged when it has finished or was rolled back.",
        ));
    }
    let count = dead_letter::purge(id, status)?;
    record(
        &migration,
        caller,
        "dead letters purged",
        serde_json::json!({ "status": status, "dead_letters": count }),
    )?;
    Ok(count)
}

fn numbers(letters: &[Open]) -> Vec<i64> {
    letters.iter().map(|d| d.id).collect()
}
