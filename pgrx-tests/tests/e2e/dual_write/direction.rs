//! Which side decides, statement by statement.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use super::{soaking, MECHANISMS};
use crate::migration::Migration;

const SCRIPT: &str = "ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text DEFAULT 'none';
    UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
    ALTER TABLE t DROP COLUMN name";
const REVERSE: &str = r#""reverse": {"t.name": "first || ' ' || last"}"#;

fn awaiting(more: &str) -> (Database<'static>, Session, Migration) {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'No Body', n int);
         INSERT INTO t SELECT i, 'A' || i || ' B' || i, i FROM generate_series(1, 20) AS i",
    );
    let mut migration = Migration::start(&database, "m", SCRIPT, &soaking(more));
    migration.wait("AWAITING_FINALIZATION");
    (database, session, migration)
}

#[test]
fn the_columns_that_a_statement_writes_decide_and_no_setting_does() {
    let (_database, mut session, _migration) = awaiting(REVERSE);
    session.exec("PREPARE by_old AS UPDATE t SET name = $2 WHERE id = $1; PREPARE by_new AS UPDATE t SET last = $2 WHERE id = $1");
    for (sql, row) in [
        ("INSERT INTO t (id, name) VALUES (30, 'C D') RETURNING name, first, last", "C D|C|D"),
        ("INSERT INTO t (id, first, last) VALUES (31, 'E', 'F') RETURNING name, first, last", "E F|E|F"),
        ("INSERT INTO t (id) VALUES (32) RETURNING name, first, last", "No Body|No|Body"),
        // Both, and they agree; both, and the new columns decide.
        ("INSERT INTO t (id, name, first, last) VALUES (33, 'G  H', 'G', '') RETURNING name, first, last", "G  H|G|"),
        ("INSERT INTO t (id, name, first, last) VALUES (34, 'G H', 'I', 'J') RETURNING name, first, last", "I J|I|J"),
        ("UPDATE t SET name = 'K L' WHERE id = 1 RETURNING name, first, last", "K L|K|L"),
        ("UPDATE t SET first = 'M' WHERE id = 1 RETURNING name, first, last", "M L|M|L"),
        ("UPDATE t SET last = 'van Dyke' WHERE id = 1 RETURNING name, first, last", "M van Dyke|M|van Dyke"),
        ("UPDATE t SET n = 7 WHERE id = 1 RETURNING name, first, last", "M van Dyke|M|van Dyke"),
        ("UPDATE t SET name = name WHERE id = 1 RETURNING name, first, last", "M van Dyke|M|van Dyke"),
        ("UPDATE t SET name = 'N O', last = 'P' WHERE id = 1 RETURNING name, first, last", "M P|M|P"),
        ("INSERT INTO t (id, name) VALUES (2, 'Q R') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING first", "Q"),
        ("INSERT INTO t (id, first, last) VALUES (2, 'S', 'T') ON CONFLICT (id) DO UPDATE SET last = excluded.last RETURNING name", "Q T"),
        ("WITH w AS (UPDATE t SET first = 'U' WHERE id = 3 RETURNING name) SELECT name FROM w", "U B3"),
    ] {
        assert_eq!(session.lines(sql), [row], "{sql}");
    }
    session.exec("SET session_replication_role = replica; UPDATE t SET name = 'V W' WHERE id = 4; RESET session_replication_role");
    session.exec("EXECUTE by_old(5, 'X Y'); EXECUTE by_new(5, 'Z')");
    session.exec("SET transmute.allow_ddl = on; ALTER TABLE t RENAME COLUMN name TO moved; UPDATE t SET moved = 'Re Named' WHERE id = 6; UPDATE t SET last = 'Neu' WHERE id = 6; ALTER TABLE t RENAME COLUMN moved TO name");
    assert_eq!(
        session.lines("SELECT name, first, last FROM t WHERE id IN (4, 5, 6) ORDER BY id"),
        ["V W|V|W", "X Z|X|Z", "Re Neu|Re|Neu"]
    );
    // What the rule uses cannot go while it is in force.
    assert_eq!(
        session.error("ALTER TABLE t DROP COLUMN name").sqlstate,
        "2BP01"
    );
    assert_eq!(
        session
            .error("ALTER TABLE t ALTER COLUMN name TYPE varchar(50)")
            .sqlstate,
        "0A000"
    );
}

#[test]
fn a_column_that_is_computed_is_not_written_by_either_mechanism() {
    for more in [
        r#""dual_write": "trigger""#.to_string(),
        MECHANISMS[0].to_string(),
    ] {
        let database = Database::shared();
        let mut session = database.connect();
        session.exec(
            "CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'A B')",
        );
        let script = SCRIPT.replace(" DEFAULT 'none'", "");
        let mut migration = Migration::start(&database, "m", &script, &soaking(&more));
        migration.wait("AWAITING_FINALIZATION");
        for sql in [
            "INSERT INTO t (id, first) VALUES (2, 'C')",
            "UPDATE t SET first = 'C' WHERE id = 1",
            "UPDATE t SET name = 'C D', last = 'E' WHERE id = 1",
        ] {
            assert_eq!(session.error(sql).sqlstate, "428C9", "{more}: {sql}");
        }
        session.exec("UPDATE t SET name = 'F G' WHERE id = 1");
        assert_eq!(
            session.lines("SELECT first, last FROM t"),
            ["F|G"],
            "{more}"
        );
    }
}

#[test]
fn a_row_that_is_not_filled_yet_loses_nothing_to_a_statement_of_the_new_application() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'No Body', n int) WITH (fillfactor = 20);
         INSERT INTO t SELECT i, 'A' || i || ' B' || i, i FROM generate_series(1, 20000) AS i",
    );
    let mut points = Waitpoints::of(&database);
    points.hold("rule_fill_before_commit");
    let mut migration = Migration::start(&database, "m", SCRIPT, &soaking(REVERSE));
    points.wait_reached("rule_fill_before_commit", PATIENCE);
    // Far behind the first batch.
    session.exec("UPDATE t SET first = 'New' WHERE id = 19000");
    let row = "SELECT name, first, last FROM t WHERE id = 19000";
    assert_eq!(session.lines(row), ["New B19000|New|B19000"]);
    points.release("rule_fill_before_commit");
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(session.lines(row), ["New B19000|New|B19000"]);
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE name <> first || ' ' || last"),
        ["0"]
    );
}

#[test]
fn an_expression_that_writes_to_its_own_table_is_evaluated_again_inside() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text);
         CREATE FUNCTION writes() RETURNS void LANGUAGE sql AS $$ INSERT INTO t (id, a) VALUES (100, 'inner') $$;
         CREATE FUNCTION inside(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
           IF $1 = 'outer' THEN PERFORM writes(); END IF;
           RETURN upper($1);
         END $$",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ADD COLUMN b text; UPDATE t SET b = inside(a)",
        &soaking(r#""dual_write": "trigger""#),
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO t (id, a) VALUES (1, 'outer')");
    assert_eq!(
        session.lines("SELECT id, a, b FROM t ORDER BY id"),
        ["1|outer|OUTER", "100|inner|INNER"]
    );
    // The function changes, or another session retypes what it may: nothing old is used.
    session.exec("CREATE OR REPLACE FUNCTION inside(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1 || '!' $$; INSERT INTO t (id, a) VALUES (2, 'x')");
    assert_eq!(session.lines("SELECT b FROM t WHERE id = 2"), ["x!"]);
}
