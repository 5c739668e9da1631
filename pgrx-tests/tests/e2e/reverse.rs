//! The way back of statements that run as they stand: whatever pg_dump says of the database – definitions, owners, privileges,
//! comments, dependencies – is the same after a rollback as before the migration.

use transmute_tests::tools::output_of;
use transmute_tests::{Database, Session};

use crate::migration::Migration;

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// Everything that the statements below change.
fn scene(session: &mut Session) {
    session.exec(
        "DO $$ BEGIN CREATE ROLE reverse_reader; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         DO $$ BEGIN CREATE ROLE reverse_writer; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         CREATE SCHEMA s;
         CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'glad'); COMMENT ON TYPE mood IS 'how one feels';
         CREATE TYPE pair AS (a int, b text COLLATE \"C\"); GRANT USAGE ON TYPE pair TO reverse_reader; REVOKE USAGE ON TYPE pair FROM PUBLIC;
         CREATE DOMAIN positive AS int DEFAULT 1 CONSTRAINT above CHECK (VALUE > 0); COMMENT ON DOMAIN positive IS 'above zero';
         CREATE SEQUENCE q INCREMENT 5 MINVALUE -7 MAXVALUE 700 CACHE 3 CYCLE; GRANT USAGE ON SEQUENCE q TO reverse_reader;
         SELECT nextval('q');
         CREATE TABLE r (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 7 NOT NULL, b varchar(10), c text, m mood, r int REFERENCES r,
           CONSTRAINT small CHECK (a < 1000000), CONSTRAINT b_key UNIQUE (b)) WITH (fillfactor = 70);
         INSERT INTO t (id, a, b) SELECT i, i, i::text FROM generate_series(1, 100) i;
         COMMENT ON COLUMN t.a IS 'a number'; COMMENT ON CONSTRAINT small ON t IS 'not too large';
         ALTER TABLE t ALTER c SET STORAGE EXTERNAL, ALTER a SET STATISTICS 77, ALTER a SET (n_distinct = 5);
         CREATE INDEX t_a ON t (a) WITH (fillfactor = 60); CREATE INDEX t_expression ON t ((a + 1));
         CREATE TABLE only_read (x int); GRANT SELECT ON only_read TO reverse_reader WITH GRANT OPTION; GRANT UPDATE (x) ON only_read TO reverse_writer;
         CREATE FUNCTION f(i int, j int DEFAULT 2) RETURNS int LANGUAGE sql STABLE PARALLEL SAFE COST 7 SET work_mem = '1MB' AS $f$ SELECT i + j; $f$;
         COMMENT ON FUNCTION f IS 'adds'; REVOKE ALL ON FUNCTION f FROM PUBLIC; GRANT EXECUTE ON FUNCTION f TO reverse_reader;
         CREATE FUNCTION f(text) RETURNS text LANGUAGE sql RETURN upper($1);
         CREATE PROCEDURE p(INOUT i int) LANGUAGE plpgsql AS $f$ BEGIN i := i + 1; END $f$;
         CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
         CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$;
         CREATE TRIGGER tg BEFORE UPDATE OF a ON t FOR EACH ROW WHEN (NEW.a > 5) EXECUTE FUNCTION fire('x', 'it''s');
         COMMENT ON TRIGGER tg ON t IS 'fires'; ALTER TABLE t ENABLE ALWAYS TRIGGER tg;
         CREATE RULE ru AS ON DELETE TO only_read DO INSTEAD NOTHING; COMMENT ON RULE ru ON only_read IS 'none goes';
         ALTER TABLE only_read ENABLE ROW LEVEL SECURITY;
         CREATE POLICY po ON only_read FOR UPDATE TO reverse_reader, reverse_writer USING (x > 1) WITH CHECK (x < 9); COMMENT ON POLICY po ON only_read IS 'some';
         CREATE VIEW v WITH (security_barrier) AS SELECT id, a FROM t WHERE a > 5 WITH CHECK OPTION; GRANT SELECT, INSERT ON v TO reverse_reader;
         COMMENT ON VIEW v IS 'a view'; COMMENT ON COLUMN v.a IS 'of it'; ALTER VIEW v ALTER a SET DEFAULT 9; ALTER VIEW v OWNER TO reverse_writer;
         CREATE STATISTICS st (dependencies) ON a, b FROM t; COMMENT ON STATISTICS st IS 'of two'; ALTER STATISTICS st SET STATISTICS 55;
         CREATE CAST (mood AS int) WITH INOUT AS ASSIGNMENT;
         CREATE COLLATION co FROM \"C\";
         CREATE SCHEMA empty AUTHORIZATION reverse_writer; GRANT CREATE ON SCHEMA empty TO reverse_reader; COMMENT ON SCHEMA empty IS 'nothing in it';
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reverse_reader;
         ALTER DEFAULT PRIVILEGES IN SCHEMA s REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    );
}

/// Run at the start, and a rollback leaves no trace of them.
const REVERSIBLE: [&str; 104] = [
    "COMMENT ON TABLE t IS 'new'",
    "COMMENT ON COLUMN t.a IS NULL",
    "COMMENT ON COLUMN v.a IS 'another'",
    "COMMENT ON CONSTRAINT small ON t IS 'other'",
    "COMMENT ON CONSTRAINT above ON DOMAIN positive IS 'new'",
    "COMMENT ON INDEX t_a IS 'new'",
    "COMMENT ON FUNCTION f(int, int) IS 'it''s; new'",
    "COMMENT ON TRIGGER tg ON t IS NULL",
    "COMMENT ON POLICY po ON only_read IS 'new'",
    "COMMENT ON RULE ru ON only_read IS NULL",
    "COMMENT ON SCHEMA empty IS 'new'",
    "COMMENT ON TYPE mood IS NULL",
    "COMMENT ON CAST (mood AS int) IS 'new'",
    "COMMENT ON STATISTICS st IS 'new'",
    "COMMENT ON SEQUENCE q IS 'new'",
    "COMMENT ON AGGREGATE total(int) IS 'new'",
    "GRANT SELECT, INSERT (a), UPDATE ON t TO reverse_reader",
    "GRANT ALL ON t TO reverse_writer WITH GRANT OPTION",
    "REVOKE GRANT OPTION FOR SELECT ON only_read FROM reverse_reader",
    "REVOKE ALL ON only_read FROM reverse_reader, reverse_writer",
    "REVOKE UPDATE (x) ON only_read FROM reverse_writer",
    "GRANT EXECUTE ON FUNCTION f(int, int) TO PUBLIC",
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reverse_writer",
    "GRANT USAGE ON SEQUENCE q TO reverse_writer",
    "GRANT CREATE ON SCHEMA s TO reverse_reader",
    "GRANT USAGE ON TYPE pair TO PUBLIC",
    "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT INSERT ON TABLES TO reverse_writer",
    "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM reverse_reader",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER TABLE t OWNER TO reverse_writer",
    "ALTER TABLE only_read OWNER TO reverse_reader",
    "ALTER FUNCTION f(int, int) OWNER TO reverse_reader",
    "ALTER SCHEMA empty OWNER TO reverse_reader",
    "ALTER TYPE mood OWNER TO reverse_reader",
    "ALTER VIEW v OWNER TO reverse_reader",
    "ALTER SEQUENCE q OWNER TO reverse_reader",
    "ALTER TABLE t ALTER a SET DEFAULT 8, ALTER b SET DEFAULT 'x'",
    "ALTER TABLE t ALTER a DROP DEFAULT",
    "ALTER TABLE t ALTER a DROP NOT NULL",
    "ALTER TABLE t DROP CONSTRAINT small",
    "ALTER TABLE t DROP CONSTRAINT t_r_fkey",
    "ALTER TABLE t ALTER a SET STATISTICS 5, ALTER b SET STATISTICS 6",
    "ALTER TABLE t ALTER a SET (n_distinct = 6, n_distinct_inherited = 7), ALTER a RESET (n_distinct)",
    "ALTER TABLE t ALTER c SET STORAGE MAIN, ALTER b SET STORAGE PLAIN",
    "ALTER TABLE t ALTER c SET COMPRESSION pglz",
    "ALTER TABLE t SET (fillfactor = 50, autovacuum_enabled = off, toast.autovacuum_enabled = off)",
    "ALTER TABLE t RESET (fillfactor)",
    "ALTER TABLE t ALTER c TYPE varchar",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "ALTER TABLE only_read DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE t DISABLE TRIGGER tg",
    "ALTER TABLE t DISABLE TRIGGER USER",
    "ALTER TABLE only_read DISABLE RULE ru",
    "ALTER TABLE t REPLICA IDENTITY FULL, CLUSTER ON t_a",
    "ALTER TABLE t ALTER CONSTRAINT t_r_fkey DEFERRABLE INITIALLY DEFERRED",
    "ALTER TABLE t RENAME CONSTRAINT small TO tiny",
    "ALTER INDEX t_a RENAME TO \"T A\"",
    "ALTER INDEX t_a SET (fillfactor = 80)",
    "ALTER INDEX t_expression ALTER COLUMN 1 SET STATISTICS 9",
    "ALTER TRIGGER tg ON t RENAME TO tg2",
    "ALTER POLICY po ON only_read RENAME TO po2",
    "ALTER RULE ru ON only_read RENAME TO ru2",
    "ALTER FUNCTION f(int, int) RENAME TO g",
    "ALTER TYPE mood RENAME TO temper",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue''s'",
    "ALTER TYPE pair RENAME ATTRIBUTE a TO x",
    "ALTER TYPE pair ADD ATTRIBUTE z int",
    "ALTER TYPE pair ALTER ATTRIBUTE a TYPE bigint",
    "ALTER DOMAIN positive RENAME CONSTRAINT above TO beyond",
    "ALTER DOMAIN positive DROP CONSTRAINT above",
    "ALTER DOMAIN positive ADD CONSTRAINT below CHECK (VALUE < 100) NOT VALID",
    "ALTER DOMAIN positive SET DEFAULT 5",
    "ALTER SCHEMA empty RENAME TO void",
    "ALTER SEQUENCE q RENAME TO qq",
    "ALTER VIEW v RENAME TO vv",
    "ALTER VIEW v RENAME COLUMN a TO aa",
    "ALTER VIEW v SET SCHEMA s",
    "ALTER FUNCTION f(int, int) SET SCHEMA s",
    "ALTER TYPE mood SET SCHEMA s",
    "ALTER SEQUENCE q INCREMENT 9 NO CYCLE OWNED BY t.a",
    "ALTER VIEW v ALTER a DROP DEFAULT",
    "ALTER VIEW v SET (security_barrier = false)",
    "ALTER STATISTICS st SET STATISTICS 7",
    "ALTER FUNCTION f(int, int) VOLATILE COST 9 RESET ALL",
    "ALTER FUNCTION f(text) DEPENDS ON EXTENSION plpgsql",
    "ALTER POLICY po ON only_read TO PUBLIC USING (true)",
    "CREATE OR REPLACE FUNCTION f(i int, j int DEFAULT 2) RETURNS int LANGUAGE plpgsql AS $x$ BEGIN RETURN 0; END $x$",
    "CREATE FUNCTION f(date) RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; COMMENT ON FUNCTION f(date) IS 'x'",
    "CREATE OR REPLACE VIEW v AS SELECT id, a FROM t",
    "CREATE TRIGGER tg2 AFTER INSERT ON t EXECUTE FUNCTION fire(); CREATE OR REPLACE TRIGGER tg BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire()",
    "CREATE POLICY po2 ON only_read USING (x > 3); CREATE RULE ru2 AS ON INSERT TO only_read DO ALSO NOTHING; CREATE OR REPLACE RULE ru AS ON DELETE TO only_read DO ALSO NOTHING",
    "CREATE AGGREGATE best(int) (SFUNC = int4larger, STYPE = int); CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = OPERATOR(public.===), NEGATOR = !==)",
    "CREATE CAST (int AS mood) WITH INOUT; CREATE COLLATION co2 FROM \"C\"; CREATE STATISTICS st2 ON b, c FROM t",
    "CREATE SCHEMA w CREATE TABLE x (i int PRIMARY KEY) CREATE TABLE y (i int REFERENCES x) CREATE VIEW z AS SELECT * FROM y CREATE SEQUENCE u GRANT SELECT ON x TO PUBLIC",
    "CREATE TABLE made AS SELECT * FROM t; SELECT * INTO made2 FROM t; CREATE TABLE IF NOT EXISTS made3 (i serial); CREATE TABLE IF NOT EXISTS t (i int); CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one",
    "CREATE TYPE span AS RANGE (SUBTYPE = float8); CREATE EXTENSION citext CASCADE",
    "DROP FUNCTION f(int, int), f(text); DROP PROCEDURE p(int)",
    "DROP VIEW v; DROP SEQUENCE q; DROP STATISTICS st",
    "DROP TRIGGER tg ON t; DROP POLICY po ON only_read; DROP RULE ru ON only_read",
    "DROP TYPE pair; DROP DOMAIN positive; DROP SCHEMA empty; DROP CAST (mood AS int)",
    "DROP VIEW IF EXISTS nothing; DROP FUNCTION IF EXISTS nothing(); DROP TRIGGER IF EXISTS nothing ON t",
];

/// What pg_dump says, without what differs from run to run.
fn dump(database: &Database<'_>) -> String {
    let text = output_of(database.command("pg_dump").args([
        "--schema-only",
        "--exclude-schema=transmute",
        "--exclude-schema=_transmute*",
    ]));
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Lines of one dump that the other does not have.
fn only_in<'d>(one: &'d str, other: &str) -> Vec<&'d str> {
    one.lines()
        .filter(|line| !other.lines().any(|l| l == *line))
        .collect()
}

#[test]
fn whatever_runs_first_is_taken_back_to_the_letter() {
    let database = Database::shared();
    let mut session = database.connect();
    scene(&mut session);
    let before = dump(&database);
    let mut failures = Vec::new();
    for (i, ddl) in REVERSIBLE.iter().enumerate() {
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        let mut migration = Migration::start(&database, id, &format!("{ddl}; SELECT 1"), SOAK);
        let plan = session.lines(&format!(
            "SELECT DISTINCT phase, reversible FROM transmute.plan('{id}') WHERE sql <> 'SELECT 1'"
        ));
        migration.wait_for("state = 'AWAITING_FINALIZATION' OR outcome = 'FAILED'", "t");
        let reached = migration.status("state");
        let error = migration.status("coalesce(last_error, '')");
        let changed = dump(&database) != before;
        migration.call("rollback", "'the test says so'");
        migration.wait_for("outcome = 'ROLLED_BACK' OR last_error IS NOT NULL", "t");
        let after = dump(&database);
        let (missing, new) = (only_in(&before, &after), only_in(&after, &before));
        let told = || {
            format!(
                "{ddl}\n  {plan:?} {reached} {error}, changed {changed}, missing {missing:?}, new {new:?}\n  {:?}",
                database.connect().lines(&format!(
                    "SELECT sql, revert_sql FROM transmute.steps WHERE id = '{id}'"
                ))
            )
        };
        assert!(after == before, "{}", told());
        let nothing_to_do = ddl.contains("IF EXISTS nothing");
        if plan != ["expand|t"] || reached != "AWAITING_FINALIZATION" || changed == nothing_to_do {
            failures.push(told());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_nothing_makes_again_runs_at_the_end() {
    let database = Database::shared();
    let mut session = database.connect();
    scene(&mut session);
    session.exec("CREATE VIEW on_v AS SELECT * FROM v");
    let before = dump(&database);
    for (i, ddl) in [
        "DROP VIEW v CASCADE",
        "DROP AGGREGATE total(int)",
        "DROP COLLATION co",
        "ALTER TABLE t DROP CONSTRAINT b_key",
        "ALTER TABLE t ALTER b TYPE text",
        "ALTER SEQUENCE q RESTART",
        "ALTER TYPE pair DROP ATTRIBUTE a",
        "ALTER DOMAIN positive SET NOT NULL",
        "DO $x$ BEGIN CREATE TABLE by_do (i int); END $x$",
        "SELECT nextval('q')",
        "CALL p(1)",
        "COMMENT ON ROLE reverse_reader IS 'everywhere'",
        "CREATE USER MAPPING FOR reverse_reader SERVER nowhere",
    ]
    .into_iter()
    .enumerate()
    {
        let id: &'static str = Box::leak(format!("e{i}").into_boxed_str());
        let mut migration = Migration::start(&database, id, ddl, SOAK);
        let plan = session.lines(&format!(
            "SELECT phase, reversible, 'IRREVERSIBLE' = ANY (reasons) FROM transmute.plan('{id}')"
        ));
        assert_eq!(plan, ["contract|f|t"], "{ddl}");
        migration.wait("AWAITING_FINALIZATION");
        assert!(dump(&database) == before, "{ddl} ran too early");
        migration.roll_back();
    }
}

#[test]
fn a_statement_that_fails_changes_nothing_and_what_ran_before_it_is_taken_back() {
    let database = Database::shared();
    let mut session = database.connect();
    scene(&mut session);
    session.exec("CREATE VIEW on_v AS SELECT * FROM v");
    let before = dump(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "COMMENT ON VIEW v IS 'new'; GRANT SELECT ON v TO reverse_writer; DROP VIEW v",
        SOAK,
    );
    migration.wait_for("outcome", "FAILED");
    assert_eq!(migration.status("last_error_sqlstate"), "2BP01");
    migration.roll_back();
    assert!(dump(&database) == before);
}

#[test]
fn names_that_are_not_there_are_refused_at_once() {
    let database = Database::shared();
    let mut session = database.connect();
    scene(&mut session);
    for (ddl, sqlstate) in [
        ("COMMENT ON TABLE nobody IS 'x'", "42P01"),
        ("COMMENT ON COLUMN t.nobody IS 'x'", "42703"),
        ("COMMENT ON FUNCTION nobody(int) IS 'x'", "42883"),
        ("GRANT SELECT ON nobody TO PUBLIC", "42P01"),
        ("DROP FUNCTION nobody(int)", "42883"),
        ("DROP TRIGGER nobody ON t", "42704"),
        ("ALTER TYPE nobody RENAME TO x", "42704"),
        ("ALTER POLICY po ON nobody USING (true)", "42P01"),
        (
            "CREATE TRIGGER x AFTER INSERT ON nobody EXECUTE FUNCTION fire()",
            "42P01",
        ),
        ("ALTER FUNCTION nobody(int) STABLE", "42883"),
        ("ALTER SEQUENCE nobody INCREMENT 2", "42P01"),
        ("ALTER VIEW nobody SET SCHEMA s", "42P01"),
        ("SET work_mem = '1MB'", "0A000"),
        ("LISTEN x", "0A000"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $ddl${ddl}$ddl$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{ddl}: {error}"
        );
    }
    assert!(session.lines("SELECT id FROM transmute.status").is_empty());
}
