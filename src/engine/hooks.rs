//! Functions that are called at events of every migration.
//!
//! A superuser registers them. Each runs as the owner it had then, restricted, with nothing in its search_path: whoever could
//! change what it does could do the same as himself, so nobody gains a right by a hook.

use super::tick::Next;
use super::{failure, invariants};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::state::State;
use crate::pg::identity::{self, Caller, Session};
use crate::pg::xact::{self, End};
use crate::pg::{spi, timeout, waitpoint, Oid};
use crate::store::audit_event::{self, Act};
use crate::store::hook::{self, Ended, Hook};
use crate::store::migration::{self, Migration};
use std::time::Instant;

pub const PRE_APPLY: &str = "pre_apply";
pub const PRE_ROLLBACK: &str = "pre_rollback";
const PRE_FINALIZE: &str = "pre_finalize";
const EVENTS: [&str; 6] = [
    PRE_APPLY,
    "post_apply",
    PRE_ROLLBACK,
    "post_rollback",
    PRE_FINALIZE,
    "post_finalize",
];

fn require_event(event: &str) -> Result<()> {
    match EVENTS.contains(&event) {
        true => Ok(()),
        false => Err(Error::InvalidArgument {
            problem: "unknown event".into(),
            detail: format!("event is \"{event}\"."),
            hint: format!("Give one of: {}.", EVENTS.join(", ")),
        }),
    }
}

fn require_superuser(caller: &Caller) -> Result<()> {
    match identity::is_superuser(caller.role) {
        true => Ok(()),
        false => Err(Error::Privilege {
            problem: "must be a superuser".into(),
            detail: "A hook is called in every migration of this database, and can stop each."
                .into(),
            hint: "Ask a superuser to register it.".into(),
        }),
    }
}

/// Registers a function.
pub fn register(event: &str, function: Oid, caller: &Caller) -> Result<()> {
    require_event(event)?;
    require_superuser(caller)?;
    let found = spi::first(
        "SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner)::text, \
           p.prokind = 'f' AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype AND NOT p.proretset \
         FROM pg_proc p WHERE p.oid = $1",
        &[function.into()],
        |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?, row.need::<bool>(3)?)),
    )?;
    let Some((function, owner_name, fits)) = found else {
        return Err(Error::UndefinedObject {
            problem: "function does not exist".into(),
            detail: format!("No function has the oid {}.", function.to_u32()),
            hint: "Give it as 'schema.name(jsonb)'.".into(),
        });
    };
    if !fits {
        return Err(Error::InvalidArgument {
            problem: "the function cannot be a hook".into(),
            detail: format!("It is {function}."),
            hint: "A hook is a function of one argument of type jsonb that returns no set.".into(),
        });
    }
    let hook = Hook {
        event: event.into(),
        function,
        owner_name,
    };
    if !hook::insert(&hook)? {
        return Err(Error::Prerequisite {
            problem: "the hook is registered already".into(),
            detail: format!("{} is called at {event}.", hook.function),
            hint: "See transmute.hooks.".into(),
        });
    }
    record("hook registered", &hook, caller)
}

/// The name under which a hook is registered: the function may be gone, and be given without its schema.
fn registered(event: &str, function: &str) -> Result<String> {
    let mut all: Vec<String> = hook::of_event(event)?
        .into_iter()
        .map(|h| h.function)
        .collect();
    if all.iter().any(|f| f == function) {
        return Ok(function.into());
    }
    let behind_schema = format!(".{function}");
    let named = |f: &&String| f.ends_with(&behind_schema);
    match all.iter().filter(named).count() {
        1 => all.retain(|f| f.ends_with(&behind_schema)),
        found => {
            let known = match all.is_empty() {
                true => "none".into(),
                false => all.join(", "),
            };
            return Err(Error::UndefinedObject {
                problem: match found {
                    0 => "there is no such hook".into(),
                    _ => "the function is not the only one of its name".into(),
                },
                detail: format!("{function} at {event}; there: {known}."),
                hint: "Give it as it is listed in transmute.hooks.".into(),
            });
        }
    }
    all.pop().ok_or_else(|| Error::Bug("no hook of one".into()))
}

/// Takes a function off an event; it may have been dropped.
pub fn unregister(event: &str, function: &str, caller: &Caller) -> Result<()> {
    require_event(event)?;
    require_superuser(caller)?;
    let function = &registered(event, function)?;
    hook::delete(event, function)?;
    let hook = Hook {
        event: event.into(),
        function: function.into(),
        owner_name: String::new(),
    };
    record("hook removed", &hook, caller)
}

fn record(event: &str, hook: &Hook, caller: &Caller) -> Result<()> {
    let user = relation::role_name(caller.role)?;
    audit_event::append(Act {
        event,
        detail: Some(serde_json::json!({ "event": hook.event, "function": hook.function })),
        current_user: Some(&user),
        ..Act::default()
    })?;
    Ok(())
}

/// Calls the hooks before something that a person asks for; the first error is the answer.
pub fn before(event: &str, migration: &Migration, reason: Option<&str>) -> Result<()> {
    for hook in hook::of_event(event)? {
        let ended = call(&hook, migration, reason)?;
        if let Some(error) = ended.error {
            return Err(refusal(&hook, &error));
        }
    }
    Ok(())
}

fn refusal(hook: &Hook, (sqlstate, message): &(String, String)) -> Error {
    Error::Prerequisite {
        problem: format!("a {} hook refuses", hook.event),
        detail: format!("{}: {message} ({sqlstate}).", hook.function),
        hint: "Mend what it complains about, or ask a superuser for transmute.unhook.".into(),
    }
}

/// One call, in a subtransaction that an error undoes. Err: it was interrupted by somebody.
fn call(hook: &Hook, migration: &Migration, reason: Option<&str>) -> Result<Ended> {
    let facts = serde_json::json!({
        "event": hook.event,
        "id": migration.id,
        "state": migration.state.to_string(),
        "owner": migration.owner_name,
        "reason": reason,
    });
    let limit = guc::hook_timeout();
    let started = Instant::now();
    let result = xact::subtransaction(End::Keep, || {
        let (name, role) = resolve(hook)?;
        let facts = pgrx::JsonB(facts);
        timeout::within(limit, || {
            identity::as_role(role, &Session::own(), || {
                spi::execute(&format!("SELECT {name}($1)"), &[facts.into()])
            })
        })
    });
    let took = started.elapsed();
    let error = match result {
        Ok(_) => None,
        Err(error) if error.sqlstate_text() != failure::CANCELED => {
            Some((error.sqlstate_text(), error.to_string()))
        }
        Err(error) if took >= limit => Some((
            error.sqlstate_text(),
            format!("it took longer than {} ms", limit.as_millis()),
        )),
        Err(error) => return Err(error),
    };
    Ok(Ended {
        took_ms: took.as_secs_f64() * 1000.0,
        error,
    })
}

/// The function's qualified name and its owner, who must be the one of the registration.
fn resolve(hook: &Hook) -> Result<(String, Oid)> {
    let found = spi::first(
        "SELECT format('%I.%I', n.nspname, p.proname), p.proowner, pg_get_userbyid(p.proowner)::text \
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = to_regprocedure($1)",
        &[hook.function.as_str().into()],
        |row| Ok((row.need::<String>(1)?, row.need::<Oid>(2)?, row.need::<String>(3)?)),
    )?;
    match found {
        Some((name, owner, owner_name)) if owner_name == hook.owner_name => Ok((name, owner)),
        Some((_, _, owner_name)) => Err(Error::Prerequisite {
            problem: "the function has another owner than when it became a hook".into(),
            detail: format!("It belongs to \"{owner_name}\"."),
            hint: "Register it again: transmute.unhook, transmute.hook.".into(),
        }),
        None => Err(Error::UndefinedObject {
            problem: "the function does not exist any more".into(),
            detail: format!("It was {}.", hook.function),
            hint: "transmute.unhook takes it off.".into(),
        }),
    }
}

/// Whether hooks before finalization are still to be called.
pub fn are_due(migration: &Migration) -> Result<bool> {
    Ok(!hook::missing(&migration.id, PRE_FINALIZE)?.is_empty())
}

/// Calls one of those once nothing else holds finalization back; `None`: none is due.
pub fn tick(migration: &Migration) -> Result<Option<Next>> {
    if migration.state != State::AwaitingFinalization
        || migration.paused_reason.is_some()
        || super::look::pause_left(migration)?.is_some()
    {
        return Ok(None);
    }
    let missing = hook::missing(&migration.id, PRE_FINALIZE)?;
    let Some(hook) = missing.first() else {
        return Ok(None);
    };
    if !invariants::is_ready(migration)? {
        return Ok(None);
    }
    let ended = call(hook, migration, None)?;
    hook::insert_run(&migration.id, hook, &ended)?;
    if let Some(error) = &ended.error {
        let migration = migration::lock(&migration.id)?;
        if migration.was_asked_to_stop() {
            return Ok(Some(Next::Again)); // just now
        }
        let error = refusal(hook, error);
        let waiting_for = format!("a person: {error}: {}", error.detail().unwrap_or_default());
        failure::stop(&migration, &error, &waiting_for)?;
    }
    waitpoint::reach("hook_before_commit")?;
    Ok(Some(Next::Again))
}

/// Calls one hook that an event has asked for; false: none is left. What fails is written down, and undoes nothing else.
pub fn call_asked() -> Result<bool> {
    if !hook::any_asked()? {
        return Ok(false);
    }
    let Some((id, migration_id, hook)) = hook::claim()? else {
        return Ok(false);
    };
    let ended = call(&hook, &migration::get(&migration_id)?, None)?;
    hook::set_ended(id, &ended)?;
    if let Some((sqlstate, message)) = &ended.error {
        audit_event::append(Act {
            migration_id: Some(&migration_id),
            event: "hook failed",
            detail: Some(serde_json::json!({
                "event": hook.event, "function": hook.function, "sqlstate": sqlstate, "message": message,
            })),
            ..Act::default()
        })?;
        crate::log::warning(&format!(
            "transmute: migration \"{migration_id}\": {} hook {}: {message} ({sqlstate})",
            hook.event, hook.function
        ));
    }
    waitpoint::reach("hook_before_commit")?;
    Ok(true)
}
