//! What the application notices: latency and lost throughput while a table of two million rows is rewritten under 300
//! transactions a second, next to the same change by one big UPDATE and by the plain ALTER TABLE.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use transmute_tests::pgbench::{Pgbench, Report, Running, Stats};
use transmute_tests::report::{grouped, median, ms};
use transmute_tests::{Build, Cluster, Database, Session};

use crate::migration::{self, Finished};
use crate::{at_least, at_most, repeat, row, show, Aim};

const SCALE: u32 = 20;
const ROWS_OF_SCALE: f64 = 100_000.0;
const CLIENTS: u32 = 4;
const RATE_TPS: u32 = 300;
/// Some thousand transactions: the 99th percentile is that of dozens.
const QUIET: Duration = Duration::from_secs(15);
const FLOOR: Duration = Duration::from_secs(5);
/// Settings of who would rather wait than be noticed: a fifth of one processor, in short batches.
const GENTLE: [(&str, u32); 2] = [("backfill_duty", 20), ("batch_target_ms", 10)];

fn scale() -> u32 {
    match std::env::var("SCALE") {
        Ok(text) => text.parse().expect("SCALE is a whole number"),
        Err(_) => SCALE,
    }
}

pub fn cluster() -> Cluster {
    Cluster::builder()
        .build(Build::Shipped)
        .fsync()
        .conf("wal_level = replica")
        .conf("shared_buffers = 1GB")
        .conf("max_wal_size = 8GB")
        .conf("min_wal_size = 4GB")
        .start()
}

pub fn start(database: &Database<'_>) -> Running {
    let mut running = Pgbench::new(database)
        .clients(CLIENTS)
        .rate(RATE_TPS)
        .start();
    running.wait_running();
    running
}

pub fn time(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// The tables, and WAL segments to use again, as a server has them that has run for a while: one that is made new is filled with
/// zeros while every commit waits.
fn as_after_some_time(database: &Database<'_>) {
    for _ in 0..4 {
        Pgbench::initialize(database, scale());
    }
    let mut session = database.connect();
    for sql in ["CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"] {
        session.exec(sql);
    }
}

/// What a process costs the application that takes one processor and nothing else, whenever nobody wants it: whatever
/// works as hard as that can cost no less on this machine.
fn compute(time: Duration) {
    let mut process = Command::new("nice")
        .args(["-n", "19", "sh", "-c", "while :; do :; done"])
        .spawn()
        .expect("nice and sh are there");
    std::thread::sleep(time);
    process.kill().expect("a process of ours");
    process.wait().expect("a child");
}

/// One way to change the column, under load.
struct Run {
    before: Stats,
    during: Stats,
    seconds: f64,
    failures: u64,
    by_step: Vec<(String, Stats)>,
}

fn with_load(
    database: &Database<'_>,
    change: impl FnOnce(&mut Session) -> Option<Finished>,
) -> Run {
    let mut session = database.connect();
    session.exec("CHECKPOINT");
    let running = start(database);
    let begun = SystemTime::now();
    migration::observe(&running, QUIET);
    let started = SystemTime::now();
    let finished = change(&mut session);
    let ended = SystemTime::now();
    // A statement that waited for the end is in the log only after it.
    migration::observe(&running, Duration::from_secs(1));
    let report = running.stop();
    let elapsed = ended
        .duration_since(started)
        .unwrap_or_default()
        .as_secs_f64();
    Run {
        before: report.between(begun, started),
        during: report.between(started, ended + Duration::from_secs(1)),
        seconds: finished.as_ref().map_or(elapsed, |f| f.working_s),
        failures: report.failures(),
        by_step: finished.map(|f| by_step(&report, &f)).unwrap_or_default(),
    }
}

fn by_step(report: &Report, finished: &Finished) -> Vec<(String, Stats)> {
    let steps = finished.steps.iter().filter(|step| step.seconds > 0.05);
    steps
        .map(|step| {
            let window = report.between(time(step.started_s), time(step.started_s + step.seconds));
            (step.name.clone(), window)
        })
        .collect()
}

pub fn run() -> Vec<Aim> {
    let cluster = cluster();
    let rows = f64::from(scale()) * ROWS_OF_SCALE;
    let mut ours = Vec::new();
    let mut gentle = Vec::new();
    let mut updates = Vec::new();
    let mut alters = Vec::new();
    let mut floors = Vec::new();
    for round in 1..=repeat() {
        let database = Database::create(&cluster);
        eprintln!("application, round {round}: loading");
        as_after_some_time(&database);
        eprintln!("application, round {round}: transmute");
        ours.push(with_load(&database, |session| {
            let ddl = "ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE bigint";
            Some(migration::run(session, "accounts", ddl))
        }));
        eprintln!("application, round {round}: transmute, gently");
        let mut session = database.connect();
        for (name, value) in GENTLE {
            session.exec(&format!(
                "ALTER DATABASE {} SET transmute.{name} = {value}",
                database.name()
            ));
        }
        gentle.push(with_load(&database, |session| {
            let ddl = "ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE integer";
            Some(migration::run(session, "gently", ddl))
        }));
        eprintln!("application, round {round}: a loop");
        floors.push(with_load(&database, |_| {
            compute(FLOOR);
            None
        }));
        eprintln!("application, round {round}: plain ALTER TABLE");
        alters.push(with_load(&database, |session| {
            session.exec("ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE bigint");
            None
        }));
        eprintln!("application, round {round}: one big UPDATE");
        updates.push(with_load(&database, |session| {
            session.exec("ALTER TABLE pgbench_accounts ADD COLUMN abalance_new bigint");
            session.exec("UPDATE pgbench_accounts SET abalance_new = abalance");
            None
        }));
    }
    print(rows, &ours, &gentle, &updates, &alters, &floors);
    let of =
        |runs: &[Run], field: fn(&Run) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
    // Over all rounds, and all that was "before": one slow moment of the machine must not decide.
    let all_before: Vec<f64> = ours
        .iter()
        .chain(&gentle)
        .chain(&updates)
        .chain(&alters)
        .map(|run| run.before.p99_ms)
        .collect();
    let p99_of_ours = of(&ours, |run| run.during.p99_ms);
    let before = median(&all_before);
    let of_floor = p99_of_ours / of(&floors, |run| run.during.p99_ms);
    let seconds = |run: &Run| run.seconds;
    let failures: u64 = ours.iter().chain(&gentle).map(|run| run.failures).sum();
    vec![
        at_most(
            "application's p99 during, of before",
            p99_of_ours / before,
            1.5,
            " x",
        ),
        at_most(
            "the same with backfill_duty = 20, batch_target_ms = 10",
            of(&gentle, |run| run.during.p99_ms) / before,
            1.5,
            " x",
        ),
        at_most(
            "the same, of beside a loop that only computes, at the lowest priority",
            of_floor,
            1.5,
            " x",
        ),
        at_least(
            "rows/s under load, everything, of one UPDATE's under load",
            of(&updates, seconds) / of(&ours, seconds),
            2.5,
            " x",
        ),
        at_least(
            "the same, gently",
            of(&updates, seconds) / of(&gentle, seconds),
            0.5,
            " x",
        ),
        at_most("failed statements", failures as f64, 0.0, ""),
    ]
}

fn print(rows: f64, ours: &[Run], gentle: &[Run], updates: &[Run], alters: &[Run], floors: &[Run]) {
    let mut table = vec![row([
        "", "s", "k rows/s", "tps", "median", "p99", "worst", "failed",
    ])];
    let mut add = |name: &str, seconds: Option<f64>, windows: Vec<Stats>, failed: Option<u64>| {
        let of = |field: fn(&Stats) -> f64| median(&windows.iter().map(field).collect::<Vec<_>>());
        table.push(row([
            name,
            &seconds.map(|s| format!("{s:.1}")).unwrap_or_default(),
            &seconds
                .map(|s| format!("{:.0}", rows / s / 1000.0))
                .unwrap_or_default(),
            &format!("{:.0}", of(|s| s.tps)),
            &ms(of(|s| s.p50_ms)),
            &ms(of(|s| s.p99_ms)),
            &ms(of(|s| s.max_ms)),
            &failed.map(|n| n.to_string()).unwrap_or_default(),
        ]));
    };
    let all = ours
        .iter()
        .chain(gentle)
        .chain(updates)
        .chain(alters)
        .chain(floors);
    add("before", None, all.map(|run| run.before).collect(), None);
    for (name, runs) in [
        ("transmute", ours),
        ("transmute, gently", gentle),
        ("one big UPDATE", updates),
        ("plain ALTER TABLE", alters),
        ("nothing but a loop", floors),
    ] {
        let seconds = median(&runs.iter().map(|run| run.seconds).collect::<Vec<_>>());
        let failed = runs.iter().map(|run| run.failures).sum();
        add(
            name,
            Some(seconds),
            runs.iter().map(|run| run.during).collect(),
            Some(failed),
        );
        let steps = runs
            .first()
            .map(|run| run.by_step.as_slice())
            .unwrap_or_default();
        for (i, (step, _)) in steps.iter().enumerate() {
            let windows = runs
                .iter()
                .filter_map(|run| run.by_step.get(i))
                .map(|(_, stats)| *stats);
            add(&format!("  its {step}"), None, windows.collect(), None);
        }
    }
    show(
        &format!(
            "The application, {RATE_TPS} tps, while {} rows change",
            grouped(rows)
        ),
        &table,
    );
}
