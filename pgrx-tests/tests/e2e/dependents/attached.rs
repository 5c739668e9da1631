//! Policies, triggers, foreign keys and what else is attached to the table itself.

use super::*;

#[test]
fn policies_and_triggers_that_mention_the_column_come_back() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            PASS,
            "CREATE TABLE other (id int)",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON t AS RESTRICTIVE FOR SELECT TO dependents_1, dependents_2 USING (a < 6)",
            "CREATE POLICY all_of ON t FOR SELECT USING (true)",
            "CREATE POLICY elsewhere ON other USING (id IN (SELECT a FROM t))",
            "COMMENT ON POLICY few ON t IS 'it''s'",
            "CREATE TRIGGER condition BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.a IS DISTINCT FROM NEW.a) EXECUTE FUNCTION pass()",
            "CREATE TRIGGER of_column AFTER UPDATE OF n, a ON t FOR EACH ROW EXECUTE FUNCTION pass('x')",
            "ALTER TABLE t DISABLE TRIGGER condition, ENABLE ALWAYS TRIGGER of_column",
            "COMMENT ON TRIGGER of_column ON t IS 'of'",
            "GRANT SELECT ON t TO dependents_1",
        ],
    );
    assert_eq!(changed_facts(&mut session, "t", &[]), type_changes(&[A]));
    session.exec("SET ROLE dependents_1");
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["5"]);
}

#[test]
fn foreign_keys_in_and_out_of_the_column_come_back_and_are_valid() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "ALTER TABLE t ADD CONSTRAINT t_a_key UNIQUE (a)",
            "CREATE TABLE target (id bigint PRIMARY KEY)",
            "INSERT INTO target SELECT generate_series(1, 500)",
            "ALTER TABLE t ADD CONSTRAINT outward FOREIGN KEY (a) REFERENCES target ON DELETE CASCADE DEFERRABLE",
            "CREATE TABLE child (x int CONSTRAINT inward REFERENCES t (a) MATCH FULL ON UPDATE CASCADE, y int)",
            "INSERT INTO child SELECT a, NULL FROM t WHERE a % 2 = 0",
            "INSERT INTO child VALUES (1, 100000)",
            "ALTER TABLE child ADD CONSTRAINT unproven FOREIGN KEY (y) REFERENCES t (a) NOT VALID",
            "ALTER TABLE t ADD parent int, ADD CONSTRAINT self FOREIGN KEY (parent) REFERENCES t (a)",
            "UPDATE t SET parent = a - 1 WHERE a > 1",
            "COMMENT ON CONSTRAINT inward ON child IS 'it''s'",
        ],
    );
    let of_child = facts(&mut session, "child");
    assert_eq!(changed_facts(&mut session, "t", &[]), type_changes(&[A]));
    assert_eq!(facts(&mut session, "child"), of_child);
    for orphan in [
        "INSERT INTO child (x) VALUES (501)",
        "INSERT INTO child (y) VALUES (501)",
        "INSERT INTO t VALUES (501, 501)",
        "UPDATE t SET parent = 501 WHERE a = 4",
        "DELETE FROM t WHERE a = 2",
    ] {
        let refused = session.error(orphan);
        assert_eq!(refused.sqlstate, "23503", "{orphan}: {refused}");
    }
    session.exec("UPDATE t SET parent = NULL; INSERT INTO target VALUES (700); UPDATE t SET a = 700 WHERE a = 4");
    assert_eq!(
        session.lines("SELECT count(*) FROM child WHERE x = 700"),
        ["1"]
    );
}

#[test]
fn publications_replica_identity_clustering_and_statistics_stay() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE UNIQUE INDEX t_a ON t (a)",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_a",
            "ALTER TABLE t CLUSTER ON t_a",
            "CREATE PUBLICATION filtered FOR TABLE t WHERE (a > 3 AND a <> 5)",
            "CREATE PUBLICATION listed FOR TABLE t (a, id)",
            "CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA public",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "CREATE STATISTICS two (dependencies, mcv) ON a, n FROM t",
            "COMMENT ON STATISTICS two IS 'both'",
            "CREATE STATISTICS computed ON (a + n) FROM t",
            "ALTER TABLE t ALTER a SET STATISTICS 50, ALTER a SET (n_distinct = -1)",
        ],
    );
    // All that is published has to be identified, in the shadow and in the extension's own tables as well.
    let writes = [
        "UPDATE t SET a = a + 10000 WHERE id < 50",
        "DELETE FROM t WHERE id > 490",
        "UPDATE t SET id = -id WHERE id = 100",
    ];
    assert_eq!(
        changed_facts(&mut session, "t", &writes),
        type_changes(&[A])
    );
    // Statistics came along with the rows: the planner need not wait for the next ANALYZE.
    let bounds = "SELECT count(*) FROM pg_stats WHERE tablename = 't' AND attname = 'a' AND schemaname = 'public' AND histogram_bounds IS NOT NULL";
    assert_eq!(session.lines(bounds), ["1"]);
    session.exec("UPDATE t SET a = 1000 WHERE a = 60; DELETE FROM t WHERE a = 1000");
    let rows = session.lines("SELECT count(*), count(*) FILTER (WHERE a > 10000), min(id) FROM t");
    assert_eq!(rows, ["489|49|-100"]);
}
