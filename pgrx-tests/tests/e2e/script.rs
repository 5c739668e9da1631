//! Scripts of several statements: what builds on an earlier statement runs after it, and the rest as early as it can.

use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, fingerprint, Migration};

const HELD: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int, note text);
         INSERT INTO t SELECT i, i, i, 'n' || i FROM generate_series(1, 1000) AS i",
    );
    session
}

/// Phase, kind and target of each step.
fn plan(session: &mut Session, ddl: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT phase, kind, target FROM transmute.explain($ddl${ddl}$ddl$) ORDER BY step"
    ))
}

#[test]
fn what_a_script_makes_it_can_use_at_once() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let ddl = "CREATE SCHEMA s;
        CREATE TYPE s.mood AS ENUM ('sad', 'glad');
        CREATE TABLE s.first (id int PRIMARY KEY, m s.mood, t int REFERENCES t);
        CREATE INDEX first_m ON s.first (m);
        INSERT INTO s.first SELECT id, 'glad', id FROM t;
        ALTER TABLE s.first ADD COLUMN x int;
        UPDATE s.first SET x = id;
        ALTER TABLE s.first ALTER x SET NOT NULL, ADD CHECK (id > 0);
        ALTER TABLE s.first RENAME TO second;
        ALTER TABLE s.second ALTER x TYPE text USING 'x' || x;
        COMMENT ON COLUMN s.second.x IS 'text';
        CREATE TABLE s.first (other int);
        ALTER TABLE s.first ADD CONSTRAINT other_key UNIQUE (other);
        CREATE VIEW s.v AS SELECT x FROM s.second";
    let mut migration = Migration::start(&database, "m", ddl, HELD);
    migration.wait_in("FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), min(x), obj_description('s.v'::regclass) FROM s.v"),
        ["1000|x1|∅"]
    );
    assert_eq!(
        session.lines("SELECT conname FROM pg_constraint WHERE conrelid = 's.first'::regclass AND contype = 'u'"),
        ["other_key"]
    );
    assert_eq!(
        session.lines("SELECT m.phase, count(*) FROM transmute.plan('m') m GROUP BY 1 ORDER BY 1"),
        // What copies the rows of another table, and what comes after it.
        ["backfill|10", "expand|4"]
    );
    session.exec("DROP SCHEMA s CASCADE");
    assert_eq!(fingerprint(&mut session, "t"), before);

    // The same with a change that waits at the end: all of it is taken back.
    let ddl = format!("{ddl}; ALTER TABLE t ALTER a TYPE bigint");
    let mut migration = Migration::start(&database, "n", &ddl, HELD);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(session.lines("SELECT count(*) FROM s.v"), ["1000"]);
    migration.roll_back();
    assert_eq!(session.lines("SELECT to_regnamespace('s')"), ["∅"]);
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_sound(&mut session, "t");
}

#[test]
fn a_statement_waits_for_what_it_builds_on_and_for_nothing_else() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("CREATE TABLE aside (id int PRIMARY KEY)");
    assert_eq!(
        plan(
            &mut session,
            "ALTER TABLE t ALTER a TYPE bigint;
             CREATE VIEW wide AS SELECT a FROM t;
             CREATE TABLE free (id int);
             ALTER TABLE aside ADD x int;
             CREATE VIEW wider AS SELECT a FROM wide"
        ),
        [
            "expand|rewrite_expand|public.t",
            "expand|execute|public.free",
            "expand|execute|public.aside",
            "backfill|rewrite_copy|public.t",
            "validate|rewrite_index|public.t",
            "validate|rewrite_check|public.t",
            "contract|rewrite_swap|public.t",
            "contract|rewrite_validate|public.t",
            "contract|execute|public.wide",
            "contract|execute|public.wider",
        ]
    );
}

#[test]
fn what_cannot_be_ordered_is_refused_with_both_lines() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "CREATE FUNCTION f(int) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1::bigint'",
    );
    let error = session.error(
        "SELECT transmute.register('m', $$
           DO $d$ BEGIN EXECUTE 'ALTER FUNCTION f(int) COST 7'; END $d$;
           ALTER TABLE t ALTER a TYPE bigint USING f(a)$$)",
    );
    assert_eq!(error.sqlstate, "0A000", "{error}");
    let detail = error.detail.as_deref().unwrap_or_default();
    assert!(
        detail.contains("line 3") && detail.contains("line 2"),
        "{detail}"
    );
    assert!(session.lines("SELECT id FROM transmute.status").is_empty());
}

#[test]
fn a_column_that_the_script_adds_can_be_renamed_and_described() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let ddl = "ALTER TABLE t ADD COLUMN made int;
        ALTER TABLE t RENAME COLUMN made TO done;
        COMMENT ON COLUMN t.done IS 'renamed';
        GRANT SELECT (done) ON t TO PUBLIC;
        ALTER TABLE t ADD CONSTRAINT positive CHECK (done > 0);
        DO 'BEGIN END'";
    assert_eq!(
        plan(&mut session, ddl),
        [
            "expand|execute|public.t",
            "expand|execute|public.t",
            "expand|change|t",
            "expand|change|public.t",
            "expand|execute|public.t",
            "validate|execute|public.t",
            "contract|execute|DO",
        ]
    );
    let mut migration = Migration::start(&database, "m", ddl, HELD);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT col_description('t'::regclass, attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'done'"),
        ["renamed"]
    );
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_sound(&mut session, "t");
}

/// Every kind of change that one copy can make, in statements of its own.
const TOGETHER: &str = "ALTER TABLE t ALTER COLUMN b SET DEFAULT 5;
    CREATE INDEX CONCURRENTLY t_b ON t (b) WHERE b > 10;
    ALTER TABLE t ALTER COLUMN a TYPE bigint;
    COMMENT ON TABLE t IS 'one copy';
    ALTER TABLE t ALTER COLUMN note TYPE varchar(40) USING upper(note), ADD COLUMN made timestamptz DEFAULT clock_timestamp();
    ALTER TABLE t ADD CONSTRAINT t_b_check CHECK (b > 0), ALTER COLUMN b SET NOT NULL;
    ALTER TABLE t ADD CONSTRAINT t_note_key UNIQUE (note);
    CREATE UNIQUE INDEX t_lower ON t (lower(note), a);
    ALTER TABLE t ALTER COLUMN b TYPE numeric(12, 2)";

#[test]
fn several_statements_on_one_table_are_one_copy() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    assert_eq!(
        plan(&mut session, TOGETHER),
        [
            "expand|rewrite_expand|public.t",
            "expand|change|public.t",
            "backfill|rewrite_copy|public.t",
            "validate|rewrite_index|public.t",
            "validate|rewrite_check|public.t",
            "contract|rewrite_swap|public.t",
            "contract|rewrite_validate|public.t",
        ]
    );
    let mut migration = Migration::start(&database, "m", TOGETHER, HELD);
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    session.exec("UPDATE t SET a = a + 1, note = note || 'x' WHERE id % 7 = 0; DELETE FROM t WHERE id % 11 = 0");
    session.exec("INSERT INTO t VALUES (5000, 1, 2, 'late')");
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT count(*), sum(a), sum(b), count(made), max(note) FROM t"),
        ["911|455586|455457.00|911|N999"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.artifacts"),
        ["1"]
    );

    let plain = Database::shared();
    let mut other = table(&plain);
    for statement in TOGETHER.replace("CONCURRENTLY ", "").split(';') {
        other.exec(statement);
    }
    assert_eq!(
        fingerprint(&mut session, "t"),
        fingerprint(&mut other, "t"),
        "the catalog is that after the plain statements"
    );
}

#[test]
fn what_cannot_be_one_copy_is_refused_by_line() {
    let database = Database::shared();
    let mut session = table(&database);
    for (ddl, line) in [
        // A function between them is about the state between them.
        (
            "ALTER TABLE t ALTER a TYPE bigint;\nCREATE FUNCTION f(t) RETURNS bigint LANGUAGE sql AS 'SELECT $1.a';\nALTER TABLE t ALTER a TYPE text",
            "line 3",
        ),
        // What an earlier statement makes of the row as a whole is not known.
        (
            "ALTER TABLE t ALTER a TYPE bigint;\nALTER TABLE t ALTER note TYPE bigint USING length(t::text)",
            "line 2",
        ),
        // A view between them sees the state between them.
        (
            "ALTER TABLE t ALTER a TYPE bigint;\nCREATE VIEW v AS SELECT b FROM t;\nALTER TABLE t ALTER b TYPE bigint",
            "line 3",
        ),
        // Rows that are there have no value, later ones have one.
        (
            "ALTER TABLE t ALTER a TYPE bigint, ADD x int, ALTER x SET DEFAULT 3",
            "\"x\"",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $${ddl}$$)"));
        assert_eq!(error.sqlstate, "0A000", "{ddl}: {error}");
        let detail = error.detail.as_deref().unwrap_or_default();
        assert!(detail.contains(line), "{ddl}: {detail}");
    }
    let wrong = session.error(
        "SELECT transmute.register('m', $$ALTER TABLE t ALTER a TYPE bigint;\nALTER TABLE t ALTER absent TYPE bigint$$)",
    );
    assert_eq!(wrong.sqlstate, "42703", "{wrong}");
    assert!(
        wrong
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("line 2"),
        "{wrong}"
    );
    // The default of a column that the script adds may change in a statement behind the copy.
    let ddl = "ALTER TABLE t ALTER a TYPE bigint, ADD x int; ALTER TABLE t ALTER x SET DEFAULT 3";
    Migration::start(&database, "m", ddl, "{}").finish();
    session.exec("INSERT INTO t (id, a) VALUES (7000, 1)");
    assert_eq!(session.lines("SELECT count(x), max(x) FROM t"), ["1|3"]);
}

#[test]
fn a_table_that_the_script_renames_is_copied_under_its_new_name() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let ddl = "ALTER TABLE t RENAME TO u; ALTER TABLE u ALTER COLUMN a TYPE bigint; CREATE INDEX u_a ON u (a)";
    let mut migration = Migration::start(&database, "m", ddl, HELD);
    migration.wait("AWAITING_FINALIZATION");
    // Both names, all rows.
    session.exec("INSERT INTO t (id, a) VALUES (5000, 1); UPDATE u SET a = 2 WHERE id = 5000");
    migration.roll_back();
    session.exec("DELETE FROM t WHERE id = 5000");
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO t (id, a) VALUES (5000, 1)");
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), pg_typeof(min(a)), to_regclass('t') FROM u"),
        ["1001|bigint|∅"]
    );
    assert_sound(&mut session, "u");
}

/// A schema of some hundred objects of all kinds.
const MANY: &str = r#"
CREATE SCHEMA app; CREATE SCHEMA "Odd Name";
CREATE TYPE app.mood AS ENUM ('sad','ok','glad');
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changed = now(); RETURN NEW; END $$;
CREATE FUNCTION app.area(a int, b int DEFAULT 2) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a * b';
DO $$ BEGIN
FOR i IN 1..30 LOOP
 EXECUTE format('CREATE TABLE app.t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, m app.mood DEFAULT ''ok'', p app.positive, x int NOT NULL, y int GENERATED ALWAYS AS (x*2) STORED, changed timestamptz, CHECK (x > 0))', i);
 EXECUTE format('CREATE INDEX ON app.t%s (x) WHERE x > 10', i);
 EXECUTE format('CREATE UNIQUE INDEX t%s_lower ON app.t%s (app.area(x), changed)', i, i);
 EXECUTE format('CREATE TRIGGER touch BEFORE UPDATE ON app.t%s FOR EACH ROW EXECUTE FUNCTION app.touch()', i);
 EXECUTE format('COMMENT ON TABLE app.t%s IS ''table %s; with quotes''', i, i);
 EXECUTE format('COMMENT ON COLUMN app.t%s.x IS ''x''', i);
 EXECUTE format('CREATE VIEW app.v%s AS SELECT id, x FROM app.t%s WHERE m = ''ok''', i, i);
 IF i > 1 THEN EXECUTE format('ALTER TABLE app.t%s ADD parent bigint REFERENCES app.t%s ON DELETE CASCADE', i, i-1); END IF;
 EXECUTE format('GRANT SELECT ON app.t%s TO PUBLIC', i);
END LOOP; END $$;
CREATE TABLE "Odd Name"."Mixed" (id int PRIMARY KEY, "Col" text);
CREATE MATERIALIZED VIEW app.mv AS SELECT x, count(*) FROM app.t1 GROUP BY x; CREATE INDEX ON app.mv (x);
CREATE TABLE app.part (id int, k int) PARTITION BY RANGE (id); CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES FROM (0) TO (100); CREATE TABLE app.partd PARTITION OF app.part DEFAULT; CREATE INDEX ON app.part (k);
ALTER TABLE app.t1 ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON app.t1 USING (x > 1);
CREATE RULE r AS ON DELETE TO app.t2 DO ALSO NOTHING;
CREATE STATISTICS app.st ON x, p FROM app.t3;
CREATE SEQUENCE app.seq START 5 INCREMENT 3;
CREATE AGGREGATE app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;
"#;

/// What pg_dump says of the two schemas, without psql's own commands.
fn dump(database: &Database<'_>) -> String {
    let output = database
        .command("pg_dump")
        .args(["-s", "-n", "app", "-n", "\"Odd Name\""])
        .output()
        .expect("pg_dump");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('\\')).collect();
    lines.join("\n")
}

#[test]
fn a_dump_of_hundreds_of_statements_makes_the_same_schema() {
    let source = Database::shared();
    source.connect().exec(MANY);
    let text = dump(&source);
    assert!(text.matches(";\n").count() > 300);

    let target = Database::shared();
    let mut migration =
        Migration::start(&target, "m", &text, r#"{"pre_finalization_soak": "0 s"}"#);
    migration.finish();
    assert_eq!(dump(&target), text);
    let error = target
        .connect()
        .error("SELECT transmute.register('n', 'SET work_mem = 1; CREATE TABLE x ()')");
    assert_eq!(error.sqlstate, "0A000", "{error}");
}
