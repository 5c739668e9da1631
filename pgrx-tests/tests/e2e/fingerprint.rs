//! What tests compare before and after: it has to see everything that a migration must leave alone.

use transmute_tests::Database;

use crate::migration::fingerprint;
use crate::privileges::world;

#[test]
fn whatever_a_migration_must_leave_alone_is_in_the_fingerprint() {
    let database = Database::shared();
    let mut session = world(&database, &["seen_one", "seen_two"]);
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text CONSTRAINT c CHECK (b <> '')); CREATE INDEX i ON t (a); ALTER TABLE t OWNER TO seen_one;
         CREATE POLICY p ON t USING (a > 0); CREATE STATISTICS s ON a, b FROM t; CREATE PUBLICATION pub;
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    for change in [
        "GRANT SELECT ON t TO seen_two",
        "GRANT SELECT ON t TO PUBLIC",
        "GRANT INSERT ON t TO seen_two WITH GRANT OPTION",
        "GRANT UPDATE (a) ON t TO seen_two",
        "ALTER TABLE t OWNER TO seen_two",
        "COMMENT ON TABLE t IS 'x'",
        "COMMENT ON COLUMN t.a IS 'x'",
        "COMMENT ON INDEX i IS 'x'",
        "COMMENT ON CONSTRAINT c ON t IS 'x'",
        "COMMENT ON TRIGGER g ON t IS 'x'",
        "COMMENT ON POLICY p ON t IS 'x'",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE t FORCE ROW LEVEL SECURITY",
        "ALTER POLICY p ON t USING (a > 1)",
        "ALTER POLICY p ON t TO seen_two",
        "DROP POLICY p ON t",
        "ALTER PUBLICATION pub ADD TABLE t",
        "ALTER PUBLICATION pub ADD TABLE t (id, a)",
        "ALTER PUBLICATION pub ADD TABLE t WHERE (id > 3)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "ALTER TABLE t REPLICA IDENTITY NOTHING",
        "ALTER TABLE t ALTER a SET STATISTICS 77",
        "ALTER TABLE t ALTER a SET (n_distinct = 5)",
        "ALTER STATISTICS s SET STATISTICS 7",
        "ALTER STATISTICS s OWNER TO seen_two",
        "DROP STATISTICS s",
        "ALTER TABLE t ALTER b SET STORAGE EXTERNAL",
        "ALTER TABLE t ALTER b SET COMPRESSION lz4",
        "ALTER TABLE t SET (fillfactor = 70)",
        "ALTER TABLE t SET (toast.autovacuum_enabled = off)",
        "ALTER INDEX i SET (fillfactor = 70)",
        "ALTER TABLE t CLUSTER ON i",
        "ALTER TABLE t SET UNLOGGED",
        "ALTER TABLE t DISABLE TRIGGER g",
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g",
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
    ] {
        session.exec("BEGIN");
        let before = fingerprint(&mut session, "t");
        session.exec(change);
        let after = fingerprint(&mut session, "t");
        session.exec("ROLLBACK");
        assert_ne!(before, after, "{change}");
    }
}
