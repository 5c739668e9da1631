//! How fast a table is rewritten, next to one big UPDATE, CREATE TABLE AS with the same indexes, and the plain ALTER TABLE;
//! what each writes to the WAL and what size it leaves. Flat in the number of rows, with and without statistics.

use std::time::Instant;

use transmute_tests::report::{grouped, median, megabytes};
use transmute_tests::{Build, Cluster, Database, Session};

use crate::{at_least, at_most, migration, processor, repeat, row, show, Aim};

/// The size that the aims speak of.
const AIMED_ROWS: i64 = 2_000_000;
const ROWS: [i64; 4] = [100_000, 1_000_000, AIMED_ROWS, LARGE_ROWS];
/// From here on only ours is measured, and once: whether its rate is the same, which takes minutes for the others.
const LARGE_ROWS: i64 = 10_000_000;
/// Rates at all sizes must lie within this factor to be called flat.
const FLAT: f64 = 1.5;

/// Ten columns, some 140 bytes a row, a primary key and one more index: the table of the first measurements.
pub const COLUMNS: &str = "id bigint NOT NULL, a integer NOT NULL, name text, email text, created timestamptz, updated timestamptz,
    state smallint, amount numeric(12,2), flag boolean, note text";

/// A query that gives that many rows for it.
pub fn fill(rows: i64) -> String {
    format!(
        "SELECT g, (g::bigint * 7919 % 1000003)::int, 'name ' || g, 'user' || g || '@example.org', now(), now(),
           (g % 5)::smallint, g % 10000 / 100.0, g % 2 = 0, repeat('x', 30) FROM generate_series(1, {rows}) g"
    )
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Ours,
    OursWithoutStatistics,
    Update,
    CreateTableAs,
    Alter,
}

const WAYS: [Way; 5] = [
    Way::Ours,
    Way::OursWithoutStatistics,
    Way::Update,
    Way::CreateTableAs,
    Way::Alter,
];

impl Way {
    fn is_ours(self) -> bool {
        matches!(self, Way::Ours | Way::OursWithoutStatistics)
    }

    fn name(self) -> &'static str {
        match self {
            Way::Ours => "transmute",
            Way::OursWithoutStatistics => "transmute, table never analyzed",
            Way::Update => "ADD COLUMN, one big UPDATE",
            Way::CreateTableAs => "CREATE TABLE AS, same indexes",
            Way::Alter => "ALTER TABLE (application stands)",
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Sample {
    seconds: f64,
    /// Processor time of the whole server: what a busy machine leaves comparable.
    cpu_s: f64,
    /// Of a migration of ours: the copy by itself, and the copy with the indexes (what CREATE TABLE AS also does).
    copy_s: f64,
    copy_and_index_s: f64,
    check_s: f64,
    wal_bytes: f64,
    growth: f64,
}

fn sizes() -> Vec<i64> {
    let mut sizes = ROWS.to_vec();
    if let Ok(text) = std::env::var("BENCH_ROWS") {
        let more: i64 = text
            .replace('_', "")
            .parse()
            .expect("BENCH_ROWS is a whole number");
        sizes.push(more);
        sizes.sort_unstable();
        sizes.dedup();
    }
    sizes
}

pub fn run() -> Vec<Aim> {
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .fsync()
        .conf("wal_level = replica")
        .conf("shared_buffers = 1GB")
        .conf("max_wal_size = 20GB")
        .conf("checkpoint_timeout = 1h")
        // Nobody else works in this server: what is measured is the way, not the vacuum behind it.
        .conf("autovacuum = off")
        .start();
    let mut of_size = Vec::new();
    for rows in sizes() {
        of_size.push((rows, measure(&cluster, rows)));
    }
    for (rows, samples) in &of_size {
        print(*rows, samples);
    }
    aims(&of_size)
}

/// The median of each way, all ways in turn so that a slow moment of the machine hits all of them.
fn measure(cluster: &Cluster, rows: i64) -> Vec<(Way, Sample)> {
    let is_large = rows >= LARGE_ROWS;
    let measured = WAYS.into_iter().filter(|way| way.is_ours() || !is_large);
    let ways: Vec<Way> = measured.collect();
    let rounds = if is_large { 1 } else { repeat() };
    let mut all: Vec<Vec<Sample>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for (samples, way) in all.iter_mut().zip(ways.iter().copied()) {
            eprintln!(
                "{} rows, round {}: {}",
                grouped(rows as f64),
                round + 1,
                way.name()
            );
            let database = Database::create(cluster);
            samples.push(once(&database, way, rows));
        }
    }
    let medians = all.into_iter().map(|samples| {
        let of = |field: fn(&Sample) -> f64| median(&samples.iter().map(field).collect::<Vec<_>>());
        Sample {
            seconds: of(|s| s.seconds),
            cpu_s: of(|s| s.cpu_s),
            copy_s: of(|s| s.copy_s),
            copy_and_index_s: of(|s| s.copy_and_index_s),
            check_s: of(|s| s.check_s),
            wal_bytes: of(|s| s.wal_bytes),
            growth: of(|s| s.growth),
        }
    });
    ways.into_iter().zip(medians).collect()
}

pub fn indexes(session: &mut Session, table: &str) {
    session.exec(&format!("ALTER TABLE {table} ADD PRIMARY KEY (id)"));
    session.exec(&format!("CREATE INDEX ON {table} (created)"));
}

fn once(database: &Database<'_>, way: Way, rows: i64) -> Sample {
    let mut session = database.connect();
    session.exec(&format!("CREATE TABLE t ({COLUMNS})"));
    session.exec(&format!("INSERT INTO t {}", fill(rows)));
    indexes(&mut session, "t");
    // Sets hint bits and the visibility map for all ways alike. Without statistics: not even a row count.
    session.exec("VACUUM (FREEZE) t");
    match way {
        Way::OursWithoutStatistics => session
            .exec("UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid = 't'::regclass"),
        _ => session.exec("ANALYZE t"),
    }
    if way == Way::Update {
        session.exec("ALTER TABLE t ADD COLUMN b bigint");
    }
    session.exec("CHECKPOINT");

    let size = |session: &mut Session, table: &str| -> f64 {
        session.scalar(&format!("SELECT pg_total_relation_size('{table}')::float8"))
    };
    let before = size(&mut session, "t");
    let wal_before: String = session.scalar("SELECT pg_current_wal_insert_lsn()::text");
    let cpu_before = processor::seconds_of(database.cluster());
    let begun = Instant::now();
    let mut sample = Sample::default();
    let mut result = "t";
    match way {
        Way::Ours | Way::OursWithoutStatistics => {
            let done = migration::run(
                &mut session,
                "m",
                "ALTER TABLE t ALTER COLUMN a TYPE bigint",
            );
            assert!(
                done.rows_checked >= rows,
                "{} rows checked",
                done.rows_checked
            );
            sample.copy_s = done.seconds_of(&["copy"]);
            sample.copy_and_index_s = done.seconds_of(&["copy", "index"]);
            sample.check_s = done.seconds_of(&["check"]);
        }
        Way::Update => session.exec("UPDATE t SET b = a"),
        Way::CreateTableAs => {
            session.exec(
                "CREATE TABLE n AS SELECT id, a::bigint AS a, name, email, created, updated, state, amount, flag, note FROM t",
            );
            indexes(&mut session, "n");
            result = "n";
        }
        Way::Alter => session.exec("ALTER TABLE t ALTER COLUMN a TYPE bigint"),
    }
    sample.seconds = begun.elapsed().as_secs_f64();
    sample.cpu_s = processor::seconds_of(database.cluster()) - cpu_before;
    sample.wal_bytes = session.scalar(&format!(
        "SELECT (pg_current_wal_insert_lsn() - '{wal_before}'::pg_lsn)::float8"
    ));
    sample.growth = size(&mut session, result) / before;
    sample
}

fn of(samples: &[(Way, Sample)], way: Way) -> Sample {
    let found = samples.iter().find(|(w, _)| *w == way);
    found.map(|(_, sample)| *sample).unwrap_or_default()
}

fn print(rows: i64, samples: &[(Way, Sample)]) {
    let update = of(samples, Way::Update);
    let rate = |seconds: f64| format!("{:.0}", rows as f64 / seconds / 1000.0);
    let mut table = vec![row([
        "",
        "s",
        "CPU s",
        "k rows/s",
        "copy only",
        "+ indexes",
        "check, s",
        "WAL",
        "of UPDATE's",
        "size after",
    ])];
    for (way, sample) in samples {
        let is_ours = sample.copy_s > 0.0;
        let only_ours = |text: String| if is_ours { text } else { String::new() };
        table.push(row([
            way.name(),
            &format!("{:.2}", sample.seconds),
            &format!("{:.2}", sample.cpu_s),
            &rate(sample.seconds),
            &only_ours(rate(sample.copy_s)),
            &only_ours(rate(sample.copy_and_index_s)),
            &only_ours(format!("{:.2}", sample.check_s)),
            &megabytes(sample.wal_bytes),
            &match update.wal_bytes > 0.0 {
                true => format!("{:.2}", sample.wal_bytes / update.wal_bytes),
                false => String::new(),
            },
            &format!("{:.2}", sample.growth),
        ]));
    }
    show(
        &format!(
            "int → bigint, {} rows, idle server, one hand",
            grouped(rows as f64)
        ),
        &table,
    );
}

fn aims(of_size: &[(i64, Vec<(Way, Sample)>)]) -> Vec<Aim> {
    let Some((_, samples)) = of_size.iter().find(|(rows, _)| *rows == AIMED_ROWS) else {
        return Vec::new();
    };
    let (ours, update) = (of(samples, Way::Ours), of(samples, Way::Update));
    let create = of(samples, Way::CreateTableAs);
    // Without the fixed costs of a migration (start, statistics, swap: about a second), which only small tables feel.
    let rates: Vec<f64> = of_size
        .iter()
        .flat_map(|(rows, samples)| {
            [Way::Ours, Way::OursWithoutStatistics].map(|way| {
                let sample = of(samples, way);
                *rows as f64 / (sample.copy_and_index_s + sample.check_s)
            })
        })
        .collect();
    let spread = rates.iter().copied().fold(0.0, f64::max)
        / rates.iter().copied().fold(f64::INFINITY, f64::min);
    let copied = ours.copy_and_index_s;
    let wal = ours.wal_bytes / update.wal_bytes;
    vec![
        at_least(
            "one UPDATE's time, of copy and indexes",
            update.seconds / copied,
            2.5,
            " x",
        ),
        at_least(
            "one UPDATE's time, of everything with the check",
            update.seconds / ours.seconds,
            2.5,
            " x",
        ),
        at_least(
            "the same in processor time",
            update.cpu_s / ours.cpu_s,
            2.5,
            " x",
        ),
        at_most(
            "copy and indexes, of CREATE TABLE AS + indexes",
            copied / create.seconds,
            1.2,
            " x",
        ),
        at_most(
            "everything with the check, of CREATE TABLE AS + indexes",
            ours.seconds / create.seconds,
            1.2,
            " x",
        ),
        at_most(
            "the same in processor time",
            ours.cpu_s / create.cpu_s,
            1.2,
            " x",
        ),
        at_most("WAL, of the UPDATE's", wal, 0.35, " x"),
        at_most("size after, of before", ours.growth, 1.05, " x"),
        at_most(
            "rate, best over worst, all sizes and statistics",
            spread,
            FLAT,
            " x",
        ),
    ]
}
