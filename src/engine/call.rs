//! What people call: apply, pause, resume, approve, roll back. Each checks right and state, writes, and leaves an
//! audit event in the same transaction.

use super::admission::{self, Options};
use super::execute::owner_role;
use super::verbs::again;
use super::{data, hooks, letters, look, order, planning, register, rehearsal, release, start};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::state::{Event, State};
use crate::pg::identity::{self, Caller};
use crate::pg::xact::{self, End};
use crate::pg::{process, spi};
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, Migration};
use crate::store::{approval, driver, growth, outside, sequence, step};

/// 100 years: longer means that somebody meant something else.
const MAX_TTL_US: i64 = 100 * 366 * 86_400 * 1_000_000;

/// The migration, locked, if `caller` may act for its owner. Who may not waits for no lock of those who may.
pub(super) fn owned(id: &str, caller: &Caller) -> Result<Migration> {
    require_owner(&migration::get(id)?, caller)?;
    let migration = migration::lock(id)?;
    require_owner(&migration, caller)?;
    Ok(migration)
}

pub(super) fn require_owner(migration: &Migration, caller: &Caller) -> Result<()> {
    // A migration whose owner was dropped is left to superusers.
    let may = match relation::role_oid(&migration.owner_name)? {
        Some(owner) => identity::has_privs_of(caller.role, owner),
        None => identity::is_superuser(caller.role),
    };
    if may {
        return Ok(());
    }
    Err(Error::NotYours {
        id: migration.id.clone(),
        owner: migration.owner_name.clone(),
    })
}

pub(super) fn require_reason(reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Error::InvalidArgument {
            problem: "a reason is needed".into(),
            detail: "reason is empty.".into(),
            hint: "Say why, in a few words: it goes into the audit trail.".into(),
        });
    }
    Ok(())
}

pub(super) fn wrong_state(migration: &Migration, call: &'static str, hint: &str) -> Error {
    Error::WrongState {
        id: migration.id.clone(),
        state: migration.state.to_string(),
        call,
        hint: hint.into(),
    }
}

pub(super) fn record(
    migration: &Migration,
    caller: &Caller,
    event: &str,
    detail: serde_json::Value,
) -> Result<()> {
    let user = relation::role_name(caller.role)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event,
        detail: Some(detail),
        current_user: Some(&user),
        ..Act::default()
    })?;
    Ok(())
}

/// Interrupts who drives the migration, once this call has committed: neither an error nor a try (`failure::record`).
pub(super) fn interrupt(id: &str) -> Result<()> {
    if let Some(pid) = driver::pid(id)? {
        process::interrupt_at_commit(pid);
    }
    Ok(())
}

/// Migrations that `CALL transmute.run` drives for `caller`: the one it names, or all queued ones of owners it may act for.
pub fn driven(id: Option<&str>, caller: &Caller) -> Result<Vec<String>> {
    if let Some(id) = id {
        let migration = migration::get(id)?;
        require_owner(&migration, caller)?;
        return Ok(match migration.queued {
            true => vec![migration.id],
            false => Vec::new(),
        });
    }
    let mut ids = Vec::new();
    for id in migration::worth_a_look()? {
        if require_owner(&migration::get(&id)?, caller).is_ok() {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// What apply did with one migration.
pub struct Applied {
    pub id: String,
    pub state: String,
    pub action: &'static str,
    pub detail: Option<String>,
}

/// Queues one migration, or all that are pending; or tries them and undoes it all. No gate may refuse any of them.
pub fn apply(id: Option<&str>, options: &Options<'_>, caller: &Caller) -> Result<Vec<Applied>> {
    options.check()?;
    if options.dry_run {
        admission::confirm("apply", options.confirm)?;
        // One is tried behind the other, and all of it undone.
        return xact::subtransaction(End::Undo, || {
            let (ids, mut applied) = wanted(id, caller)?;
            for id in &ids {
                applied.extend(rehearse(id, caller)?);
            }
            Ok(applied)
        });
    }
    let (ids, mut applied) = wanted(id, caller)?;
    let mut asked = false;
    for id in &ids {
        let migration = owned(id, caller)?;
        require_whole(&migration)?;
        if !migration.queued && migration.state != State::Finished {
            require_order(&migration, &ids, options)?;
            admission::require(&migration, options)?;
            asked = true;
        }
    }
    if !asked {
        // Whoever forgets it learns of it also where there is nothing to do.
        admission::confirm("apply", options.confirm)?;
    }
    for id in &ids {
        applied.push(apply_one(id, options.max_risk, caller)?);
    }
    Ok(applied)
}

/// What an apply is about: one migration, or all that are pending and of the release of the database, and what it has to
/// say of the others. One that was taken back is made so again by a run of its own.
fn wanted(id: Option<&str>, caller: &Caller) -> Result<(Vec<String>, Vec<Applied>)> {
    let mut applied = Vec::new();
    let mut ids = Vec::new();
    match id {
        Some(id) => {
            let migration = owned(id, caller)?;
            ids.push(match migration.taken_back && migration.down_of.is_none() {
                true => again::register(&migration)?,
                false => id.to_string(),
            });
        }
        // Those of another release are left for its time.
        None => {
            for id in order::pending()? {
                let migration = migration::get(&id)?;
                if migration.taken_back {
                    require_owner(&migration, caller)?;
                    ids.push(again::register(&migration)?);
                    continue;
                }
                match release::misfit(&migration.meta)? {
                    Some(why) => applied.push(Applied {
                        id,
                        state: migration.state.to_string(),
                        action: "left",
                        detail: Some(why),
                    }),
                    None => ids.push(id),
                }
            }
        }
    }
    Ok((ids, applied))
}

/// One that was made a part of another is not applied by itself.
pub(super) fn require_whole(migration: &Migration) -> Result<()> {
    match &migration.squashed_into {
        None => Ok(()),
        Some(other) => Err(Error::Prerequisite {
            problem: "the migration is a part of another one".into(),
            detail: format!(
                "Migration \"{}\" was squashed into \"{other}\".",
                migration.id
            ),
            hint: format!(
                "SELECT * FROM transmute.apply({}) applies that.",
                crate::model::ident::quote_literal(other)
            ),
        }),
    }
}

/// Scripts that run one after the other: none is left out, none comes behind a later one, none follows one that has failed.
fn require_order(migration: &Migration, with: &[String], options: &Options<'_>) -> Result<()> {
    if !migration.has_place {
        return Ok(());
    }
    let refuse = |code, detail, hint: &str| {
        Err(Error::Refused {
            id: migration.id.clone(),
            code,
            detail,
            hint: hint.into(),
        })
    };
    if let Some((id, error)) = sequence::failed_before(&migration.id)? {
        return refuse(
            "FAILED_BEFORE",
            format!("Migration \"{id}\", which comes before it, has failed: {error}."),
            "SELECT last_error_hint FROM transmute.status says what is possible now.",
        );
    }
    if options.allow_out_of_order {
        return Ok(());
    }
    let (skipped, late) = sequence::out_of_order(&migration.id)?;
    if let Some(id) = late.filter(|id| !with.contains(id)) {
        return refuse(
            "OUT_OF_ORDER",
            format!("Migration \"{id}\", which comes behind it, was applied already."),
            "If they do not need each other, add allow_out_of_order => true.",
        );
    }
    match skipped.filter(|id| {
        !with
            .iter()
            .any(|w| w == id || w.starts_with(&format!("{id}:up")))
    }) {
        None => Ok(()),
        Some(id) => refuse(
            "OUT_OF_ORDER",
            format!("Migration \"{id}\", which comes before it, is pending."),
            "Apply that first, or all that is pending; allow_out_of_order => true leaves it out.",
        ),
    }
}

/// Those behind a migration that is taken out are pending again: they were to find what it makes.
pub(super) fn leave_queue_behind(migration: &Migration, caller: &Caller) -> Result<()> {
    if !migration.has_place {
        return Ok(());
    }
    for id in sequence::unqueue_behind(&migration.id)? {
        record(
            &migration::get(&id)?,
            caller,
            "taken out of the queue",
            serde_json::json!({ "reason": format!("\"{}\", which comes before it, is rolled back", migration.id) }),
        )?;
    }
    Ok(())
}

fn rehearse(id: &str, caller: &Caller) -> Result<Vec<Applied>> {
    let migration = owned(id, caller)?;
    if migration.queued || migration.state != State::Uninitialized {
        return Err(wrong_state(
            &migration,
            "apply(dry_run => true)",
            "Only a migration that has not been applied can be tried.",
        ));
    }
    planning::require_plan(&migration)?;
    rehearsal::run(&migration)
}

fn apply_one(id: &str, max_risk: Option<i32>, caller: &Caller) -> Result<Applied> {
    let migration = owned(id, caller)?;
    if migration.state == State::Finished {
        return Err(wrong_state(
            &migration,
            "apply",
            "It has been applied; register a new migration.",
        ));
    }
    let action = if migration.queued {
        // Somebody else was faster.
        "already queued"
    } else {
        hooks::before(hooks::PRE_APPLY, &migration, None)?;
        step::reset(id)?;
        outside::reset(id)?;
        growth::forget(id)?;
        migration::queue(id, &register::pre_execution_soak(&migration.meta), max_risk)?;
        record(
            &migration,
            caller,
            "applied",
            serde_json::json!({ "plan_checksum": migration.plan_checksum }),
        )?;
        "queued"
    };
    let mut waits = match migration.state {
        State::Uninitialized => look::waiting_text(&start::waiting(&migration::get(id)?)?),
        _ => migration.waiting_for.clone(),
    };
    if action == "queued" {
        migration::set_waiting(id, waits.as_deref())?;
    }
    if !crate::pg::slots::preloaded() {
        let nobody = "no background workers (shared_preload_libraries does not hold transmute): CALL transmute.run() drives it";
        waits = Some(match waits {
            Some(waits) => format!("{nobody}; waits for {waits}"),
            None => nobody.into(),
        });
    }
    Ok(Applied {
        id: id.into(),
        state: migration.state.to_string(),
        action,
        detail: waits,
    })
}

pub fn pause(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let goes_back = migration.state == State::RollingBack || migration.rollback_reason.is_some();
    if goes_back || !migration.queued {
        return Err(wrong_state(
            &migration,
            "pause",
            "Only an applied migration that goes forward can be paused.",
        ));
    }
    migration::set_paused(id, Some(reason))?;
    interrupt(id)?;
    record(
        &migration,
        caller,
        "paused",
        serde_json::json!({ "reason": reason }),
    )
}

/// Goes on after a pause, or tries again after an error.
pub fn resume(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let waits = migration.paused_reason.is_some()
        || migration.state == State::AwaitingAction
        || migration.has_error
        || migration.next_attempt_us.is_some()
        || !migration.at_home; // nobody may have looked at it here yet
    if !migration.queued || !waits {
        return Err(wrong_state(
            &migration,
            "resume",
            "It is neither paused nor waiting for a person.",
        ));
    }
    if waits_for_action(&migration) && migration.paused_reason.is_none() {
        return Err(wrong_state(
            &migration,
            "resume",
            "transmute.acknowledge(id, reason) says that the external action was done.",
        ));
    }
    record(
        &migration,
        caller,
        "resumed",
        serde_json::json!({ "reason": reason }),
    )?;
    if !migration.at_home {
        data::find_again(&migration)?;
    }
    migration::set_paused(id, None)?;
    migration::clear_error(id)?;
    if migration.state == State::AwaitingAction && !waits_for_action(&migration) {
        super::advance::change_state(&migration, Event::Resume, "running again", None)?;
    }
    Ok(())
}

/// It stopped for an external action, not after an error.
fn waits_for_action(migration: &Migration) -> bool {
    migration.state == State::AwaitingAction
        && migration.awaits_acknowledgement()
        && !migration.has_error
}

/// Somebody says that the external action was done; what waits for that goes on.
pub fn acknowledge(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let refuse = |hint| Err(wrong_state(&migration, "acknowledge", hint));
    if !migration.meta.requires_external_action {
        return refuse("It was registered without meta.requires_external_action.");
    }
    if migration.acknowledged {
        return refuse("It was acknowledged already.");
    }
    if !migration.queued || migration.state == State::RollingBack {
        return refuse("Only an applied migration that goes forward waits for it.");
    }
    migration::acknowledge(id, reason)?;
    record(
        &migration,
        caller,
        "acknowledged",
        serde_json::json!({ "reason": reason }),
    )?;
    if waits_for_action(&migration) {
        super::advance::change_state(&migration, Event::Resume, "running again", None)?;
    }
    Ok(())
}

/// `waived`: open dead letters that may be left behind.
pub fn approve(
    id: &str,
    reason: &str,
    ttl_us: i64,
    waived: Option<&[i64]>,
    caller: &Caller,
) -> Result<()> {
    require_reason(reason)?;
    if ttl_us <= 0 || ttl_us > MAX_TTL_US {
        return Err(Error::InvalidArgument {
            problem: "the time to live of an approval must be positive, and at most 100 years"
                .into(),
            detail: format!("ttl is {} s.", ttl_us / 1_000_000),
            hint: "Give an interval such as '24 hours'.".into(),
        });
    }
    let migration = migration::lock(id)?;
    if matches!(
        migration.state,
        State::Finishing | State::Finished | State::RollingBack
    ) {
        return Err(wrong_state(
            &migration,
            "approve",
            "Approvals are given before FINISHING.",
        ));
    }
    require_approver(&migration)?;
    planning::require_plan(&migration)?;
    let waived = match waived {
        Some(ids) => letters::dispensable(&migration, Some(ids))?
            .iter()
            .map(|d| d.id)
            .collect(),
        None => Vec::new(),
    };
    approval::insert(id, reason, &migration.plan_checksum, ttl_us, &waived)?;
    let mut detail = serde_json::json!({ "reason": reason, "plan_checksum": migration.plan_checksum, "ttl_seconds": ttl_us / 1_000_000 });
    if !waived.is_empty() {
        detail["waived_dead_letters"] = waived.into();
    }
    record(&migration, caller, "approved", detail)
}

/// The person is session_user: SET ROLE or a SECURITY DEFINER wrapper make nobody another person.
fn require_approver(migration: &Migration) -> Result<()> {
    let person: String = spi::value("SELECT session_user::text", &[])?.unwrap_or_default();
    let refuse = |problem: &str, detail: String| {
        Err(Error::Privilege {
            problem: problem.into(),
            detail,
            hint: "Ask another person who may approve.".into(),
        })
    };
    if let Some(role) = guc::approver_role() {
        let member: Option<bool> = spi::value(
            "SELECT pg_has_role(session_user, oid, 'USAGE') FROM pg_roles WHERE rolname = $1::name",
            &[role.as_str().into()],
        )?;
        if member != Some(true) {
            return refuse(
                "this role may not approve",
                format!("\"{person}\" is not a member of transmute.approver_role."),
            );
        }
    }
    if guc::four_eyes()
        && (migration.registered_by == person || migration.applied_by.as_deref() == Some(&person))
    {
        return refuse(
            "four eyes: who registered or applied a migration may not approve it",
            format!(
                "\"{person}\" registered or applied migration \"{}\".",
                migration.id
            ),
        );
    }
    Ok(())
}

/// Revokes every approval that holds; how many.
pub fn revoke_approval(id: &str, reason: &str, caller: &Caller) -> Result<i64> {
    require_reason(reason)?;
    let migration = migration::lock(id)?;
    require_approver_or_owner(&migration, caller)?;
    if matches!(migration.state, State::Finishing | State::Finished) {
        return Err(wrong_state(
            &migration,
            "revoke_approval",
            "FINISHING cannot be stopped.",
        ));
    }
    let count = approval::revoke(id, reason)? as i64;
    record(
        &migration,
        caller,
        "approval revoked",
        serde_json::json!({ "reason": reason, "approvals": count }),
    )?;
    Ok(count)
}

fn require_approver_or_owner(migration: &Migration, caller: &Caller) -> Result<()> {
    if identity::has_privs_of(caller.role, owner_role(migration)?) {
        return Ok(());
    }
    require_approver(migration)
}

pub fn skip_soak(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let soaking = migration.state == State::AwaitingFinalization
        || (migration.state == State::Uninitialized && migration.queued);
    if !soaking {
        return Err(wrong_state(&migration, "skip_soak", "No soak is running."));
    }
    migration::end_soak(id)?;
    record(
        &migration,
        caller,
        "soak skipped",
        serde_json::json!({ "reason": reason }),
    )
}

/// Asks for the way back; the driver of the migration goes it.
pub fn rollback(id: &str, reason: &str, caller: &Caller) -> Result<()> {
    require_reason(reason)?;
    let migration = owned(id, caller)?;
    let possible = migration.state.can_roll_back()
        || (migration.state == State::Uninitialized && migration.queued);
    if !possible {
        let hint = match migration.state {
            State::Finished if migration.keeps_old => {
                "FINISHING is the point of no return; transmute.undo(id, reason) swaps the old rows back."
            }
            State::Finished if migration.has_down => {
                "FINISHING is the point of no return; transmute.down(id, reason) runs the way back that was given."
            }
            State::Finishing | State::Finished => {
                "FINISHING is the point of no return; the old rows are an artifact."
            }
            State::RollingBack => "It is being rolled back.",
            _ => "It has not been applied.",
        };
        return Err(wrong_state(&migration, "rollback", hint));
    }
    hooks::before(hooks::PRE_ROLLBACK, &migration, Some(reason))?;
    leave_queue_behind(&migration, caller)?;
    migration::clear_error(id)?;
    migration::request_rollback(id, reason)?;
    interrupt(id)?;
    record(
        &migration,
        caller,
        "rollback requested",
        serde_json::json!({ "reason": reason }),
    )
}
