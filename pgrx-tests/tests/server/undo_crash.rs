//! A crash before every commit of an undo: it goes on from the last committed transaction, and no committed write is lost.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::ledger::Ledger;
use super::scene::{apply, assert_log_is_clean, assert_sound, create_table, wait_state, ID};

const KEEP: &str = r#"{"keep_old": "1 hour"}"#;
const ALTER: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint;
    ALTER TABLE t ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED";

/// In the order in which an undo comes by.
const POINTS: [&str; 6] = [
    "drain_before_commit",
    "swap_before_lock",
    "swap_before_commit",
    "undo_validated_before_commit",
    "undo_before_commit",
    "undo_cleaned_before_commit",
];

fn shape(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT attrelid::regclass, attname, atttypid::regtype FROM pg_attribute
          WHERE attrelid IN ('t'::regclass, 'child'::regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum",
    )
}

fn strike_at_every_point(crash: Crash) {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 1_000);
    session.exec(
        "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO child SELECT i, i FROM generate_series(1, 300) AS i",
    );
    let old_shape = shape(&mut session);
    let fingerprint = "SELECT md5(_transmute.fingerprint('t'::regclass) || _transmute.fingerprint('child'::regclass))";
    let before: String = session.scalar(fingerprint);
    let ledger = Ledger::start(&database);
    // Held from before the swap on: the first drain behind it stops here.
    apply(&mut session, ALTER, KEEP);
    wait_state(&mut session, "FINISHED");
    let new_shape = shape(&mut session);
    assert_ne!(new_shape, old_shape);
    ledger.wait_for_more(100);
    hold(&mut session, POINTS[0]);
    session.exec(&format!("SELECT transmute.undo('{ID}', 'the test')"));
    for (i, point) in POINTS.into_iter().enumerate() {
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        let expected = match i {
            0..=2 => &new_shape,
            _ => &old_shape,
        };
        assert_eq!(shape(&mut session), *expected, "at {point}");
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        assert_eq!(shape(&mut session), *expected, "after a crash at {point}");
        if let Some(next) = POINTS.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
    }
    session.wait_for("SELECT outcome FROM transmute.status", "UNDONE", PATIENCE);
    session.wait_for("SELECT queued FROM transmute.status", "f", PATIENCE);
    ledger.wait_for_more(20);
    ledger.stop_and_compare(&mut session);
    assert_eq!(session.scalar::<String>(fingerprint), before);
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    for table in ["t", "child"] {
        assert_sound(&mut session, table);
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_an_undo_costs_only_that_transaction() {
    strike_at_every_point(Crash::Conductor);
}

#[test]
fn a_server_killed_before_any_commit_of_an_undo_costs_only_that_transaction() {
    strike_at_every_point(Crash::Server);
}

#[test]
fn an_immediate_stop_before_any_commit_of_an_undo_costs_only_that_transaction() {
    strike_at_every_point(Crash::ImmediateStop);
}

#[test]
fn letting_go_of_old_rows_survives_a_crash() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    apply(
        &mut session,
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        KEEP,
    );
    wait_state(&mut session, "FINISHED");
    hold(&mut session, "let_go_before_commit");
    session.exec(&format!("SELECT transmute.release_old('{ID}', 'enough')"));
    let conductor = Waitpoints::of(&database).wait_reached("let_go_before_commit", PATIENCE);
    session = Crash::Conductor.strike(&database, conductor, session);
    Waitpoints::of(&database).wait_reached("let_go_before_commit", PATIENCE);
    release(&mut session, "let_go_before_commit");
    session.wait_for("SELECT queued FROM transmute.status", "f", PATIENCE);
    session.wait_for(
        "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^_transmute_'",
        "0",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT tgname FROM pg_trigger WHERE tgname ~ '_transmute'"),
        [""; 0]
    );
    assert_log_is_clean(&cluster);
}
