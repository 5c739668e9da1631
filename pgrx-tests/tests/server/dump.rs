//! pg_dump in mid-flight, restored into another server: a whole table that takes writes, a migration that nobody drives by
//! surprise – what it knows by oid means something else there –, and a way out.

use std::time::Duration;

use transmute_tests::tools::{give_to_server_user, output_of};
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_log_is_clean, assert_rolled_back, create_table, reconnect, rows_done, wait_state,
    watch_for, ALTER, ID,
};

/// Restores `dump`, as psql would by hand; the first error ends it.
fn restore(dump: &str, into: &Database<'_>) {
    let path = into.cluster().dir().join("dump.sql");
    std::fs::write(&path, dump).expect("dump.sql");
    give_to_server_user(&path);
    output_of(
        into.command("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&path),
    );
}

/// Oids of another server are used up, so that none of the dump's means the same there.
fn shift_oids(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE shift (i int PRIMARY KEY, t text)",
        "DROP TABLE shift",
    ]);
}

fn restored_copy_is_usable(source: &Database<'_>, state: &str) {
    let mut session = source.connect();
    let dump = output_of(&mut source.command("pg_dump"));
    let rows = rows_of(&mut session);

    let cluster = Cluster::builder().start();
    // The tests' clusters are copies of one: what tells two databases apart is the oid alone.
    let _other = Database::bare(&cluster);
    let target = Database::bare(&cluster);
    let mut session = target.connect();
    shift_oids(&mut session);
    restore(&dump, &target);
    assert_eq!(rows_of(&mut session), rows);
    assert_eq!(
        session.lines("SELECT state FROM transmute.status"),
        [state],
        "the history came along"
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );

    // A restart has the launcher look into every database.
    drop(session);
    cluster.restart(StopMode::Fast);
    let mut session = reconnect(&target);
    let before = session.lines("SELECT status FROM transmute.steps");
    watch_for(Duration::from_secs(1), || {
        assert_eq!(session.lines("SELECT status FROM transmute.steps"), before);
    });
    let now = session.lines("SELECT state FROM transmute.status");
    assert!(now == [state] || now == ["AWAITING_ACTION"], "{now:?}");
    assert!(
        session.scalar::<i64>("SELECT count(*) FROM transmute.history WHERE event = 'failed'") <= 1
    );

    // The application does not notice.
    let ledger = Ledger::start(&target);
    ledger.wait_for_more(100);
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'a restored copy')"
    ));
    assert_rolled_back(&mut session);
    ledger.wait_for_more(20);
    ledger.stop_and_compare(&mut session);
    session.batch(&["TRUNCATE t", "INSERT INTO t VALUES (1, 1)"]);

    // And the migration can be made again, here.
    session.exec(&format!("SELECT * FROM transmute.apply('{ID}')"));
    wait_state(&mut session, "AWAITING_FINALIZATION");
    assert_log_is_clean(&cluster);
}

#[test]
fn a_dump_of_a_running_copy_restores_into_a_usable_table_that_nobody_migrates() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let source = Database::create(&cluster);
    let mut session = source.connect();
    create_table(&mut session, 2_000);
    let ledger = Ledger::start(&source);
    let mut waitpoints = Waitpoints::of(&source);
    waitpoints.hold("copy_before_commit");
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    while rows_done(&mut session) == 0 {
        waitpoints.wait_reached("copy_before_commit", PATIENCE);
        waitpoints.release("copy_before_commit");
        waitpoints.hold("copy_before_commit");
    }
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    ledger.stop_and_compare(&mut session);
    restored_copy_is_usable(&source, "RUNNING");
}

#[test]
fn a_dump_of_a_soaking_migration_restores_into_a_usable_table_that_nobody_migrates() {
    let cluster = Cluster::builder().start();
    let source = Database::create(&cluster);
    let mut session = source.connect();
    create_table(&mut session, 2_000);
    let ledger = Ledger::start(&source);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    ledger.wait_for_more(50);
    ledger.stop_and_compare(&mut session);
    restored_copy_is_usable(&source, "AWAITING_FINALIZATION");
}
