//! Views come back.

use super::*;

#[test]
fn views_on_views_come_back_with_owner_options_privileges_and_comments() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v1 WITH (security_barrier, security_invoker = true) AS SELECT a, n FROM t WHERE a > 3",
            "ALTER VIEW v1 OWNER TO dependents_1",
            "GRANT SELECT, INSERT ON v1 TO dependents_2 WITH GRANT OPTION",
            "GRANT UPDATE (n) ON v1 TO dependents_3",
            "SET ROLE dependents_2",
            "GRANT SELECT ON v1 TO PUBLIC",
            "RESET ROLE",
            "REVOKE DELETE, TRIGGER ON v1 FROM dependents_1",
            "COMMENT ON VIEW v1 IS 'it''s'",
            "COMMENT ON COLUMN v1.n IS 'number'",
            "CREATE VIEW v2 AS SELECT x.a AS \"A b\", count(*) FROM v1 AS x GROUP BY 1",
            "CREATE VIEW v3 AS SELECT v.\"A b\", t.n, v AS whole FROM v2 AS v JOIN t ON t.a = v.\"A b\"",
            "CREATE VIEW aside AS SELECT n FROM t",
        ],
    );
    let views = [
        "v1 column 0001 a",
        "v2 column 0001 \"A b\"",
        "v3 column 0001 \"A b\"",
    ];
    let mut expected = type_changes(&[&[A], &views[..]].concat());
    expected.sort();
    let mut changed = changed_facts(&mut session, "t", &[]);
    changed.sort();
    assert_eq!(changed, expected);
    assert_eq!(
        session.lines("SELECT count(*), max(\"A b\") FROM v3"),
        ["497|500"]
    );
    let privileges = "SELECT has_table_privilege('dependents_3', 'v1', 'SELECT'), has_table_privilege('dependents_3', 'v1', 'INSERT')";
    assert_eq!(session.lines(privileges), ["t|f"]);
}

#[test]
fn a_view_that_can_be_written_to_comes_back_with_defaults_triggers_and_rules() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            PASS,
            "CREATE VIEW w (p, q, r) AS SELECT id, a, n FROM t WHERE a > 3 WITH LOCAL CHECK OPTION",
            "ALTER VIEW w ALTER COLUMN q SET DEFAULT 99",
            "CREATE TRIGGER statement AFTER INSERT ON w FOR EACH STATEMENT EXECUTE FUNCTION pass('a''b')",
            "COMMENT ON TRIGGER statement ON w IS 'it''s'",
            "CREATE RULE quiet AS ON DELETE TO w WHERE OLD.q = 7 DO INSTEAD NOTHING",
            "COMMENT ON RULE quiet ON w IS 'quiet'",
            "CREATE RULE away AS ON UPDATE TO t WHERE NEW.a = -5 DO INSTEAD NOTHING",
            "ALTER TABLE t ENABLE ALWAYS RULE away",
        ],
    );
    let changed = changed_facts(&mut session, "t", &[]);
    assert_eq!(changed, type_changes(&[A, "w column 0002 q"]));
    session.exec("INSERT INTO w (p, r) VALUES (1000, 1)");
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 1000"), ["99"]);
    let refused = session.error("INSERT INTO w VALUES (1001, 1, 1)");
    assert_eq!(refused.sqlstate, "44000", "{refused}");
    session.exec("UPDATE t SET a = -5 WHERE id = 9");
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 9"), ["9"]);
}

#[test]
fn readers_of_a_view_never_miss_it_while_it_is_made_again() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v1 AS SELECT a, n FROM t",
            "CREATE VIEW v2 AS SELECT max(a) AS top, count(*) AS rows FROM v1",
        ],
    );
    let reads = there_and_back(&database, &mut session, |reader| {
        assert_eq!(reader.lines("SELECT top, rows FROM v2"), ["500|500"]);
    });
    assert!(reads > 10, "{reads} reads");
    let held = session.scalar::<f64>("SELECT max(lock_held_ms)::float8 FROM transmute.progress");
    assert!(
        held < Duration::from_secs(2).as_secs_f64() * 1000.0,
        "{held} ms"
    );
}
