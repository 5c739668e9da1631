//! The way back of migrations whose tables versions show, to which none was given: the views go with the shape that they were made for.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::history::dump;
use super::settle;

const BOTH: &str = r#"{"versioned_views_before": "v1", "versioned_views": "v2"}"#;

fn migrate(session: &mut Session, id: &str, up: &str, meta: &str) {
    session.query(
        "SELECT transmute.migrate($1, $2, $3::text::jsonb)",
        &[&up, &id, &meta],
    );
    settle(session);
    no_errors(session);
}

fn no_errors(session: &mut Session) {
    assert_eq!(
        session.lines("SELECT id, last_error, last_error_sqlstate FROM transmute.status WHERE last_error IS NOT NULL"),
        [""; 0]
    );
}

fn take_back(session: &mut Session, id: &str) {
    session.query("SELECT transmute.down($1, 'not so')", &[&id]);
    settle(session);
    no_errors(session);
}

fn converts(session: &mut Session) -> Vec<String> {
    session.lines("SELECT view, converts FROM transmute.versions ORDER BY 1")
}

#[test]
fn a_copied_table_goes_back_under_its_versions_which_are_both_written_until_then() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7, note text); INSERT INTO t SELECT i, i, 'n' || i FROM generate_series(1, 500) i;
         CREATE TABLE other (id int PRIMARY KEY, n int)",
    );
    let before = dump(&database);
    let up = "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint, ADD COLUMN stamp text DEFAULT clock_timestamp()::text;
              ALTER TABLE other ADD COLUMN m int";
    migrate(&mut session, "m", up, BOTH);
    let after = dump(&database);
    assert_eq!(
        converts(&mut session),
        ["v1.other|f", "v1.t|t", "v2.other|f", "v2.t|f"]
    );
    session.exec("SET transmute.pre_finalization_soak = '1 hour'; SELECT transmute.down('m', 'the old application is needed')");
    session.wait_for(
        "SELECT transmute.state('m:down')",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT phase, kind, target FROM transmute.plan('m:down') WHERE phase = 'contract' ORDER BY step"),
        [
            "contract|rewrite_swap|public.t",
            "contract|rewrite_validate|public.t",
            "contract|version_back|v2.other",
            "contract|version_back|v2.t",
            "contract|back|public.other",
            "contract|version_back|v1.other",
            "contract|version_back|v1.t"
        ]
    );
    session.exec(
        "INSERT INTO v1.t (id, note) VALUES (501, 'old'); UPDATE v1.t SET a = 70 WHERE id = 1;
         INSERT INTO v2.t (id, a, stamp) VALUES (502, 5, 'mine'); UPDATE v2.t SET a = 80 WHERE id = 2; INSERT INTO v2.other VALUES (1, 2, 3)",
    );
    session.exec("SELECT transmute.skip_soak('m:down', 'enough')");
    settle(&mut session);
    no_errors(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.lines(
            "SELECT id, a, pg_typeof(a), note FROM t WHERE id IN (1, 2, 501, 502) ORDER BY 1"
        ),
        [
            "1|70|integer|n1",
            "2|80|integer|n2",
            "501|7|integer|old",
            "502|5|integer|∅"
        ]
    );
    // Once more there and back.
    session.exec("SET transmute.pre_finalization_soak = 'default'; SELECT transmute.apply('m')");
    settle(&mut session);
    no_errors(&mut session);
    assert_eq!(dump(&database), after);
    take_back(&mut session, "m");
    assert_eq!(dump(&database), before);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn what_is_not_copied_goes_back_under_its_versions_too() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE users (id int PRIMARY KEY, name text, x int); INSERT INTO users VALUES (1, 'a b', 1), (2, 'c d', 2);
         CREATE TABLE leaving (id int PRIMARY KEY); INSERT INTO leaving VALUES (1);
         CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)",
    );
    let before = dump(&database);
    let reverse = r#", "reverse": {"name": "first || ' ' || last"}}"#;
    for (i, (up, meta)) in [
        ("ALTER TABLE users ADD COLUMN more int DEFAULT 5; CREATE INDEX users_more ON users (more)", BOTH.to_string()),
        ("ALTER TABLE users RENAME COLUMN name TO called; ALTER TABLE users DROP COLUMN x; DROP TABLE leaving", BOTH.to_string()),
        ("ALTER TABLE users RENAME TO people", BOTH.to_string()),
        ("ALTER TABLE parted ADD COLUMN more int", BOTH.to_string()),
        (
            "ALTER TABLE users ADD COLUMN first text, ADD COLUMN last text; UPDATE users SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
             ALTER TABLE users DROP COLUMN name",
            BOTH.replace('}', reverse),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{i}");
        migrate(&mut session, &id, up, &meta);
        assert_ne!(converts(&mut session), [""; 0], "{up}");
        take_back(&mut session, &id);
        assert_eq!(dump(&database), before, "{up}");
        assert_eq!(
            session.lines("SELECT id, name FROM users ORDER BY id"),
            ["1|a b", "2|c d"]
        );
    }
    assert_eq!(session.lines("SELECT id FROM leaving"), ["1"]);
}

#[test]
fn a_version_is_plain_again_when_the_migration_behind_it_goes_back() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 50) i");
    let before = dump(&database);
    migrate(
        &mut session,
        "one",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        BOTH,
    );
    session.exec("SELECT transmute.release_version('v1', 'gone')");
    let between = dump(&database);
    let up = "ALTER TABLE t ALTER COLUMN a TYPE numeric";
    session.query(
        "SELECT transmute.register('two', $1, 'ALTER TABLE t ALTER COLUMN a TYPE bigint', '{\"versioned_views\": \"v3\"}')",
        &[&up],
    );
    session.exec("SELECT transmute.apply('two')");
    settle(&mut session);
    assert_eq!(converts(&mut session), ["v2.t|t", "v3.t|f"]);
    // By what was given: the version that came with it stays for whoever still uses it.
    take_back(&mut session, "two");
    assert_eq!(converts(&mut session), ["v2.t|f", "v3.t|t"]);
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM v3.t GROUP BY 1"),
        ["numeric|50"]
    );
    session.exec("SELECT transmute.release_version('v3', 'gone')");
    assert_eq!(dump(&database), between);
    migrate(
        &mut session,
        "three",
        "ALTER TABLE t ADD COLUMN b int; ALTER TABLE t ALTER COLUMN id TYPE bigint",
        r#"{"versioned_views": "v4"}"#,
    );
    assert_eq!(converts(&mut session), ["v2.t|t", "v4.t|f"]);
    session.exec("SELECT transmute.rollback(1)");
    settle(&mut session);
    no_errors(&mut session);
    assert_eq!(dump(&database), between);
    assert_eq!(converts(&mut session), ["v2.t|f"]);
    // One that was released is missed by nobody.
    take_back(&mut session, "one");
    assert_eq!(dump(&database), before);
}

#[test]
fn what_uses_a_version_that_is_taken_back_is_named_and_so_is_one_that_was_dropped() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int)");
    migrate(
        &mut session,
        "one",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        BOTH,
    );
    session.exec("CREATE VIEW on_v2 AS SELECT a + 1 AS b FROM v2.t");
    let error = session.error("SELECT transmute.down('one', 'not so')");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        ("2BP01", Some("On v2.t: view public.on_v2.")),
        "{error:?}"
    );
    // One that comes later stops it, too.
    session.exec("DROP VIEW on_v2; SET transmute.pre_finalization_soak = '1 hour'; SELECT transmute.down('one', 'not so')");
    session.wait_for(
        "SELECT transmute.state('one:down')",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    session.exec("CREATE VIEW on_v2 AS SELECT id FROM v2.t; SELECT transmute.skip_soak('one:down', 'enough')");
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status WHERE id = 'one:down'",
        "2BP01",
        PATIENCE,
    );
    session.exec("DROP VIEW on_v2; SELECT transmute.resume('one:down', 'it is gone')");
    settle(&mut session);
    assert_eq!(converts(&mut session), [""; 0]);
    session.exec("SET transmute.pre_finalization_soak = 'default'");
    migrate(
        &mut session,
        "two",
        "ALTER TABLE t ADD COLUMN b int",
        r#"{"versioned_views": "v3"}"#,
    );
    migrate(
        &mut session,
        "three",
        "ALTER TABLE t ADD COLUMN c int",
        r#"{"drop_versions": ["v3"]}"#,
    );
    let error = session.error("SELECT transmute.down('three', 'not so')");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        (
            "55000",
            Some("Migration \"three\": step 2: version v3, whose application was gone.")
        ),
        "{error:?}"
    );
}
