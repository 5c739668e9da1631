//! A crash at every commit of a rule: nothing is lost, no row is left unlike the other shape.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{
    apply, assert_ends_well, assert_log_is_clean, assert_sound, rows_done, wait_rolled_back,
    wait_state, ID,
};

const SCRIPT: &str = "ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text;
    UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
    ALTER TABLE t DROP COLUMN name";
const POINTS: [&str; 5] = [
    "rule_make_before_commit",
    "rule_fill_before_commit",
    "rule_filled_before_commit",
    "rule_check_before_commit",
    "rule_end_before_commit",
];
const METAS: [&str; 2] = ["{}", r#"{"reverse": {"name": "first || ' ' || last"}}"#];

fn create(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL) WITH (fillfactor = 20)",
        "INSERT INTO t SELECT i, 'A' || i || ' B' || i FROM generate_series(1, 20000) AS i",
        "ANALYZE t",
    ]);
}

/// What is committed, as everybody can see it.
fn position(session: &mut Session) -> Vec<String> {
    let mut lines = session.lines(&format!(
        "SELECT state FROM transmute.status WHERE id = '{ID}'"
    ));
    lines.extend(session.lines("SELECT kind, status FROM transmute.steps"));
    lines.extend(
        session.lines("SELECT blocks_done, rows_done, checked_at IS NULL FROM transmute.progress"),
    );
    lines.extend(session.lines("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname IN ('first', 'last', 'name')"));
    lines.extend(session.lines("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"));
    lines
}

/// Rows at the end of the table: those of the first batch may be locked by it while it is held.
fn writes_both(session: &mut Session) {
    let there: i64 = session.scalar(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'name'",
    );
    if there == 1 {
        session.exec("UPDATE t SET name = 'C' || id || ' D' WHERE id > 19980");
    }
}

fn crash_before_every_commit(crash: Crash, meta: &str) {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    hold(&mut session, POINTS[0]);
    apply(&mut session, SCRIPT, meta);
    for (i, point) in POINTS.into_iter().enumerate() {
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        if point == "rule_fill_before_commit" {
            // In the midst of it, where there is something to lose.
            while rows_done(&mut session) < 3_000 {
                release(&mut session, point);
                hold(&mut session, point);
                Waitpoints::of(&database).wait_reached(point, PATIENCE);
            }
        }
        let before = position(&mut session);
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        assert_eq!(position(&mut session), before, "after a crash at {point}");
        if let Some(next) = POINTS.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
        if point == "rule_make_before_commit" {
            session.wait_for("SELECT count(*) FROM transmute.progress", "1", PATIENCE);
            writes_both(&mut session);
        }
    }
    wait_state(&mut session, "FINISHED");
    // A crash may skip numbers of a sequence.
    let hidden: String = session.scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname ~ '^_transmute_[0-9]+_name$'",
    );
    assert_eq!(
        session.lines(&format!("SELECT count(*), count(*) FILTER (WHERE first || ' ' || last <> {hidden}), count(*) FILTER (WHERE first LIKE 'C%') FROM t")),
        ["20000|0|20"]
    );
    assert_sound(&mut session, "t");
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_a_rule_costs_only_that_transaction() {
    for meta in METAS {
        crash_before_every_commit(Crash::Conductor, meta);
    }
}

#[test]
fn a_server_killed_before_any_commit_of_a_rule_costs_only_that_transaction() {
    crash_before_every_commit(Crash::Server, METAS[0]);
}

#[test]
fn an_immediate_stop_before_any_commit_of_a_rule_costs_only_that_transaction() {
    crash_before_every_commit(Crash::ImmediateStop, METAS[1]);
}

#[test]
fn a_crash_while_a_rule_is_taken_back_leaves_the_table_as_it_was() {
    for meta in METAS {
        let cluster = Cluster::builder().start();
        let database = Database::create(&cluster);
        let mut session = database.connect();
        create(&mut session);
        let print = "SELECT _transmute.fingerprint('t'::regclass)";
        let before: String = session.scalar(print);
        let meta = match meta {
            "{}" => r#"{"pre_finalization_soak": "1 hour"}"#.to_string(),
            other => other.replacen('{', r#"{"pre_finalization_soak": "1 hour", "#, 1),
        };
        apply(&mut session, SCRIPT, &meta);
        wait_state(&mut session, "AWAITING_FINALIZATION");
        let point = "rule_undo_before_commit";
        hold(&mut session, point);
        session.exec(&format!("SELECT transmute.rollback('{ID}', 'back')"));
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        session = Crash::Conductor.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        release(&mut session, point);
        wait_rolled_back(&mut session);
        assert_eq!(session.scalar::<String>(print), before);
        assert_sound(&mut session, "t");
        assert_log_is_clean(&cluster);
    }
}
