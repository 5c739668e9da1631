//! What a person can do about refused rows besides mending them: look, try again, go on without them, forget them.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, Migration};

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
const TO_INT: &str = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
const STATUS: &str = "SELECT key, status FROM transmute.dead_letters ORDER BY length(key), key";

/// A hundred numbers as text, of which 10, 20 and 30 are none.
fn with_three_bad(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text, \"No te\" text);
         INSERT INTO t SELECT i, CASE WHEN i IN (10, 20, 30) THEN 'bad ' || i ELSE i::text END FROM generate_series(1, 100) AS i;
         UPDATE t SET \"No te\" = repeat('é', 5000) WHERE id = 20",
    );
    session
}

/// Numbers of dead letters by key, as an SQL array.
fn ids(session: &mut Session, keys: &str) -> String {
    session.scalar(&format!(
        "SELECT array_agg(dead_letter)::text FROM transmute.dead_letters WHERE status = 'open' AND key ~ '\\(({keys})\\)$'"
    ))
}

#[test]
fn a_dead_letter_shows_the_row_the_statement_and_the_error() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut migration = Migration::start(&database, "m", TO_INT, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines(
            "SELECT key, d.\"row\" - 'No te', d.\"row\" -> 'No te', expression, sqlstate, message, status, reason
               FROM transmute.dead_letters d WHERE key <> '(id)=(20)' ORDER BY key"
        ),
        [
            format!("(id)=(10)|{{\"a\": \"bad 10\", \"id\": \"10\"}}|null|{TO_INT}|22P02|invalid input syntax for type integer: \"bad 10\"|open|∅"),
            format!("(id)=(30)|{{\"a\": \"bad 30\", \"id\": \"30\"}}|null|{TO_INT}|22P02|invalid input syntax for type integer: \"bad 30\"|open|∅"),
        ]
    );
    // Long values are cut, between characters.
    assert_eq!(
        session.lines("SELECT length(d.\"row\" ->> 'No te'), right(d.\"row\" ->> 'No te', 2) FROM transmute.dead_letters d WHERE key = '(id)=(20)'"),
        ["2001|é…"]
    );
    // What the application makes of it is seen when it is drained.
    session.exec("UPDATE t SET a = 'worse' WHERE id = 30");
    session.wait_for(
        "SELECT d.\"row\" ->> 'a' || ' ' || (attempts > 1) || ' ' || (SELECT count(*) FROM transmute.dead_letters) FROM transmute.dead_letters d WHERE key = '(id)=(30)'",
        "worse true 3",
        PATIENCE,
    );
    migration.roll_back();
    assert_eq!(
        session.lines(STATUS),
        [
            "(id)=(10)|resolved",
            "(id)=(20)|resolved",
            "(id)=(30)|resolved"
        ]
    );
}

#[test]
fn a_row_that_a_data_statement_fails_on_is_shown_too() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    session.exec("ALTER TABLE t ADD b int");
    let mut migration = Migration::start(&database, "m", "UPDATE t AS x SET b = x.a::int", "{}");
    migration.wait_for("dead_letters", "3");
    assert_eq!(
        session.lines(
            "SELECT d.\"row\" - 'No te', expression, status FROM transmute.dead_letters d WHERE key = '(id)=(10)'"
        ),
        ["{\"a\": \"bad 10\", \"b\": null, \"id\": \"10\"}|UPDATE t AS x SET b = x.a::int|open"]
    );
    let some = ids(&mut session, "10|20");
    migration.call(
        "discard_dead_letters",
        &format!("'{some}', 'these two may stay'"),
    );
    migration.wait_for("dead_letters", "1");
    session.exec("UPDATE t SET a = '30' WHERE id = 30");
    migration.call("replay_dead_letters", "");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, b FROM t WHERE id IN (10, 20, 30) ORDER BY id"),
        ["10|∅", "20|∅", "30|30"]
    );
    assert_eq!(
        session.lines("SELECT key, status, reason FROM transmute.dead_letters ORDER BY key"),
        [
            "(id)=(10)|discarded|these two may stay",
            "(id)=(20)|discarded|these two may stay",
            "(id)=(30)|resolved|∅"
        ]
    );
}

#[test]
fn an_approval_that_names_them_lets_the_migration_pass_without_these_rows() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut migration = Migration::start(&database, "m", TO_INT, "{}");
    migration.wait_for("waiting_for LIKE '3 dead letters open;%'", "t");
    let two = ids(&mut session, "10|20");
    migration.call(
        "approve",
        &format!("'these are noise', waive_dead_letters => '{two}'"),
    );
    migration.wait_for("waiting_for LIKE '1 dead letter open;%'", "t");
    // One that it does not name holds it back; revoked, all do.
    let third = ids(&mut session, "30");
    migration.call("revoke_approval", "'not sure'");
    migration.wait_for("waiting_for LIKE '3 dead letters open;%'", "t");
    migration.call("approve", &format!("'sure', waive_dead_letters => '{two}'"));
    migration.call(
        "approve",
        &format!("'and that', waive_dead_letters => '{third}'"),
    );
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), min(a), max(a), pg_typeof(max(a)) FROM t"),
        ["97|1|100|integer"]
    );
    assert_eq!(
        session.lines("SELECT DISTINCT status, reason FROM transmute.dead_letters"),
        ["discarded|waived by an approval that names it"]
    );
    assert_eq!(
        session.lines("SELECT detail::json ->> 'dead_letters' FROM transmute.history WHERE event = 'dead letters waived'"),
        ["3"]
    );
    // Nothing is lost: they are in the old rows.
    let kept: String = session.scalar("SELECT physical FROM transmute.artifacts");
    assert_eq!(
        session.lines(&format!(
            "SELECT id, a FROM {kept} WHERE a LIKE 'bad%' ORDER BY id"
        )),
        ["10|bad 10", "20|bad 20", "30|bad 30"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn rows_that_were_given_up_are_taken_again_when_somebody_writes_them() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut migration = Migration::start(&database, "m", TO_INT, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    // Given up while they are about to be tried again: that try does not open them.
    let tried = ids(&mut session, "30");
    session.exec(&format!(
        "BEGIN; SELECT transmute.replay_dead_letters('m', '{tried}'); SELECT transmute.discard_dead_letters('m', NULL, 'nobody needs them'); COMMIT",
    ));
    migration.wait_for(
        "dead_letters || ' ' || waiting_for",
        "0 the soak, until soak_until; skip_soak ends it now",
    );
    session.exec("UPDATE t SET a = '10' WHERE id = 10; UPDATE t SET a = 'bad again' WHERE id = 20");
    session.wait_for(
        "SELECT string_agg(status, ' ' ORDER BY key) FROM transmute.dead_letters",
        "resolved open discarded",
        PATIENCE,
    );
    let reopened = ids(&mut session, "20");
    migration.call(
        "discard_dead_letters",
        &format!("'{reopened}', 'still nobody'"),
    );
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE id IN (10, 20, 30)) FROM t"),
        ["98|1"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn the_check_counts_rows_that_were_given_up() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut points = Waitpoints::of(&database);
    points.hold("check_before_commit");
    let mut migration = Migration::start(&database, "m", TO_INT, "{}");
    points.wait_reached("check_before_commit", PATIENCE);
    migration.call("discard_dead_letters", "NULL, 'before they are counted'");
    points.release("check_before_commit");
    migration.finish();
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["97"]);
    assert_eq!(
        session.lines("SELECT rows_repaired FROM transmute.progress"),
        ["0"]
    );
}

#[test]
fn rows_are_tried_again_at_once_also_while_a_drain_runs() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int, k text, a text, PRIMARY KEY (id, k));
         INSERT INTO t SELECT i, 'it''s, (' || i, i::text FROM generate_series(1, 50) AS i;
         CREATE TABLE allowed (a int); INSERT INTO allowed SELECT generate_series(2, 50);
         CREATE FUNCTION convert(a text) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN IF NOT EXISTS (SELECT FROM public.allowed x WHERE x.a = convert.a::int) THEN RAISE 'not allowed'; END IF; RETURN a; END $$",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING convert(a)",
        LONG_SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    migration.wait_for("dead_letters", "1");
    let attempts = "SELECT attempts FROM transmute.dead_letters";
    let before: i32 = session.scalar(attempts);
    assert_eq!(
        session.lines("SELECT transmute.replay_dead_letters('m')"),
        ["1"]
    );
    session.wait_for(
        &format!("SELECT attempts > {before} FROM transmute.dead_letters"),
        "t",
        PATIENCE,
    );
    // A drain that has read the log does not lose what comes meanwhile.
    let mut points = Waitpoints::of(&database);
    points.hold("drain_before_commit");
    session.exec("INSERT INTO t VALUES (3, 'more', '3')");
    points.wait_reached("drain_before_commit", PATIENCE);
    session.exec("INSERT INTO allowed VALUES (1)");
    let mut replaying = database.connect();
    replaying.exec("BEGIN; SELECT transmute.replay_dead_letters('m', (SELECT array_agg(dead_letter) FROM transmute.dead_letters))");
    points.release("drain_before_commit");
    // An open transaction of a caller's holds up nobody.
    session.exec("INSERT INTO t VALUES (4, 'more', '4')");
    session.wait_for(
        "SELECT lag = 0 AND drained_keys >= 2 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    replaying.exec("COMMIT");
    session.wait_for(
        "SELECT status FROM transmute.dead_letters",
        "resolved",
        PATIENCE,
    );
    migration.call("skip_soak", "'done'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum(a), max(k) FILTER (WHERE id = 1) FROM t"),
        ["52|1282|it's, (1"]
    );
}

#[test]
fn what_is_settled_can_be_forgotten_by_status() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut migration = Migration::start(&database, "m", TO_INT, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("DELETE FROM t WHERE id = 10");
    session.wait_for(
        "SELECT count(*) FROM transmute.dead_letters WHERE status = 'resolved'",
        "1",
        PATIENCE,
    );
    let one = ids(&mut session, "20");
    migration.call("discard_dead_letters", &format!("'{one}', 'gone'"));
    let error = migration.refused("purge_dead_letters", "'discarded'");
    assert_eq!(error.sqlstate, "55000");
    assert_eq!(
        migration.refused("purge_dead_letters", "'open'").sqlstate,
        "22023"
    );
    assert_eq!(
        session.lines("SELECT transmute.purge_dead_letters('m', 'resolved')"),
        ["1"]
    );
    assert_eq!(
        session.lines(STATUS),
        ["(id)=(20)|discarded", "(id)=(30)|open"]
    );
    migration.call("discard_dead_letters", "NULL, 'gone'");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT transmute.purge_dead_letters('m', 'discarded')"),
        ["2"]
    );
    assert_eq!(session.lines(STATUS), [""; 0]);
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn a_migration_can_have_a_limit_of_its_own() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    let mut migration = Migration::start(&database, "m", TO_INT, r#"{"max_dead_letters": 2}"#);
    migration.wait_in("AWAITING_ACTION");
    let said = session
        .lines("SELECT detail::json ->> 'message' FROM transmute.history WHERE event = 'failed'");
    assert_eq!(said, ["too many rows are refused by the new shape"]);
    migration.call("discard_dead_letters", "NULL, 'all right'");
    migration.call("resume", "'all right'");
    migration.finish();
    let mut generous = Migration::start(
        &database,
        "n",
        "ALTER TABLE t ALTER COLUMN a TYPE text, ADD CHECK (a <> '1' AND a <> '2' AND a <> '3')",
        r#"{"max_dead_letters": 3}"#,
    );
    generous.wait_for("waiting_for LIKE '3 dead letters open;%'", "t");
    generous.roll_back();
}

#[test]
fn a_row_that_is_refused_in_the_last_moment_holds_the_swap_back() {
    let database = Database::shared();
    let mut session = with_three_bad(&database);
    session.exec("DELETE FROM t WHERE a LIKE 'bad%'");
    let mut points = Waitpoints::of(&database);
    points.hold("swap_before_lock");
    let mut migration = Migration::start(&database, "m", TO_INT, "{}");
    points.wait_reached("swap_before_lock", PATIENCE);
    session.exec("INSERT INTO t VALUES (1000, 'late')");
    points.release("swap_before_lock");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'AWAITING_FINALIZATION 1 dead letter open;%'",
        "t",
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE a = 'late'"),
        ["1"]
    );
    session.exec("UPDATE t SET a = '1000' WHERE id = 1000");
    migration.finish();
    assert_eq!(session.lines("SELECT count(*), max(a) FROM t"), ["98|1000"]);
}
