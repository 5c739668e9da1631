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
    // Our processes take a new setting of the database when they are started anew.
    let start_anew = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^transmute (conductor|driver)' AND datname = current_database()";
    migration::set(&database, &[("backfill_duty", "100")]);
    session.exec(start_anew);
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|30000"]
    );

    // The limit itself: two sessions are one too many.
    migration::set(&database, &[("max_load", "1"), ("backfill_duty", "3")]);
    let mut load: Vec<_> = (0..3)
        .map(|_| database.connect().in_background("SELECT pg_sleep(600)"))
        .collect();
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'",
        "3",
        PATIENCE,
    );
    session.exec(start_anew);
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
    migration::set(&database, &[("max_load", "0"), ("backfill_duty", "100")]);
    session.exec(start_anew);
    second.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["2|30000"]
    );
}

/// Ten megabytes: less is not worth a vacuum.
/// Nobody but us vacuums it: beside hundreds of databases autovacuum comes at any time.
fn large_table(session: &mut Session, name: &str) {
    session.exec(&format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text) WITH (autovacuum_enabled = off);
         CREATE INDEX ON {name} (n);
         INSERT INTO {name} SELECT i, 0, repeat('x', 160) FROM generate_series(1, 50000) AS i;
         ANALYZE {name}"
    ));
}

#[test]
fn a_table_grows_within_its_budget_while_every_row_is_changed() {
    let database = Database::shared();
    let settings = [("batch_target_ms", "10"), ("backfill_duty", "50")];
    migration::set(&database, &settings);
    let mut session = database.connect();
    large_table(&mut session, "t");
    large_table(&mut session, "unbounded");

    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.finish();
    assert_eq!(
        migration.status("growth BETWEEN 0.05 AND 0.3 AND vacuums >= 2"),
        "true",
        "{:?}",
        session.lines("SELECT growth, vacuums FROM transmute.status")
    );
    // What it would be without, and that a rewrite has nothing to do with it.
    let mut control = Migration::register(&database, "n", "UPDATE unbounded SET n = n + 1", "{}");
    control.call("tune", "'as large as it gets', max_growth => 0");
    control.apply();
    control.finish();
    let size = |session: &mut Session, table: &str| -> i64 {
        session.scalar(&format!("SELECT pg_relation_size('{table}')"))
    };
    let (bounded, unbounded) = (size(&mut session, "t"), size(&mut session, "unbounded"));
    assert!(
        bounded as f64 * 1.3 < unbounded as f64,
        "{bounded} and {unbounded} bytes"
    );
    let mut rewrite = Migration::start(
        &database,
        "r",
        "ALTER TABLE t ALTER COLUMN n TYPE bigint",
        "{}",
    );
    rewrite.finish();
    assert_eq!(rewrite.status("growth IS NULL AND vacuums IS NULL"), "true");

    // New columns that are filled beside the old ones are rows changed in place, too.
    let mut filled = Migration::start(
        &database,
        "f",
        "ALTER TABLE unbounded ADD COLUMN twice int; UPDATE unbounded SET twice = n * 2; ALTER TABLE unbounded DROP COLUMN n",
        r#"{"dual_write": "trigger", "reverse": {"n": "twice / 2"}}"#,
    );
    filled.finish();
    assert_eq!(filled.status("growth <= 0.3 AND vacuums >= 1"), "true");
    assert_eq!(
        session.lines("SELECT twice, count(*) FROM unbounded GROUP BY 1"),
        ["2|50000"]
    );
}

#[test]
fn dead_rows_that_cannot_be_removed_hold_the_batches_and_the_status_names_who_keeps_them() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "10"), ("backfill_duty", "50")],
    );
    let mut session = database.connect();
    large_table(&mut session, "t");
    let mut reader = database.connect();
    reader.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t LIMIT 1");
    let pid = reader.pid();
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.wait_for(
        &format!(
            "waiting_for LIKE 'dead rows of public.t, % of it, as many as transmute.max_growth allows: vacuum cannot remove them because of pid {pid} (transmute-tests)%'"
        ),
        "t",
    );
    assert_eq!(migration.status("rows_done < 50000"), "true");
    // Right behind a vacuum in vain, of which the next one would come in five seconds: it comes as soon as it can help.
    let vacuums = migration.status("vacuums");
    migration.wait_for(&format!("vacuums > {vacuums}"), "t");
    let held = migration.status("rows_done");
    reader.exec("COMMIT");
    session.wait_for(
        &format!("SELECT rows_done > {held} FROM transmute.status WHERE id = 'm'"),
        "t",
        Duration::from_secs(4),
    );
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|50000"]
    );

    // A lock that keeps vacuum away, as autovacuum's does while it analyzes: it is tried again soon.
    large_table(&mut session, "locked");
    reader.exec("BEGIN; LOCK TABLE locked IN SHARE UPDATE EXCLUSIVE MODE");
    let mut migration = Migration::start(&database, "n", "UPDATE locked SET n = n + 1", "{}");
    migration.wait_for(
        "waiting_for LIKE 'dead rows of public.locked, % allows: a lock of somebody keeps vacuum from it'",
        "t",
    );
    assert_eq!(
        migration.status("rows_done < 50000 AND vacuums = 0"),
        "true"
    );
    reader.exec("COMMIT");
    migration.finish();
    assert_eq!(
        migration.status("growth BETWEEN 0.05 AND 0.3 AND vacuums >= 2"),
        "true",
        "{:?}",
        session.lines("SELECT id, growth, vacuums FROM transmute.status")
    );
}

#[test]
fn no_batch_begins_while_a_replication_slot_keeps_too_much_wal() {
    let database = Database::shared();
    migration::set(&database, &[("max_slot_retention", "1MB")]);
    let mut session = table(&database);
    session.exec("SELECT pg_create_physical_replication_slot('far_behind', true)");
    session.exec(
        "CREATE TABLE much AS SELECT i, repeat('x', 100) FROM generate_series(1, 20000) AS i",
    );
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.wait_for(
        "waiting_for LIKE 'the replication slot far_behind, which keeps % MB of WAL, more than transmute.max_slot_retention'",
        "t",
    );
    assert_eq!(migration.status("rows_done"), "0");
    session.exec("SELECT pg_drop_replication_slot('far_behind')");
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|30000"]
    );
}
