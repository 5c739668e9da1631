//! `CALL transmute.run`: a person's session drives, for servers without our processes.

use crate::engine::{artifact, call, failure, hooks, sight, signals, tick, undo, usage};
use crate::error::{Error, Result};
use crate::pg::identity::{self, Caller};
use crate::pg::procedure::{self, Call};
use crate::pg::process;
use crate::pg::xact::{self, End};
use crate::store::{migration, node, stop};
use std::time::Duration;

/// After a failure; the next try decides by itself how long it waits.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Drives one migration, or all that the caller may drive, until nothing is left to do, a person is needed, or so many
/// ticks are done.
pub fn run(call: Call, id: Option<&str>, max_steps: Option<i32>, caller: &Caller) -> Result<()> {
    if max_steps.is_some_and(|n| n <= 0) {
        return Err(Error::InvalidArgument {
            problem: "max_steps must be positive".into(),
            detail: format!("max_steps is {}.", max_steps.unwrap_or_default()),
            hint: "Leave it out to go on until nothing is left to do.".into(),
        });
    }
    procedure::run(call, || {
        let mut left = max_steps;
        // What only follows the writes of others is brought up to date once.
        let mut rested: Vec<String> = Vec::new();
        loop {
            while housekeeping()? {}
            procedure::begin_statement();
            let mut ids = identity::as_extension(|| {
                usage::collect()?;
                call::driven(id, caller).map_err(|error| sight::as_told(error, caller))
            })?;
            ids.retain(|one| !rested.contains(one));
            if ids.is_empty() {
                return Ok(());
            }
            let mut nap: Option<Duration> = None;
            for one in &ids {
                procedure::begin_statement();
                if let Some(pause) = drive(one)? {
                    nap = Some(nap.map_or(pause, |n| n.min(pause)));
                }
                procedure::begin_statement();
                if identity::as_extension(|| undo::rests(one))? {
                    rested.push(one.clone());
                }
                left = left.map(|n| n - 1);
                if left == Some(0) || (id.is_some() && stops(one)?) {
                    return Ok(());
                }
            }
            process::nap(nap.unwrap_or_default());
        }
    })
}

/// Sends signals, calls one hook that an event has asked for, or drops one expired artifact, in a transaction of its own; false: there is
/// nothing to do.
fn housekeeping() -> Result<bool> {
    procedure::begin_statement();
    let done =
        identity::as_extension(|| Ok(signals::send()? || hooks::call_asked()? || drop_expired()?))?;
    if done {
        procedure::commit();
    }
    Ok(done)
}

/// An artifact that somebody uses keeps nobody waiting.
fn drop_expired() -> Result<bool> {
    if stop::is_open()? {
        return Ok(false);
    }
    match xact::subtransaction(End::Keep, artifact::drop_expired) {
        Err(error) if error.sqlstate_text() != failure::CANCELED => {
            pgrx::notice!("an expired artifact cannot be dropped: {error}");
            artifact::postpone_first()?;
            Ok(true)
        }
        result => result,
    }
}

/// One tick, committed, with what its failure leaves behind; `None`: it needs nobody any more.
fn drive(id: &str) -> Result<Option<Duration>> {
    let mut resumed_us = None;
    let result = xact::subtransaction(End::Keep, || {
        identity::as_extension(|| {
            resumed_us = Some(migration::resumed_us(id)?);
            node::announce("session")?;
            node::works_on(Some(id))?;
            let next = tick::tick(id)?;
            if next == tick::Next::Done {
                node::leave()?;
            }
            Ok(next)
        })
    });
    let pause = match result {
        Ok(tick::Next::Again) => Some(Duration::ZERO),
        Ok(tick::Next::Wait(pause)) => Some(pause),
        Ok(tick::Next::Vacuum(_)) => Some(AFTER_FAILURE), // not asked of a session: a procedure cannot
        Ok(tick::Next::Done) => None,
        Err(error) => {
            let ours = identity::as_extension(|| {
                if error.sqlstate_text() == failure::CANCELED
                    && !migration::get(id)?.was_asked_to_stop()
                {
                    return Ok(false);
                }
                failure::record_of_try(id, &error, resumed_us)?;
                Ok(true)
            })?;
            if !ours {
                return Err(error); // whoever sits here wants the call to end
            }
            Some(AFTER_FAILURE)
        }
    };
    procedure::commit();
    Ok(pause)
}

/// A migration that only a person can help is not waited for in the foreground.
fn stops(id: &str) -> Result<bool> {
    procedure::begin_statement();
    identity::as_extension(|| {
        let stops = migration::needs_person(id)?;
        if stops {
            pgrx::notice!("{}", migration::progress_line(id)?);
        }
        Ok(stops)
    })
}
