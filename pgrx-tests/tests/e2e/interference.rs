//! What people do by hand to a table that is being migrated: it is found, a person is asked once, and the way back is open. Who does it has said that it is meant: see `foreign_ddl.rs`.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{assert_no_traces, assert_sound, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn table(session: &mut Session) {
    session.exec(
        "DROP TABLE IF EXISTS t, moved.t, renamed;
         CREATE TABLE t (id int PRIMARY KEY, a int, b text);
         INSERT INTO t SELECT i, i, i FROM generate_series(1, 2000) AS i",
    );
}

/// A migration of the table that has got to its soak, and the number of its rewrite.
fn soaking(database: &Database<'_>, id: &'static str) -> (Migration, String) {
    let mut migration = Migration::start(database, id, TO_BIGINT, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    let number = migration.session().lines(&format!(
        "SELECT id FROM _transmute.rewrites WHERE migration_id = '{id}'"
    ));
    (migration, number.concat())
}

#[test]
fn a_change_by_hand_asks_a_person_once_and_can_be_rolled_back() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA moved; DROP ROLE IF EXISTS interference_bob; CREATE ROLE interference_bob",
    );
    for (id, change, name_after) in [
        ("column", "ALTER TABLE t ADD COLUMN extra int", "t"),
        ("dropped", "ALTER TABLE t DROP COLUMN b", "t"),
        ("retyped", "ALTER TABLE t ALTER COLUMN id TYPE text", "t"),
        ("done", "ALTER TABLE t ALTER COLUMN a TYPE bigint", "t"),
        ("key", "ALTER TABLE t DROP CONSTRAINT t_pkey", "t"),
        ("index", "CREATE INDEX ON t (a)", "t"),
        ("constraint", "ALTER TABLE t ADD CHECK (a < 100000)", "t"),
        ("disabled", "ALTER TABLE t DISABLE TRIGGER ALL", "t"),
        ("trigger", "DROP TRIGGER _transmute_{n}_capture ON t", "t"),
        ("shadow", "DROP SCHEMA _transmute_{n}_new CASCADE", "t"),
        ("twin", "DROP SCHEMA _transmute_{n}_old CASCADE", "t"),
        ("renamed", "ALTER TABLE t RENAME TO renamed", "renamed"),
        ("schema", "ALTER TABLE t SET SCHEMA moved", "moved.t"),
    ] {
        table(&mut session);
        let (mut migration, number) = soaking(&database, id);
        session.exec(&format!(
            "SET transmute.allow_ddl = on; {}",
            change.replace("{n}", &number)
        ));
        migration.call("skip_soak", "'go on'");
        migration.wait_for("outcome", "FAILED");
        let error = migration
            .status("last_error || ' (' || last_error_sqlstate || ') ' || last_error_hint");
        assert!(!error.contains("bug"), "{id}: {error}");
        assert!(error.contains("transmute.rollback"), "{id}: {error}");
        // Two more rounds of the conductor later nothing was added to that.
        for _ in 0..2 {
            let round: String =
                session.scalar("SELECT transmute.migrate('COMMENT ON SCHEMA public IS NULL')");
            session.exec(&format!("CALL transmute.wait('{round}')"));
        }
        assert_eq!(
            session.lines(&format!(
                "SELECT count(*) FROM transmute.history WHERE id = '{id}' AND event = 'failed'"
            )),
            ["1"],
            "{id}: {error}"
        );
        assert_eq!(migration.status("state"), "AWAITING_FINALIZATION", "{id}");
        migration.roll_back();
        assert_no_traces(&mut session, name_after);
        session.exec(&format!(
            "UPDATE {name_after} SET a = a + 1; DELETE FROM {name_after} WHERE a = 100"
        ));
        assert_eq!(
            session.lines(&format!("SELECT count(*) FROM {name_after}")),
            ["1999"]
        );
    }
}

#[test]
fn a_table_that_is_dropped_takes_its_migration_along() {
    let database = Database::shared();
    let mut session = database.connect();
    table(&mut session);
    let (mut migration, _) = soaking(&database, "m");
    session.exec("SET transmute.allow_ddl = on; DROP TABLE t");
    migration.call("skip_soak", "'nobody told me'");
    migration.wait_for("outcome", "FAILED");
    let error = migration.status("last_error");
    assert!(error.starts_with("the table"), "{error}");
    migration.roll_back();
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'"),
        [] as [&str; 0]
    );
}

#[test]
fn what_only_moves_rows_is_followed() {
    let database = Database::shared();
    let mut session = database.connect();
    table(&mut session);
    let (mut migration, _) = soaking(&database, "m");
    for statement in [
        "UPDATE t SET a = a + 1 WHERE id % 2 = 0",
        "VACUUM FULL t",
        "DELETE FROM t WHERE id % 3 = 0",
        "CLUSTER t USING t_pkey",
        "REINDEX TABLE t",
        "VACUUM (FREEZE, ANALYZE) t",
        "UPDATE t SET id = -id WHERE id % 5 = 0",
        "COMMENT ON TABLE t IS 'moved'",
        "GRANT SELECT ON t TO PUBLIC",
    ] {
        session.exec(statement);
    }
    migration.call("skip_soak", "'go on'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum(a), sum(id), obj_description('t'::regclass), relacl IS NOT NULL FROM t, pg_class c WHERE c.oid = 't'::regclass GROUP BY 4, 5"),
        ["1334|1335334|799997|moved|t"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn rows_that_are_written_with_triggers_off_for_a_session_are_captured() {
    let database = Database::shared();
    let mut session = database.connect();
    table(&mut session);
    let (mut migration, _) = soaking(&database, "m");
    // As the apply worker of a subscription writes, and as people load data.
    session.exec("SET session_replication_role = replica; UPDATE t SET a = 0 WHERE id <= 10; INSERT INTO t VALUES (9999, 9, 'x'); RESET session_replication_role");
    session.wait_for(
        "SELECT drained_keys >= 11 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    migration.call("skip_soak", "'go on'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE a = 0) FROM t"),
        ["2001|10"]
    );
    assert_sound(&mut session, "t");
}
