//! What watching costs: a look at the status of a thousand migrations, and the counting of who uses an old shape.

use std::time::Instant;

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Build, Cluster, Database, StopMode};

use crate::callgrind::{self, Counter};
use crate::{at_most, repeat, row, show, Aim};

const FEW: u32 = 200;
const MANY: u32 = 1200;

/// A thousand migrations with steps, dead letters and a trail behind them, five of which wait.
const MIGRATIONS: &str = "
    INSERT INTO _transmute.migrations (id, up, checksum, plan_checksum, owner_name, search_path, settings, keep_artifacts, state)
      SELECT 'm' || i, repeat('x', 1000), 'x', 'x', 'postgres', '', '[]', '0', CASE WHEN i > 995 THEN 'AWAITING_FINALIZATION' ELSE 'FINISHED' END
      FROM generate_series(1, 1000) AS i;
    INSERT INTO _transmute.drivers (migration_id) SELECT id FROM _transmute.migrations;
    INSERT INTO _transmute.steps (migration_id, step, phase, kind, statement, target, sql, detail, status)
      SELECT id, s, 'backfill', 'rewrite_copy', 1, 't', 'x', '{}', 'done' FROM _transmute.migrations, generate_series(1, 8) AS s;
    INSERT INTO _transmute.dead_letters (migration_id, rewrite_id, key_text, expression, sqlstate, message, status, resolved_at)
      SELECT 'm' || i % 900 + 1, 1, 'k' || i, 'x', '22P02', 'x', 'resolved', now() FROM generate_series(1, 50000) AS i;
    INSERT INTO _transmute.audit_events (seq, encoding_version, at, transaction_at, xid, session_user_name, current_user_name,
        application_name, migration_id, event, prev_hash, hash)
      SELECT i, 1, now(), now(), '1', 'x', 'x', 'x', 'm' || i % 1000, 'x', sha256(i::text::bytea), sha256(i::text::bytea)
      FROM generate_series(1, 100000) AS i;
    ANALYZE";

pub fn run() -> Vec<Aim> {
    let mut aims = status();
    aims.extend(usage());
    aims
}

/// Milliseconds of a look, the least of several.
fn status() -> Vec<Aim> {
    let cluster = Cluster::builder().build(Build::Shipped).start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(MIGRATIONS);
    let mut rows = vec![row(["1,000 migrations", "ms"])];
    let mut aims = Vec::new();
    for (what, sql) in [
        ("all of status", "SELECT * FROM transmute.status"),
        (
            "one row of status",
            "SELECT * FROM transmute.status WHERE id = 'm999'",
        ),
        ("metrics()", "SELECT transmute.metrics()"),
    ] {
        let least = (0..10 * repeat())
            .map(|_| {
                let start = Instant::now();
                session.exec(sql);
                start.elapsed().as_secs_f64() * 1000.0
            })
            .fold(f64::MAX, f64::min);
        rows.push(row([what, &format!("{least:.1}")]));
        aims.push(at_most(
            &format!("{what}, 1,000 migrations"),
            least,
            100.0,
            " ms",
        ));
    }
    show("What a look costs", &rows);
    aims
}

/// Instructions of a statement by its key while a column has two names and its migration soaks.
fn usage() -> Vec<Aim> {
    if let Some(missing) = callgrind::missing() {
        println!("\nnot counted: {missing}");
        return Vec::new();
    }
    let cluster = Cluster::builder().build(Build::Shipped).start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        r#"CREATE TABLE t (id int PRIMARY KEY, a int, note text); INSERT INTO t SELECT i, i, 'x' FROM generate_series(1, 10000) AS i;
           SELECT transmute.register('m', 'ALTER TABLE t RENAME COLUMN a TO b', meta => '{"pre_finalization_soak": "1 hour"}');
           SELECT transmute.apply('m')"#,
    );
    session.wait_for(
        "SELECT transmute.state('m')",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    let name = database.name().to_string();
    drop(session);
    cluster.stop(StopMode::Fast);
    let counter = Counter::new(&cluster);
    // The driver says what is watched, to this very process.
    let watched = "CALL transmute.run('m', 1);\n\n";
    let statements = |prefix: &'static str, column: &'static str| {
        move |n: u32| {
            let one = |i: u32| format!("SELECT {column} FROM t WHERE id = {}", 1 + i % 10_000);
            prefix.to_string() + &(0..n).map(one).collect::<Vec<_>>().join(";\n\n")
        }
    };
    let count = |prefix, column| counter.per_row(&name, statements(prefix, column), FEW, MANY);
    let (nobody, other, old) = (count("", "b"), count(watched, "b"), count(watched, "a"));
    show(
        "Instructions of SELECT … WHERE id = …, planned each time",
        &[
            row(["nothing is watched", &format!("{nobody:.0}")]),
            row(["watched, uses the new name", &format!("{other:.0}")]),
            row(["watched, uses the old name", &format!("{old:.0}")]),
        ],
    );
    vec![
        at_most(
            "a statement while something else is watched, instructions",
            other / nobody,
            1.01,
            " ×",
        ),
        at_most(
            "a statement that is counted, instructions",
            old / nobody,
            1.02,
            " ×",
        ),
    ]
}
