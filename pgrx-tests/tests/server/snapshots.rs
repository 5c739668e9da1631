//! Transactions that were there before the swap: each sees what it would have seen, or is waited for – outside the lock
//! queue, so that nobody else waits with it.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use super::ledger::Ledger;
use super::scene::{apply, assert_finished, create_table, wait_state, watch_for, ALTER, ID};

/// How long anybody may wait behind us: the default of transmute.lock_timeout and a margin for a busy machine.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

fn approve(session: &mut Session) {
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
}

fn wait_waiting_for(session: &mut Session, pattern: &str) {
    session.wait_for(
        &format!("SELECT waiting_for ~ '{pattern}' FROM transmute.status WHERE id = '{ID}'"),
        "t",
        PATIENCE,
    );
}

/// The migration stays where it is, and statements of the application pass it without queueing.
fn assert_waits_outside_the_queue(database: &Database<'_>) {
    let (mut session, mut application) = (database.connect(), database.connect());
    let mut id = 100_000;
    let mut longest = Duration::ZERO;
    watch_for(Duration::from_millis(1_500), || {
        assert_eq!(
            session.lines(&format!("SELECT transmute.state('{ID}')")),
            ["AWAITING_FINALIZATION"]
        );
        let since = Instant::now();
        application.batch(&[
            &format!("INSERT INTO t (id, a) VALUES ({id}, 1)"),
            "SELECT count(*) FROM t",
        ]);
        longest = longest.max(since.elapsed());
        id += 1;
    });
    assert!(
        longest < LONGEST_WAIT,
        "a statement of the application waited {longest:?}"
    );
}

#[test]
fn a_snapshot_older_than_the_copy_is_waited_for_and_keeps_seeing_the_old_table() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    let mut old = database.connect();
    old.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    apply(&mut session, ALTER, "{}");
    wait_state(&mut session, "AWAITING_FINALIZATION");
    wait_waiting_for(&mut session, "transaction");
    assert_waits_outside_the_queue(&database);
    // Only now does it touch the table, and sees what was there when it began.
    assert_eq!(old.lines("SELECT count(*), sum(a) FROM t"), ["500|125250"]);
    old.exec("COMMIT");
    assert_finished(&mut session);
}

#[test]
fn a_snapshot_younger_than_the_drain_sees_its_rows_after_the_swap() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.batch(&[
        "UPDATE t SET a = -a WHERE id <= 10",
        "DELETE FROM t WHERE id > 490",
    ]);
    session.wait_for("SELECT count(*) FROM _transmute_1_new.t", "490", PATIENCE);

    let what = "SELECT count(*), sum(a), min(a) FROM t";
    let expected = session.lines(what);
    let mut reader = database.connect();
    reader.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    let mut serializable = database.connect();
    serializable.exec("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT 1");
    // What comes after their snapshots is nothing to them, drained or not.
    session.batch(&["UPDATE t SET a = 7", "DELETE FROM t WHERE id <= 100"]);
    let ledger = Ledger::start(&database);
    ledger.wait_for_more(50);
    approve(&mut session);
    assert_finished(&mut session);
    ledger.wait_for_more(50);

    for reader in [&mut reader, &mut serializable] {
        assert_eq!(reader.lines(what), expected);
        assert_eq!(
            reader.lines("SET LOCAL enable_seqscan = off; SELECT count(*) FROM t WHERE id <= 490"),
            ["490"]
        );
        reader.exec("COMMIT");
        assert_ne!(reader.lines(what), expected);
    }
    ledger.stop_and_compare(&mut session);
}

#[test]
fn a_snapshot_that_would_miss_a_row_after_the_swap_is_refused_and_no_other_is() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    session.exec(
        "CREATE TABLE other (i int); INSERT INTO other VALUES (1); \
         CREATE FUNCTION one(int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 \
         AS 'BEGIN RETURN (SELECT a FROM t WHERE id = $1); END'",
    );
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("drain_before_commit");
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
    // Everything that it sees is in the shadow.
    let mut early = database.connect();
    early.exec(begin);
    session.exec("UPDATE t SET a = -1 WHERE id = 1");
    waitpoints.wait_reached("drain_before_commit", PATIENCE);
    // Committed before these snapshots, and not yet in the shadow.
    let mut late: Vec<Session> = (0..7).map(|_| database.connect()).collect();
    late.iter_mut().for_each(|session| session.exec(begin));
    let mut newest = database.connect();
    waitpoints.release("drain_before_commit");
    session.wait_for(
        "SELECT a FROM _transmute_1_new.t WHERE id = 1",
        "-1",
        PATIENCE,
    );
    newest.exec("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1");
    approve(&mut session);
    assert_finished(&mut session);

    assert_eq!(early.lines("SELECT count(*), min(a) FROM t"), ["500|1"]);
    assert_eq!(newest.lines("SELECT count(*), min(a) FROM t"), ["500|-1"]);
    newest.exec("UPDATE t SET a = -2 WHERE id = 1; COMMIT");
    for (session, statement) in late.iter_mut().zip([
        "SELECT count(*) FROM t",
        "SELECT * FROM other LEFT JOIN LATERAL (SELECT a FROM t WHERE id = i) AS one ON true",
        "UPDATE t SET a = a + 1 WHERE id = 1",
        "INSERT INTO other SELECT a FROM t WHERE id = 1",
        "COPY t TO STDOUT",
        "EXPLAIN ANALYZE SELECT a FROM t",
        // In a parallel worker, or in its leader.
        "SELECT sum(one(i)) FROM other",
    ]) {
        session.exec("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0");
        if statement.contains("one(") {
            let plan = session.lines(&format!("EXPLAIN {statement}"));
            assert!(plan.iter().any(|line| line.contains("Gather")), "{plan:?}");
        }
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "40001", "{statement}: {error}");
        assert!(
            error
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains("\"m\"")),
            "{error}"
        );
        // Run again, it sees everything; and what does not read the table was never refused.
        session.exec("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(session.lines("SELECT a FROM t WHERE id = 1"), ["-2"]);
        session.exec("COMMIT");
    }
    early.exec("INSERT INTO t (id, a) VALUES (501, 1); SELECT * FROM other; COMMIT");
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["501"]);
}

#[test]
fn a_cursor_with_hold_is_not_waited_for_and_an_open_one_is_by_name() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let mut held = database.connect();
    held.batch(&[
        "DECLARE c CURSOR WITH HOLD FOR SELECT id, a FROM t ORDER BY id",
        "FETCH 3 FROM c",
    ]);
    let mut open = database.connect();
    open.exec("BEGIN; DECLARE c CURSOR FOR SELECT id, a FROM t ORDER BY id; FETCH 3 FROM c");
    let pid = database.connect().lines("SELECT pid FROM pg_stat_activity WHERE query ~ 'BEGIN; DECLARE' AND state = 'idle in transaction'");
    approve(&mut session);
    wait_waiting_for(
        &mut session,
        &format!("pid {}.*idle in transaction", pid[0]),
    );
    assert_waits_outside_the_queue(&database);
    assert_eq!(open.lines("FETCH 1 FROM c"), ["4|4"]);
    open.exec("COMMIT");
    assert_finished(&mut session);
    assert_eq!(held.lines("FETCH 2 FROM c"), ["4|4", "5|5"]);
    assert_eq!(
        held.lines("SELECT count(*) FROM t WHERE id <= 500"),
        ["500"]
    );
    assert_eq!(
        held.lines("MOVE ALL FROM c; FETCH BACKWARD 1 FROM c"),
        ["500|500"]
    );
}

#[test]
fn a_prepared_transaction_that_wrote_to_the_table_is_waited_for_by_name() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    let name = format!("of {}", database.name());
    session.exec(&format!(
        "BEGIN; UPDATE t SET a = -5 WHERE id = 5; PREPARE TRANSACTION '{name}'"
    ));
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    // Before the capture: its write would not be in the key log.
    wait_waiting_for(&mut session, "prepared transaction");
    assert_eq!(
        session.lines(&format!("SELECT transmute.state('{ID}')")),
        ["INITIALIZING"]
    );
    session.exec(&format!("COMMIT PREPARED '{name}'"));
    wait_state(&mut session, "AWAITING_FINALIZATION");

    session.exec(&format!(
        "BEGIN; UPDATE t SET a = -6 WHERE id = 6; INSERT INTO t VALUES (501, 1); PREPARE TRANSACTION '{name}'"
    ));
    approve(&mut session);
    wait_waiting_for(&mut session, "prepared transaction");
    assert_waits_outside_the_queue(&database);
    session.exec(&format!("COMMIT PREPARED '{name}'"));
    assert_finished(&mut session);
    assert_eq!(
        session.lines("SELECT id, a FROM t WHERE id IN (5, 6, 501) ORDER BY id"),
        ["5|-5", "6|-6", "501|1"]
    );
}

#[test]
fn a_transaction_that_never_touched_the_table_does_not_starve_the_swap() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    session.exec("CREATE TABLE other (i int)");
    // As long as it lives, every snapshot in the server reaches back to it: none of them is old for that.
    let name = format!("of {}", database.name());
    session.exec(&format!(
        "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION '{name}'"
    ));
    let mut idle = database.connect();
    idle.exec("BEGIN; INSERT INTO other VALUES (2)");
    // Somebody always holds a snapshot, though never for long.
    let busy: Vec<_> = (0..2)
        .map(|_| {
            database.connect().in_background(
                "DO $$ BEGIN FOR i IN 1..200 LOOP PERFORM pg_sleep(0.05); COMMIT; END LOOP; END $$",
            )
        })
        .collect();
    apply(&mut session, ALTER, "{}");
    session.wait_for(
        &format!("SELECT transmute.state('{ID}')"),
        "FINISHED",
        Duration::from_secs(8),
    );
    assert!(
        busy.iter().all(|one| !one.is_finished()),
        "nobody was busy any more"
    );
    session.exec(&format!("ROLLBACK PREPARED '{name}'"));
    idle.exec("COMMIT");
    assert_finished(&mut session);
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^DO' AND datname = current_database()";
    session.exec(cancel);
    for one in busy {
        assert_eq!(one.join().1.unwrap_err().sqlstate, "57014");
    }
}
