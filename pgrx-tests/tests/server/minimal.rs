//! wal_level = minimal, where the server leaves the rows of a file that is new in its transaction out of the WAL and writes
//! the file itself at commit: the swap must carry that along, or a crash right after it finds an empty table.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_finished, assert_log_is_clean, assert_sound, create_table, reconnect, wait_state,
    ALTER, ID,
};

fn minimal(conf: &str) -> Cluster {
    Cluster::builder()
        .conf("wal_level = minimal")
        .conf("max_wal_senders = 0")
        .conf(conf)
        // What is not written at commit is not written by chance.
        .conf("checkpoint_timeout = 1h")
        .conf("bgwriter_lru_maxpages = 0")
        .start()
}

/// Whole migration, killed right after the commit of the swap. `last_writes` commit together with the approval: it is the
/// swap's own transaction that brings them over.
fn crash_right_after_the_swap(conf: &str, last_writes: &[&str]) {
    let cluster = minimal(conf);
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    ledger.stop_and_compare(&mut session);

    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("after_commit");
    let mut writer = database.connect();
    writer.exec(&format!("BEGIN; SELECT transmute.approve('{ID}', 'seen')"));
    writer.batch(last_writes);
    let expected = rows_of(&mut writer);
    let notes = "SELECT md5(string_agg(note, ',' ORDER BY id)) FROM t";
    let expected_notes = writer.lines(notes);
    writer.exec("COMMIT");
    waitpoints.wait_reached("after_commit", PATIENCE);
    assert_eq!(
        session.lines("SELECT state FROM transmute.status"),
        ["FINISHING"]
    );
    cluster.kill9();
    cluster.start();
    let mut session = reconnect(&database);
    assert_eq!(rows_of(&mut session), expected);
    assert_eq!(session.lines(notes), expected_notes);
    assert_finished(&mut session);

    // And once more, with everything over.
    session.exec("INSERT INTO t (id, a) VALUES (0, 0)");
    cluster.kill9();
    cluster.start();
    let mut session = reconnect(&database);
    assert_eq!(rows_of(&mut session).len(), expected.len() + 1);
    assert_sound(&mut session, "t");
    assert_log_is_clean(&cluster);
}

#[test]
fn rows_copied_under_minimal_wal_survive_a_crash_right_after_the_swap() {
    crash_right_after_the_swap(
        "wal_skip_threshold = 2MB",
        &["UPDATE t SET a = -a WHERE id % 10 = 0"],
    );
}

/// The last drain empties the shadow, which gives heap, TOAST and indexes new files in the very transaction that swaps
/// them in.
const REFILL: [&str; 2] = [
    "TRUNCATE t",
    "INSERT INTO t SELECT i, i * 3, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, CASE WHEN i % 50 = 0 THEN 400 ELSE 1 END) AS j)
       FROM generate_series(1, 400) AS i",
];

#[test]
fn files_that_are_new_in_the_swap_are_synced_at_its_commit() {
    crash_right_after_the_swap("wal_skip_threshold = 0", &REFILL);
}

#[test]
fn files_that_are_new_in_the_swap_are_logged_at_its_commit_when_they_are_small() {
    crash_right_after_the_swap("wal_skip_threshold = 1GB", &REFILL);
}
