// SPDX-License-Identifier: Apache-2.0
//! Every setting: why its default, its unit, what 0 means.

use crate::pg::process;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;
use std::time::Duration;

/// What events look like in the server's log.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum LogFormat {
    #[name = c"text"]
    Text,
    #[name = c"json"]
    Json,
}

/// Where this server is used; `prod`, `production`, `live` (any case) make soaks and approvals the default.
static ENVIRONMENT: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"development"));
/// 'default': 4 days in production, none elsewhere. Four days: a weekend and two working days.
static PRE_EXECUTION_SOAK: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"default"));
static PRE_FINALIZATION_SOAK: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"default"));
/// -1: 1 in production, 0 elsewhere.
static REQUIRED_APPROVALS: GucSetting<i32> = GucSetting::<i32>::new(-1);
static APPROVER_ROLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static FOUR_EYES: GucSetting<bool> = GucSetting::<bool>::new(false);
/// 100 ms: nobody behind us in a lock queue waits longer (peers.md 10: stalls of peers come from here).
static LOCK_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(100);
/// 100 ms a batch: short enough that pause, SIGTERM and DDL of others never wait long, long enough that
/// transaction overhead is below one percent.
static BATCH_TARGET_MS: GucSetting<i32> = GucSetting::<i32>::new(100);
/// One hand by default: the application keeps the machine.
static MAX_PARALLEL_BACKFILL: GucSetting<i32> = GucSetting::<i32>::new(1);
/// Long steps (index builds, scans) of so many migrations at a time; 0: the conductor does them one after the other.
static MAX_PARALLEL_MIGRATIONS: GucSetting<i32> = GucSetting::<i32>::new(4);
/// Percent of the time a hand works; the rest it sleeps.
static BACKFILL_DUTY: GucSetting<i32> = GucSetting::<i32>::new(100);
/// kB a second, 0: no limit. What is right depends on disks and replicas, so there is no default.
static MAX_WAL_RATE_KB: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Enough that short ones do not wait behind a long one, few enough for disks and locks.
static MAX_RUNNING: GucSetting<i32> = GucSetting::<i32>::new(4);
/// Sessions, 0: no limit.
static MAX_LOAD: GucSetting<i32> = GucSetting::<i32>::new(0);
/// 0: no limit.
static MAX_REPLICA_LAG_MS: GucSetting<i32> = GucSetting::<i32>::new(0);
/// kB, 0: no limit. How much is right depends on the disk of pg_wal.
static MAX_SLOT_RETENTION_KB: GucSetting<i32> = GucSetting::<i32>::new(0);
/// 30 %: a table in which every row is changed would else be twice as large; 0: no limit.
static MAX_GROWTH: GucSetting<i32> = GucSetting::<i32>::new(30);
static MAX_DEAD_LETTERS: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_RETRIES: GucSetting<i32> = GucSetting::<i32>::new(3);
static RETRY_DELAY_MS: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static KEEP_ARTIFACTS: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"7 days"));
/// 100 ms: how often the shadow is brought up to date while it waits; also the resolution of soaks.
static DRAIN_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(100);
/// 500 keys take about 10 ms under the lock; more are drained before it is asked for.
static MAX_DRAIN_LAG: GucSetting<i32> = GucSetting::<i32>::new(500);
/// 5 min: a swap that waits for its lock does not refresh large views all the time, yet they show what is recent.
static MAX_MATVIEW_AGE_S: GucSetting<i32> = GucSetting::<i32>::new(300);
/// -1: 100 in production, no limit elsewhere. A script of careful steps stays below it.
static RISK_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(-1);
/// 94: everything but what is certain to fail as the data is now (level blocked).
static MAX_RISK: GucSetting<i32> = GucSetting::<i32>::new(94);
static BLOCKED_KINDS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static BLOCKED_REASONS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ENFORCE_ADDITIVE_FIRST: GucSetting<bool> = GucSetting::<bool>::new(false);
static REQUIRE_PREFLIGHT: GucSetting<bool> = GucSetting::<bool>::new(false);
/// Off: who changes a table under a running migration most often does not know of it.
static ALLOW_DDL: GucSetting<bool> = GucSetting::<bool>::new(false);
/// 30 s: longer than a count of what an index finds, shorter than a scan that nobody meant.
static INVARIANT_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(30_000);
/// 1 s: what a dashboard draws; 0: none.
static SIGNAL_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// 30 s: whoever calls apply waits for it.
static HOOK_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(30_000);
/// Empty: nobody is ever ended for us.
static CANCEL_BLOCKERS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Any number that nobody else uses for an advisory lock with one key; 0: callers do not wait for each other.
static LOCK_ID: GucSetting<i32> = GucSetting::<i32>::new(746_170_001);
static LOG_FORMAT: GucSetting<LogFormat> = GucSetting::<LogFormat>::new(LogFormat::Text);

fn flag(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    setting: &'static GucSetting<bool>,
) {
    GucRegistry::define_bool_guc(
        name,
        short,
        c"",
        setting,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn text(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    GucRegistry::define_string_guc(
        name,
        short,
        c"",
        setting,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn int(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    range: (i32, i32),
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(
        name,
        short,
        c"",
        setting,
        range.0,
        range.1,
        GucContext::Suset,
        flags,
    );
}

pub fn init() {
    text(
        c"transmute.environment",
        c"Kind of server: prod, production or live turn soaks and approvals on by default.",
        &ENVIRONMENT,
    );
    text(c"transmute.pre_execution_soak", c"Time between apply and the first step, as an interval; default: 4 days in production, none elsewhere.", &PRE_EXECUTION_SOAK);
    text(c"transmute.pre_finalization_soak", c"Time both shapes are kept before finalization, as an interval; default: 4 days in production, none elsewhere.", &PRE_FINALIZATION_SOAK);
    int(
        c"transmute.required_approvals",
        c"Distinct approvers needed before finalization; -1: 1 in production, 0 elsewhere.",
        &REQUIRED_APPROVALS,
        (-1, 100),
        GucFlags::default(),
    );
    text(
        c"transmute.approver_role",
        c"Approvers must be members of this role; empty: EXECUTE on approve suffices.",
        &APPROVER_ROLE,
    );
    GucRegistry::define_bool_guc(
        c"transmute.four_eyes",
        c"Neither who registered nor who applied a migration may approve it.",
        c"",
        &FOUR_EYES,
        GucContext::Suset,
        GucFlags::default(),
    );
    int(
        c"transmute.risk_budget",
        c"Sum of the risk scores of all steps over which apply refuses; -1: 100 in production, no limit elsewhere.",
        &RISK_BUDGET,
        (-1, i32::MAX),
        GucFlags::default(),
    );
    int(
        c"transmute.max_risk",
        c"Risk score of one step over which apply refuses.",
        &MAX_RISK,
        (0, 100),
        GucFlags::default(),
    );
    text(
        c"transmute.blocked_kinds",
        c"Operations that apply refuses, separated by commas.",
        &BLOCKED_KINDS,
    );
    text(
        c"transmute.blocked_reasons",
        c"Risk reasons for which apply refuses, separated by commas.",
        &BLOCKED_REASONS,
    );
    flag(
        c"transmute.enforce_additive_first",
        c"apply refuses what removes something until what adds is finished.",
        &ENFORCE_ADDITIVE_FIRST,
    );
    flag(
        c"transmute.require_preflight",
        c"apply refuses a migration whose preflight has not passed within a day.",
        &REQUIRE_PREFLIGHT,
    );
    int(
        c"transmute.invariant_timeout",
        c"Longest time that the query of an invariant may take.",
        &INVARIANT_TIMEOUT_MS,
        (1, 86_400_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.signal_interval",
        c"Shortest time between two progress signals of one process about one migration; 0: none are sent.",
        &SIGNAL_INTERVAL_MS,
        (0, 86_400_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.hook_timeout",
        c"Longest time that a hook may take.",
        &HOOK_TIMEOUT_MS,
        (1, 86_400_000),
        GucFlags::UNIT_MS,
    );
    text(
        c"transmute.cancel_blockers",
        c"Sessions idle in transaction for longer than this interval that hold up a migration are ended; empty: nobody is.",
        &CANCEL_BLOCKERS,
    );
    int(
        c"transmute.lock_timeout",
        c"Longest wait for a strong lock on a user's table before trying again.",
        &LOCK_TIMEOUT_MS,
        (1, 60_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.batch_target_ms",
        c"Time one batch of the copy aims at.",
        &BATCH_TARGET_MS,
        (1, 60_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.max_parallel_backfill",
        c"Processes that copy one table, or fill its new columns, side by side.",
        &MAX_PARALLEL_BACKFILL,
        (1, 64),
        GucFlags::default(),
    );
    int(
        c"transmute.max_parallel_migrations",
        c"Migrations whose long steps run side by side, each in a process of its own.",
        &MAX_PARALLEL_MIGRATIONS,
        (0, 64),
        GucFlags::default(),
    );
    int(
        c"transmute.backfill_duty",
        c"Percent of the time a copying process works; the rest it sleeps.",
        &BACKFILL_DUTY,
        (1, 100),
        GucFlags::default(),
    );
    int(
        c"transmute.max_wal_rate",
        c"WAL that batches may write in a second; 0: no limit.",
        &MAX_WAL_RATE_KB,
        (0, i32::MAX),
        GucFlags::UNIT_KB,
    );
    int(
        c"transmute.max_running",
        c"Migrations that are under way side by side; others wait for their turn.",
        &MAX_RUNNING,
        (1, 1000),
        GucFlags::default(),
    );
    int(
        c"transmute.max_load",
        c"Active client sessions over which no batch begins; 0: no limit.",
        &MAX_LOAD,
        (0, 262_143),
        GucFlags::default(),
    );
    int(
        c"transmute.max_replica_lag",
        c"Age of what a connected replica has replayed over which no batch begins; 0: no limit.",
        &MAX_REPLICA_LAG_MS,
        (0, 86_400_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.max_slot_retention",
        c"WAL that a replication slot may keep over which no batch begins; 0: no limit.",
        &MAX_SLOT_RETENTION_KB,
        (0, i32::MAX),
        GucFlags::UNIT_KB,
    );
    int(
        c"transmute.max_growth",
        c"Dead rows, in percent of the live ones, which batches that change rows in place keep under; at half of it the table is vacuumed between them; 0: no limit.",
        &MAX_GROWTH,
        (0, 10_000),
        GucFlags::default(),
    );
    int(
        c"transmute.max_dead_letters",
        c"Refused rows over which a migration waits for a person.",
        &MAX_DEAD_LETTERS,
        (0, i32::MAX),
        GucFlags::default(),
    );
    int(
        c"transmute.max_retries",
        c"Tries again after a passing error before a person is asked; lock timeouts do not count.",
        &MAX_RETRIES,
        (0, 1000),
        GucFlags::default(),
    );
    int(
        c"transmute.retry_delay",
        c"Longest pause before trying again after a passing error.",
        &RETRY_DELAY_MS,
        (1, 86_400_000),
        GucFlags::UNIT_MS,
    );
    text(
        c"transmute.keep_artifacts",
        c"How long the old rows are kept after a migration has finished, as an interval.",
        &KEEP_ARTIFACTS,
    );
    int(
        c"transmute.drain_interval",
        c"How often changes are brought over while a migration waits.",
        &DRAIN_INTERVAL_MS,
        (1, 60_000),
        GucFlags::UNIT_MS,
    );
    int(
        c"transmute.max_matview_age",
        c"How old the new contents of a materialized view may be at the swap; older ones are made again before it.",
        &MAX_MATVIEW_AGE_S,
        (10, 2_000_000),
        GucFlags::UNIT_S,
    );
    int(
        c"transmute.max_drain_lag",
        c"Changed keys that may be left for the swap itself; more are brought over first.",
        &MAX_DRAIN_LAG,
        (0, 1_000_000),
        GucFlags::default(),
    );
    int(
        c"transmute.lock_id",
        c"Advisory lock that lets one caller at a time begin migrations or take them back; 0: none.",
        &LOCK_ID,
        (0, i32::MAX),
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"transmute.log_format",
        c"What events look like in the server's log: text, or json, one object a line.",
        c"",
        &LOG_FORMAT,
        GucContext::Suset,
        GucFlags::default(),
    );
    // Anybody may set it: it lets through only who owns the migration.
    GucRegistry::define_bool_guc(
        c"transmute.allow_ddl",
        c"DDL of the owner of a migration on what it works on is not refused.",
        c"",
        &ALLOW_DDL,
        GucContext::Userset,
        GucFlags::default(),
    );
    process::reserve_setting_prefix(c"transmute");
}

fn string(setting: &GucSetting<Option<CString>>) -> String {
    setting
        .get()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub fn is_production() -> bool {
    ["prod", "production", "live"].contains(&string(&ENVIRONMENT).trim().to_lowercase().as_str())
}

/// The soak as interval text: metadata wins, then the setting, then the environment's default.
fn soak(setting: &GucSetting<Option<CString>>) -> String {
    match string(setting).trim() {
        "" | "default" if is_production() => "4 days".into(),
        "" | "default" => "0".into(),
        other => other.into(),
    }
}

pub fn pre_execution_soak() -> String {
    soak(&PRE_EXECUTION_SOAK)
}

pub fn pre_finalization_soak() -> String {
    soak(&PRE_FINALIZATION_SOAK)
}

pub fn required_approvals() -> i32 {
    match REQUIRED_APPROVALS.get() {
        n if n >= 0 => n,
        _ => i32::from(is_production()),
    }
}

/// `None`: any role that may call approve.
pub fn approver_role() -> Option<String> {
    Some(string(&APPROVER_ROLE)).filter(|r| !r.is_empty())
}

pub fn four_eyes() -> bool {
    FOUR_EYES.get()
}

/// `None`: no limit.
pub fn risk_budget() -> Option<i32> {
    match RISK_BUDGET.get() {
        n if n >= 0 => Some(n),
        _ => is_production().then_some(100),
    }
}

pub fn max_risk() -> i32 {
    MAX_RISK.get()
}

pub fn blocked_kinds() -> String {
    string(&BLOCKED_KINDS)
}

pub fn blocked_reasons() -> String {
    string(&BLOCKED_REASONS)
}

pub fn enforce_additive_first() -> bool {
    ENFORCE_ADDITIVE_FIRST.get()
}

pub fn require_preflight() -> bool {
    REQUIRE_PREFLIGHT.get()
}

/// `None`: callers do not wait for each other.
pub fn lock_id() -> Option<i64> {
    Some(i64::from(LOCK_ID.get())).filter(|id| *id != 0)
}

/// Whether events are logged as JSON objects.
pub fn logs_json() -> bool {
    LOG_FORMAT.get() == LogFormat::Json
}

pub fn allow_ddl() -> bool {
    ALLOW_DDL.get()
}

/// As interval text; `None`: nobody is ended.
pub fn cancel_blockers() -> Option<String> {
    Some(string(&CANCEL_BLOCKERS))
        .map(|s| s.trim().to_string())
        .filter(|s| !s.is_empty() && s != "off")
}

/// As interval text.
pub fn invariant_timeout() -> String {
    format!("{} ms", INVARIANT_TIMEOUT_MS.get())
}

pub fn hook_timeout() -> Duration {
    Duration::from_millis(HOOK_TIMEOUT_MS.get() as u64)
}

/// `None`: no progress signals.
pub fn signal_interval() -> Option<Duration> {
    Some(SIGNAL_INTERVAL_MS.get() as u64)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
}

pub fn lock_timeout_ms() -> i32 {
    LOCK_TIMEOUT_MS.get()
}

pub fn batch_target_ms() -> f64 {
    f64::from(BATCH_TARGET_MS.get())
}

pub fn max_parallel_migrations() -> i32 {
    MAX_PARALLEL_MIGRATIONS.get()
}

pub fn max_parallel_backfill() -> i32 {
    MAX_PARALLEL_BACKFILL.get()
}

/// Share of the time, in (0, 1].
pub fn backfill_duty() -> f64 {
    f64::from(BACKFILL_DUTY.get()) / 100.0
}

/// Bytes a second; `None`: no limit.
pub fn max_wal_rate() -> Option<f64> {
    let kilobytes = MAX_WAL_RATE_KB.get();
    (kilobytes > 0).then(|| f64::from(kilobytes) * 1024.0)
}

/// `None`: no limit.
pub fn max_running() -> i64 {
    i64::from(MAX_RUNNING.get())
}

pub fn max_load() -> Option<i64> {
    Some(i64::from(MAX_LOAD.get())).filter(|n| *n > 0)
}

/// `None`: no limit.
pub fn max_replica_lag_ms() -> Option<i64> {
    Some(i64::from(MAX_REPLICA_LAG_MS.get())).filter(|n| *n > 0)
}

/// Bytes; `None`: no limit.
pub fn max_slot_retention() -> Option<i64> {
    Some(i64::from(MAX_SLOT_RETENTION_KB.get()) * 1024).filter(|n| *n > 0)
}

/// A share of the live rows; `None`: no limit.
pub fn max_growth() -> Option<f64> {
    Some(f64::from(MAX_GROWTH.get()) / 100.0).filter(|share| *share > 0.0)
}

pub fn max_dead_letters() -> i64 {
    i64::from(MAX_DEAD_LETTERS.get())
}

pub fn max_retries() -> i32 {
    MAX_RETRIES.get()
}

pub fn retry_delay_ms() -> u64 {
    RETRY_DELAY_MS.get() as u64
}

pub fn keep_artifacts() -> String {
    string(&KEEP_ARTIFACTS)
}

pub fn drain_interval() -> Duration {
    Duration::from_millis(DRAIN_INTERVAL_MS.get() as u64)
}

pub fn max_drain_lag() -> i64 {
    i64::from(MAX_DRAIN_LAG.get())
}

pub fn max_matview_age_seconds() -> f64 {
    f64::from(MAX_MATVIEW_AGE_S.get())
}
