//! How long the swap keeps everybody out, over many swaps under load; and how long anybody waits while a report runs for
//! ten seconds and the swap wants the table.

use std::time::{Duration, SystemTime};

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::pgbench::{Pgbench, Stats};
use transmute_tests::report::{ms, percentile};
use transmute_tests::{Database, Session};

use crate::application::{cluster, start};
use crate::{at_most, migration, row, show, Aim};

const SWAPS: usize = 24;
/// Small: the lock's length does not depend on the number of rows, and many swaps are wanted.
const SCALE: u32 = 1;
const REPORT: Duration = Duration::from_secs(10);
const TABLE: &str = "pgbench_accounts";

fn retype(kind: &str) -> String {
    format!("ALTER TABLE {TABLE} ALTER COLUMN abalance TYPE {kind}")
}

pub fn run() -> Vec<Aim> {
    let cluster = cluster();
    let database = Database::create(&cluster);
    Pgbench::initialize(&database, SCALE);
    let mut aims = many_swaps(&database);
    aims.extend(behind_a_report(&database));
    aims
}

fn many_swaps(database: &Database<'_>) -> Vec<Aim> {
    let mut session = database.connect();
    let running = start(database);
    let watch = Lockwatch::start(database, TABLE);
    let mut held = Vec::new();
    for i in 0..SWAPS {
        eprintln!("swap {} of {SWAPS}", i + 1);
        let kind = if i % 2 == 0 { "bigint" } else { "integer" };
        let finished = migration::run(&mut session, &format!("swap-{i}"), &retype(kind));
        held.push(finished.lock_held_ms);
    }
    let failures = running.stop().failures();
    // Holds shorter than the interval between two samples are seen once or not at all.
    let seen: Vec<f64> = watch
        .stop()
        .held
        .iter()
        .map(|episode| episode.at_most_ms)
        .collect();
    let line = |name: &str, values: &[f64]| {
        row([
            name,
            &values.len().to_string(),
            &ms(percentile(values, 0.5)),
            &ms(percentile(values, 0.99)),
        ])
    };
    show(
        "ACCESS EXCLUSIVE during swaps at 300 tps",
        &[
            row(["", "times", "median", "p99"]),
            line("by the swap's own clock", &held),
            line("at most, as sampled by others", &seen),
        ],
    );
    vec![
        at_most(
            "ACCESS EXCLUSIVE at p99",
            percentile(&held, 0.99),
            50.0,
            " ms",
        ),
        at_most("failed statements over all swaps", failures as f64, 0.0, ""),
    ]
}

/// The application's latencies while a report reads the table for ten seconds and `change` wants it for itself.
fn with_report(
    database: &Database<'_>,
    change: impl FnOnce(&mut Session) + Send,
) -> (Stats, Stats, f64) {
    let mut reporter = database.connect();
    let mut session = database.connect();
    let running = start(database);
    let begun = SystemTime::now();
    migration::observe(&running, Duration::from_secs(5));
    let opened = SystemTime::now();
    reporter.exec(&format!("BEGIN; SELECT count(*) FROM {TABLE}"));
    let ended = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            change(&mut session);
            SystemTime::now()
        });
        migration::observe(&running, REPORT);
        reporter.exec("COMMIT");
        changing.join().expect("the change")
    });
    let closed = opened + REPORT;
    migration::observe(&running, Duration::from_secs(1));
    let report = running.stop();
    let late = ended.duration_since(closed).unwrap_or_default();
    (
        report.between(begun, opened),
        report.between(opened, ended + Duration::from_secs(1)),
        late.as_secs_f64() * 1000.0,
    )
}

fn behind_a_report(database: &Database<'_>) -> Vec<Aim> {
    eprintln!("behind a report: transmute");
    let mut session = database.connect();
    migration::start(
        &mut session,
        "report",
        &retype("bigint"),
        r#"{"required_approvals": 1}"#,
    );
    migration::wait_for(&mut session, "report", "AWAITING_FINALIZATION");
    let (before, ours, ours_late) = with_report(database, |session| {
        session.exec("SELECT transmute.approve('report', 'finalize while a report runs')");
        migration::wait_for(session, "report", "FINISHED");
    });
    eprintln!("behind a report: plain ALTER TABLE");
    let (_, plain, plain_late) = with_report(database, |session| session.exec(&retype("integer")));
    let line = |name: &str, stats: &Stats, late: Option<f64>| {
        row([
            name,
            &format!("{:.0}", stats.tps),
            &ms(stats.p99_ms),
            &ms(stats.max_ms),
            &late.map(ms).unwrap_or_default(),
        ])
    };
    show(
        "Behind a report of 10 s: the application meanwhile",
        &[
            row(["", "tps", "p99", "longest wait", "done after the report"]),
            line("before", &before, None),
            line("transmute", &ours, Some(ours_late)),
            line("plain ALTER TABLE", &plain, Some(plain_late)),
        ],
    );
    vec![at_most(
        "longest wait of a statement behind a 10 s report",
        ours.max_ms,
        150.0,
        " ms",
    )]
}
