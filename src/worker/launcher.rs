//! One per cluster, connected to no database. Starts a conductor where one is asked for, and everywhere once at start
//! and then hourly (artifacts expire).

use super::CONDUCTOR;
use crate::pg::{activity, process, slots, Datum, Oid};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const PROBE_EVERY: Duration = Duration::from_secs(3600);
/// A conductor that dies at once is not started more often than this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Entry point, by name from the server.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_launcher_main(_arg: Datum) {
    process::install_signal_handlers();
    process::connect(None);
    slots::set_launcher(activity::pid());
    let mut last_probe: Option<Instant> = None;
    let mut starts = Starts::default();
    loop {
        let known = process::databases();
        if last_probe.is_none_or(|at| at.elapsed() >= PROBE_EVERY) {
            last_probe = Some(Instant::now());
            for database in &known {
                slots::request(database.to_u32());
            }
        }
        let mut later = false;
        for (database, died) in slots::wanted(|pid| !process::is_alive(pid)) {
            if !known.contains(&Oid::from(database)) {
                slots::forget(database);
            } else if starts.may_start(database, died) {
                start_conductor(database, &mut starts);
                later = true;
            } else {
                later = true;
            }
        }
        activity::idle();
        process::wait(if later { RESTART_PAUSE } else { PROBE_EVERY }.as_millis() as i64);
    }
}

/// When each database's conductor was last started, so that one that dies at once is not started in a circle (its end
/// sets our latch), and one that DROP DATABASE … WITH (FORCE) ended is looked at again when that is through.
#[derive(Default)]
struct Starts {
    last: HashMap<u32, Instant>,
    complained: Option<Instant>,
}

impl Starts {
    fn may_start(&mut self, database: u32, died: bool) -> bool {
        let now = Instant::now();
        match self.last.get(&database) {
            Some(last) => last.elapsed() >= RESTART_PAUSE,
            None if died => {
                self.last.insert(database, now);
                false
            }
            None => true,
        }
    }

    /// At most once a minute.
    fn complain(&mut self, database: u32) {
        if self
            .complained
            .is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            crate::log::message(format!(
                "no background worker slot is free for database {database}; raise max_worker_processes"
            ));
        }
    }
}

/// Asks the postmaster for a conductor and waits until it runs; its end sets our latch (SIGUSR1), and we look again.
fn start_conductor(database: u32, starts: &mut Starts) {
    starts.last.insert(database, Instant::now());
    let started = BackgroundWorkerBuilder::new(CONDUCTOR)
        .set_type(CONDUCTOR)
        .set_library("transmute")
        .set_function("transmute_conductor_main")
        .set_argument(Oid::from(database).into_datum())
        .set_notify_pid(activity::pid())
        .enable_spi_access()
        .load_dynamic();
    match started {
        Ok(worker) => {
            let _ = worker.wait_for_startup();
        }
        Err(_) => starts.complain(database),
    }
}
