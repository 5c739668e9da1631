//! The way back of what has finished: a migration of its own.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, fingerprint};

fn world(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t SELECT i, i, 'x' FROM generate_series(1, 500) i",
    );
    session
}

fn wait(session: &mut Session, id: &str, state: &str) {
    session.exec(&format!("CALL transmute.wait('{id}', '{state}', '60 s')"));
}

#[test]
fn a_finished_migration_is_taken_back_and_made_again() {
    let database = Database::shared();
    let mut session = world(&database);
    let before = fingerprint(&mut session, "t");
    session.exec(
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN n int DEFAULT 1',
           'ALTER TABLE t ALTER COLUMN a TYPE int; ALTER TABLE t DROP COLUMN n', '{\"drop_policy\": \"drop\", \"owner_team\": \"x\"}')",
    );
    session.exec("SELECT transmute.apply('m')");
    wait(&mut session, "m", "FINISHED");
    let after = fingerprint(&mut session, "t");
    let error = session.error("SELECT transmute.rollback('m', 'no')");
    assert!(error
        .hint
        .unwrap_or_default()
        .contains("transmute.down(id, reason)"));
    assert_eq!(
        session.lines("SELECT id, state, action FROM transmute.down('m', 'it was wrong')"),
        ["m:down|UNINITIALIZED|queued"]
    );
    wait(&mut session, "m:down", "FINISHED");
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"),
        ["id|integer", "a|integer", "b|text"]
    );
    assert_ne!(before, after);
    assert_eq!(
        session.lines("SELECT id, state, outcome, meta FROM transmute.status ORDER BY id"),
        [
            "m|FINISHED|UNDONE|{\"owner_team\": \"x\", \"drop_policy\": \"drop\"}",
            "m:down|FINISHED|COMPLETED|{\"owner_team\": \"x\", \"drop_policy\": \"drop\"}",
        ]
    );
    // History shows both.
    assert_eq!(
        session.lines(
            "SELECT id, event FROM transmute.history WHERE event IN ('registered', 'applied', 'taken back', 'finished') ORDER BY seq"
        ),
        [
            "m|registered", "m|applied", "m|finished", "m:down|registered", "m|taken back", "m:down|applied",
            "m:down|finished"
        ]
    );
    let error = session.error("SELECT transmute.down('m', 'again')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "the migration was taken back")
    );
    // The down of the down is the script itself.
    session.exec("SELECT transmute.down('m:down', 'it was right after all')");
    wait(&mut session, "m:down:down", "FINISHED");
    assert_eq!(
        session.lines("SELECT id, outcome FROM transmute.status ORDER BY id"),
        ["m|COMPLETED", "m:down|UNDONE", "m:down:down|COMPLETED"]
    );
    assert_eq!(
        session.lines("SELECT sum(n), pg_typeof(min(a)) FROM t"),
        ["500|bigint"]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn a_way_back_is_checked_at_register() {
    let database = Database::shared();
    let mut session = world(&database);
    for (up, down, sqlstate, detail) in [
        (
            "ALTER TABLE t ADD COLUMN n int",
            "",
            "22023",
            "down is given",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int",
            "-- nothing",
            "22023",
            "down is given",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int",
            "DROP TABEL t",
            "42601",
            "",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int",
            "ALTER TABLE t DROP COLUMN n; COMMIT",
            "22023",
            "In down, statement of line 1",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int",
            "ALTER TABLE t DROP COLUMN n;\nVACUUM (FULL)",
            "0A000",
            "In down, statement of line 2",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int",
            "CREATE DATABASE d",
            "0A000",
            "In down",
        ),
    ] {
        let error = session.error(&format!(
            "SELECT transmute.register('m', $x${up}$x$, $x${down}$x$)"
        ));
        assert_eq!(error.sqlstate, sqlstate, "{down}: {error}");
        assert!(
            error.detail.clone().unwrap_or_default().contains(detail),
            "{down}: {error}"
        );
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["0"]
    );
    // What up makes is not there yet, and what it drops still is.
    for (id, up, down) in [
        (
            "a",
            "ALTER TABLE t ADD COLUMN n int",
            "ALTER TABLE t DROP COLUMN n",
        ),
        ("b", "CREATE TABLE u (id int)", "DROP TABLE u"),
        (
            "c",
            "ALTER TABLE t DROP COLUMN b",
            "ALTER TABLE t ADD COLUMN b text",
        ),
        ("d", "CREATE INDEX i ON t (a)", "DROP INDEX i"),
        (
            "e",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION f()",
        ),
        (
            "f",
            "ALTER TABLE t RENAME a TO z",
            "ALTER TABLE t RENAME z TO a",
        ),
    ] {
        session.exec(&format!(
            "SELECT transmute.register('{id}', $x${up}$x$, $x${down}$x$)"
        ));
    }
    let long = "x".repeat(251);
    let error = session.error(&format!("SELECT transmute.register('{long}', 'COMMENT ON TABLE t IS NULL', 'COMMENT ON TABLE t IS NULL')"));
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("22023", "the id is too long")
    );
}

#[test]
fn what_is_applied_again_is_waited_for_like_any_other() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "SELECT transmute.register('first', 'CREATE TABLE one (id int)', meta => '{\"pre_execution_soak\": \"1 hour\"}');
         SELECT transmute.register('second', 'COMMENT ON TABLE one IS ''x''', meta => '{\"depends_on\": [\"first\"]}')",
    );
    for (first, second) in [("first", "second"), ("first:up2", "second:up2")] {
        session.exec("SELECT transmute.apply('first'); SELECT transmute.apply('second')");
        session.wait_for(
            &format!("SELECT waiting_for FROM transmute.status WHERE id = '{second}'"),
            "dependency \"first\", which has not started yet",
            PATIENCE,
        );
        session.exec(&format!("SELECT transmute.skip_soak('{first}', 'enough')"));
        wait(&mut session, second, "FINISHED");
        if first == "first" {
            session.exec("SELECT transmute.down('second', 'x')");
            wait(&mut session, "second:down", "FINISHED");
            // The way back soaks, too.
            session.exec("SELECT transmute.down('first', 'x'); SELECT transmute.skip_soak('first:down', 'enough')");
            wait(&mut session, "first:down", "FINISHED");
        }
    }
}

#[test]
fn the_state_and_what_depends_on_it_decide_whether_it_can_be_taken_back() {
    let database = Database::shared();
    let mut session = world(&database);
    session.exec(
        "SELECT transmute.register('base', 'ALTER TABLE t ADD COLUMN n int', 'ALTER TABLE t DROP COLUMN n');
         SELECT transmute.register('plain', 'UPDATE t SET b = ''y'' WHERE id = 1');
         SELECT transmute.register('top', 'COMMENT ON TABLE t IS ''n''', 'COMMENT ON TABLE t IS NULL', '{\"depends_on\": [\"base\"]}')",
    );
    let refused = |session: &mut Session, id: &str| {
        let error = session.error(&format!("SELECT transmute.down('{id}', 'x')"));
        assert_eq!(error.sqlstate, "55000", "{error}");
        error.message
    };
    assert_eq!(
        refused(&mut session, "base"),
        "the state of the migration does not allow down"
    );
    session.exec("SELECT transmute.apply()");
    for id in ["base", "plain", "top"] {
        wait(&mut session, id, "FINISHED");
    }
    assert_eq!(
        refused(&mut session, "plain"),
        "not all of the migration can be taken back"
    );
    assert_eq!(
        refused(&mut session, "base"),
        "other migrations depend on it"
    );
    session.exec("SELECT transmute.down('top', 'x')");
    wait(&mut session, "top:down", "FINISHED");
    session.exec("SELECT transmute.down('base', 'x')");
    wait(&mut session, "base:down", "FINISHED");
    // What depends on something that was taken back does not start.
    session.exec("SELECT transmute.register('late', 'COMMENT ON TABLE t IS NULL', meta => '{\"depends_on\": [\"base\"]}')");
    assert_eq!(
        session.lines("SELECT detail FROM transmute.apply('late')"),
        ["dependency \"base\", which was rolled back"]
    );
    // A name that somebody else has.
    session.exec("SELECT transmute.register('q', 'COMMENT ON TABLE t IS NULL', 'COMMENT ON TABLE t IS NULL'); SELECT transmute.apply('q')");
    wait(&mut session, "q", "FINISHED");
    session.exec("SELECT transmute.register('q:down', 'COMMENT ON TABLE t IS NULL')");
    assert_eq!(
        session.error("SELECT transmute.down('q', 'x')").sqlstate,
        "42710"
    );
}

#[test]
fn a_way_back_that_was_itself_rolled_back_can_be_gone_again() {
    let database = Database::shared();
    let mut session = world(&database);
    session.exec(
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', 'ALTER TABLE t ALTER COLUMN a TYPE int',
           '{\"required_approvals\": 1}'); SELECT transmute.apply('m'); SELECT transmute.approve('m', 'x')",
    );
    wait(&mut session, "m", "FINISHED");
    session.exec("SELECT transmute.down('m', 'back')");
    wait(&mut session, "m:down", "AWAITING_FINALIZATION");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'm:down'",
        "1 approval missing",
        PATIENCE,
    );
    session.exec("SELECT transmute.rollback('m:down', 'or not')");
    wait(&mut session, "m:down", "UNINITIALIZED");
    assert_eq!(
        session.lines("SELECT outcome FROM transmute.status WHERE id = 'm'"),
        ["COMPLETED"]
    );
    session
        .exec("SELECT transmute.down('m', 'yes, back'); SELECT transmute.approve('m:down', 'x')");
    wait(&mut session, "m:down", "FINISHED");
    assert_eq!(
        session.lines("SELECT outcome FROM transmute.status WHERE id = 'm'"),
        ["UNDONE"]
    );
    assert_eq!(
        session.lines("SELECT pg_typeof(min(a)) FROM t"),
        ["integer"]
    );
}
