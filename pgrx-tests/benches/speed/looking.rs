//! What the look for snapshots older than a swap costs every statement of the application, where the library is preloaded:
//! next to a server that does not load it at all.

use std::time::Duration;

use transmute_tests::pgbench::Pgbench;
use transmute_tests::report::{grouped, median};
use transmute_tests::{Build, Cluster, Database, StopMode};

use crate::callgrind::{self, Counter};
use crate::{at_most, repeat, row, show, Aim};

const FEW: u32 = 200;
const MANY: u32 = 600;
const RUN: Duration = Duration::from_secs(5);
/// Finished migrations that the look has to find its own among.
const FINISHED: u32 = 10_000;

const ISOLATION: [&str; 2] = ["read committed", "repeatable read"];

fn cluster(preload: bool) -> Cluster {
    let builder = Cluster::builder()
        .build(Build::Shipped)
        .conf("wal_level = replica")
        .conf("autovacuum = off");
    match preload {
        true => builder.start(),
        false => builder.without_preload().start(),
    }
}

/// pgbench's tables, and as many rewrites as years of use leave.
fn prepare(database: &Database<'_>) {
    Pgbench::initialize(database, 1);
    let mut session = database.connect();
    session.exec(&format!(
        "INSERT INTO _transmute.rewrites (migration_id, statement, relation, shadow, twin, key_log, new_schema, old_schema, key_columns,
           deferred_definitions, relfilenode, end_block, rows_estimate, fingerprint, definition, swapped_at, brought_over)
         SELECT 'm' || i, 1, 1000000 + i, 0, 0, 0, 'new', 'old', '{{1}}', '[]', 0, 0, 0, repeat('f', 64), 'd', now(), '{{3,4}}'
           FROM generate_series(1, {FINISHED}) AS i"
    ));
    session.exec("VACUUM ANALYZE");
}

fn select(i: u32) -> String {
    format!(
        "SELECT abalance FROM pgbench_accounts WHERE aid = {}",
        1 + i * 37 % 100_000
    )
}

/// Statements by key, each a transaction of this isolation.
fn alone(isolation: &str, count: u32) -> String {
    let mut all = vec![format!("SET default_transaction_isolation = '{isolation}'")];
    all.extend((0..count).map(select));
    all.join(";\n\n")
}

/// Statements of one transaction that began before the table was changed: each of them has to look.
fn outdated(count: u32) -> String {
    let mut all = vec![
        "BEGIN ISOLATION LEVEL REPEATABLE READ".to_string(),
        "SELECT 1".into(),
        "ALTER TABLE pgbench_accounts SET (fillfactor = 90)".into(),
    ];
    all.extend((0..count).map(select));
    all.push("COMMIT".into());
    all.join(";\n\n")
}

/// tps of pgbench -S, prepared.
fn tps(database: &Database<'_>, isolation: &str) -> f64 {
    database.connect().exec(&format!(
        "ALTER DATABASE {} SET default_transaction_isolation = '{isolation}'",
        database.name()
    ));
    let script =
        "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";
    let report = Pgbench::new(database)
        .protocol("prepared")
        .script(script)
        .run_for(RUN);
    report.stats().tps
}

pub fn run() -> Vec<Aim> {
    let clusters = [true, false].map(cluster);
    let databases = [0, 1].map(|i| {
        let database = Database::create(&clusters[i]);
        prepare(&database);
        database
    });
    let mut table = vec![row(["", "preloaded", "not loaded", ""])];
    let mut aims = Vec::new();
    for isolation in ISOLATION {
        // In turns, and each time beginning with the other: the machine changes in the meantime.
        let mut measured = [Vec::new(), Vec::new()];
        for round in 0..repeat() {
            for turn in 0..2 {
                let which = (round + turn) % 2;
                measured[which].push(tps(&databases[which], isolation));
            }
        }
        let [with, without] = measured.map(|tps| median(&tps));
        table.push(row([
            &format!("tps, {isolation}"),
            &grouped(with),
            &grouped(without),
            &format!("{:.3} x", with / without),
        ]));
    }
    for cluster in &clusters {
        cluster.stop(StopMode::Fast);
    }
    if let Some(why) = callgrind::missing() {
        println!("\nInstructions of a statement: not measured, {why}.");
        return aims;
    }
    let count = |text: &dyn Fn(u32) -> String| {
        [0, 1].map(|i| Counter::new(&clusters[i]).per_row(databases[i].name(), text, FEW, MANY))
    };
    for (what, [with, without]) in [
        (ISOLATION[0], count(&|n| alone(ISOLATION[0], n))),
        (ISOLATION[1], count(&|n| alone(ISOLATION[1], n))),
        ("of a table that was changed since", count(&outdated)),
    ] {
        table.push(row([
            &format!("instructions a statement, {what}"),
            &grouped(with),
            &grouped(without),
            &format!("+{}", grouped(with - without)),
        ]));
        // What has to look pays a query of ours, as long as its snapshot lives: shown, and no aim.
        if ISOLATION.contains(&what) {
            aims.push(at_most(
                &format!("instructions of a SELECT by key, {what}, of those without the library"),
                with / without,
                1.02,
                " x",
            ));
        }
    }
    show("What the look for old snapshots costs", &table);
    aims
}
