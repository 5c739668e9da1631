//! Columns that are generated from the retyped one: the server itself refuses such an ALTER.

use super::*;

const G: &str = "t column 0004 g";

#[test]
fn a_stored_generated_column_is_computed_anew_and_keeps_what_hangs_on_it() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "ALTER TABLE t ADD g bigint NOT NULL GENERATED ALWAYS AS (a * 2 + n) STORED CHECK (g > 0)",
            "ALTER TABLE t ADD h text COLLATE \"C\" GENERATED ALWAYS AS ('<' || a::text || '>') STORED",
            "CREATE UNIQUE INDEX of_both ON t (g, h DESC) INCLUDE (n) WHERE g > 7",
            "CREATE INDEX computed ON t ((g + 1))",
            "CREATE STATISTICS two ON g, h FROM t",
            "ALTER TABLE t ALTER g SET STATISTICS 40, ALTER h SET STORAGE EXTERNAL",
            "COMMENT ON COLUMN t.g IS 'twice'",
            "GRANT SELECT (g) ON t TO dependents_1",
            "CREATE VIEW v AS SELECT g, h FROM t",
        ],
    );
    let plain = session.error(TO_BIGINT);
    assert_eq!(plain.sqlstate, "0A000", "{plain}");
    let writes = [
        "UPDATE t SET a = a + 10000 WHERE id < 50",
        "DELETE FROM t WHERE id > 490",
        "INSERT INTO t VALUES (1000, 5, 5)",
    ];
    let changed = changed_facts(&mut session, "t", &writes);
    // The server prints the cast that the expression needs now.
    let expected = [
        "- public.t column 0002 a: type = integer",
        &format!("- public.{G}: generated = s ((a * 2) + n)"),
        "+ public.t column 0002 a: type = bigint",
        &format!("+ public.{G}: generated = s ((a * 2) + n)"),
    ];
    let unexpected: Vec<_> = changed
        .iter()
        .filter(|c| !expected.contains(&c.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let wrong = "SELECT count(*) FROM t WHERE g <> a * 2 + n OR h <> '<' || a::text || '>'";
    assert_eq!(session.lines(wrong), ["0"]);
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["491"]);
    session.exec("INSERT INTO t VALUES (2000, 5000000000, 1)");
    assert_eq!(
        session.lines("SELECT g, h FROM t WHERE id = 2000"),
        ["10000000001|<5000000000>"]
    );
    let refused = session.error("INSERT INTO t (id, a, g) VALUES (3000, 1, 1)");
    assert_eq!(refused.sqlstate, "428C9", "{refused}");
    let dependent = session.error("ALTER TABLE t DROP COLUMN a");
    assert_eq!(dependent.sqlstate, "2BP01", "{dependent}");
}

#[test]
fn values_that_do_not_fit_a_generated_column_any_more_are_dead_letters() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &["ALTER TABLE t ADD g smallint GENERATED ALWAYS AS (a % 30000) STORED"],
    );
    start(
        &mut session,
        "ALTER TABLE t ALTER a TYPE bigint USING a, ALTER n TYPE bigint USING n",
        "{}",
    );
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM t WHERE g <> a % 30000 OR pg_typeof(g) <> 'smallint'::regtype"
        ),
        ["0"]
    );
    session.exec(
        "ALTER TABLE t DROP g; ALTER TABLE t ADD g smallint GENERATED ALWAYS AS (n + 32757) STORED",
    );
    session
        .exec("SELECT transmute.migrate('ALTER TABLE t ALTER n TYPE int USING n::int * 2', 'm2')");
    session.wait_for(
        "SELECT count(*) FROM transmute.dead_letters WHERE id = 'm2' AND sqlstate = '22003'",
        "200",
        PATIENCE,
    );
    session.exec("SELECT transmute.rollback('m2', 'they do not fit')");
    session.exec("CALL transmute.wait('m2', 'UNINITIALIZED', '60 s')");
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE g <> n + 32757"),
        ["0"]
    );
}

#[test]
fn an_expression_that_the_new_type_does_not_fit_is_an_error_before_anything_is_written() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &["ALTER TABLE t ADD g int GENERATED ALWAYS AS (a + n) STORED"],
    );
    for (alter, sqlstate) in [
        ("ALTER TABLE t ALTER a TYPE text", "42883"),
        (
            "ALTER TABLE t ALTER a TYPE date USING current_date + a",
            "42804",
        ),
        (
            "ALTER TABLE t ALTER a TYPE bigint, ALTER g DROP EXPRESSION",
            "0A000",
        ),
        (
            "ALTER TABLE t ALTER a TYPE bigint, ALTER g SET DEFAULT 1",
            "0A000",
        ),
        (
            "ALTER TABLE t ALTER a TYPE bigint, ALTER g SET EXPRESSION AS (a)",
            "0A000",
        ),
    ] {
        let sql = alter.replace('\'', "''");
        for call in ["explain('{}')", "register('m', '{}')"] {
            if alter.contains("SET EXPRESSION") && major(&mut session) < 17 {
                continue;
            }
            let error = session.error(&format!("SELECT transmute.{}", call.replace("{}", &sql)));
            assert_eq!(error.sqlstate, sqlstate, "{alter}: {error}");
            let detail = error.detail.clone().unwrap_or_default();
            assert!(detail.contains("\"g\""), "{error}");
        }
    }
    assert!(session.rows("SELECT FROM transmute.status").is_empty());
    let kept = session.error("INSERT INTO t (id, a, g) VALUES (3000, 1, 1)");
    assert_eq!(kept.sqlstate, "428C9", "{kept}");
}

#[test]
fn a_migration_with_generated_columns_rolls_back_to_what_was() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &["ALTER TABLE t ADD g int GENERATED ALWAYS AS (a + n) STORED, ALTER a DROP NOT NULL"],
    );
    let before = facts(&mut session, "t");
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.exec("SELECT transmute.rollback('m', 'on second thoughts')");
    wait(&mut session, "UNINITIALIZED");
    assert_eq!(facts(&mut session, "t"), before);
}

#[test]
fn a_virtual_generated_column_follows_its_source() {
    let database = Database::shared();
    let mut session = open(&database, &[]);
    if major(&mut session) < 18 {
        return; // the server has none
    }
    session.exec("ALTER TABLE t ADD g bigint GENERATED ALWAYS AS (a + n)");
    let changed = changed_facts(&mut session, "t", &["UPDATE t SET a = a + 1"]);
    assert_eq!(changed, type_changes(&[A]));
    session.exec("INSERT INTO t VALUES (1000, 5000000000, 1)");
    assert_eq!(
        session.lines("SELECT g FROM t WHERE id = 1000"),
        ["5000000001"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE g = a + n"),
        ["501"]
    );
}
