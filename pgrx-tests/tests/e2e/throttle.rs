//! What the settings leave the batches of the server: the copy and data statements wait, say for what, and go on.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const ROWS: i64 = 30_000;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
         INSERT INTO t SELECT i, 0, repeat('x', 60) FROM generate_series(1, {ROWS}) AS i;
         ANALYZE t"
    ));
    session
}

#[test]
fn batches_write_no_more_wal_in_a_second_than_they_may() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("max_wal_rate", "2MB"), ("batch_target_ms", "20")],
    );
    let mut session = table(&database);
    for (id, ddl) in [
        ("copy", "ALTER TABLE t ALTER COLUMN n TYPE bigint"),
        ("update", "UPDATE t SET n = n + 1"),
    ] {
        let mut migration = Migration::register(&database, id, ddl, "{}");
        let begun = Instant::now();
        migration.apply();
        migration.wait_for("waiting_for", "the WAL rate, transmute.max_wal_rate");
        migration.finish();
        let seconds = begun.elapsed().as_secs_f64();
        // 30,000 rows of a hundred bytes are three megabytes at least: a second and a half, and the last batch is not waited for.
        assert!(seconds >= 0.6, "{id}: {seconds} s");
    }
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|30000"]
    );
}

#[test]
fn no_batch_begins_under_more_load_than_allowed_and_it_goes_on_afterwards() {
    let database = Database::shared();
    migration::set(
        &database,
        &[
            ("max_load", "1000"),
            ("batch_target_ms", "2"),
            ("backfill_duty", "3"),
        ],
    );
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.wait_for("rows_done > 100", "t");
    // A session waits for a lock on the table: nobody is kept waiting by batches that come one after the other.
    let mut reader = database.connect();
    reader.exec("BEGIN; SELECT count(*) FROM t");
    let locker = database
        .connect()
        .in_background("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; COMMIT");
    migration.wait_for(
        "waiting_for",
        "1 sessions that wait for a lock on the table",
    );
    let done = migration.status("rows_done");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(migration.status("rows_done"), done);
    assert_eq!(migration.status("state"), "FINISHING");
    reader.exec("COMMIT");
    let _ = locker.join();
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|30000"]
    );

    // The limit itself: two sessions are one too many.
    migration::set(&database, &[("max_load", "1")]);
    let mut load: Vec<_> = (0..3)
        .map(|_| database.connect().in_background("SELECT pg_sleep(600)"))
        .collect();
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'",
        "3",
        PATIENCE,
    );
    // The conductor takes a new setting of the database when it is started anew.
    session.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'transmute conductor' AND datname = current_database()");
    let mut second = Migration::start(&database, "n", "UPDATE t SET n = n + 1", "{}");
    second.wait_for(
        "waiting_for LIKE 'the load: % active sessions, more than transmute.max_load = 1'",
        "t",
    );
    assert_eq!(second.status("rows_done"), "0");
    session.exec(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'",
    );
    for sleeper in load.drain(..) {
        let _ = sleeper.join();
    }
    migration::set(&database, &[("max_load", "0")]);
    session.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'transmute conductor' AND datname = current_database()");
    second.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["2|30000"]
    );
}
