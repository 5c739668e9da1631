//! One per cluster, connected to no database. Starts a conductor where one is asked for, and everywhere once at start
//! and then hourly (artifacts expire).

use super::CONDUCTOR;
use crate::pg::{activity, process, slots, Datum, Oid};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const PROBE_EVERY: Duration = Duration::from_secs(3600);
/// A conductor that dies at once is not started more often than this.
const RESTART_PAUSE_MS: i64 = 1000;

/// Entry point, by name from the server.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_launcher_main(_arg: Datum) {
    process::install_signal_handlers();
    process::connect(None);
    slots::set_launcher(activity::pid());
    let mut last_probe: Option<Instant> = None;
    let (mut dead_before, mut dead_now) = (HashSet::new(), HashSet::new());
    loop {
        let known = process::databases();
        if last_probe.is_none_or(|at| at.elapsed() >= PROBE_EVERY) {
            last_probe = Some(Instant::now());
            for database in &known {
                slots::request(database.to_u32());
            }
        }
        let mut missing = false;
        for (database, died) in slots::wanted(|pid| !process::is_alive(pid)) {
            if !known.contains(&Oid::from(database)) {
                slots::forget(database);
            } else if died && !dead_before.contains(&database) {
                // Perhaps DROP DATABASE … WITH (FORCE) ended it and is not through yet: not before the next look.
                dead_now.insert(database);
                missing = true;
            } else {
                missing |= !start_conductor(database);
            }
        }
        dead_before = std::mem::take(&mut dead_now);
        activity::idle();
        if missing {
            // No worker slot is free, or one has just been started: look again soon.
            process::wait(RESTART_PAUSE_MS);
        } else {
            process::wait(PROBE_EVERY.as_millis() as i64);
        }
    }
}

/// True if the postmaster took the request and the conductor announced itself.
fn start_conductor(database: u32) -> bool {
    let started = BackgroundWorkerBuilder::new(CONDUCTOR)
        .set_type(CONDUCTOR)
        .set_library("transmute")
        .set_function("transmute_conductor_main")
        .set_argument(Oid::from(database).into_datum())
        .set_notify_pid(activity::pid())
        .enable_spi_access()
        .load_dynamic();
    match started {
        // Its end sets our latch (SIGUSR1 from the postmaster), and we look again.
        Ok(worker) => worker.wait_for_startup().is_ok(),
        Err(_) => {
            pgrx::log!(
                "transmute: no background worker slot is free for database {database}; \
                 raise max_worker_processes"
            );
            false
        }
    }
}
