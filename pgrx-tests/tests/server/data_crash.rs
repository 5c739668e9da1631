//! A crash at every commit of a data statement that runs in batches: no row is met twice, none is left out.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{
    apply, assert_log_is_clean, assert_sound, reconnect, rows_done, wait_state, wait_worker,
};

const ROWS: i64 = 4_000;
/// May not be applied twice.
const UPDATE: &str = "UPDATE t SET n = n + 1; DELETE FROM t WHERE id % 10 = 0; TRUNCATE empty";
const POINTS: [&str; 4] = [
    "batch_list_before_commit",
    "batch_before_commit",
    "batch_done_before_commit",
    "data_before_commit",
];

fn create(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text)",
        &format!("INSERT INTO t SELECT i, 0, repeat('x', 60) FROM generate_series(1, {ROWS}) AS i"),
        "CREATE TABLE empty (a int)",
        "ANALYZE t",
    ]);
}

fn assert_done_once(session: &mut Session) {
    wait_state(session, "FINISHED");
    assert_eq!(
        session.lines("SELECT n, count(*), count(*) FILTER (WHERE id % 10 = 0) FROM t GROUP BY n"),
        [format!("1|{}|0", ROWS * 9 / 10)]
    );
    assert_eq!(
        session.lines("SELECT rows_done FROM transmute.progress ORDER BY step"),
        [ROWS.to_string(), (ROWS / 10).to_string()]
    );
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        [""; 0]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    assert_sound(session, "t");
}

fn crash_before_every_commit(crash: Crash) {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    hold(&mut session, POINTS[0]);
    apply(&mut session, UPDATE, "{}");
    for (i, point) in POINTS.into_iter().enumerate() {
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        if point == "batch_before_commit" {
            // In the midst of it, where there is something to lose.
            while rows_done(&mut session) < 700 {
                release(&mut session, point);
                hold(&mut session, point);
                Waitpoints::of(&database).wait_reached(point, PATIENCE);
            }
        }
        let done = rows_done(&mut session);
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        assert_eq!(rows_done(&mut session), done, "after a crash at {point}");
        if let Some(next) = POINTS.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
    }
    assert_done_once(&mut session);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_a_data_statement_costs_only_that_transaction() {
    crash_before_every_commit(Crash::Conductor);
}

#[test]
fn a_server_killed_before_any_commit_of_a_data_statement_costs_only_that_transaction() {
    crash_before_every_commit(Crash::Server);
}

#[test]
fn an_immediate_stop_before_any_commit_of_a_data_statement_costs_only_that_transaction() {
    crash_before_every_commit(Crash::ImmediateStop);
}

#[test]
fn a_crash_after_each_commit_loses_and_repeats_nothing() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    hold(&mut session, "after_commit");
    apply(&mut session, UPDATE, "{}");
    let kinds = [Crash::Conductor, Crash::Server, Crash::ImmediateStop];
    let mut before = 0;
    for crash in kinds.into_iter().cycle() {
        let conductor = Waitpoints::of(&database).wait_reached("after_commit", PATIENCE);
        let done = rows_done(&mut session);
        assert!(done >= before, "{done} rows after {before}");
        before = done;
        session = crash.strike(&database, conductor, session);
        if done > ROWS / 2 {
            break;
        }
    }
    release(&mut session, "after_commit");
    assert_done_once(&mut session);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_process_in_the_midst_of_a_batch_ends_at_once_when_asked() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 60000")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text)",
        "INSERT INTO t SELECT i, 0, 'x' FROM generate_series(1, 3000) AS i",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN new; END $$",
        "CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()",
    ]);
    apply(&mut session, "UPDATE t SET n = n + 1", "{}");
    for _ in 0..2 {
        let pid = wait_worker(&mut session, "driver");
        session.wait_for(
            &format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"),
            "PgSleep",
            PATIENCE,
        );
        let asked = Instant::now();
        session.exec(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    }
    session.exec("SET transmute.allow_ddl = on; DROP TRIGGER slow ON t");
    let mut session = reconnect(&database);
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|3000"]
    );
    assert_log_is_clean(&cluster);
}
