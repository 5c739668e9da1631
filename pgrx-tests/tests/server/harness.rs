//! The harness itself, on clusters without the extension: what the other tests take for granted.

use std::time::{Duration, Instant};

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::pgbench::Pgbench;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::{Kind, Workload};
use transmute_tests::{Cluster, Database, StopMode};

fn plain_cluster() -> Cluster {
    Cluster::builder().without_preload().start()
}

#[test]
fn committed_rows_survive_kill_9_and_an_immediate_stop() {
    let cluster = plain_cluster();
    let mut session = cluster.connect();
    session.batch(&["CREATE TABLE t (i int)", "INSERT INTO t VALUES (1)"]);
    cluster.kill9();
    assert_eq!(session.error("SELECT 1").sqlstate, "connection");

    cluster.start();
    let mut session = cluster.connect();
    session.exec("INSERT INTO t VALUES (2)");
    cluster.restart(StopMode::Immediate);
    cluster.restart(StopMode::Fast);
    assert_eq!(
        cluster.connect().lines("SELECT i FROM t ORDER BY i"),
        ["1", "2"]
    );
    assert!(cluster.log_contains("automatic recovery in progress"));
}

#[test]
fn a_cluster_and_its_server_are_gone_after_drop() {
    let cluster = plain_cluster();
    let (dir, pid) = (
        cluster.dir().to_path_buf(),
        cluster.postmaster_pid().unwrap(),
    );
    drop(cluster);
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn settings_of_a_test_win_over_those_of_the_harness() {
    let cluster = Cluster::builder()
        .without_preload()
        .conf("wal_level = minimal")
        .conf("max_wal_senders = 0")
        .start();
    let mut session = cluster.connect();
    assert_eq!(session.scalar::<String>("SHOW wal_level"), "minimal");
    assert_eq!(session.scalar::<String>("SHOW fsync"), "off");
    assert_eq!(session.scalar::<String>("SHOW data_checksums"), "on");
    assert_eq!(session.scalar::<String>("SHOW listen_addresses"), "");
}

#[test]
fn a_standby_follows_and_can_be_promoted() {
    let primary = plain_cluster();
    let standby = Cluster::builder().start_standby_of(&primary);
    primary
        .connect()
        .exec("CREATE TABLE t AS SELECT 42 AS answer");
    let mut session = standby.connect();
    session.wait_for(
        "SELECT count(*) FROM pg_class WHERE relname = 't'",
        "1",
        PATIENCE,
    );
    assert_eq!(session.error("INSERT INTO t VALUES (1)").sqlstate, "25006");
    session.exec("SELECT pg_promote()");
    session.exec("INSERT INTO t VALUES (1)");
}

#[test]
fn the_lock_watch_measures_holds_and_waits_and_ignores_other_tables() {
    let cluster = plain_cluster();
    let database = Database::bare(&cluster);
    let mut holder = database.connect();
    holder.batch(&["CREATE TABLE t (i int)", "CREATE TABLE other (i int)"]);
    let watch = Lockwatch::start(&database, "t");

    holder.exec("BEGIN; LOCK TABLE t; LOCK TABLE other; SELECT pg_sleep(0.2)");
    let waiter = database.connect().in_background("BEGIN; LOCK TABLE t");
    let mut look = database.connect();
    look.wait_for(
        "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "1",
        PATIENCE,
    );
    let since = Instant::now();
    look.exec("SELECT pg_sleep(0.1)");
    holder.exec("COMMIT");
    let waited = since.elapsed();
    let (_, result) = waiter.join();
    result.unwrap();

    let report = watch.stop();
    let [hold, ..] = report.held.as_slice() else {
        panic!("no hold was seen: {report:?}")
    };
    assert!(
        hold.at_least_ms > 150.0 && hold.at_most_ms >= hold.at_least_ms,
        "{report:?}"
    );
    assert!(
        report.longest_wait_ms() > 50.0
            && report.longest_wait_ms() < waited.as_secs_f64() * 1e3 + 100.0
    );
    assert!(std::panic::catch_unwind(|| report.assert_held_less_than(50.0)).is_err());
}

#[test]
fn pgbench_reports_what_it_did_and_what_failed() {
    let cluster = plain_cluster();
    let database = Database::bare(&cluster);
    Pgbench::initialize(&database, 1);
    let mut running = Pgbench::new(&database).clients(2).rate(100).start();
    running.wait_running();
    assert!(running.progress().unwrap().contains("tps"));
    let report = running.stop();
    let stats = report.stats();
    assert_eq!(report.failures(), 0, "{:?}", report.errors);
    assert!(
        stats.count >= 50 && stats.tps > 50.0 && stats.tps < 150.0,
        "{stats:?}"
    );
    assert!(
        0.0 < stats.p50_ms && stats.p50_ms <= stats.p99_ms && stats.p99_ms <= stats.max_ms,
        "{stats:?}"
    );

    let report = Pgbench::new(&database)
        .script("SELECT 1/0;\n")
        .run_for(Duration::from_secs(1));
    assert_eq!(report.failures(), 1, "{:?}", report.errors);
    assert!(
        report.errors[0].contains("division by zero"),
        "{:?}",
        report.errors
    );
}

#[test]
fn the_workload_does_everything_and_blames_itself_for_its_own_conflicts() {
    let cluster = plain_cluster();
    let database = Database::bare(&cluster);
    for load in [
        Workload::on("t").with_truncate(),
        Workload::on("p").prepared(),
    ] {
        let load = load.keys(50).pause(Duration::ZERO).seed(7);
        load.create_table(&mut database.connect());
        let running = load.start(&database);
        running.wait_for_more(3_000, PATIENCE);
        let tally = running.stop();
        tally.assert_no_failures();
        assert!(
            tally.expected["23505"] > 0,
            "fifty keys and no collision: {:?}",
            tally.expected
        );
        for kind in [
            Kind::Insert,
            Kind::Copy,
            Kind::Merge,
            Kind::KeyChange,
            Kind::RepeatableRead,
            Kind::Savepoint,
        ] {
            assert!(
                tally.done.contains_key(&kind),
                "no {kind:?} in {:?}",
                tally.done
            );
        }
    }
}

#[test]
fn the_workload_reports_what_others_do_to_it() {
    let cluster = plain_cluster();
    let database = Database::bare(&cluster);
    let load = Workload::on("t").reconnecting();
    load.create_table(&mut database.connect());
    let running = load.start(&database);
    running.wait_for_more(100, PATIENCE);
    let mut session = database.connect();
    session.exec("ALTER TABLE t ADD COLUMN extra int");
    running.wait_for_more(1_000, PATIENCE);
    session.exec("ALTER TABLE t DROP COLUMN extra");
    drop(session);
    cluster.restart(StopMode::Immediate);
    running.wait_for_more(1_000, PATIENCE);
    let tally = running.stop();
    assert!(
        tally.count("wrong") > 0,
        "SELECT * with a fifth column went unnoticed"
    );
    assert!(
        tally.count("22P04") > 0,
        "COPY without a column list went unnoticed"
    );
    assert!(
        tally.count("57P02") + tally.count("connection") > 0,
        "the restart went unnoticed"
    );
}

#[test]
fn an_error_says_all_that_the_server_said() {
    let cluster = plain_cluster();
    let mut session = cluster.connect();
    let error = session.error(
        "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '55000', DETAIL = 'because', HINT = 'ask again'; END $$",
    );
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "no")
    );
    assert_eq!(
        (error.detail.as_deref(), error.hint.as_deref()),
        (Some("because"), Some("ask again"))
    );

    session.exec("CREATE ROLE weak; CREATE TABLE secret (i int)");
    let error = session.as_role("weak", |session| session.error("SELECT * FROM secret"));
    assert_eq!(error.sqlstate, "42501");
    assert_eq!(
        session.lines("SELECT session_user, NULL, 1"),
        ["postgres|∅|1"]
    );

    session.exec("DO $$ BEGIN RAISE NOTICE 'hello'; END $$");
    assert_eq!(session.notices(), ["NOTICE: hello"]);
}

#[test]
fn a_process_that_ends_without_drop_leaves_no_server() {
    // Plays the part of a test process: the child leaks its cluster, as libtest leaks a static one.
    let me = std::env::current_exe().unwrap();
    let output = std::process::Command::new(me)
        .args([
            "--exact",
            "harness::leaks_a_cluster",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let dir = text
        .lines()
        .find_map(|line| line.strip_prefix("leaked "))
        .expect("the child names its cluster");
    transmute_tests::wait_until("the watchdog", PATIENCE, || {
        (!std::path::Path::new(dir).exists()).then_some(())
    });
}

#[test]
#[ignore = "run by a_process_that_ends_without_drop_leaves_no_server"]
fn leaks_a_cluster() {
    let cluster = plain_cluster();
    println!("\nleaked {}", cluster.dir().display());
    std::mem::forget(cluster);
}
