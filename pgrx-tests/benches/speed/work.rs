//! The whole of each way in instructions a row: what rate.rs measures in seconds, without the noise of a busy machine – and
//! without the disk, of which an UPDATE needs most.

use transmute_tests::report::grouped;
use transmute_tests::{Build, Cluster, Database, StopMode};

use crate::callgrind::{self, Counter};
use crate::rate::{fill, indexes, COLUMNS};
use crate::{at_least, at_most, row, show, Aim};

/// More than the 30,000 rows that ANALYZE samples, so that its cost is the same in both.
const FEW: u32 = 32_000;
const MANY: u32 = 72_000;

const OURS: &str = "transmute, with statistics and check";
const UPDATE: &str = "one big UPDATE";
const CREATE: &str = "CREATE TABLE AS, same indexes";
const ALTER: &str = "ALTER TABLE";

/// In single-user mode a migration runs in the foreground; dividing by 0 is the way to say that it did not finish.
const WAYS: [(&str, &str); 4] = [
    (
        OURS,
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint');\n\nSELECT * FROM transmute.apply('m');\n\n\
         CALL transmute.run('m');\n\nSELECT 1 / (transmute.state('m') = 'FINISHED')::int",
    ),
    (UPDATE, "UPDATE t SET b = a"),
    (
        CREATE,
        "CREATE TABLE n AS SELECT id, a::bigint AS a, name, email, created, updated, state, amount, flag, note FROM t;\n\n\
         ALTER TABLE n ADD PRIMARY KEY (id);\n\nCREATE INDEX ON n (created)",
    ),
    (ALTER, "ALTER TABLE t ALTER COLUMN a TYPE bigint"),
];

pub fn run() -> Vec<Aim> {
    if let Some(why) = callgrind::missing() {
        println!("\nInstructions of each way: not measured, {why}.");
        return Vec::new();
    }
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .conf("wal_level = replica")
        .conf("shared_buffers = 256MB")
        .conf("max_wal_size = 4GB")
        .conf("autovacuum = off")
        // Valgrind is some fifty times slower: batches of the usual time would hold fifty times fewer rows.
        .conf("transmute.batch_target_ms = 10s")
        .start();
    let [few, many] = [FEW, MANY].map(|rows| {
        let database = Database::create(&cluster);
        let mut session = database.connect();
        session.exec(&format!("CREATE TABLE t ({COLUMNS})"));
        session.exec(&format!("INSERT INTO t {}", fill(i64::from(rows))));
        indexes(&mut session, "t");
        session.exec("VACUUM (FREEZE, ANALYZE) t");
        session.exec("ALTER TABLE t ADD COLUMN b bigint");
        database
    });
    cluster.stop(StopMode::Fast);
    let counter = Counter::new(&cluster);
    let counts = WAYS.map(|(name, sql)| {
        eprintln!("counting: {name}");
        let less = counter.instructions(few.name(), sql);
        let more = counter.instructions(many.name(), sql);
        (name, (more - less) / f64::from(MANY - FEW))
    });
    drop(counter);
    let of = |wanted: &str| {
        let found = counts.iter().find(|(name, _)| *name == wanted);
        found.map_or(f64::NAN, |(_, count)| *count)
    };
    let mut table = vec![row([
        "",
        "instructions a row",
        "of UPDATE's",
        "of CREATE TABLE AS's",
    ])];
    for (name, count) in counts {
        table.push(row([
            name,
            &grouped(count),
            &format!("{:.2}", count / of(UPDATE)),
            &format!("{:.2}", count / of(CREATE)),
        ]));
    }
    show("int → bigint in instructions a row, by callgrind", &table);
    vec![
        at_least(
            "one UPDATE's instructions, of everything with the check",
            of(UPDATE) / of(OURS),
            2.5,
            " x",
        ),
        at_most(
            "everything with the check, of CREATE TABLE AS's instructions",
            of(OURS) / of(CREATE),
            1.2,
            " x",
        ),
    ]
}
