//! How long planning takes on a database of many tables: explain of one statement, and of scripts of a thousand and more.
//! Processor time of the session counts: planning waits for nothing.

use std::time::Instant;

use transmute_tests::report::median;
use transmute_tests::{Build, Cluster, Database, Session};

use crate::{at_most, processor, repeat, row, show, Aim};

const TABLES: usize = 2_000;
/// Statements that a migration tool sends one at a time.
const ONE: [(&str, &str); 6] = [
    (
        "ADD COLUMN",
        "ALTER TABLE t7 ADD COLUMN x integer DEFAULT 0",
    ),
    (
        "ALTER COLUMN TYPE that rewrites",
        "ALTER TABLE t7 ALTER COLUMN a TYPE bigint",
    ),
    (
        "SET NOT NULL",
        "ALTER TABLE t7 ALTER COLUMN note SET NOT NULL",
    ),
    (
        "ADD FOREIGN KEY",
        "ALTER TABLE t7 ADD FOREIGN KEY (a) REFERENCES t8 (id)",
    ),
    ("CREATE INDEX", "CREATE INDEX ON t7 (a)"),
    ("UPDATE", "UPDATE t7 SET note = 'x' WHERE a > 5"),
];

pub fn run() -> Vec<Aim> {
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .conf("shared_buffers = 256MB")
        .conf("max_locks_per_transaction = 1024")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(&format!(
        "DO $$ BEGIN FOR i IN 1..{TABLES} LOOP
           EXECUTE format('CREATE TABLE t%s (id bigint PRIMARY KEY, a integer NOT NULL, name text, note text,
             created timestamptz DEFAULT now(), state smallint CHECK (state >= 0))', i);
           EXECUTE format('CREATE INDEX ON t%s (created)', i);
         END LOOP; END $$"
    ));
    session.exec("VACUUM (ANALYZE)");
    let mut table = vec![row(["", "milliseconds", "CPU ms"])];
    let mut slowest: f64 = 0.0;
    for (what, ddl) in ONE {
        // The first call of a session also loads what the server knows of the catalogs.
        let samples: Vec<(f64, f64)> = (0..repeat().max(3) + 1)
            .map(|_| explain(&cluster, &mut session, ddl))
            .skip(1)
            .collect();
        let of =
            |field: fn(&(f64, f64)) -> f64| median(&samples.iter().map(field).collect::<Vec<_>>());
        slowest = slowest.max(of(|s| s.0));
        table.push(row([
            what,
            &format!("{:.1}", of(|s| s.0)),
            &format!("{:.1}", of(|s| s.1)),
        ]));
    }
    let fresh = explain(&cluster, &mut database.connect(), ONE[0].1).0;
    table.push(row([
        "ADD COLUMN, first call of a session",
        &format!("{fresh:.1}"),
        "",
    ]));
    let mut aims = vec![at_most(
        "explain of one statement, 2,000 tables",
        slowest,
        50.0,
        " ms",
    )];
    let scripts = [
        ("1,000 ALTER TABLE of as many tables", alters(1_000), 5.0),
        (
            "1,000 ALTER TABLE of one table, 10 columns each, 100 tables",
            alters_of(100, 10),
            5.0,
        ),
        (
            "3,000 statements of a schema made from nothing",
            schema(1_000),
            10.0,
        ),
        (
            "3,000 statements on 1,000 tables that are there",
            mixed(1_000),
            15.0,
        ),
    ];
    for (what, script, limit) in scripts {
        let (ms, cpu) = explain(&cluster, &mut session, &script);
        table.push(row([what, &format!("{ms:.0}"), &format!("{cpu:.0}")]));
        aims.push(at_most(
            &format!("plan of {what}"),
            ms / 1000.0,
            limit,
            " s",
        ));
    }
    let begun = Instant::now();
    session.query_one("SELECT transmute.register('m', $1)", &[&alters(1_000)]);
    let registered = begun.elapsed().as_secs_f64();
    table.push(row([
        "register of the first of them",
        &format!("{:.0}", registered * 1000.0),
        "",
    ]));
    show(
        &format!("Planning on a database of {TABLES} tables"),
        &table,
    );
    aims
}

/// Milliseconds, and milliseconds of processor time of the server.
fn explain(cluster: &Cluster, session: &mut Session, ddl: &str) -> (f64, f64) {
    let (begun, before) = (Instant::now(), processor::seconds_of(cluster));
    let steps: i64 = session
        .query_one("SELECT count(*) FROM transmute.explain($1)", &[&ddl])
        .get(0);
    assert!(steps > 0, "no step");
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    (ms, (processor::seconds_of(cluster) - before) * 1000.0)
}

fn lines(statements: impl Iterator<Item = String>) -> String {
    statements.collect::<Vec<_>>().join(";\n")
}

fn alters(count: usize) -> String {
    lines((1..=count).map(|i| format!("ALTER TABLE t{i} ADD COLUMN added integer DEFAULT 0")))
}

fn alters_of(tables: usize, each: usize) -> String {
    lines((1..=tables).flat_map(move |i| {
        (1..=each).map(move |n| format!("ALTER TABLE t{i} ADD COLUMN added{n} integer DEFAULT 0"))
    }))
}

/// Tables that refer to each other, with an index and a comment each.
fn schema(tables: usize) -> String {
    lines((1..=tables).flat_map(|i| {
        let before = i.saturating_sub(1).max(1);
        [
            format!("CREATE TABLE n{i} (id bigint PRIMARY KEY, parent bigint REFERENCES n{before} (id), note text)"),
            format!("CREATE INDEX n{i}_parent ON n{i} (parent)"),
            format!("COMMENT ON TABLE n{i} IS 'number {i}'"),
        ]
    }))
}

fn mixed(tables: usize) -> String {
    lines((1..=tables).flat_map(|i| {
        [
            format!("ALTER TABLE t{i} ADD COLUMN added integer"),
            format!("CREATE INDEX t{i}_a ON t{i} (a)"),
            format!("COMMENT ON COLUMN t{i}.note IS 'number {i}'"),
        ]
    }))
}
