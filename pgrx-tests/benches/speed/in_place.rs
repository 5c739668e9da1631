//! What costs no copy: NOT NULL, CHECK and an index against the script of a careful person, and data statements in batches against
//! one UPDATE and against keyset batches. Seconds, WAL, and what the table grows to.

use std::time::Instant;

use transmute_tests::report::{grouped, median, megabytes};
use transmute_tests::{Cluster, Database, Session};

use crate::{at_least, at_most, migration, repeat, row, show, Aim};

const ROWS: u32 = 1_000_000;
/// Rows that data statements change.
const CHANGED: u32 = 500_000;

const SCRIPT: &str = "ALTER TABLE t ALTER COLUMN a SET NOT NULL; ALTER TABLE t ADD CONSTRAINT t_b CHECK (b > 0); CREATE INDEX t_created ON t (created)";
/// What it takes by hand so that nobody waits for a scan.
const CAREFUL: [&str; 7] = [
    "ALTER TABLE t ADD CONSTRAINT t_a CHECK (a IS NOT NULL) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT t_a",
    "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE t DROP CONSTRAINT t_a",
    "ALTER TABLE t ADD CONSTRAINT t_b CHECK (b > 0) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT t_b",
    "CREATE INDEX CONCURRENTLY t_created ON t (created)",
];
const UPDATE: &str = "UPDATE t SET b = b + 1";
pub const ONLINE: &str = "transmute";

fn create(database: &Database<'_>, rows: u32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, a integer, b integer NOT NULL, name text, note text, created timestamptz);
         INSERT INTO t SELECT g, g, g, 'name ' || g, 'note', '2026-01-01'::timestamptz + g * '1 s'::interval FROM generate_series(1, {rows}) g"
    ));
    session.exec("VACUUM ANALYZE t");
    session.exec("CHECKPOINT");
    session
}

pub fn online(session: &mut Session, script: &str) {
    migration::start(session, "m", script, "{}");
    migration::wait_for(session, "m", "FINISHED");
}

pub type Way = (&'static str, fn(&mut Session));

const IN_PLACE: [Way; 2] = [
    ("the careful script", |session| {
        CAREFUL.iter().for_each(|sql| session.exec(sql))
    }),
    (ONLINE, |session| online(session, SCRIPT)),
];

const CHANGES: [Way; 4] = [
    ("one UPDATE", |session| session.exec(UPDATE)),
    ("keyset batches of 1000", |session| {
        for from in (0..CHANGED).step_by(1000) {
            let to = from + 1000;
            session.exec(&format!("{UPDATE} WHERE id > {from} AND id <= {to}"));
        }
    }),
    (ONLINE, |session| online(session, UPDATE)),
    ("transmute, max_growth = 0", |session| {
        let reload = "SELECT pg_reload_conf()";
        session.batch(&["ALTER SYSTEM SET transmute.max_growth = 0", reload]);
        online(session, UPDATE);
        session.batch(&["ALTER SYSTEM RESET transmute.max_growth", reload]);
    }),
];

pub fn run() -> Vec<Aim> {
    let cluster = crate::quiet_cluster();
    let Measured { seconds, wal, .. } =
        measure(&cluster, "NOT NULL, CHECK and an index", ROWS, &IN_PLACE);
    let mut aims = vec![
        at_most(
            "NOT NULL, CHECK and index, 1 M rows, seconds of the careful script's",
            seconds[1] / seconds[0],
            1.0,
            " x",
        ),
        at_most("the same, WAL", wal[1] / wal[0], 1.0, " x"),
    ];
    let Measured {
        seconds,
        wal,
        growth,
    } = measure(&cluster, "An UPDATE of every row", CHANGED, &CHANGES);
    aims.push(at_least(
        "UPDATE in batches, 500 k rows, rows/s of keyset batches'",
        seconds[1] / seconds[2],
        1.0,
        " x",
    ));
    aims.push(at_least(
        "the same, of one UPDATE's",
        seconds[0] / seconds[2],
        0.5,
        " x",
    ));
    aims.push(at_most(
        "the same, WAL of one UPDATE's",
        wal[2] / wal[0],
        1.2,
        " x",
    ));
    // Nobody else vacuums here; the budget is transmute.max_growth.
    aims.push(at_most(
        "the same, size of the table after, of before",
        growth[2],
        1.3,
        " x",
    ));
    aims.push(at_most(
        "the same, of its size without the budget",
        growth[2] / growth[3],
        0.8,
        " x",
    ));
    aims
}

/// Medians, each way on tables of its own.
pub struct Measured {
    pub seconds: Vec<f64>,
    /// Bytes.
    pub wal: Vec<f64>,
    /// Size of the table, or of its partitions, after, of before.
    pub growth: Vec<f64>,
}

pub fn measure(cluster: &Cluster, what: &str, rows: u32, ways: &[Way]) -> Measured {
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut wal: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut growth: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for round in 0..repeat() {
        for (i, (name, work)) in ways.iter().enumerate() {
            eprintln!("{what}: {name}, {}", round + 1);
            let database = Database::create(cluster);
            let mut session = create(&database, rows);
            let size = "SELECT coalesce(sum(pg_table_size(relid)), pg_table_size('t'))::float8 FROM pg_partition_tree('t')";
            let small: f64 = session.scalar(size);
            let before: String = session.scalar("SELECT pg_current_wal_insert_lsn()::text");
            let begun = Instant::now();
            work(&mut session);
            seconds[i].push(begun.elapsed().as_secs_f64());
            wal[i].push(session.scalar(&format!(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')::float8"
            )));
            growth[i].push(session.scalar::<f64>(size) / small);
        }
    }
    let medians = |of: &[Vec<f64>]| of.iter().map(|one| median(one)).collect::<Vec<f64>>();
    let (seconds, wal, growth) = (medians(&seconds), medians(&wal), medians(&growth));
    let mut table = vec![row(["", "seconds", "rows/s", "WAL MB", "size"])];
    for (i, (name, _)) in ways.iter().enumerate() {
        table.push(row([
            name,
            &format!("{:.1}", seconds[i]),
            &grouped(f64::from(rows) / seconds[i]),
            &megabytes(wal[i]),
            &format!("{:.2} x", growth[i]),
        ]));
    }
    show(what, &table);
    Measured {
        seconds,
        wal,
        growth,
    }
}
