//! DDL of people on what a migration works on: refused with its name, harmless, or found before the next step; never wrong data.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{assert_no_traces, assert_sound, Migration};
use crate::privileges::world;

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// What must become of a statement.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// 55006, and nothing has happened.
    Refused,
    /// It runs, the migration goes on and ends as if nothing had been.
    Harmless,
    /// The server itself refuses it, with this SQLSTATE.
    Impossible(&'static str),
}
use Fate::*;

/// `{n}` is the number of the rewrite.
const STATEMENTS: &[(&str, Fate)] = &[
    ("DROP TABLE t", Refused),
    ("DROP TABLE t CASCADE", Refused),
    ("DROP TABLE other, t", Refused),
    ("DROP SCHEMA s CASCADE", Refused),
    ("DROP OWNED BY ddl_owner CASCADE", Refused),
    ("DROP ROLE ddl_owner", Impossible("2BP01")),
    ("DROP TYPE mood CASCADE", Refused),
    ("DROP EXTENSION transmute", Refused),
    ("DROP EXTENSION transmute CASCADE", Refused),
    ("ALTER TABLE t ADD COLUMN extra int", Refused),
    ("ALTER TABLE t DROP COLUMN b", Refused),
    ("ALTER TABLE t RENAME COLUMN b TO bb", Refused),
    ("ALTER TABLE t ALTER COLUMN a TYPE bigint", Refused),
    ("ALTER TABLE t ALTER COLUMN b TYPE varchar", Refused),
    ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", Refused),
    ("ALTER TABLE t ALTER COLUMN a SET DEFAULT 1", Refused),
    ("ALTER TABLE t ALTER COLUMN b SET STORAGE EXTERNAL", Refused),
    ("ALTER TABLE t ALTER COLUMN b SET STATISTICS 10", Refused),
    ("ALTER TABLE t ADD CHECK (a < 100000)", Refused),
    ("ALTER TABLE t DROP CONSTRAINT t_pkey", Refused),
    ("ALTER TABLE t RENAME CONSTRAINT t_pkey TO pkey", Refused),
    (
        "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES other",
        Refused,
    ),
    ("ALTER TABLE t REPLICA IDENTITY FULL", Refused),
    ("ALTER TABLE t RENAME TO renamed", Refused),
    ("ALTER TABLE t SET SCHEMA public", Refused),
    ("ALTER TABLE t OWNER TO postgres", Refused),
    ("ALTER TABLE t SET (fillfactor = 50)", Refused),
    ("ALTER TABLE t SET UNLOGGED", Refused),
    ("ALTER TABLE t SET WITHOUT CLUSTER", Refused),
    ("ALTER TABLE t INHERIT parent", Refused),
    (
        "ALTER TABLE parts ATTACH PARTITION t FOR VALUES FROM (0) TO (1000000)",
        Refused,
    ),
    ("CREATE TABLE child () INHERITS (t)", Refused),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", Refused),
    ("ALTER TABLE t FORCE ROW LEVEL SECURITY", Refused),
    ("CREATE POLICY p ON t USING (true)", Refused),
    (
        "CREATE TRIGGER mine BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()",
        Refused,
    ),
    ("ALTER TABLE t DISABLE TRIGGER ALL", Refused),
    (
        "ALTER TABLE t DISABLE TRIGGER _transmute_{n}_capture",
        Refused,
    ),
    ("DROP TRIGGER _transmute_{n}_capture ON t", Refused),
    (
        "ALTER TRIGGER _transmute_{n}_capture ON t RENAME TO gone",
        Refused,
    ),
    (
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
        Refused,
    ),
    ("CREATE INDEX extra ON t (a)", Refused),
    ("CREATE INDEX CONCURRENTLY extra ON t (a)", Refused),
    ("CREATE UNIQUE INDEX CONCURRENTLY extra ON t (id)", Refused),
    ("DROP INDEX t_b", Refused),
    ("DROP INDEX CONCURRENTLY t_b", Refused),
    ("ALTER INDEX t_b RENAME TO tb", Refused),
    ("ALTER INDEX t_b SET (fillfactor = 50)", Refused),
    ("ALTER SCHEMA s RENAME TO renamed", Refused),
    ("DROP SCHEMA _transmute_{n}_new CASCADE", Refused),
    ("DROP SCHEMA _transmute_{n}_old CASCADE", Refused),
    ("ALTER SCHEMA _transmute_{n}_new RENAME TO gone", Refused),
    ("DROP TABLE _transmute_{n}_new.t", Refused),
    ("ALTER TABLE _transmute_{n}_new.t ADD COLUMN x int", Refused),
    ("DROP FUNCTION _transmute.capture()", Impossible("2BP01")),
    // Event triggers do not see this one; table and shadow change hands together.
    ("REASSIGN OWNED BY ddl_owner TO ddl_owner_heir", Harmless),
    ("TRUNCATE t", Harmless),
    ("CREATE INDEX ON other (i)", Harmless),
    ("ALTER TABLE other ADD COLUMN x int", Harmless),
    ("CREATE VIEW late AS SELECT id FROM t", Harmless),
    ("CREATE TABLE refers (id int REFERENCES t)", Harmless),
    ("COMMENT ON TABLE t IS 'said'", Harmless),
    ("COMMENT ON COLUMN t.a IS 'said'", Harmless),
    ("GRANT SELECT ON t TO PUBLIC", Harmless),
    ("REVOKE SELECT ON t FROM PUBLIC", Harmless),
    ("VACUUM t", Harmless),
    ("VACUUM FULL t", Harmless),
    ("CLUSTER t USING t_pkey", Harmless),
    ("ANALYZE t", Harmless),
    ("REINDEX TABLE t", Harmless),
    ("REINDEX INDEX t_pkey", Harmless),
    ("REINDEX TABLE CONCURRENTLY t", Harmless),
    ("CREATE TEMP TABLE t (i int)", Harmless),
    ("ALTER TYPE mood ADD VALUE 'glad'", Harmless),
];

fn scene(session: &mut Session, owner: &str) {
    let sql = "DROP SCHEMA IF EXISTS s CASCADE;
         DROP ROLE IF EXISTS ddl_owner, ddl_owner_heir; CREATE ROLE ddl_owner; CREATE ROLE ddl_owner_heir;
         CREATE SCHEMA s; SET search_path = s, public;
         CREATE TYPE mood AS ENUM ('sad');
         CREATE TABLE other (i int PRIMARY KEY); CREATE TABLE parent (id int, a int, b text, m mood);
         CREATE TABLE parts (id int NOT NULL, a int, b text, m mood) PARTITION BY RANGE (id);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TABLE t (id int CONSTRAINT t_pkey PRIMARY KEY, a int, b text, m mood);
         CREATE INDEX t_b ON t (b);
         INSERT INTO t SELECT i, i, i, 'sad' FROM generate_series(1, 500) AS i;
         GRANT USAGE, CREATE ON SCHEMA s TO ddl_owner, ddl_owner_heir;
         ALTER TABLE t OWNER TO ddl_owner";
    session.exec(&sql.replace("ddl_owner", owner));
}

/// Registers and applies with the tables of `scene`, up to the soak; the number of the rewrite.
fn soaking(
    database: &Database<'_>,
    session: &mut Session,
    id: &'static str,
) -> (Migration, String) {
    session.exec(&format!(
        "SELECT transmute.register('{id}', '{TO_BIGINT}', meta => '{LONG_SOAK}'); SELECT transmute.apply('{id}')"
    ));
    let mut migration = Migration::attach(database, id);
    migration.wait("AWAITING_FINALIZATION");
    let number = session.lines(&format!(
        "SELECT id FROM _transmute.rewrites WHERE migration_id = '{id}'"
    ));
    (migration, number.concat())
}

#[test]
fn every_statement_on_what_a_migration_works_on_is_refused_with_its_name_or_harmless() {
    let database = Database::shared();
    let mut session = database.connect();
    scene(&mut session, "ddl_owner");
    let (mut migration, number) = soaking(&database, &mut session, "in_flight");
    for (statement, fate) in STATEMENTS {
        let sql = statement.replace("{n}", &number);
        match fate {
            Refused => {
                let error = session.error(&sql);
                assert_eq!(error.sqlstate, "55006", "{sql}: {error}");
                assert!(
                    error
                        .message
                        .starts_with("migration \"in_flight\" works on "),
                    "{sql}: {error}"
                );
                assert!(
                    error.detail.expect("a DETAIL").contains(" was refused"),
                    "{sql}"
                );
                let hint = error.hint.expect("a HINT");
                // The extension itself stays, whoever wants it gone.
                let way = match sql.starts_with("DROP EXTENSION") {
                    true => "transmute.rollback",
                    false => "transmute.allow_ddl",
                };
                assert!(hint.contains(way), "{sql}: {hint}");
            }
            Impossible(sqlstate) => {
                let error = session.error(&sql);
                assert_eq!(error.sqlstate, *sqlstate, "{sql}: {error}");
            }
            Harmless => {
                session.exec(&sql);
                session.exec("DROP TABLE IF EXISTS pg_temp.t");
            }
        }
        session.exec("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 1, 'x', 'sad' FROM t");
    }
    let rows = session.lines("SELECT count(*), sum(a) FROM t");
    migration.call("skip_soak", "'go on'");
    migration.finish();
    assert_eq!(session.lines("SELECT count(*), sum(a) FROM t"), rows);
    assert_eq!(
        session.lines("SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped"),
        ["id|integer", "a|bigint", "b|text", "m|mood"]
    );
    assert_sound(&mut session, "s.t");
    // It is over: everything is allowed again, what is kept of the old rows included.
    session.exec(&format!(
        "ALTER TABLE t ADD COLUMN extra int; DROP INDEX t_b; DROP SCHEMA _transmute_{number}_old CASCADE; DROP SCHEMA s CASCADE"
    ));
}

#[test]
fn only_the_owner_of_the_migration_may_allow_ddl() {
    let database = Database::shared();
    let mut session = world(&database, &["allow_team", "allow_ann", "allow_bob"]);
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t OWNER TO allow_team;
         GRANT allow_team TO allow_ann, allow_bob; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO allow_ann",
    );
    let mut ann = database.connect_as("allow_ann");
    ann.exec(&format!(
        "SELECT transmute.register('m', '{TO_BIGINT}', meta => '{LONG_SOAK}'); SELECT transmute.apply('m')"
    ));
    let mut migration = Migration::attach(&database, "m");
    migration.wait("AWAITING_FINALIZATION");
    // Bob owns the table as she does, but not the migration.
    let mut bob = database.connect_as("allow_bob");
    bob.exec("SET transmute.allow_ddl = on");
    assert_eq!(
        bob.error("ALTER TABLE t ADD COLUMN x int").sqlstate,
        "55006"
    );
    assert_eq!(
        ann.error("ALTER TABLE t ADD COLUMN x int").sqlstate,
        "55006"
    );
    ann.exec("SET transmute.allow_ddl = on; ALTER TABLE t ADD CONSTRAINT x CHECK (a < 1000)");
    // And then it is found.
    migration.wait_for("outcome", "FAILED");
    assert_eq!(
        migration.status("last_error"),
        "the table was changed while it was being migrated"
    );
    ann.exec("ALTER TABLE t DROP CONSTRAINT x; SELECT transmute.resume('m', 'taken back')");
    ann.exec("SELECT transmute.skip_soak('m', 'go on')");
    migration.finish();
    assert_sound(&mut session, "t");
}

#[test]
fn what_gets_past_the_guard_is_found_before_the_next_step_and_can_be_rolled_back() {
    let database = Database::shared();
    let mut session = database.connect();
    // A superuser switched the guard off for himself.
    session.exec("SET transmute.allow_ddl = on");
    for (i, (statement, message)) in [
        ("ALTER TABLE t ADD COLUMN extra int", "the table was changed"),
        ("ALTER TABLE t DROP COLUMN b", "the table was changed"),
        ("CREATE INDEX ON t (a)", "the table was changed"),
        ("ALTER TABLE t ADD CHECK (a < 100000)", "the table was changed"),
        (
            "ALTER TABLE t DISABLE TRIGGER ALL; UPDATE t SET a = -1 WHERE id = 1; ALTER TABLE t ENABLE ALWAYS TRIGGER _transmute_{n}_capture; ALTER TABLE t ENABLE ALWAYS TRIGGER _transmute_{n}_truncate",
            "the capture of changes was interrupted",
        ),
        ("DROP TRIGGER _transmute_{n}_capture ON t", "the capture of changes was interrupted"),
        ("UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 't'::regclass", "the capture of changes was interrupted"),
        ("DROP SCHEMA _transmute_{n}_new CASCADE", "the shadow table is gone"),
        ("DROP TABLE t", "the table"),
    ]
    .into_iter()
    .enumerate()
    {
        scene(&mut session, "past_owner");
        let id: &'static str = Box::leak(format!("past_{i}").into_boxed_str());
        let (mut migration, number) = soaking(&database, &mut session, id);
        session.exec(&statement.replace("{n}", &number));
        session.exec("INSERT INTO other VALUES (1)");
        if statement != "DROP TABLE t" && !statement.starts_with("DROP SCHEMA") {
            session.exec("UPDATE t SET id = id + 1000 WHERE id = 2");
        }
        migration.wait_for("outcome", "FAILED");
        let error = migration.status("last_error");
        assert!(error.starts_with(message), "{statement}: {error}");
        assert!(
            migration.status("last_error_hint").contains("transmute.rollback"),
            "{statement}"
        );
        migration.roll_back();
        if statement != "DROP TABLE t" {
            assert_no_traces(&mut session, "s.t");
        }
    }
}

#[test]
fn a_running_copy_stops_for_a_person_when_its_table_is_changed() {
    let database = Database::shared();
    crate::migration::set(
        &database,
        &[("batch_target_ms", "1"), ("backfill_duty", "3")],
    );
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text);
         INSERT INTO t SELECT i, i, repeat('x', 100) FROM generate_series(1, 30000) AS i",
    );
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    session.wait_for(
        "SELECT rows_done > 0 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    session.exec(
        "SET transmute.allow_ddl = on; ALTER TABLE t ADD CONSTRAINT extra CHECK (a < 100000)",
    );
    migration.wait_in("AWAITING_ACTION");
    session.exec("ALTER TABLE t DROP CONSTRAINT extra");
    migration.call("resume", "'taken back'");
    session.wait_for(
        "SELECT state = 'RUNNING' FROM transmute.status",
        "t",
        PATIENCE,
    );
    migration.roll_back();
    assert_no_traces(&mut session, "t");
}
