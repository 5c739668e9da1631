//! Long steps: index builds, scans, statements over many rows. A process of their own takes them, so that the conductor goes
//! on to keep the shadows of other migrations current, and to begin with others.

use super::conductor::{self, complain, transaction};
use super::{available, DRIVER};
use crate::backfill::growth;
use crate::engine::look;
use crate::error::Result;
use crate::guc;
use crate::pg::process::{self, Asked};
use crate::pg::{activity, slots, Datum, Oid};
use crate::store::{driver, migration, node};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One that was asked for shows within this time what it drives; another one that comes meanwhile finds nothing and ends.
const PATIENCE: Duration = Duration::from_millis(300);

thread_local! {
    /// The last one that this conductor has asked for, by migration.
    static ASKED: RefCell<HashMap<String, (Instant, Asked)>> = RefCell::default();
}

/// Whether one that was asked for may still come, or go on.
fn may_come((at, worker): &(Instant, Asked)) -> bool {
    at.elapsed() < PATIENCE && !worker.has_ended()
}

/// Whether the next thing of a migration is left to a process of its own. Without a free worker slot the conductor does it.
pub fn takes(id: &str) -> Result<bool> {
    let most = guc::max_parallel_migrations() as usize;
    if most == 0 || !available() || !look::is_long(id)? {
        return Ok(false);
    }
    if driver::pid(id)?.is_some() || node::has_driver(id)? {
        return Ok(true);
    }
    let asked = ASKED.with_borrow(|asked| asked.get(id).is_some_and(may_come));
    // With all of them at work it waits for the first that is through.
    if asked || node::count_of(DRIVER)? >= most {
        return Ok(true);
    }
    let Some(worker) = process::ask_for_worker(DRIVER, "transmute_driver_main") else {
        return Ok(false);
    };
    ASKED.with_borrow_mut(|asked| {
        asked.retain(|_, one| may_come(one));
        asked.insert(id.to_string(), (Instant::now(), worker));
    });
    Ok(true)
}

/// Entry point, by name from the server; the argument is the database's oid.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_driver_main(arg: Datum) {
    process::install_signal_handlers();
    process::connect(Some(Oid::from(arg.value() as u32)));
    growth::this_process_vacuums();
    let _ = transaction(|| node::announce("driver"));
    loop {
        match transaction(next) {
            Ok(Some(id)) => drive(&id),
            Ok(None) => break,
            Err(error) => {
                complain("driver", &error);
                break;
            }
        }
    }
    let _ = transaction(node::leave);
    activity::idle();
    let (conductor, _) = slots::request(activity::database().to_u32());
    process::wake(conductor);
    process::exit(0);
}

/// The first migration with a long step that nobody drives; it is ours from the commit on.
fn next() -> Result<Option<String>> {
    for id in migration::worth_a_look()? {
        if look::is_long(&id)? && driver::pid(&id)?.is_none() && !node::has_driver(&id)? {
            node::works_on(Some(&id))?;
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Drives a migration as long as its next thing is a long one.
fn drive(id: &str) {
    while matches!(transaction(|| look::is_long(id)), Ok(true)) {
        match conductor::drive(id) {
            Ok(Some(pause)) => conductor::rest(pause),
            Ok(None) => return,
            Err(error) => {
                complain(&format!("migration \"{id}\""), &error);
                return;
            }
        }
    }
}
