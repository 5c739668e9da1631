//! Background processes: signals that really interrupt, latches, connections.

use super::neighbours;
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::pg_sys;
use pgrx::IntoDatum;
use std::ffi::CStr;

/// The server's handlers, declared again: the bindings are Rust wrappers and cannot be handed over.
mod handlers {
    extern "C" {
        pub fn die(signal: i32);
        pub fn StatementCancelHandler(signal: i32);
        pub fn SignalHandlerForConfigReload(signal: i32);
        pub fn kill(process: i32, signal: i32) -> i32;
    }
}

/// SIGTERM ends even a running statement, SIGINT cancels it, SIGHUP reloads: as in an ordinary backend.
/// (pgrx's own handlers only set a flag, and a long statement would not see it.)
pub fn install_signal_handlers() {
    super::usage::ignore_this_process();
    // SAFETY: the server's own handlers, installed before signals are unblocked.
    unsafe {
        super::compat::signal(libc_signal::SIGTERM, handlers::die);
        super::compat::signal(libc_signal::SIGINT, handlers::StatementCancelHandler);
        super::compat::signal(libc_signal::SIGHUP, handlers::SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Numbers that are the same on every platform we build for.
mod libc_signal {
    pub const SIGHUP: i32 = 1;
    pub const SIGINT: i32 = 2;
    pub const SIGTERM: i32 = 15;
}

/// What applications set for a database or role as their habit, and what our transactions rely on: a snapshot for each statement, taken
/// behind the lock; writing; and no end that somebody else chose.
const OWN_HABITS: &[(&CStr, &CStr)] = &[
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"lock_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
];

/// Connects this worker to no database (`None`: shared catalogs only) or to one, as bootstrap superuser.
pub fn connect(database: Option<pg_sys::Oid>) {
    // Filling the caches takes long.
    let _heeding = neighbours::heed();
    // SAFETY: first call after signals are set up; the strings are static, and the server keeps copies.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            database.unwrap_or(pg_sys::InvalidOid),
            pg_sys::InvalidOid,
            0,
        );
        for &(name, value) in OWN_HABITS {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Sleeps until the latch is set or the time is over, then answers signals and reloads settings.
/// Outside a transaction. Ends the process when the postmaster is gone.
pub fn wait(milliseconds: i64) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            milliseconds as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        // A cancel that came too late: there is nothing to cancel here.
        pg_sys::QueryCancelPending = 0;
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Sets the latch of another backend; nothing happens when it is gone.
pub fn wake(pid: i32) {
    if pid <= 0 {
        return;
    }
    // SAFETY: PGPROC entries are never freed, so a stale pointer wakes somebody at worst.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&mut (*process).procLatch);
        }
    }
}

/// Whether the backend is alive.
pub fn is_alive(pid: i32) -> bool {
    // SAFETY: looks in shared memory under the server's own lock.
    pid > 0 && unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

/// Interrupts what another backend runs now; nothing happens when it is gone.
pub fn interrupt(pid: i32) -> crate::error::Result<()> {
    super::spi::value::<bool>(
        "SELECT pg_catalog.pg_cancel_backend($1) WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1)",
        &[pid.into()],
    )?;
    Ok(())
}

/// Interrupts what another backend runs once this transaction has committed.
pub fn interrupt_at_commit(pid: i32) {
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, move || {
        if is_alive(pid) {
            // SAFETY: a backend of this server, as pg_cancel_backend signals it.
            unsafe { handlers::kill(pid, libc_signal::SIGINT) };
        }
    });
}

/// Forgets a cancel that found nothing to cancel.
pub fn forget_cancel() {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::QueryCancelPending = 0 }
}

/// Sleeps in a session; it can be interrupted.
pub fn nap(time: std::time::Duration) {
    if time.is_zero() {
        return;
    }
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: own latch, as pg_sleep waits on it.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis().max(1) as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Asks the postmaster for a worker of ours in this database; false when no slot is free.
pub fn start_worker(kind: &str, function: &str, extra: &str) -> bool {
    worker(kind, function)
        .set_extra(extra)
        .load_dynamic()
        .is_ok()
}

fn worker(kind: &str, function: &str) -> BackgroundWorkerBuilder {
    BackgroundWorkerBuilder::new(kind)
        .set_type(kind)
        .set_library("transmute")
        .set_function(function)
        .set_argument(super::activity::database().into_datum())
        .enable_spi_access()
}

/// A worker that was asked for, beyond the transaction that did.
pub struct Asked(*mut pg_sys::BackgroundWorkerHandle);

/// As `start_worker`; its start and its end wake this process.
pub fn ask_for_worker(kind: &str, function: &str) -> Option<Asked> {
    let builder = worker(kind, function).set_notify_pid(super::activity::pid());
    let mut wanted = pg_sys::BackgroundWorker::from(&builder);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the handle is allocated in the current context, which has to be one that stays; an error in between ends the
    // transaction, which sets the context anew.
    let started = unsafe {
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let started = pg_sys::RegisterDynamicBackgroundWorker(&mut wanted, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        started
    };
    started.then(|| Asked(handle)) // not then_some: one that is dropped frees it
}

impl Asked {
    /// It came and is gone, or will never come.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle of a registration of this process, freed in `drop` only.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // SAFETY: allocated by `ask_for_worker`, and nobody else has it.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

/// Ends the worker; code 0: it is not started again.
#[allow(
    unreachable_code,
    reason = "only some versions' bindings say that proc_exit does not return"
)]
pub fn exit(code: i32) -> ! {
    // SAFETY: runs the server's exit callbacks.
    unsafe { pg_sys::proc_exit(code) };
    unreachable!("proc_exit came back")
}

/// DATCONNLIMIT_INVALID_DB of pg_database.h.
const INVALID_DATABASE: i32 = -2;

/// Databases that accept connections and are no templates. In a worker without a database.
pub fn databases() -> Vec<pg_sys::Oid> {
    let mut result = Vec::new();
    // SAFETY: the pattern of get_database_list (autovacuum.c): a catalog scan in a transaction.
    unsafe {
        pg_sys::StartTransactionCommand();
        let _ = pg_sys::GetTransactionSnapshot();
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // A DROP DATABASE that was interrupted leaves connection limit -2: nobody can connect.
            if form.datallowconn && !form.datistemplate && form.datconnlimit != INVALID_DATABASE {
                result.push(form.oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::CommitTransactionCommand();
    }
    result
}

/// True while shared_preload_libraries are loaded: the only time to ask for shared memory.
pub fn preloading() -> bool {
    // SAFETY: plain read.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// pg_upgrade drives this server: no worker may touch anything.
pub fn binary_upgrade() -> bool {
    // SAFETY: plain read.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// The server is in recovery (a standby).
pub fn in_recovery() -> bool {
    // SAFETY: looks in shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The transaction may not write: a standby, or set so.
pub fn read_only() -> bool {
    // SAFETY: plain read.
    unsafe { pg_sys::XactReadOnly }
}

/// Names the settings prefix as ours, so that a misspelt `transmute.x` is refused.
pub fn reserve_setting_prefix(prefix: &CStr) {
    // SAFETY: after all settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}
