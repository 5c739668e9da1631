//! Background processes. `README.md` beside this file: who starts whom, shared memory, crashes.

pub mod conductor;
pub mod hand;
pub mod launcher;
pub mod runner;
pub mod scribe;
pub mod session;

use crate::pg::{activity, process, slots, usage};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use std::time::Duration;

/// What pg_stat_activity.backend_type shows.
pub const LAUNCHER: &str = "transmute launcher";
pub const CONDUCTOR: &str = "transmute conductor";
pub const HAND: &str = "transmute hand";
pub const SCRIBE: &str = "transmute scribe";

/// Shared memory and launcher; only while shared_preload_libraries are loaded.
pub fn init() {
    slots::init();
    usage::init();
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_type(LAUNCHER)
        .set_library("transmute")
        .set_function("transmute_launcher_main")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_spi_access()
        .load();
}

/// Whether this server runs our processes.
pub fn available() -> bool {
    slots::preloaded()
}

/// Has a conductor look at this database once the transaction has committed.
pub fn wake_at_commit() {
    if !available() {
        return;
    }
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, || {
        let (conductor, launcher) = slots::request(activity::database().to_u32());
        process::wake(conductor);
        process::wake(launcher);
    });
}
