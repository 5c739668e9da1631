//! Snapshots from before a swap, where they are used otherwise than by a session beside us: on a standby, by pg_dump, under a
//! time limit; and what it costs to look.

use std::process::{Command, Output};
use std::thread::JoinHandle;

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::scene::{apply, assert_finished, assert_log_is_clean, create_table, wait_state, ALTER};
use super::standby::{catch_up, config_of};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
const ROWS: &str = "SELECT count(*), min(a) FROM t";

/// Moments around a write that a drain brings over.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Everything that a snapshot sees is in the shadow.
    Before,
    /// The write is committed, and not in the shadow yet: a snapshot of now misses it after the swap.
    Between,
    /// It is in the shadow.
    After,
}

/// Swaps a table of 500 rows, of which one is written shortly before: a = -1. `at` takes snapshots on its way.
fn swap(database: &Database<'_>, session: &mut Session, mut at: impl FnMut(Moment)) {
    apply(session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(session, "AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(database);
    waitpoints.hold("drain_before_commit");
    at(Moment::Before);
    session.exec("UPDATE t SET a = -1 WHERE id = 1");
    waitpoints.wait_reached("drain_before_commit", PATIENCE);
    at(Moment::Between);
    waitpoints.release("drain_before_commit");
    session.wait_for(
        "SELECT a FROM _transmute_1_new.t WHERE id = 1",
        "-1",
        PATIENCE,
    );
    at(Moment::After);
    session.exec("SELECT transmute.approve('m', 'seen')");
    assert_finished(session);
}

#[test]
fn queries_of_a_standby_see_what_their_snapshot_sees_or_are_refused() {
    let primary = Cluster::builder().start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let standby = Cluster::builder()
        .conf("max_standby_streaming_delay = -1")
        .conf("hot_standby_feedback = on")
        .start_standby_of(&primary);
    let connect = || Session::open(config_of(&standby, &database));
    let (mut early, mut late, mut late_copy, mut newest) =
        (connect(), connect(), connect(), connect());
    let mut look = connect();
    let mut beside = database.connect();
    swap(&database, &mut session, |moment| {
        catch_up(&mut beside, &mut look);
        match moment {
            Moment::Before => early.exec(BEGIN),
            Moment::Between => {
                late.exec(BEGIN);
                late_copy.exec(BEGIN);
            }
            Moment::After => newest.exec(BEGIN),
        }
    });
    catch_up(&mut session, &mut look);

    assert_eq!(look.lines(ROWS), ["500|-1"]);
    assert_eq!(early.lines(ROWS), ["500|1"]);
    assert_eq!(newest.lines(ROWS), ["500|-1"]);
    for (session, statement) in [(&mut late, ROWS), (&mut late_copy, "COPY t TO STDOUT")] {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "40001", "{statement}: {error}");
        assert!(
            (error.detail.as_deref()).is_some_and(|detail| detail.contains("\"m\"")),
            "{error}"
        );
        // Run again, it sees everything.
        session.exec("ROLLBACK");
        session.exec(BEGIN);
        assert_eq!(session.lines(ROWS), ["500|-1"]);
        session.exec("COMMIT");
    }
    for session in [&mut early, &mut newest] {
        session.exec("COMMIT");
        assert_eq!(session.lines(ROWS), ["500|-1"]);
    }
    drop((early, late, late_copy, newest, look));
    assert_log_is_clean(&standby);
}

/// pg_dump of `blocker` and t, which waits for a lock on the first with its snapshot taken.
fn start_dump(database: &Database<'_>, waiting: usize) -> JoinHandle<Output> {
    let mut command: Command = database.command("pg_dump");
    command.args(["--serializable-deferrable", "-t", "blocker", "-t", "t"]);
    let dump = std::thread::spawn(move || command.output().expect("pg_dump"));
    let mut session = database.connect();
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'",
        &waiting.to_string(),
        PATIENCE,
    );
    dump
}

#[test]
fn a_dump_across_a_swap_has_what_its_snapshot_sees_or_fails() {
    let database = Database::shared();
    let mut session = database.connect();
    // It locks tables in the order of their oids.
    session.exec("CREATE TABLE blocker (i int)");
    create_table(&mut session, 500);
    let mut holder = database.connect();
    holder.exec("BEGIN; LOCK TABLE blocker IN ACCESS EXCLUSIVE MODE");
    let mut dumps = Vec::new();
    swap(&database, &mut session, |_| {
        dumps.push(start_dump(&database, dumps.len() + 1));
    });
    holder.exec("COMMIT");
    let dumps: Vec<Output> = (dumps.into_iter())
        .map(|dump| dump.join().expect("pg_dump"))
        .collect();
    for (dump, first) in [(&dumps[0], "\n1\t1\t"), (&dumps[2], "\n1\t-1\t")] {
        let text = String::from_utf8_lossy(&dump.stdout);
        assert!(dump.status.success(), "{dump:?}");
        assert!(text.contains(first), "{first:?} is not in {text}");
        let rows = text.lines().filter(|line| line.ends_with(&"x".repeat(40)));
        assert_eq!(rows.count(), 500);
    }
    // Not a dump without the row.
    assert!(!dumps[1].status.success());
    let error = String::from_utf8_lossy(&dumps[1].stderr);
    assert!(error.contains("migration \"m\""), "{error}");
}

#[test]
fn whoever_looks_for_a_swap_keeps_to_the_time_limits_of_his_session() {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session, 500);
    let mut late = database.connect();
    swap(&database, &mut session, |moment| {
        if moment == Moment::Between {
            late.exec(BEGIN);
        }
    });
    // Our table, and one of its indexes, which is waited for in the midst of the look.
    for lock in [
        "LOCK TABLE _transmute.rewrites IN ACCESS EXCLUSIVE MODE",
        "REINDEX INDEX _transmute.rewrites_pkey",
    ] {
        session.exec("BEGIN");
        session.exec(lock);
        for (limit, sqlstate) in [("statement_timeout", "57014"), ("lock_timeout", "55P03")] {
            late.exec(&format!("SAVEPOINT s; SET LOCAL {limit} = '50ms'"));
            let error = late.error(ROWS);
            assert_eq!(error.sqlstate, sqlstate, "{lock}: {error}");
            late.exec("ROLLBACK TO s");
        }
        session.exec("ROLLBACK");
        late.exec("SAVEPOINT s");
        assert_eq!(late.error(ROWS).sqlstate, "40001", "{lock}");
        late.exec("ROLLBACK TO s");
    }
    // Who waits without a limit goes on by himself.
    session.exec("BEGIN; LOCK TABLE _transmute.rewrites IN ACCESS EXCLUSIVE MODE");
    let pid = late.pid();
    let waits = late.in_background(ROWS);
    let mut look = database.connect();
    wait_until_seen("the look to wait", PATIENCE, || {
        let waits_for = look.lines(&format!("SELECT pg_blocking_pids({pid})"));
        match waits_for[0].as_str() {
            "{}" => Err(waits_for),
            _ => Ok(()),
        }
    });
    session.exec("COMMIT");
    let (_, result) = waits.join();
    assert_eq!(result.unwrap_err().sqlstate, "40001");
}

#[test]
fn a_swap_is_looked_for_by_an_index_however_many_there_have_been() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)");
    // Thousands of migrations that have finished, of tables that are gone.
    session.exec(
        "INSERT INTO _transmute.rewrites (migration_id, statement, relation, shadow, twin, key_log, new_schema, old_schema, key_columns,
           deferred_definitions, relfilenode, end_block, rows_estimate, fingerprint, definition, swapped_at, brought_over)
         SELECT 'm' || i, 1, 1000000 + i, 0, 0, 0, 'new', 'old', '{1}', '[]', 0, 0, 0, repeat('f', 64), 'd', now(), '{3,4}'
           FROM generate_series(1, 5000) AS i",
    );
    let mut reader = database.connect();
    reader.exec(BEGIN);
    session.exec("ALTER TABLE t SET (fillfactor = 50)");
    assert_eq!(reader.lines("SELECT a FROM t"), ["1"]);
    assert_eq!(
        reader.lines(
            "SELECT seq_scan, idx_scan FROM pg_stat_xact_all_tables WHERE relid = '_transmute.rewrites'::regclass"
        ),
        ["0|1"]
    );
}
