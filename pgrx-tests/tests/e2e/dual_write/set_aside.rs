//! Rows that the rule fails on.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use super::soaking;
use crate::migration::Migration;

const SCRIPT: &str =
    "ALTER TABLE t ADD COLUMN n int; UPDATE t SET n = s::int; ALTER TABLE t DROP COLUMN s";

fn table(session: &mut Session) {
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, s text);
         INSERT INTO t SELECT i, i::text FROM generate_series(1, 2000) AS i;
         UPDATE t SET s = 'not a number' WHERE id IN (7, 1500)",
    );
}

fn letters(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT key, sqlstate, detail LIKE '%n = %s%::integer%' FROM transmute.dead_letters WHERE resolved_at IS NULL ORDER BY key",
    )
}

#[test]
fn rows_that_are_there_and_fail_are_set_aside_until_they_are_mended() {
    for mechanism in ["rule", "trigger"] {
        let database = Database::shared();
        let mut session = database.connect();
        table(&mut session);
        let mut migration = Migration::start(
            &database,
            "m",
            SCRIPT,
            &soaking(&format!(r#""dual_write": "{mechanism}""#)),
        );
        migration.wait_for("dead_letters", "2");
        migration.wait_for("waiting_for LIKE '2 rows that the rule%'", "t");
        assert_eq!(
            letters(&mut session),
            ["(id)=(1500)|22P02|t", "(id)=(7)|22P02|t"]
        );
        // Without a word of the DBA's a statement that cannot be computed fails, as in plain SQL.
        assert_eq!(
            session
                .error("INSERT INTO t (id, s) VALUES (3000, 'x')")
                .sqlstate,
            "22P02"
        );
        session.exec("UPDATE t SET s = '70' WHERE id = 7");
        session.exec("DELETE FROM t WHERE id = 1500");
        migration.wait("AWAITING_FINALIZATION");
        assert_eq!(letters(&mut session), [""; 0]);
        assert_eq!(
            session.lines("SELECT count(*), sum((n IS DISTINCT FROM s::int)::int) FROM t"),
            ["1999|0"]
        );
    }
}

#[test]
fn a_statement_goes_on_where_the_dba_wants_that_and_the_end_waits() {
    let database = Database::shared();
    let mut session = database.connect();
    table(&mut session);
    let mut migration = Migration::start(
        &database,
        "m",
        SCRIPT,
        r#"{"pre_finalization_soak": "0", "required_approvals": 1, "on_write_error": "dead_letter"}"#,
    );
    migration.wait_for("dead_letters", "2");
    session.exec("UPDATE t SET s = id WHERE id IN (7, 1500)");
    migration.wait("AWAITING_FINALIZATION");
    // Written by somebody who may neither read nor write our tables.
    session.exec("CREATE ROLE writer; GRANT ALL ON t TO writer");
    session.as_role("writer", |session| {
        session.exec("INSERT INTO t (id, s) VALUES (3000, 'three thousand'), (3001, '3001')");
        session.exec("UPDATE t SET s = 'nine' WHERE id = 9");
        session.exec("BEGIN; INSERT INTO t (id, s) VALUES (3002, 'gone'); ROLLBACK");
    });
    session.exec("DROP OWNED BY writer; DROP ROLE writer");
    assert_eq!(
        letters(&mut session),
        ["(id)=(3000)|22P02|t", "(id)=(9)|22P02|t"]
    );
    assert_eq!(
        session.lines(
            "SELECT id, s, coalesce(n::text, '-') FROM t WHERE id IN (9, 3000, 3001) ORDER BY id"
        ),
        ["9|nine|9", "3000|three thousand|-", "3001|3001|3001"]
    );
    migration.call("approve", "'go'");
    migration.wait_for("waiting_for LIKE '%dead letter%'", "t");
    session.exec("UPDATE t SET s = '9' WHERE id = 9; UPDATE t SET s = '3000' WHERE id = 3000");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum((n IS NULL)::int) FROM t"),
        ["2002|0"]
    );
    assert_eq!(session.lines("SELECT n FROM t WHERE id = 3000"), ["3000"]);
}

#[test]
fn a_row_that_is_refused_again_while_it_is_tried_stays_set_aside() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, s text); INSERT INTO t VALUES (1, '1')");
    let mut migration = Migration::start(
        &database,
        "m",
        SCRIPT,
        r#"{"pre_finalization_soak": "0", "required_approvals": 1, "on_write_error": "dead_letter"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    let mut points = Waitpoints::of(&database);
    points.hold("rule_letter_before_resolve");
    session.exec("INSERT INTO t (id, s) VALUES (2, 'two'); UPDATE t SET s = '2' WHERE id = 2");
    points.wait_reached("rule_letter_before_resolve", PATIENCE);
    // It was fine when it was looked at.
    session.exec("UPDATE t SET s = 'deux' WHERE id = 2");
    migration.call("approve", "'go'");
    points.release("rule_letter_before_resolve");
    migration.wait_for("waiting_for LIKE '%dead letter%'", "t");
    assert_eq!(letters(&mut session), ["(id)=(2)|22P02|t"]);
    // Nobody gives up a value of a row that stays.
    assert_eq!(
        session
            .error("SELECT transmute.discard_dead_letters('m', ARRAY[(SELECT max(dead_letter) FROM transmute.dead_letters)], 'x')")
            .sqlstate,
        "0A000"
    );
    session.exec("UPDATE t SET s = '22' WHERE id = 2");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, n FROM t ORDER BY id"),
        ["1|1", "2|22"]
    );
}

#[test]
fn a_rule_that_was_switched_off_is_noticed() {
    for (mechanism, off) in [
        ("rule", "ALTER TABLE t ALTER COLUMN n DROP EXPRESSION"),
        ("trigger", "ALTER TABLE t DISABLE TRIGGER USER"),
    ] {
        let database = Database::shared();
        let mut session = database.connect();
        session.exec("CREATE TABLE t (id int PRIMARY KEY, s text); INSERT INTO t VALUES (1, '1')");
        let mut migration = Migration::start(
            &database,
            "m",
            SCRIPT,
            &format!(
                r#"{{"pre_finalization_soak": "0", "required_approvals": 1, "dual_write": "{mechanism}"}}"#
            ),
        );
        migration.wait("AWAITING_FINALIZATION");
        session.exec(&format!("SET transmute.allow_ddl = on; {off}"));
        migration.call("approve", "'go'");
        migration.wait_for("last_error_sqlstate", "55000");
        migration.roll_back();
        assert_eq!(
            session.lines("SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped"),
            ["id", "s"]
        );
    }
}
