//! Functions and procedures whose body is SQL that the server has parsed, and that depend on what it mentions.

use super::*;

/// What pg_proc says of the functions here, but for the text of their bodies, which the server prints anew.
const FUNCTIONS: &str = "SELECT p.oid, p.oid::regprocedure, pg_get_functiondef(p.oid), p.proacl, pg_get_userbyid(p.proowner), obj_description(p.oid), \
  (SELECT string_agg(d.refclassid::regclass || ' ' || d.refobjid || ' ' || d.refobjsubid || ' ' || d.deptype::text, ', ' ORDER BY d.refclassid, d.refobjid, d.refobjsubid) FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refobjid NOT IN (SELECT oid FROM pg_class WHERE relkind IN ('v', 'm'))) \
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosqlbody IS NOT NULL ORDER BY 2";

#[test]
fn sql_bodies_are_taken_away_and_given_back() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE FUNCTION top(lowest int DEFAULT 3, OUT highest bigint, OUT rows bigint) RETURNS record STABLE PARALLEL SAFE COST 7 \
               SET work_mem = '1MB' BEGIN ATOMIC SELECT max(a), count(*) FROM t WHERE a > lowest; END",
            "CREATE FUNCTION one(who int) RETURNS bigint STRICT RETURN (SELECT t.a FROM t WHERE t.id = who)",
            "CREATE PROCEDURE put(v int) BEGIN ATOMIC INSERT INTO t (id, a) VALUES (v, v); UPDATE t SET a = a + 1 WHERE id = v; \
               DELETE FROM t AS x WHERE x.a = -v; END",
            "ALTER FUNCTION one OWNER TO dependents_1",
            "GRANT EXECUTE ON FUNCTION one TO dependents_2",
            "REVOKE EXECUTE ON FUNCTION one FROM PUBLIC",
            "COMMENT ON FUNCTION one IS 'it''s'",
            "CREATE VIEW calls AS SELECT id, one(id) AS a FROM t",
            "CREATE VIEW v AS SELECT a FROM t",
            "CREATE FUNCTION of_view() RETURNS bigint BEGIN ATOMIC SELECT sum(a) FROM v; END",
            "CREATE VIEW over AS SELECT of_view() AS s, a FROM v",
            "CREATE TABLE uses (x bigint DEFAULT of_view())",
        ],
    );
    let before = session.lines(FUNCTIONS);
    assert_eq!(before.len(), 4);
    let changed = changed_facts(&mut session, "t", &[]);
    let mut expected = type_changes(&[A, "v column 0001 a", "over column 0002 a"]);
    expected.sort();
    let mut changed: Vec<_> = changed
        .into_iter()
        .filter(|c| !c.contains("over column 0001"))
        .collect();
    changed.sort();
    assert_eq!(changed, expected);
    assert_eq!(session.lines(FUNCTIONS), before);
    session.exec("CALL put(700)");
    assert_eq!(session.lines("SELECT one(700), (top()).rows"), ["701|498"]);
    assert_eq!(
        session.lines("SELECT of_view() FROM over LIMIT 1"),
        ["125951"]
    );
    let kept = session.error("ALTER TABLE t DROP a");
    assert_eq!(kept.sqlstate, "2BP01", "{kept}");
    assert!(kept.to_string().contains("function one"), "{kept}");
}

#[test]
fn a_function_whose_signature_needs_a_view_that_goes_is_refused() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v AS SELECT a FROM t",
            "CREATE FUNCTION of_row(v) RETURNS bigint BEGIN ATOMIC SELECT $1.a; END",
        ],
    );
    let error = session.error(&format!("SELECT transmute.explain('{TO_BIGINT}')"));
    assert_eq!(error.sqlstate, "0A000", "{error}");
    assert!(error.to_string().contains("of_row"), "{error}");
}

/// The server reads a function before it waits for the lock on a table in its body, and does not look again.
#[test]
fn a_call_that_meets_the_swap_fails_at_most_once() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &["CREATE FUNCTION top() RETURNS bigint STABLE BEGIN ATOMIC SELECT max(a) FROM t WHERE n >= 0; END"],
    );
    let reads = there_and_back(&database, &mut session, |reader| {
        if let Err(error) = reader.try_rows("SELECT top()") {
            assert_eq!(error.sqlstate, "42804", "{error}");
            assert_eq!(reader.lines("SELECT top()"), ["500"]);
        }
    });
    assert!(reads > 10, "{reads} reads");
}
