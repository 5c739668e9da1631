//! Rows that the new shape refuses: the rest goes on, the application notices nothing, the swap waits until they are mended.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{self, assert_sound, Migration};

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
const OPEN: &str =
    "SELECT key, sqlstate FROM transmute.dead_letters WHERE resolved_at IS NULL ORDER BY length(key), key";

/// Twenty thousand numbers as text: some 110 blocks.
fn numbers(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text);
         INSERT INTO t SELECT i, i::text FROM generate_series(1, 20000) AS i",
    );
    session
}

#[test]
fn rows_that_cannot_be_converted_are_set_aside_and_come_back_when_mended() {
    let database = Database::shared();
    let mut session = numbers(&database);
    session.exec("UPDATE t SET a = 'ten' WHERE id = 10; UPDATE t SET a = NULL WHERE id = 11");
    session.exec("UPDATE t SET a = '99999999999' WHERE id IN (10000, 10001); UPDATE t SET a = '' WHERE id = 20000");
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
    let mut migration = Migration::start(&database, "m", ddl, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines(OPEN),
        [
            "(id)=(10)|22P02",
            "(id)=(10000)|22003",
            "(id)=(10001)|22003",
            "(id)=(20000)|22P02"
        ]
    );
    assert_eq!(
        session.lines("SELECT message FROM transmute.dead_letters WHERE key = '(id)=(10)'"),
        ["invalid input syntax for type integer: \"ten\""]
    );
    migration.wait_for(
        "waiting_for LIKE '4 dead letters open;%the soak, until%'",
        "t",
    );

    // What the application may do meanwhile is not narrowed by what the new type takes.
    session.exec("INSERT INTO t VALUES (30000, 'new'); UPDATE t SET a = 'one' WHERE id = 1");
    session.exec(
        "UPDATE t SET a = 'still bad' WHERE id = 10; UPDATE t SET a = '10000' WHERE id = 10000",
    );
    session.exec("DELETE FROM t WHERE id = 10001; UPDATE t SET id = 40000 WHERE id = 20000");
    session.wait_for(
        "SELECT string_agg(key, ' ' ORDER BY length(key), key) FROM transmute.dead_letters WHERE resolved_at IS NULL",
        "(id)=(1) (id)=(10) (id)=(30000) (id)=(40000)",
        PATIENCE,
    );
    migration.call("skip_soak", "'nothing but them is in the way'");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'AWAITING_FINALIZATION 4 dead letters open;%'",
        "t",
    );

    session.exec("UPDATE t SET a = '10' WHERE id = 10; UPDATE t SET a = '1' WHERE id = 1; DELETE FROM t WHERE id = 30000");
    migration.wait_for("dead_letters", "1");
    assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");
    session.exec("UPDATE t SET a = '20000' WHERE a = ''");
    migration.finish();
    assert_eq!(
        session.lines("SELECT pg_typeof(max(a)), count(*), count(a), sum(a) FROM t"),
        ["integer|19999|19998|199999988"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM t WHERE a <> id"), ["1"]);
    assert_eq!(session.lines(OPEN), [] as [&str; 0]);
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.dead_letters"),
        ["7"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn rows_that_new_constraints_refuse_are_set_aside_too() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text, c int);
         INSERT INTO t SELECT i, i, 'b', i FROM generate_series(1, 5000) AS i;
         UPDATE t SET a = -1 WHERE id = 13;
         UPDATE t SET b = NULL WHERE id = 2500;
         UPDATE t SET c = 4999 WHERE id = 5000",
    );
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CONSTRAINT positive CHECK (a > 0),
               ALTER COLUMN b SET NOT NULL, ADD CONSTRAINT one_c UNIQUE (c)";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'AWAITING_FINALIZATION 3 dead letters open;%'",
        "t",
    );
    let open = session.lines("SELECT sqlstate FROM transmute.dead_letters ORDER BY sqlstate");
    assert_eq!(open, ["23502", "23505", "23514"]);
    // None of it holds for the application before the swap.
    session.exec("INSERT INTO t VALUES (6000, -5, NULL, 1)");
    migration.wait_for("dead_letters", "4");
    session.exec("DELETE FROM t WHERE id = 6000");
    session.exec("UPDATE t SET a = 13 WHERE id = 13; UPDATE t SET b = 'b' WHERE b IS NULL");
    migration.wait_for("dead_letters", "1");
    session.exec("UPDATE t SET c = 5000 WHERE id = 5000");
    migration.finish();
    assert_eq!(
        session
            .error("INSERT INTO t VALUES (7000, 0, 'b', 7000)")
            .sqlstate,
        "23514"
    );
    assert_eq!(
        session
            .error("INSERT INTO t VALUES (7000, 1, NULL, 7000)")
            .sqlstate,
        "23502"
    );
    assert_eq!(
        session
            .error("INSERT INTO t VALUES (7000, 1, 'b', 1)")
            .sqlstate,
        "23505"
    );
    assert_eq!(
        session.lines("SELECT count(*), sum(a), count(DISTINCT c) FROM t"),
        ["5000|12502500|5000"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn a_duplicate_is_resolved_by_mending_either_row() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i");
    let ddl = "ALTER TABLE t ALTER COLUMN c TYPE bigint, ADD UNIQUE (c)";
    let mut migration = Migration::start(&database, "m", ddl, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("UPDATE t SET c = 1 WHERE id = 2");
    migration.wait_for("dead_letters", "1");
    assert_eq!(session.lines(OPEN), ["(id)=(2)|23505"]);
    // Nobody writes the refused row again: the other one gives way.
    session.exec("UPDATE t SET c = 1000 WHERE id = 1");
    migration.call("skip_soak", "'it resolves by itself'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT c FROM t WHERE id < 3 ORDER BY id"),
        ["1000", "1"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn values_that_change_places_are_no_dead_letters() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, u int UNIQUE DEFERRABLE);
         INSERT INTO t SELECT i, i, i FROM generate_series(1, 1000) AS i",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        LONG_SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    for _ in 0..5 {
        session.exec("UPDATE t SET u = u % 1000 + 1");
        session.exec("BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE t SET u = 1001 - u; UPDATE t SET id = -id; COMMIT");
    }
    migration.wait_for("lag", "0");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.dead_letters"),
        ["0"]
    );
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT u), sum(u) FROM t"),
        ["1000|1000|500500"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn more_than_the_limit_ask_a_person_who_may_go_on_all_the_same() {
    let database = Database::shared();
    migration::set(
        &database,
        &[
            ("max_dead_letters", "2"),
            ("batch_target_ms", "5"),
            ("backfill_duty", "10"),
        ],
    );
    let mut session = numbers(&database);
    session.exec("UPDATE t SET a = 'bad' WHERE id IN (100, 101, 102)");
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(
        migration.status("outcome || ' ' || last_error_sqlstate"),
        "FAILED 55000"
    );
    assert_eq!(
        migration.status("last_error"),
        "too many rows are refused by the new shape"
    );
    assert!(migration
        .status("last_error_hint")
        .contains("transmute.dead_letters"));
    // While a person thinks, the application works.
    session.exec("UPDATE t SET a = 'worse' WHERE id = 100; INSERT INTO t VALUES (0, 'bad')");
    migration.call("resume", "'three are all right'");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'AWAITING_FINALIZATION 4 dead letters open;%'",
        "t",
    );
    session.exec("UPDATE t SET a = id::text WHERE a IN ('bad', 'worse')");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE a = id"),
        ["20001"]
    );
}

#[test]
fn truncate_resolves_them_all() {
    let database = Database::shared();
    let mut session = numbers(&database);
    session.exec("UPDATE t SET a = 'bad' WHERE id % 1000 = 0");
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.wait_for(
        "state || ' ' || waiting_for LIKE 'AWAITING_FINALIZATION 20 dead letters open;%'",
        "t",
    );
    session.exec("BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, '1'); COMMIT");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, a, pg_typeof(a) FROM t"),
        ["1|1|integer"]
    );
    assert_sound(&mut session, "t");
}
