//! A crash in the midst of a copy: into a table of the database each row is written once; into a foreign table at least once, and
//! once where it has a unique key.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{assert_log_is_clean, reconnect, rows_done, wait_state, ID};

const ROWS: i64 = 3_000;

fn create(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE old (id int PRIMARY KEY, a text)",
        &format!("INSERT INTO old SELECT i, i::text FROM generate_series(1, {ROWS}) AS i"),
    ]);
}

fn start(session: &mut Session, target: &str, meta: &str) {
    session.exec(&format!(
        "SELECT transmute.register_copy('{ID}', 'old', '{target}', '{{id}}', meta => '{meta}')"
    ));
    session.exec(&format!("SELECT transmute.apply('{ID}')"));
}

fn crash_before_every_commit(crash: Crash) {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    // Nothing but the cursor keeps a row from being written twice.
    session.exec("CREATE TABLE new (id int, a text); UPDATE old SET a = NULL WHERE id = 1500; ALTER TABLE new ADD CHECK (a IS NOT NULL)");
    hold(&mut session, "copy_rows_before_commit");
    start(&mut session, "new", r#"{"batch_size": 200}"#);
    for _ in 0..4 {
        let conductor = Waitpoints::of(&database).wait_reached("copy_rows_before_commit", PATIENCE);
        let done = rows_done(&mut session);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached("copy_rows_before_commit", PATIENCE);
        assert_eq!(rows_done(&mut session), done);
        assert_eq!(session.scalar::<i64>("SELECT count(*) FROM new"), done);
        // One batch more.
        release(&mut session, "copy_rows_before_commit");
        hold(&mut session, "copy_rows_before_commit");
    }
    release(&mut session, "copy_rows_before_commit");
    session.wait_for("SELECT dead_letters FROM transmute.status", "1", PATIENCE);
    hold(&mut session, "copy_rows_done_before_commit");
    session.exec("UPDATE old SET a = 'mended' WHERE id = 1500");
    let conductor =
        Waitpoints::of(&database).wait_reached("copy_rows_done_before_commit", PATIENCE);
    session = crash.strike(&database, conductor, session);
    release(&mut session, "copy_rows_done_before_commit");
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT id), max(a) FROM new"),
        [format!("{ROWS}|{ROWS}|mended")]
    );
    assert_eq!(rows_done(&mut session), ROWS);
    assert_log_is_clean(&cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_a_copy_costs_only_that_batch() {
    crash_before_every_commit(Crash::Conductor);
}

#[test]
fn a_server_killed_before_any_commit_of_a_copy_costs_only_that_batch() {
    crash_before_every_commit(Crash::Server);
}

#[test]
fn a_foreign_target_gets_again_what_the_server_had_not_yet_on_disk_and_skips_it() {
    let far = Cluster::builder().start();
    let there = Database::bare(&far);
    let mut remote = there.connect();
    remote
        .exec("CREATE TABLE new (id int PRIMARY KEY, a text); CREATE TABLE plain (id int, a text)");
    // The foreign server's commit comes first; ours is lost as long as it is not on disk.
    let cluster = Cluster::builder()
        .conf("synchronous_commit = off")
        .conf("wal_writer_delay = '10s'")
        .conf("transmute.backfill_duty = 50")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    session.exec(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres');
         IMPORT FOREIGN SCHEMA public FROM SERVER far INTO public",
        far.dir().display(),
        there.name()
    ));
    start(&mut session, "new", r#"{"batch_size": 5}"#);
    let mut again = 0;
    while again == 0 {
        // What was so far, the copy's registration too, is on disk.
        session.exec("CHECKPOINT");
        let before = rows_done(&mut session);
        assert!(before < ROWS, "no commit was ever lost: nothing was tested");
        session.wait_for(
            &format!("SELECT rows_done > {} FROM transmute.progress", before + 20),
            "t",
            PATIENCE,
        );
        cluster.kill9();
        let there: i64 = remote.scalar("SELECT count(*) FROM new");
        cluster.start();
        session = reconnect(&database);
        let here: i64 = session.scalar(
            "SELECT coalesce((SELECT position[1]::bigint FROM _transmute.hand_batches), 0)",
        );
        assert!(here <= there, "{here} of {there}: a row would be left out");
        again = there - here;
    }
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        remote.lines("SELECT count(*), count(*) FILTER (WHERE a = id::text) FROM new"),
        [format!("{ROWS}|{ROWS}")]
    );
    assert_log_is_clean(&cluster);
}

#[test]
fn a_server_killed_before_a_hand_written_batch_commits_costs_only_that_batch() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, done boolean)",
        "INSERT INTO t SELECT i FROM generate_series(1, 5000) AS i",
    ]);
    hold(&mut session, "hand_batch_before_commit");
    session.exec(&format!(
        "SELECT transmute.register_phases('{ID}', '', $$UPDATE t SET n = n + 1, done = true
           WHERE id IN (SELECT id FROM t WHERE done IS NULL ORDER BY id LIMIT $1)$$, '', meta => '{{\"batch_size\": 50}}')"
    ));
    session.exec(&format!("SELECT transmute.apply('{ID}')"));
    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor =
            Waitpoints::of(&database).wait_reached("hand_batch_before_commit", PATIENCE);
        let done = rows_done(&mut session);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached("hand_batch_before_commit", PATIENCE);
        assert_eq!(rows_done(&mut session), done);
        let marked: i64 = session.scalar("SELECT count(*) FROM t WHERE n = 1");
        assert_eq!(marked, done);
        release(&mut session, "hand_batch_before_commit");
        hold(&mut session, "hand_batch_before_commit");
    }
    release(&mut session, "hand_batch_before_commit");
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|5000"]
    );
    assert_eq!(rows_done(&mut session), 5000);
    assert_log_is_clean(&cluster);
}
