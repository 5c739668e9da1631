//! A crash before every commit of an undo where no table was copied: names, and hidden columns that follow the new ones.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{apply, assert_ends_well, assert_log_is_clean, assert_sound, wait_state, ID};

const KEEP: &str = r#"{"keep_old": "1 hour", "reverse": {"name": "first || ' ' || last"}}"#;
const SCRIPT: &str = "ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text;
    UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
    ALTER TABLE t DROP COLUMN name;
    ALTER TABLE u RENAME COLUMN a TO b; ALTER TABLE v RENAME TO w; ALTER TABLE u DROP COLUMN spare";

/// In the order in which an undo comes by.
const POINTS: [&str; 8] = [
    "show_before_commit",
    "second_name_before_commit",
    "rule_reopened_before_commit",
    "alias_before_commit",
    "rule_undo_before_lock",
    "rule_undo_before_commit",
    "undo_before_commit",
    "undo_cleaned_before_commit",
];

fn create(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL); CREATE INDEX t_name ON t (name)",
        "INSERT INTO t SELECT i, 'A' || i || ' B' || i FROM generate_series(1, 500) AS i",
        "CREATE TABLE u (id int PRIMARY KEY, a int, spare int); CREATE TABLE v (id int PRIMARY KEY)",
    ]);
}

/// Names of columns, as everybody can see them.
fn shape(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT c.relname, c.relkind, regexp_replace(a.attname, '[0-9]+', 'N') FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relname IN ('t', 'u', 'v', 'w') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum",
    )
}

fn strike_at_every_point(crash: Crash) {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    let print = "SELECT string_agg(_transmute.fingerprint(t::regclass), ' ') FROM unnest(ARRAY['t', 'u', 'v']) AS t";
    let before: String = session.scalar(print);
    apply(&mut session, SCRIPT, KEEP);
    wait_state(&mut session, "FINISHED");
    session.exec("UPDATE t SET first = 'C' || id, last = 'D' WHERE id % 10 = 1");
    hold(&mut session, POINTS[0]);
    session.exec(&format!("SELECT transmute.undo('{ID}', 'the test')"));
    for (i, point) in POINTS.into_iter().enumerate() {
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        let seen = shape(&mut session);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        assert_eq!(shape(&mut session), seen, "after a crash at {point}");
        if let Some(next) = POINTS.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
    }
    session.wait_for("SELECT outcome FROM transmute.status", "UNDONE", PATIENCE);
    session.wait_for("SELECT queued FROM transmute.status", "f", PATIENCE);
    assert_eq!(session.scalar::<String>(print), before);
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE name = 'C' || id || ' D'), count(*) FILTER (WHERE name = 'A' || id || ' B' || id) FROM t"),
        ["500|50|450"]
    );
    assert_sound(&mut session, "t");
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_an_undo_of_columns_costs_only_that_transaction() {
    strike_at_every_point(Crash::Conductor);
}

#[test]
fn a_server_killed_before_any_commit_of_an_undo_of_columns_costs_only_that_transaction() {
    strike_at_every_point(Crash::Server);
}

#[test]
fn letting_go_of_old_columns_survives_a_crash() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create(&mut session);
    apply(&mut session, SCRIPT, KEEP);
    wait_state(&mut session, "FINISHED");
    let point = "let_go_columns_before_commit";
    hold(&mut session, point);
    session.exec(&format!("SELECT transmute.release_old('{ID}', 'enough')"));
    let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
    session = Crash::Conductor.strike(&database, conductor, session);
    Waitpoints::of(&database).wait_reached(point, PATIENCE);
    release(&mut session, point);
    session.wait_for("SELECT queued FROM transmute.status", "f", PATIENCE);
    session.wait_for(
        "SELECT count(*) FROM pg_attribute WHERE attname ~ '^_transmute_'",
        "0",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"),
        ["0"]
    );
    assert_log_is_clean(&cluster);
}
