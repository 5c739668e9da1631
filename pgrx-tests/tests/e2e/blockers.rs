//! Who is in the way of a strong lock, or would see the wrong table: waited for outside the lock queue, by name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::{Database, DbError, Session};

use crate::migration::{assert_sound, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
/// As long as the report of the issue that this design answers.
const REPORT_S: u32 = 10;
/// The longest that a statement of the application may wait for a lock because of us.
const LONGEST_WAIT_MS: u32 = 150;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE elsewhere (i int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 5000) AS i",
    );
    session
}

/// An application whose statements fail when they wait too long: what it did, and the first failure.
struct Impatient {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, Option<DbError>)>,
}

impl Impatient {
    fn start(database: &Database<'_>) -> Impatient {
        let mut session = database.connect();
        session.exec(&format!("SET lock_timeout = {LONGEST_WAIT_MS}"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut statements = 0;
            while !stopped.load(Ordering::Relaxed) {
                for sql in [
                    "UPDATE t SET a = a + 1 WHERE id = 1",
                    "SELECT * FROM t WHERE id = 2",
                    "INSERT INTO t VALUES (0, 0); DELETE FROM t WHERE id = 0",
                ] {
                    if let Err(error) = session.try_exec(sql) {
                        return (statements, Some(error));
                    }
                    statements += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (statements, None)
        });
        Impatient { stop, thread }
    }

    fn stop(self) -> (u64, Option<DbError>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the application")
    }
}

#[test]
fn behind_a_long_report_the_swap_waits_outside_the_queue() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::register(&database, "m", TO_BIGINT, "{}");
    let watch = Lockwatch::start(&database, "t");
    let application = Impatient::start(&database);
    // Idle between two statements, it holds no snapshot: the lock alone is in the way.
    let mut report = database.connect();
    report.exec("BEGIN; SELECT count(*) FROM t");
    migration.apply();
    migration.wait_for(
        "state = 'AWAITING_FINALIZATION' AND waiting_for LIKE '%Held by pid % (transmute-tests), idle in transaction%'",
        "t",
    );
    // In another database, where its own snapshot is in nobody's way.
    let time_passes = format!("SELECT pg_sleep({REPORT_S})");
    database.cluster().connect().exec(&time_passes);
    // It reads on in the same transaction: the table has not changed under it.
    assert_eq!(
        report.lines("SELECT pg_typeof(a) FROM t LIMIT 1"),
        ["integer"]
    );
    report.exec("COMMIT");
    migration.finish();
    let (statements, failure) = application.stop();
    assert!(
        failure.is_none(),
        "after {statements} statements: {failure:?}"
    );
    let locks = watch.stop();
    println!(
        "{statements} statements; ACCESS EXCLUSIVE asked for and not got: {} times, at most {:.0} ms",
        locks.waited.len(),
        locks.longest_wait_ms()
    );
    assert_sound(&mut session, "t");
}

#[test]
fn a_lock_that_is_in_the_way_of_the_expand_step_is_waited_for_outside_the_queue() {
    let database = Database::shared();
    table(&database);
    let mut writer = database.connect();
    writer.exec("BEGIN; INSERT INTO t VALUES (-1, -1)");
    let pid = writer.pid();
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for(
        &format!("state = 'INITIALIZING' AND waiting_for LIKE '%Held by pid {pid} (transmute-tests), idle in transaction%'"),
        "t",
    );
    let application = Impatient::start(&database);
    migration.wait_for("last_error IS NULL AND outcome = 'RUNNING'", "t");
    // Readers and writers go on behind it; what was not committed when the capture began is not lost either.
    writer.exec("COMMIT");
    migration.finish();
    assert!(application.stop().1.is_none());
    assert_eq!(
        migration.session().lines("SELECT a FROM t WHERE id = -1"),
        ["-1"]
    );
}

#[test]
fn a_prepared_transaction_is_named_and_waited_for() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        TO_BIGINT,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("BEGIN; UPDATE t SET a = 77 WHERE id = 7; PREPARE TRANSACTION 'blockers'");
    migration.call("skip_soak", "'enough'");
    migration.wait_for("waiting_for LIKE '%prepared transaction%'", "t");
    session.exec("COMMIT PREPARED 'blockers'");
    migration.finish();
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 7"), ["77"]);
}

#[test]
fn a_snapshot_older_than_the_copy_is_waited_for_and_sees_the_old_table() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut reader = database.connect();
    // It holds no lock on t: only its snapshot speaks for it.
    reader.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM elsewhere");
    let pid = reader.pid();
    session.exec("UPDATE t SET a = -a");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for(
        "state = 'AWAITING_FINALIZATION' AND waiting_for = '1 transaction began before the new shape was complete; waits for the end'",
        "t",
    );
    assert_eq!(
        reader.lines("SELECT count(*), sum(a), min(pg_typeof(a)::text) FROM t"),
        ["5000|12502500|integer"],
        "pid {pid}"
    );
    reader.exec("COMMIT");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum(a) FROM t"),
        ["5000|-12502500"]
    );
}

#[test]
fn a_snapshot_between_the_copy_and_the_swap_sees_every_row_after_it() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        TO_BIGINT,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("UPDATE t SET a = a + 1");
    migration.wait_for(
        "lag = 0 AND (SELECT sum(drained_keys) >= 5000 FROM transmute.progress)",
        "t",
    );
    let mut reader = database.connect();
    reader.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM elsewhere");
    // Not for the reader's eyes.
    session.exec("DELETE FROM t WHERE id > 4000; INSERT INTO t VALUES (6000, 6000); UPDATE t SET a = 0 WHERE id < 1000");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        reader.lines("SELECT count(*), sum(a), min(pg_typeof(a)::text) FROM t"),
        ["5000|12507500|bigint"],
        "as of its snapshot, in the new shape"
    );
    reader.exec("COMMIT");
    assert_eq!(reader.lines("SELECT count(*) FROM t"), ["4001"]);
    assert_sound(&mut session, "t");
}

#[test]
fn a_cursor_over_the_swap_keeps_it_waiting_and_one_with_hold_does_not() {
    let database = Database::shared();
    table(&database);
    let mut held = database.connect();
    held.exec("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT id, a FROM t ORDER BY id; COMMIT");
    let mut open = database.connect();
    let mut migration = Migration::start(
        &database,
        "m",
        TO_BIGINT,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    open.exec("BEGIN; DECLARE open CURSOR FOR SELECT id, a FROM t ORDER BY id; FETCH 10 FROM open");
    migration.call("skip_soak", "'enough'");
    // Its lock is in the way; its snapshot may be, when it was taken beside an older transaction of somebody else's.
    migration.wait_for(
        "waiting_for LIKE '%Held by pid%' OR waiting_for LIKE '1 transaction began before%'",
        "t",
    );
    assert_eq!(open.lines("FETCH 1 FROM open"), ["11|11"]);
    open.exec("COMMIT");
    migration.finish();
    assert_eq!(held.lines("FETCH 1 FROM held"), ["1|1"]);
    assert_eq!(held.lines("FETCH LAST FROM held"), ["5000|5000"]);
}
