//! Rows that a data statement fails on: set aside, the rest goes on; mended, tried again; or given up by a person.

use transmute_tests::Database;

use super::{assert_nothing_left, slowly};
use crate::migration::{self, Migration};

#[test]
fn a_row_that_fails_is_set_aside_and_tried_again_when_mended() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int CHECK (b < 1000000));
         INSERT INTO t SELECT i, i::text, NULL FROM generate_series(1, 20000) AS i;
         UPDATE t SET a = 'ten' WHERE id = 10;
         UPDATE t SET a = '2000000' WHERE id = 9999",
    );
    let mut migration = Migration::start(&database, "m", "UPDATE t SET b = a::int + 1", "{}");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'FINISHING 2 rows that the statement fails on:%'",
        "t",
    );
    assert_eq!(
        session.lines("SELECT key, sqlstate FROM transmute.dead_letters WHERE resolved_at IS NULL ORDER BY key"),
        ["(id)=(10)|22P02", "(id)=(9999)|23514"]
    );
    assert_eq!(
        session.lines("SELECT count(*), count(b), bool_and(b = a::int + 1) FILTER (WHERE b IS NOT NULL) FROM t"),
        ["20000|19998|t"]
    );
    assert_eq!(migration.status("rows_done"), "19998");
    session.exec("UPDATE t SET a = '10' WHERE id = 10");
    migration.wait_for("dead_letters", "1");
    assert_eq!(migration.status("state"), "FINISHING");
    let error = migration.refused("discard_dead_letters", "NULL, ''");
    assert_eq!(error.sqlstate, "22023");
    migration.call("discard_dead_letters", "NULL, 'it may stay as it is'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, b FROM t WHERE id IN (10, 9999) ORDER BY id"),
        ["10|11", "9999|∅"]
    );
    assert_eq!(
        session.lines("SELECT detail::json ->> 'dead_letters' FROM transmute.history WHERE event = 'dead letters discarded'"),
        ["1"]
    );
    assert_nothing_left(&mut session);
}

#[test]
fn what_is_checked_at_the_commit_is_set_aside_too() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE parent (id int PRIMARY KEY);
         INSERT INTO parent SELECT i FROM generate_series(1, 100) AS i;
         CREATE TABLE t (id int PRIMARY KEY, a int, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO t SELECT i, 1 + i % 100 FROM generate_series(1, 5000) AS i;
         UPDATE t SET a = 500 WHERE id = 77",
    );
    let mut migration = Migration::start(&database, "m", "UPDATE t SET p = a", "{}");
    migration.wait_for("dead_letters", "1");
    assert_eq!(
        session.lines("SELECT key, sqlstate FROM transmute.dead_letters"),
        ["(id)=(77)|23503"]
    );
    session.exec("INSERT INTO parent VALUES (500)");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE p = a"),
        ["5000"]
    );
}

#[test]
fn more_than_the_limit_ask_a_person() {
    let database = Database::shared();
    migration::set(&database, &[("max_dead_letters", "3")]);
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int);
         INSERT INTO t SELECT i, CASE WHEN i % 100 = 0 THEN 'bad' ELSE '1' END FROM generate_series(1, 5000) AS i",
    );
    let mut migration = Migration::start(&database, "m", "UPDATE t SET b = a::int", "{}");
    migration.wait_for("outcome || ' ' || last_error_sqlstate", "FAILED 55000");
    assert_eq!(migration.status("state"), "FINISHING");
    let before: i64 = session.scalar("SELECT count(b) FROM t");
    assert!(before < 4950, "it stopped: {before}");
    session.exec("UPDATE t SET a = '0' WHERE a = 'bad'");
    migration.call("resume", "'mended'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(b), sum(b) FROM t"),
        ["5000|4950"]
    );
}
