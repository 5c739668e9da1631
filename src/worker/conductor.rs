//! One per database while there is work: drives every queued migration, tick by tick, then ends.

use super::{driver, hand};
use crate::backfill::growth;
use crate::catalog::growth as catalog;
use crate::engine::tick::Next;
use crate::engine::{artifact, failure, hooks, look, signals, tick, usage};
use crate::error::{Error, Result};
use crate::pg::{
    activity, extension, identity, neighbours, portal, process, slots, spi, waitpoint, xact, Datum,
    Oid,
};
use crate::store::{migration, node, stop};
use pgrx::prelude::*;
use std::time::Duration;

/// Advisory lock held for the conductor's life, (class, object): at most one a database, also when a restarted
/// launcher starts a second one.
const LOCK: (i32, i32) = (74_617, 2);
/// Longest sleep while migrations are queued.
const MAX_NAP: Duration = Duration::from_millis(500);
/// It stays for a while after the last migration: the next one starts without a fork.
const LINGER_ROUNDS: u32 = 10;

/// Entry point, by name from the server; the argument is the database's oid.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_conductor_main(arg: Datum) {
    process::install_signal_handlers();
    let database = Oid::from(arg.value() as u32);
    process::connect(Some(database));
    let alone = transaction(|| {
        Ok(spi::value::<bool>(
            "SELECT pg_try_advisory_lock($1, $2)",
            &[LOCK.0.into(), LOCK.1.into()],
        )? == Some(true))
    });
    if !matches!(alone, Ok(true)) {
        // Another one is here, or leaving. The wish stays: the launcher looks again.
        process::exit(0);
    }
    slots::begin(database.to_u32(), activity::pid());
    growth::this_process_vacuums();
    // Without the extension there is nothing to announce; the first round sees to the rest.
    let _ = transaction(|| match installed() {
        true => node::announce("conductor"),
        false => Ok(()),
    });
    let mut idle_rounds = 0;
    loop {
        match round() {
            Ok(Some(nap)) => {
                idle_rounds = 0;
                rest(nap);
            }
            Ok(None) if idle_rounds < LINGER_ROUNDS => {
                if idle_rounds == 0 {
                    let _ = transaction(|| match installed() {
                        true => node::works_on(None),
                        false => Ok(()),
                    });
                }
                idle_rounds += 1;
                rest(MAX_NAP);
            }
            Ok(None) => {
                if slots::end(database.to_u32()) {
                    let _ = transaction(|| match installed() {
                        true => node::leave(),
                        false => Ok(()),
                    });
                    process::exit(0);
                }
                idle_rounds = 0;
            }
            Err(error) => {
                complain("conductor", &error);
                rest(MAX_NAP);
            }
        }
    }
}

/// Sleeps, visible as idle.
pub(super) fn rest(nap: Duration) {
    activity::idle();
    if !nap.is_zero() {
        process::wait(nap.as_millis().max(1) as i64);
    }
}

/// A transaction as the extension, which leaves the processor to the application when that wants it.
pub(super) fn transaction<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _heeding = neighbours::heed();
    process::forget_cancel(); // of what ran before
    xact::run(|| {
        extension::keep();
        identity::as_extension(f)
    })
}

fn installed() -> bool {
    !process::in_recovery() && extension::keep()
}

/// Writes into the log what failed. Where the extension is dropped between two transactions everything fails, and nobody
/// needs to hear of it.
pub(super) fn complain(what: &str, error: &Error) {
    if matches!(xact::run(|| Ok(extension::keep())), Ok(false)) {
        return;
    }
    crate::log::message(format!("{what}: {error} ({})", error.sqlstate_text()));
}

/// Ticks every queued migration once; how long to sleep, `None` when nothing is queued.
fn round() -> Result<Option<Duration>> {
    activity::running("transmute: looking for work");
    let queued = transaction(|| {
        if !installed() {
            return Ok(None);
        }
        let queued = migration::worth_a_look()?;
        Ok(Some(queued))
    })?;
    let Some(queued) = queued else {
        return Ok(None);
    };
    tell();
    if let Err(error) = transaction(usage::collect) {
        complain("uses of old shapes are not written down", &error);
    }
    loop {
        match transaction(|| Ok(!stop::is_open()? && artifact::drop_expired()?)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                complain("an expired artifact cannot be dropped", &error);
                transaction(artifact::postpone_first)?;
            }
        }
    }
    let mut nap: Option<Duration> = None;
    let alone = queued.len() == 1;
    for id in queued {
        // One that cannot even be recorded must not keep the others waiting.
        let pause = conduct_on(&id, alone).unwrap_or_else(|error| {
            complain(&format!("migration \"{id}\""), &error);
            Some(MAX_NAP)
        });
        // Where one has ended another one may begin.
        let pause = pause.unwrap_or_default();
        nap = Some(nap.map_or(pause, |n| n.min(pause)));
    }
    Ok(nap)
}

/// Sends the signals that were committed and calls the hooks that events have asked for: what a tick has done is told before
/// the next one does more.
fn tell() {
    if let Err(error) = transaction(signals::send) {
        complain("signals are kept back", &error);
    }
    call_hooks();
}

/// Calls what events have asked for, each in a transaction of its own.
fn call_hooks() {
    loop {
        match transaction(hooks::call_asked) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // Interrupted, or the server is in need: in the next round again.
                complain("a hook was not called", &error);
                return;
            }
        }
    }
}

/// Short ticks that the only migration gets before anything else is looked at.
const TICKS: usize = 8;

/// One tick of one migration; where it is the only one, as many as come at once.
fn conduct_on(id: &str, alone: bool) -> Result<Option<Duration>> {
    let mut pause = conduct(id)?;
    for _ in 1..TICKS {
        let more = alone && pause == Some(Duration::ZERO);
        if !more || matches!(transaction(|| driver::takes(id)), Ok(true)) {
            break;
        }
        tell();
        pause = drive(id)?;
    }
    keep_lock();
    Ok(pause)
}

/// One tick of one migration, unless a process of its own has its long step.
fn conduct(id: &str) -> Result<Option<Duration>> {
    // A look that writes nothing: a soak of days must not cost transaction ids.
    // An error in it is left to the tick, which records it.
    match transaction(|| look::peek(id)) {
        Ok(Some(pause)) => return Ok(Some(pause.min(MAX_NAP))),
        Ok(None) if matches!(transaction(|| driver::takes(id)), Ok(true)) => {
            return Ok(Some(MAX_NAP));
        }
        _ => {}
    }
    drive(id)
}

/// One tick of one migration, and what a failure leaves behind; `None`: it needs nobody any more.
pub(super) fn drive(id: &str) -> Result<Option<Duration>> {
    activity::running(&format!("transmute: migration {id}"));
    let mut resumed_us = None;
    let result = transaction(|| {
        resumed_us = Some(migration::resumed_us(id)?);
        node::works_on(Some(id))?;
        hand::start_missing(id)?;
        tick::tick(id)
    });
    match result {
        Ok(Next::Again) => {
            after_commit()?;
            Ok(Some(Duration::ZERO))
        }
        Ok(Next::Wait(pause)) => Ok(Some(pause.min(MAX_NAP))),
        Ok(Next::Vacuum(table)) => {
            vacuum(id, table)?;
            Ok(Some(Duration::ZERO))
        }
        Ok(Next::Done) => Ok(None),
        Err(error) => {
            record_failure(id, &error, resumed_us)?;
            Ok(Some(Duration::from_millis(50)))
        }
    }
}

/// Vacuums a table between two batches, at the pace of autovacuum. What it could not do shows in what is left.
fn vacuum(id: &str, table: Oid) -> Result<()> {
    let (statement, delay) =
        transaction(|| Ok((growth::statement(table)?, catalog::cost_delay_ms()?)))?;
    if let Some(statement) = statement {
        activity::running(&statement);
        let _heeding = neighbours::heed();
        process::forget_cancel();
        let done = portal::run(&format!("SET vacuum_cost_delay = {delay}"))
            .and_then(|()| portal::run(&statement));
        // A pause, or whoever wanted the table: the next tick, or the next vacuum, sees to it.
        if let Err(error) = done {
            complain(&format!("migration \"{id}\": {statement}"), &error);
        }
    }
    activity::idle();
    transaction(|| growth::vacuumed(id, table))
}

/// Expressions of users ran in this session, and pg_advisory_unlock_all() is anybody's: take the lock again, or leave
/// to who has it now.
fn keep_lock() {
    let held = transaction(|| {
        Ok(spi::value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' \
               AND classid = $1::int8::oid AND objid = $2::int8::oid AND granted) \
               OR pg_try_advisory_lock($1, $2)",
            &[LOCK.0.into(), LOCK.1.into()],
        )? == Some(true))
    });
    match held {
        Ok(true) => {}
        // Interrupted, perhaps: the next round asks again.
        Err(error) => complain("conductor", &error),
        Ok(false) => process::exit(0),
    }
}

/// Stops here while a test holds the point "after a commit".
fn after_commit() -> Result<()> {
    if cfg!(feature = "waitpoints") {
        transaction(|| waitpoint::reach("after_commit"))?;
    }
    Ok(())
}

pub(super) fn record_failure(id: &str, error: &Error, resumed_us: Option<i64>) -> Result<()> {
    transaction(|| failure::record_of_try(id, error, resumed_us))
}
