//! Statements that may not be applied twice to a row, under an application that moves rows all the time.

use transmute_tests::pgbench::Pgbench;
use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::{assert_nothing_left, slowly};
use crate::migration::{assert_sound, Migration};

const ROWS: i64 = 30_000;

/// `n` is the migration's, `app` the application's, the padding moves rows to other pages.
fn create(session: &mut Session, with: &str) {
    session.exec(&format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, app int NOT NULL DEFAULT 0, pad text) {with};
         INSERT INTO t SELECT i, 0, 0, repeat('x', 1 + i % 90) FROM generate_series(1, {ROWS}) AS i;
         DELETE FROM t WHERE id % 10 = 7;
         CREATE INDEX ON t (app);
         CREATE SEQUENCE new_ids START 1000000;
         ANALYZE t"
    ));
}

/// One transaction, one more in `app`, and a row that grows or shrinks.
const MOVE: &str = "\\set id random(1, 30000)
\\set pad random(1, 400)
UPDATE t SET app = app + 1, pad = repeat('y', :pad) WHERE id = :id;
";
const NEW: &str = "INSERT INTO t (id, pad) VALUES (nextval('new_ids'), repeat('z', 50));
";

/// The statement runs, under load and VACUUM, over a table made `with`; then each old row has been met once.
fn once_under_load(with: &str) {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    create(&mut session, with);
    let rows: i64 = session.scalar("SELECT count(*) FROM t");
    let mut load = Pgbench::new(&database)
        .clients(3)
        .rate(400)
        .script(MOVE)
        .script(MOVE)
        .script(MOVE)
        .script(NEW)
        .start();
    load.wait_running();
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    let mut rounds = 0;
    while migration.status("state") != "FINISHED" {
        session.exec("VACUUM t");
        rounds += 1;
        assert!(rounds < 10_000, "{}", migration.status("waiting_for"));
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{:?}", report.errors);
    assert!(rounds > 1);
    // Every row that was there has been met once, none twice; of those that came later some were in time for the list.
    assert_eq!(
        session.lines("SELECT DISTINCT n FROM t WHERE id < 1000000"),
        ["1"]
    );
    assert_eq!(
        session.scalar::<i64>("SELECT count(*) FROM t WHERE id < 1000000"),
        rows
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE n NOT IN (0, 1)"),
        ["0"]
    );
    // The new ones that the list missed are the last ones.
    assert_eq!(
        session.lines("SELECT count(*) > 0 FROM t WHERE id >= 1000000 AND n = 0"),
        ["t"]
    );
    assert_eq!(
        migration.status("rows_done"),
        session
            .scalar::<i64>("SELECT count(*) FROM t WHERE n = 1")
            .to_string()
    );
    // No write of the application was lost.
    let app: i64 = session.scalar("SELECT sum(app) FROM t");
    assert!(app > 100, "{app} updates of the application");
    assert_sound(&mut session, "t");
    assert_nothing_left(&mut session);
}

#[test]
fn an_update_that_is_not_idempotent_meets_each_row_once_while_rows_move() {
    once_under_load("");
}

#[test]
fn it_does_so_on_pages_with_room_where_versions_stay_near() {
    once_under_load("WITH (fillfactor = 40)");
}

#[test]
fn it_does_so_in_every_partition_at_once() {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id bigint, p int, n int NOT NULL DEFAULT 0, app int NOT NULL DEFAULT 0, pad text, PRIMARY KEY (id, p))
           PARTITION BY LIST (p);
         CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0);
         CREATE TABLE t1 (pad text, app int NOT NULL DEFAULT 0, p int NOT NULL, n int NOT NULL DEFAULT 0, gone int, id bigint NOT NULL);
         ALTER TABLE t1 DROP COLUMN gone;
         ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1);
         CREATE TABLE t2 PARTITION OF t DEFAULT;
         INSERT INTO t SELECT i, i % 4, 0, 0, repeat('x', 60) FROM generate_series(1, 20000) AS i;
         ANALYZE t",
    );
    let mut load = Pgbench::new(&database)
        .clients(2)
        .rate(300)
        .script(
            "\\set id random(1, 20000)
UPDATE t SET app = app + 1, pad = repeat('y', 100) WHERE id = :id;
",
        )
        .start();
    load.wait_running();
    let mut migration =
        Migration::start(&database, "m", "UPDATE t SET n = n + 1 WHERE p < 3", "{}");
    migration.finish();
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{:?}", report.errors);
    assert_eq!(
        session.lines("SELECT p < 3, min(n), max(n), count(*) FROM t GROUP BY 1 ORDER BY 1"),
        ["f|0|0|5000", "t|1|1|15000"]
    );
    assert_nothing_left(&mut session);
}

#[test]
fn what_the_application_changes_before_its_turn_is_judged_as_it_is_then() {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, state text, n int DEFAULT 0);
         INSERT INTO t SELECT i, 'old' FROM generate_series(1, 20000) AS i",
    );
    let mut points = transmute_tests::waitpoint::Waitpoints::of(&database);
    points.hold("batch_before_commit");
    let mut migration = Migration::start(
        &database,
        "m",
        "UPDATE t SET n = n + 1, state = 'new' WHERE state = 'old'",
        "{}",
    );
    points.wait_reached("batch_before_commit", PATIENCE);
    // The first batch holds the first rows; the last ones are far from their turn.
    session.exec(
        "UPDATE t SET state = 'mine' WHERE id = 20000;
         DELETE FROM t WHERE id = 19999;
         UPDATE t SET n = 10 WHERE id = 19998;
         INSERT INTO t VALUES (30000, 'old', 0);
         UPDATE t SET id = 40000 WHERE id = 19997",
    );
    points.release("batch_before_commit");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, state, n FROM t WHERE id > 19996 ORDER BY id"),
        [
            "19998|new|11",
            "20000|mine|0",
            // Not there when it began, or another row since.
            "30000|old|0",
            "40000|old|0"
        ]
    );
    assert_eq!(
        session.lines("SELECT count(*), min(n), max(n) FROM t WHERE id < 19997"),
        ["19996|1|1"]
    );
}

#[test]
fn a_batch_gives_way_to_a_row_that_the_application_holds() {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0);
         INSERT INTO t SELECT i FROM generate_series(1, 5000) AS i",
    );
    let mut holder = database.connect();
    holder.exec("BEGIN; UPDATE t SET n = 100 WHERE id = 2500");
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.wait_for("waiting_for LIKE 'a lock, not granted%'", "t");
    // While it waits it holds no row of its own.
    session.exec("SET lock_timeout = '5s'; UPDATE t SET n = n WHERE id IN (2499, 2501)");
    holder.exec("COMMIT");
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n ORDER BY n"),
        ["1|4999", "101|1"]
    );
}
