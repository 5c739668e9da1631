//! Somebody ends our processes, or the server, or the database: at once, and nothing is done twice or left looping.

use std::time::{Duration, Instant};

use transmute_tests::wait::{wait_until, wait_until_seen, PATIENCE};
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::stage::Held;

use super::scene::{
    apply, assert_finished, assert_log_is_clean, count_in_log, create_table, reconnect, rows_done,
    wait_state, wait_worker, watch_for, workers, ALTER, ID,
};

const ROWS: i64 = 100_000;

/// Dear enough that a batch of many blocks takes a while, also on a fast machine.
const DEAR_ALTER: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a + 0 * length(md5(repeat(note, 400))),
    ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED";

/// A cluster whose batches grow as far as they can.
fn big_batches() -> Cluster {
    Cluster::builder()
        .conf("transmute.batch_target_ms = 60000")
        .start()
}

/// A table whose copy ends in one batch of more than half of it, and a migration of it under way.
fn start_dear_copy(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text)",
        &format!("INSERT INTO t SELECT i, i, repeat('x', 40) FROM generate_series(1, {ROWS}) AS i"),
    ]);
    apply(&mut session, DEAR_ALTER, "{}");
    session
}

/// Waits until rows of the last, biggest batch are in the shadow and not committed yet; rows committed before.
fn wait_mid_batch(session: &mut Session) -> i64 {
    let size = |session: &mut Session| -> i64 {
        session.scalar("SELECT pg_relation_size('_transmute_1_new.t')")
    };
    wait_until("the last batch", PATIENCE, || {
        (rows_done(session) > ROWS * 2 / 5).then_some(())
    });
    let (rows, since) = (rows_done(session), size(session));
    wait_until_seen("rows of the batch", PATIENCE, || {
        let now = size(session);
        if now > since + 100_000 {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert!(rows < ROWS, "the copy ended before the test began");
    assert_eq!(rows_done(session), rows, "not in the midst of a batch");
    rows
}

fn wait_gone(session: &mut Session, pid: i32) {
    session.wait_for(
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
        "0",
        PATIENCE,
    );
}

fn assert_converted(session: &mut Session) {
    assert_finished(session);
    assert_eq!(
        session.lines("SELECT count(*), sum(a), count(*) FILTER (WHERE a <> id) FROM t"),
        [format!("{ROWS}|{}|0", ROWS * (ROWS + 1) / 2)]
    );
    assert_eq!(
        rows_done(session),
        ROWS,
        "rows were copied twice or not at all"
    );
}

#[test]
fn a_terminated_conductor_ends_within_a_second_in_mid_batch_and_another_goes_on() {
    let cluster = big_batches();
    let database = Database::create(&cluster);
    let mut session = start_dear_copy(&database);
    let conductor = wait_worker(&mut session, "conductor");
    wait_mid_batch(&mut session);
    let since = Instant::now();
    session.exec(&format!("SELECT pg_terminate_backend({conductor})"));
    wait_gone(&mut session, conductor);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_converted(&mut session);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_cancelled_batch_is_tried_again_by_the_same_conductor() {
    let cluster = big_batches();
    let database = Database::create(&cluster);
    let mut session = start_dear_copy(&database);
    let conductor = wait_worker(&mut session, "conductor");
    let rows = wait_mid_batch(&mut session);
    let since = Instant::now();
    session.exec(&format!("SELECT pg_cancel_backend({conductor})"));
    session.wait_for(
        &format!("SELECT last_error_sqlstate FROM transmute.status WHERE id = '{ID}'"),
        "57014",
        Duration::from_secs(1),
    );
    assert!(since.elapsed() < Duration::from_secs(1));
    assert_eq!(rows_done(&mut session), rows);
    assert_eq!(wait_worker(&mut session, "conductor"), conductor);
    assert_converted(&mut session);
    assert_eq!(
        session.lines("SELECT last_error, outcome FROM transmute.status"),
        ["∅|COMPLETED"]
    );
}

#[test]
fn cancelling_and_terminating_idle_processes_stops_no_migration() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    for (i, signal) in ["cancel", "terminate", "cancel"].into_iter().enumerate() {
        for kind in ["conductor", "launcher"] {
            let pid = wait_worker(&mut session, kind);
            session.exec(&format!("SELECT pg_{signal}_backend({pid})"));
            if signal == "terminate" {
                wait_gone(&mut session, pid);
            }
        }
        // The migration still has somebody who brings over what changes.
        session.exec(&format!("INSERT INTO t VALUES (1000 + {i}, 1)"));
        session.wait_for(
            &format!("SELECT count(*) FROM _transmute_1_new.t WHERE id = 1000 + {i}"),
            "1",
            PATIENCE,
        );
    }
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
}

#[test]
fn a_fast_stop_in_mid_batch_takes_less_than_five_seconds_and_the_copy_goes_on_after_it() {
    let cluster = big_batches();
    let database = Database::create(&cluster);
    let mut session = start_dear_copy(&database);
    let rows = wait_mid_batch(&mut session);
    drop(session);
    let took = cluster.stop(StopMode::Fast);
    assert!(took < Duration::from_secs(5), "{took:?}");
    cluster.start();
    let mut session = reconnect(&database);
    assert!(rows_done(&mut session) >= rows);
    assert_converted(&mut session);
    assert_log_is_clean(&cluster);
}

/// W9: a smart stop waits for clients, not for us.
#[test]
fn a_smart_stop_in_any_stage_waits_for_clients_and_then_takes_less_than_ten_seconds() {
    let cluster = Cluster::builder().start();
    let mut stages = Held::all(&cluster, 100, |_| true);
    let mut clients: Vec<Session> = stages.iter().map(Held::connect).collect();
    cluster.ask_to_stop(StopMode::Smart);
    wait_until("the server to refuse who is new", PATIENCE, || {
        Session::try_open(cluster.config()).err()
    });
    // Who was there goes on: he reads, and writes where no step of ours holds the table until its commit.
    for (client, held) in clients.iter_mut().zip(&stages) {
        assert_eq!(client.lines("SELECT count(*) FROM t"), ["100"]);
        let written = client
            .try_exec("SET lock_timeout = '1s'; UPDATE t SET note = 'while it stops' WHERE id = 1");
        if let Err(error) = written {
            assert_eq!(error.sqlstate, "55P03", "{}: {error}", held.stage.name);
            assert!(held.is_at_waitpoint(), "{}: {error}", held.stage.name);
        }
        assert_eq!(
            client.lines(&format!("SELECT transmute.state('{ID}')")),
            [held.stage.state],
            "{}",
            held.stage.name
        );
    }
    drop(clients);
    stages.iter_mut().for_each(Held::let_go);
    let took = cluster.stop(StopMode::Smart);
    assert!(took < Duration::from_secs(10), "{took:?}");
    cluster.start();
    for held in &mut stages {
        let mut session = reconnect(&held.database);
        held.end(&mut session);
        assert_eq!(
            session.lines("SELECT count(*) FROM t"),
            ["100"],
            "{}",
            held.stage.name
        );
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"]
        );
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn a_database_dropped_by_force_during_its_copy_is_forgotten_by_the_launcher() {
    let cluster = big_batches();
    let database = Database::create(&cluster);
    let mut session = start_dear_copy(&database);
    wait_mid_batch(&mut session);
    drop(session);
    let mut session = cluster.connect();
    let launcher = wait_worker(&mut session, "launcher");
    session.exec(&format!("DROP DATABASE {} WITH (FORCE)", database.name()));
    let (fatal, ours) = (
        count_in_log(&cluster, "FATAL"),
        count_in_log(&cluster, "transmute conductor"),
    );
    watch_for(Duration::from_secs(3), || {
        assert_eq!(workers(&mut session, "launcher"), [launcher]);
    });
    assert!(
        count_in_log(&cluster, "FATAL") <= fatal + 2
            && count_in_log(&cluster, "transmute conductor") <= ours + 8,
        "{}",
        cluster.log_tail(40)
    );
    assert_another_database_is_served(&cluster);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_database_whose_drop_was_interrupted_is_left_alone() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let conductor = wait_worker(&mut session, "conductor");
    let mut admin = cluster.connect();
    // What a DROP DATABASE that was cut off leaves behind: nobody can connect any more.
    admin.exec(&format!(
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'",
        database.name()
    ));
    admin.exec(&format!("SELECT pg_terminate_backend({conductor})"));
    wait_gone(&mut admin, conductor);
    watch_for(Duration::from_secs(3), || {});
    let refused = count_in_log(&cluster, "cannot connect to invalid database");
    assert!(refused <= 1, "{refused} tries\n{}", cluster.log_tail(20));
    assert_another_database_is_served(&cluster);
}

#[test]
fn a_database_can_be_dropped_when_its_conductor_has_left() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, "{}");
    assert_finished(&mut session);
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'transmute conductor'",
        "0",
        Duration::from_secs(15),
    );
    drop(session);
    let mut session = cluster.connect();
    // As a DBA would, without FORCE; the server itself waits up to five seconds for backends that are leaving.
    session.exec(&format!("DROP DATABASE {}", database.name()));
    assert_another_database_is_served(&cluster);
}

fn assert_another_database_is_served(cluster: &Cluster) {
    let database = Database::create(cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, "{}");
    assert_finished(&mut session);
}
