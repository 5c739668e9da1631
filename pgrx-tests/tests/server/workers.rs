//! Launcher, conductors and hands: who runs when, what they cost, and how to do without them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_finished, assert_log_is_clean, assert_rolled_back, count_in_log, create_table,
    wait_state, wait_worker, watch_for, workers, ALTER, ID,
};

fn status(session: &mut Session, column: &str) -> String {
    session
        .lines(&format!(
            "SELECT {column} FROM transmute.status WHERE id = '{ID}'"
        ))
        .remove(0)
}

#[test]
fn three_processes_copy_one_table_side_by_side_and_all_can_be_seen() {
    let cluster = Cluster::builder()
        .conf("transmute.max_parallel_backfill = 3")
        .conf("transmute.batch_target_ms = 20")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    // Two rows a block: enough blocks for a dozen lanes, and few rows.
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text) WITH (fillfactor = 10)",
        "ALTER TABLE t ALTER COLUMN note SET STORAGE PLAIN",
        "INSERT INTO t SELECT i, i, repeat('x', 3000) FROM generate_series(1, 8000) AS i",
    ]);
    let ledger = Ledger::start(&database);
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("copy_before_commit");
    apply(&mut session, ALTER, "{}");
    let copying = wait_until_seen("three processes in mid-batch", PATIENCE, || {
        let pids = waitpoints.waiting("copy_before_commit");
        if pids.len() == 3 {
            Ok(pids)
        } else {
            Err(pids)
        }
    });
    let mut seen = workers(&mut session, "conductor");
    assert_eq!(seen.len(), 1);
    let hands = workers(&mut session, "hand");
    assert_eq!(hands.len(), 2);
    seen.extend(&hands);
    seen.sort_unstable();
    assert_eq!(copying, seen);
    assert_eq!(workers(&mut session, "launcher").len(), 1);
    // The conductor's own row names its migration once its transaction has committed.
    assert_eq!(
        session.lines("SELECT role, count(*) FROM transmute.nodes GROUP BY role ORDER BY role"),
        ["conductor|1", "hand|2", "launcher|1"]
    );
    // Each has a range of its own.
    assert!(session.scalar::<i64>("SELECT count(*) FROM _transmute.progress") >= 3);

    // A hand that is killed leaves its range to the others.
    session.exec(&format!("SELECT pg_terminate_backend({})", hands[0]));
    waitpoints.release("copy_before_commit");
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    session.wait_for(
        "SELECT count(*) FROM transmute.nodes WHERE role = 'hand'",
        "0",
        PATIENCE,
    );
    session.wait_for(
        "SELECT count(*) FROM transmute.nodes WHERE role <> 'launcher'",
        "0",
        PATIENCE,
    );
    assert_eq!(workers(&mut session, "conductor"), [0; 0]);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_migration_without_a_free_worker_is_queued_and_starts_when_one_is_free() {
    // One place is the launcher's, one remains.
    let cluster = Cluster::builder()
        .conf("max_logical_replication_workers = 0")
        .conf("max_worker_processes = 2")
        .start();
    let (first, second) = (Database::create(&cluster), Database::create(&cluster));
    let (mut holder, mut session) = (first.connect(), second.connect());
    create_table(&mut holder, 100);
    create_table(&mut session, 100);
    apply(&mut holder, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut holder, "AWAITING_FINALIZATION");

    apply(&mut session, ALTER, "{}");
    let complaint = "no background worker slot is free";
    wait_until_seen(
        "the launcher's complaint",
        PATIENCE,
        || match count_in_log(&cluster, complaint) {
            0 => Err(cluster.log_tail(5)),
            _ => Ok(()),
        },
    );
    watch_for(Duration::from_secs(4), || {
        assert_eq!(
            status(&mut session, "state || ' ' || queued"),
            "UNINITIALIZED true"
        );
    });
    let lines = count_in_log(&cluster, complaint);
    assert!(lines <= 2, "{lines} complaints in four seconds");

    holder.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut holder);
    // The first conductor leaves its place when it has had nothing to do for a while.
    assert_finished(&mut session);
}

#[test]
fn without_preloading_call_run_does_everything_and_apply_says_so() {
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    let register = format!(
        "SELECT transmute.register('{ID}', $${ALTER}$$, meta => '{{\"required_approvals\": 1}}')"
    );
    session.exec(&register);
    let applied = session.lines(&format!(
        "SELECT action, detail FROM transmute.apply('{ID}')"
    ));
    assert!(
        applied[0].starts_with("queued|") && applied[0].contains("CALL transmute.run"),
        "{applied:?}"
    );

    // A part of the way, and back.
    session.exec(&format!("CALL transmute.run('{ID}', max_steps => 3)"));
    assert_eq!(status(&mut session, "state"), "RUNNING");
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'a change of mind')"
    ));
    session.exec(&format!("CALL transmute.run('{ID}')"));
    assert_rolled_back(&mut session);

    // The whole way, with the application at work.
    let ledger = Ledger::start(&database);
    session.exec(&format!("SELECT * FROM transmute.apply('{ID}')"));
    session.exec(&format!("CALL transmute.run('{ID}')"));
    assert_eq!(status(&mut session, "state"), "AWAITING_FINALIZATION");
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    session.exec(&format!("CALL transmute.run('{ID}')"));
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    assert_eq!(
        session.lines("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'transmute'"),
        ["0"]
    );
    assert_log_is_clean(&cluster);
}

#[test]
fn a_database_made_while_the_server_runs_is_served_beside_another() {
    let cluster = Cluster::builder().start();
    let databases = [Database::create(&cluster), Database::create(&cluster)];
    let mut sessions = databases.each_ref().map(Database::connect);
    for session in &mut sessions {
        create_table(session, 500);
        apply(session, ALTER, r#"{"required_approvals": 1}"#);
    }
    for session in &mut sessions {
        wait_state(session, "AWAITING_FINALIZATION");
    }
    let conductors = sessions
        .each_mut()
        .map(|session| wait_worker(session, "conductor"));
    assert_ne!(conductors[0], conductors[1]);
    for session in &mut sessions {
        session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
        assert_finished(session);
    }
}

#[test]
fn a_reloaded_setting_counts_from_then_on() {
    let cluster = Cluster::builder().conf("transmute.four_eyes = on").start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    // Our session believes that two eyes are enough; the conductor goes by the server's setting.
    session.exec("SET transmute.four_eyes = off");
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    let conductor = wait_worker(&mut session, "conductor");
    session.wait_for(
        &format!("SELECT waiting_for ~ 'approval' FROM transmute.status WHERE id = '{ID}'"),
        "t",
        PATIENCE,
    );
    watch_for(Duration::from_millis(700), || {
        assert_eq!(status(&mut session, "state"), "AWAITING_FINALIZATION");
    });
    session.batch(&[
        "ALTER SYSTEM SET transmute.four_eyes = off",
        "SELECT pg_reload_conf()",
    ]);
    assert_finished(&mut session);
    assert_eq!(workers(&mut session, "conductor"), [conductor]);
}

/// The next transaction id; looking at it takes none.
fn next_xid(session: &mut Session) -> i64 {
    session.scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
}

#[test]
fn a_server_with_nothing_to_do_has_no_conductor_and_uses_no_transaction_ids() {
    let cluster = Cluster::builder().conf("autovacuum = off").start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, "{}");
    assert_finished(&mut session);
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'transmute conductor'",
        "0",
        PATIENCE,
    );
    let before = next_xid(&mut session);
    watch_for(Duration::from_secs(2), || {
        assert_eq!(workers(&mut session, "conductor"), [0; 0]);
    });
    assert_eq!(next_xid(&mut session), before);
}

#[test]
fn a_migration_that_soaks_beside_an_idle_application_uses_no_transaction_ids() {
    let cluster = Cluster::builder().conf("autovacuum = off").start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(
        &mut session,
        ALTER,
        r#"{"pre_finalization_soak": "4 days"}"#,
    );
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let conductor = wait_worker(&mut session, "conductor");
    // Let it say what it waits for, and so on, once.
    session.wait_for(
        &format!("SELECT waiting_for ~ 'soak' FROM transmute.status WHERE id = '{ID}'"),
        "t",
        PATIENCE,
    );
    let before = next_xid(&mut session);
    let mut old_snapshot = 0;
    watch_for(Duration::from_secs(3), || {
        old_snapshot += session.scalar::<i64>(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {conductor} AND state = 'idle in transaction'"
        ));
    });
    let used = next_xid(&mut session) - before;
    assert!(
        used <= 2,
        "{used} transaction ids in three seconds, though nothing changed"
    );
    assert_eq!(old_snapshot, 0);
    // Ten rounds a second, transmute.drain_interval, and it sleeps in between.
    let mut changes = BTreeSet::new();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        changes.extend(session.lines(&format!(
            "SELECT state_change FROM pg_stat_activity WHERE pid = {conductor}"
        )));
    }
    assert!(changes.len() < 60, "always at work: {}", changes.len());

    // A row that is set aside is tried again every ten seconds, and nothing is written in between.
    session.exec(
        "CREATE TABLE odd (id int PRIMARY KEY, n int); INSERT INTO odd VALUES (1, 1), (2, 0);
         SELECT transmute.register('odd', 'ALTER TABLE odd ALTER COLUMN n TYPE bigint USING 10 / n'); SELECT transmute.apply('odd')",
    );
    session.wait_for(
        "SELECT waiting_for ~ '^1 dead letter open' FROM transmute.status WHERE id = 'odd'",
        "t",
        PATIENCE,
    );
    let seconds: Vec<i64> = (0..6)
        .map(|_| {
            let before = next_xid(&mut session);
            std::thread::sleep(Duration::from_secs(1));
            next_xid(&mut session) - before
        })
        .collect();
    let busy = seconds.iter().filter(|used| **used > 0).count();
    assert!(busy <= 2, "{seconds:?} transaction ids a second");
}

#[test]
fn an_apply_is_not_lost_while_the_last_conductor_is_leaving() {
    // At this level the server says when it starts and ends a worker.
    let cluster = Cluster::builder().conf("log_min_messages = debug1").start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    let started = "starting background worker process \"transmute conductor\"";
    // The leaving conductor's place is still taken: by us.
    let mut leaving = database.connect();
    leaving.exec("SELECT pg_advisory_lock(74617, 2)");
    let before = count_in_log(&cluster, started);
    apply(&mut session, ALTER, "{}");
    wait_until_seen("a conductor that finds the place taken", PATIENCE, || {
        if count_in_log(&cluster, started) > before && workers(&mut session, "conductor").is_empty()
        {
            Ok(())
        } else {
            Err(cluster.log_tail(3))
        }
    });
    leaving.exec("SELECT pg_advisory_unlock(74617, 2)");
    assert_finished(&mut session);
    assert_eq!(rows_of(&mut session).len(), 100);
}

#[test]
fn a_failure_that_only_a_person_can_mend_is_reported_once() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.exec("SET transmute.allow_ddl = on; DROP TABLE t CASCADE");
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    session.wait_for(
        &format!("SELECT outcome FROM transmute.status WHERE id = '{ID}'"),
        "FAILED",
        PATIENCE,
    );
    watch_for(Duration::from_secs(2), || {});
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.history WHERE event = 'failed'"),
        ["1"]
    );
    assert_eq!(count_in_log(&cluster, "needs a person"), 1);
    // The way out is open.
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'the table is gone')"
    ));
    session.wait_for(
        &format!("SELECT outcome FROM transmute.status WHERE id = '{ID}'"),
        "ROLLED_BACK",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        [""; 0]
    );
}
