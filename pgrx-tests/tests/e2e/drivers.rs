//! At most one process drives a migration, and an abandoned one is taken over at once.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::Database;

use crate::migration::Migration;

const STEPS: usize = 25;

#[test]
fn however_many_want_to_drive_one_does_at_a_time() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE log (n int, pid int, began timestamptz, ended timestamptz);
         CREATE FUNCTION probe(n int) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE began timestamptz := clock_timestamp();
         BEGIN
           PERFORM pg_sleep(0.02);
           INSERT INTO public.log VALUES (n, pg_backend_pid(), began, clock_timestamp());
         END $$",
    );
    let script: Vec<String> = (1..=STEPS).map(|n| format!("SELECT probe({n})")).collect();
    let mut migration = Migration::register(&database, "m", &script.join("; "), "{}");
    // The conductor and three sessions, all at once.
    migration.apply();
    let drivers: Vec<_> = (0..3)
        .map(|_| database.connect().in_background("CALL transmute.run('m')"))
        .collect();
    migration.finish();
    for driver in drivers {
        let (_, result) = driver.join();
        result.expect("a driver that ends by itself");
    }
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT n) FROM log"),
        [format!("{STEPS}|{STEPS}")]
    );
    assert_eq!(
        session.lines("SELECT a.n, b.n FROM log a JOIN log b ON a.n < b.n AND (a.began, a.ended) OVERLAPS (b.began, b.ended)"),
        [""; 0]
    );
    assert_eq!(
        session.lines("SELECT string_agg(to_state, ' ' ORDER BY seq) FROM transmute.history WHERE to_state IS NOT NULL"),
        ["INITIALIZING RUNNING AWAITING_FINALIZATION FINISHING FINISHED"]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn a_claim_that_its_process_leaves_is_taken_over_at_once() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)");
    let mut points = Waitpoints::of(&database);
    points.hold("copy_before_commit");
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    let first = points.wait_reached("copy_before_commit", PATIENCE);
    let waiting = database.connect().in_background("CALL transmute.run('m')");
    // It gets nothing to do while somebody else has it.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(points.waiting("copy_before_commit"), [first]);
    assert_eq!(migration.status("driver_pid"), first.to_string());
    let killed = Instant::now();
    session.exec(&format!("SELECT pg_terminate_backend({first}, 10000)"));
    let next = points.wait_reached("copy_before_commit", PATIENCE);
    assert_ne!(next, first);
    assert!(
        killed.elapsed() < Duration::from_secs(5),
        "{:?}",
        killed.elapsed()
    );
    points.release("copy_before_commit");
    migration.finish();
    waiting.join().1.expect("a driver that ends by itself");
}
