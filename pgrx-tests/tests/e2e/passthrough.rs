//! Statements that run as they stand, alone and around a rewrite, and the way back from them.

use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, fingerprint, Migration};

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, name varchar(10), CHECK (a > 0));
         INSERT INTO t SELECT i, i, 'n' || i FROM generate_series(1, 1000) AS i",
    );
    session
}

#[track_caller]
fn run(database: &Database<'_>, id: &'static str, ddl: &str) {
    let mut migration = Migration::start(database, id, ddl, "{}");
    migration.finish();
    assert_eq!(
        migration.status("outcome || ' ' || progress"),
        "COMPLETED 1",
        "{ddl}"
    );
    assert!(
        migration
            .session()
            .lines("SELECT * FROM transmute.artifacts")
            .is_empty(),
        "{ddl} copied a table"
    );
}

#[test]
fn statements_that_touch_no_row_run_as_they_stand() {
    let database = Database::shared();
    let mut session = table(&database);
    let file = "SELECT relfilenode FROM pg_class WHERE oid = 't'::regclass";
    let before = session.lines(file);
    for (id, ddl, proof, expected) in [
        ("table", "CREATE TABLE made (id int PRIMARY KEY, t int REFERENCES t)", "SELECT count(*) FROM made", "0"),
        ("schema", "CREATE SCHEMA s; CREATE TABLE s.x (i int); CREATE SEQUENCE s.q; CREATE VIEW s.v AS SELECT * FROM s.x; ALTER TABLE s.x ADD PRIMARY KEY (i)",
         "SELECT count(*) FROM pg_class WHERE relnamespace = 's'::regnamespace", "4"),
        ("types", "CREATE TYPE pair AS (a int, b int); CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
         "SELECT ('(1,2)'::pair).b + 3::positive || 'glad'::mood::text", "5glad"),
        ("view", "CREATE VIEW v AS SELECT a FROM t", "SELECT count(*) FROM v", "1000"),
        ("constant", "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 7", "SELECT sum(c) FROM t", "7000"),
        ("wider", "ALTER TABLE t ALTER COLUMN name TYPE varchar(20)",
         "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'name'", "character varying(20)"),
        ("text", "ALTER TABLE t ALTER COLUMN name TYPE text", "SELECT pg_typeof(name) FROM t LIMIT 1", "text"),
        ("comment", "COMMENT ON TABLE t IS 'it''s; $$ a table'", "SELECT obj_description('t'::regclass)", "it's; $$ a table"),
        ("function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; SELECT 2 $$; GRANT EXECUTE ON FUNCTION f() TO PUBLIC", "SELECT f()", "2"),
        ("options", "ALTER TABLE t SET (fillfactor = 70), ALTER COLUMN a SET DEFAULT 5, ALTER COLUMN a SET STATISTICS 7",
         "SELECT reloptions FROM pg_class WHERE oid = 't'::regclass", "{fillfactor=70}"),
        ("not_valid", "ALTER TABLE t ADD CONSTRAINT later CHECK (a < 10) NOT VALID",
         "SELECT convalidated FROM pg_constraint WHERE conname = 'later'", "f"),
        ("drop", "ALTER TABLE t DROP COLUMN c, DROP CONSTRAINT later", "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'", "0"),
        ("rename", "ALTER TABLE t RENAME COLUMN a TO b", "SELECT sum(b) FROM t", "500500"),
    ] {
        run(&database, id, ddl);
        assert_eq!(session.lines(proof), [expected], "{ddl}");
    }
    assert_eq!(session.lines(file), before, "the table was rewritten");
    assert_sound_but_for_not_valid(&mut session);
}

fn assert_sound_but_for_not_valid(session: &mut Session) {
    session.exec("DROP VIEW v");
    assert_sound(session, "t");
}

#[test]
fn what_can_be_taken_back_runs_first_and_is_taken_back_in_reverse() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let ddl = "CREATE TYPE mood AS ENUM ('sad'); CREATE SCHEMA s; CREATE TABLE s.x (m mood, t int);
               ALTER TABLE t ADD COLUMN c int DEFAULT 7;
               CREATE VIEW s.v AS SELECT x.m FROM s.x;
               ALTER TABLE s.x ALTER COLUMN t TYPE bigint;
               ALTER TABLE t ALTER COLUMN a TYPE bigint;
               COMMENT ON COLUMN t.a IS 'wide'";
    let mut migration = Migration::start(
        &database,
        "m",
        ddl,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT count(*), col_description('t'::regclass, 2) FROM t"),
        ["1000|wide"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM s.v"), ["0"]);
    let plan = session.lines("SELECT phase, kind, reversible FROM transmute.plan('m')");
    assert!(plan.contains(&"expand|change|t".to_string()), "{plan:?}");
    let back = session.lines(
        "SELECT action, revert_sql FROM transmute.rollback_plan('m') WHERE revert_sql IS NOT NULL",
    );
    assert_eq!(
        back,
        [
            "run revert_sql|COMMENT ON COLUMN public.t.a IS NULL",
            "run revert_sql|DROP VIEW s.v",
            "run revert_sql|DROP TABLE s.x",
            "run revert_sql|DROP SCHEMA s",
            "run revert_sql|DROP TYPE public.mood",
        ]
    );
    migration.roll_back();
    assert_eq!(
        session.lines("SELECT to_regtype('mood'), to_regnamespace('s')"),
        ["∅|∅"]
    );
    // A dropped column leaves its slot; everything else is as it was.
    assert_eq!(
        without_dropped(&fingerprint(&mut session, "t")),
        without_dropped(&before)
    );

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT pg_typeof(a), c, col_description('t'::regclass, 2) FROM t LIMIT 1"),
        ["bigint|7|wide"]
    );
    assert_sound(&mut session, "t");
}

fn without_dropped(fingerprint: &str) -> Vec<&str> {
    let lines = fingerprint.lines();
    lines.filter(|line| !line.contains("pg.dropped")).collect()
}

#[test]
fn a_statement_that_fails_waits_for_a_person_and_goes_on_after_resume() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::register(
        &database,
        "m",
        "CREATE VIEW v AS SELECT a FROM t; CREATE TABLE made (i int)",
        "{}",
    );
    session.exec("CREATE TABLE made (other int)");
    migration.apply();
    migration.wait_for("outcome", "FAILED");
    assert_eq!(
        migration.status("state || ' ' || last_error_sqlstate || ' ' || last_error"),
        "INITIALIZING 42P07 relation \"made\" already exists"
    );
    session.exec("DROP TABLE made");
    migration.call("resume", "'out of the way'");
    migration.finish();
    assert_eq!(session.lines("SELECT count(*) FROM made"), ["0"]);
}

#[test]
fn a_plain_alter_waits_for_its_lock_outside_the_queue() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut reader = database.connect();
    reader.exec("BEGIN; SELECT count(*) FROM t");
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ADD COLUMN c int DEFAULT 1",
        "{}",
    );
    migration.wait_for("waiting_for LIKE '%Held by pid%'", "t");
    session.exec("SET lock_timeout = 150; SELECT count(*) FROM t; UPDATE t SET a = a WHERE id = 1");
    reader.exec("COMMIT");
    migration.finish();
    assert_eq!(session.lines("SELECT sum(c) FROM t"), ["1000"]);
}

#[test]
fn without_workers_a_session_drives_everything() {
    let cluster = transmute_tests::Cluster::builder()
        .without_preload()
        .start();
    let database = Database::create(&cluster);
    let mut session = table(&database);
    session.exec("SET transmute.max_dead_letters = 0");
    let mut migration = Migration::register(
        &database,
        "m",
        "CREATE VIEW v AS SELECT id FROM t; ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CHECK (a < 1000)",
        r#"{"required_approvals": 1}"#,
    );
    let applied = session.lines("SELECT state, action, detail FROM transmute.apply('m')");
    assert_eq!(applied, ["UNINITIALIZED|queued|no background workers (shared_preload_libraries does not hold transmute): CALL transmute.run() drives it"]);
    session.exec("CALL transmute.run('m', max_steps => 1)");
    assert_eq!(migration.status("state"), "INITIALIZING");
    session.exec("CALL transmute.run('m')");
    assert_eq!(
        migration.status("state"),
        "AWAITING_ACTION",
        "a row with 1000 is refused"
    );
    session.exec("UPDATE t SET a = 1 WHERE a = 1000");
    migration.call("resume", "'mended'");
    session.exec("CALL transmute.run('m')");
    assert_eq!(
        migration.status("state"),
        "AWAITING_FINALIZATION",
        "it needs an approval"
    );
    migration.call("rollback", "'not today'");
    session.exec("CALL transmute.run()");
    assert_eq!(
        migration.status("state || ' ' || outcome"),
        "UNINITIALIZED ROLLED_BACK"
    );
    migration.apply();
    migration.call("approve", "'today'");
    session.exec("CALL transmute.run()");
    assert_eq!(migration.status("state"), "FINISHED");
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM t GROUP BY 1"),
        ["bigint|1000"]
    );
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM transmute.nodes"), ["0"]);
}
