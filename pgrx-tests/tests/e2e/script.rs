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
