//! Which statements run in batches, which as they stand, where they run, and what is refused.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::Database;

use super::{assert_nothing_left, plan, slowly};
use crate::migration::{fingerprint, Migration};

#[test]
fn every_kind_of_statement_does_what_it_says() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        r#"CREATE TABLE t (id int PRIMARY KEY, a int, b text);
         INSERT INTO t SELECT i, i, 'b' || i FROM generate_series(1, 3000) AS i;
         CREATE TABLE o (id int PRIMARY KEY, v int);
         INSERT INTO o SELECT i, i * 2 FROM generate_series(1, 1000) AS i;
         CREATE TABLE log (at int, what text);
         CREATE TABLE "Odd Näme" ("k 1" text, "k""2" int, v int, PRIMARY KEY ("k 1", "k""2"));
         INSERT INTO "Odd Näme" SELECT 'x' || i % 7, i, 0 FROM generate_series(1, 500) AS i;
         CREATE TABLE target (id int PRIMARY KEY, v int);
         INSERT INTO target VALUES (1, -1), (2, -2);
         CREATE TABLE child () INHERITS (log);
         INSERT INTO log SELECT i, 'l' FROM generate_series(1, 100) AS i;
         CREATE TABLE gone (id int); INSERT INTO gone VALUES (1);
         ANALYZE"#,
    );
    let script = r#"
        UPDATE t AS x SET a = o.v FROM o WHERE o.id = x.id;
        UPDATE t SET b = upper(b) WHERE id IN (SELECT id FROM o WHERE v % 4 = 0);
        WITH big AS (SELECT id FROM o WHERE v > 1000) DELETE FROM t USING big WHERE t.id = big.id;
        UPDATE "Odd Näme" SET v = "k""2" * 10 WHERE "k 1" <> 'x3';
        INSERT INTO target SELECT id, v FROM o WHERE v > 0 ON CONFLICT (id) DO UPDATE SET v = target.v + excluded.v;
        INSERT INTO log VALUES (1, 'one'), (2, 'two');
        UPDATE log SET what = 'm' WHERE at > 50;
        MERGE INTO target USING o ON o.id = target.id WHEN MATCHED AND o.id = 3 THEN UPDATE SET v = 0;
        TRUNCATE gone;
        DELETE FROM ONLY public.t WHERE t.id = (SELECT max(id) FROM o) + 1"#;
    assert_eq!(
        plan(&mut session, script),
        [
            "batch|contract",
            "batch|contract",
            "batch|contract",
            "batch|contract",
            "batch|contract",
            "data|contract",
            "data|contract",
            "data|contract",
            "data|contract",
            "batch|contract"
        ]
    );
    let mut migration = Migration::start(&database, "m", script, "{}");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum(a), count(*) FILTER (WHERE b = upper(b)) FROM t"),
        // 1..500 doubled, 501..1000 deleted, the rest but 1001 as it was
        [format!("2499|{}|250", 250_500 + (1002..=3000).sum::<i64>())]
    );
    assert_eq!(
        session.lines(r#"SELECT count(*) FILTER (WHERE v = "k""2" * 10), count(*) FILTER (WHERE v = 0) FROM "Odd Näme""#),
        ["428|72"]
    );
    assert_eq!(
        session.lines("SELECT id, v FROM target WHERE id < 5 ORDER BY id"),
        ["1|1", "2|2", "3|0", "4|8"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM target"), ["1000"]);
    assert_eq!(
        session.lines("SELECT what, count(*) FROM log GROUP BY 1 ORDER BY 1"),
        ["l|50", "m|50", "one|1", "two|1"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM gone"), ["0"]);
    assert_nothing_left(&mut session);
}

#[test]
fn what_would_mean_something_else_in_parts_runs_as_it_stands() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, a int);
         INSERT INTO t SELECT i, i, i FROM generate_series(1, 3000) AS i;
         CREATE VIEW v AS SELECT id, a FROM t WHERE a > 10;
         CREATE TABLE keyless (a int);
         CREATE TABLE ruled (id int PRIMARY KEY, a int);
         CREATE RULE r AS ON UPDATE TO ruled DO ALSO INSERT INTO keyless VALUES (new.a)",
    );
    for (statement, how) in [
        ("UPDATE t SET a = 1", "batch"),
        ("UPDATE t SET u = u + 1", "data"),
        ("UPDATE t SET id = id + 1", "data"),
        ("UPDATE t SET a = 1 WHERE random() < 0.5", "data"),
        ("UPDATE t SET a = random() * 10", "batch"),
        ("DELETE FROM t WHERE a > (SELECT avg(a) FROM t)", "data"),
        ("DELETE FROM t WHERE id IN (SELECT id FROM v)", "data"),
        ("UPDATE v SET a = 1", "data"),
        ("DELETE FROM keyless", "data"),
        ("UPDATE ruled SET a = 1", "data"),
        ("INSERT INTO keyless SELECT max(a) FROM t", "data"),
        ("INSERT INTO keyless SELECT a FROM t LIMIT 5", "data"),
        ("INSERT INTO keyless SELECT DISTINCT a FROM t", "data"),
        (
            "INSERT INTO keyless SELECT a FROM t UNION ALL SELECT 1",
            "data",
        ),
        (
            "INSERT INTO keyless SELECT a FROM t WHERE a % 2 = 0",
            "batch",
        ),
        (
            "WITH d AS (DELETE FROM keyless RETURNING a) UPDATE t SET a = d.a FROM d",
            "data",
        ),
    ] {
        assert_eq!(
            plan(&mut session, statement),
            [format!("{how}|contract")],
            "{statement}"
        );
    }
    let script = "UPDATE t SET u = u + 1; DELETE FROM t WHERE a > (SELECT avg(a) FROM t); UPDATE v SET a = 1; UPDATE ruled SET a = 1";
    Migration::start(&database, "m", script, "{}").finish();
    assert_eq!(
        session.lines("SELECT count(*), min(u), max(u), sum(a) FROM t"),
        ["1500|2|1501|1545"]
    );
    // One transaction, if that is what the DBA wants.
    let mut migration = Migration::start(
        &database,
        "n",
        "UPDATE t SET a = 7",
        r#"{"data": "single"}"#,
    );
    migration.finish();
    assert_eq!(
        session.lines("SELECT kind FROM transmute.steps WHERE id = 'n'"),
        ["data"]
    );
    assert_eq!(
        session.lines("SELECT count(DISTINCT xmin::text), min(a), max(a) FROM t"),
        ["1|7|7"]
    );
}

#[test]
fn what_the_script_makes_is_filled_before_the_point_of_no_return_and_goes_with_it() {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 10000) AS i;
         ANALYZE t",
    );
    let before = fingerprint(&mut session, "t");
    let script = "ALTER TABLE t ADD COLUMN twice bigint;
        UPDATE t SET twice = a * 2;
        CREATE TABLE copy (id int PRIMARY KEY, a int, twice bigint);
        INSERT INTO copy SELECT id, a, twice FROM t;
        UPDATE t SET a = a + 1";
    assert_eq!(
        plan(&mut session, script),
        [
            "rule_make|expand",
            "execute|expand",
            "rule_fill|backfill",
            "rule_check|validate",
            "batch|validate",
            "rule_end|contract",
            "batch|contract"
        ]
    );
    let mut migration = Migration::start(
        &database,
        "m",
        script,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT count(*), bool_and(twice = a * 2), sum(a) FROM copy"),
        ["10000|t|50005000"]
    );
    migration.roll_back();
    // A column that was there for a time leaves its number behind, as DROP COLUMN does; nothing else.
    assert_eq!(
        session.lines("SELECT to_regclass('copy') IS NULL, count(*), sum(a) FROM t"),
        ["t|10000|50005000"]
    );
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_nothing_left(&mut session);

    // In the midst of a fill.
    let mut points = Waitpoints::of(&database);
    points.hold("batch_before_commit");
    migration.apply();
    points.wait_reached("batch_before_commit", PATIENCE);
    points.release("batch_before_commit");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_nothing_left(&mut session);

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), bool_and(twice = (a - 1) * 2), sum(a) FROM t"),
        ["10000|t|50015000"]
    );
}

#[test]
fn a_long_statement_can_be_paused_behind_the_point_of_no_return() {
    let database = Database::shared();
    slowly(&database);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0);
         INSERT INTO t SELECT i FROM generate_series(1, 20000) AS i",
    );
    let mut migration = Migration::start(&database, "m", "UPDATE t SET n = n + 1", "{}");
    migration.wait_for("state = 'FINISHING' AND rows_done > 500", "t");
    migration.call("pause", "'not now'");
    let done = migration.status("rows_done");
    migration.wait_for("waiting_for", "resume: paused, not now");
    assert_eq!(migration.status("rows_done"), done);
    assert_eq!(migration.status("rows_total"), "20000");
    assert_eq!(migration.status("progress > 0 AND progress < 1"), "true");
    assert_eq!(
        migration.refused("rollback", "'too late'").sqlstate,
        "55000"
    );
    migration.call("resume", "'go on'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT n, count(*) FROM t GROUP BY n"),
        ["1|20000"]
    );
    assert_eq!(migration.status("rows_done"), "20000");
}

#[test]
fn nothing_to_do_is_done_at_once() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, big text);
         CREATE TABLE one (id int PRIMARY KEY, n int DEFAULT 0);
         INSERT INTO one VALUES (-2147483648)",
    );
    let script = "UPDATE t SET n = 1; DELETE FROM t; INSERT INTO t SELECT * FROM one WHERE n > 0; UPDATE one SET n = n + 1 WHERE id > 0; UPDATE one SET n = n + 1";
    Migration::start(&database, "m", script, "{}").finish();
    assert_eq!(session.lines("SELECT * FROM one"), ["-2147483648|1"]);
    // Rows with holes of a million blocks' worth between them are only as many as they are; large values stay where they are.
    session.exec(
        "INSERT INTO t SELECT i, 0, string_agg(md5(j::text || i), '') FROM generate_series(1, 50) AS i, generate_series(1, 500) AS j GROUP BY i;
         INSERT INTO t SELECT i FROM generate_series(100, 40000) AS i;
         DELETE FROM t WHERE id BETWEEN 100 AND 39999",
    );
    Migration::start(&database, "n", "UPDATE t SET n = length(big)", "{}").finish();
    assert_eq!(
        session.lines("SELECT n, count(*), min(length(big)) FROM t GROUP BY n ORDER BY n"),
        ["16000|50|16000", "∅|1|∅"]
    );
}

#[test]
fn bad_statements_are_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         CREATE ROLE data_stranger;
         GRANT USAGE ON SCHEMA transmute TO data_stranger;
         GRANT EXECUTE ON FUNCTION transmute.register(text, text, text, jsonb) TO data_stranger",
    );
    for (statement, sqlstate) in [
        ("UPDATE nowhere SET a = 1", "42P01"),
        ("UPDATE t SET nothing = 1", "42703"),
        ("UPDATE t SET a = 'x'", "22P02"),
        ("UPDATE t SET a = now()", "42804"),
        ("DELETE FROM t WHERE a = (SELECT 1", "42601"),
        ("INSERT INTO t SELECT * FROM t, t", "42712"),
        ("DELETE FROM pg_class", "42809"),
        ("TRUNCATE t CASCADE", "0A000"),
        ("COPY t FROM STDIN", "0A000"),
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", "0A000"),
    ] {
        let error = session.error(&format!(
            "SELECT transmute.register('m', $x${statement}$x$)"
        ));
        assert_eq!(error.sqlstate, sqlstate, "{statement}: {error:?}");
        assert!(error.detail.is_some() && error.hint.is_some(), "{error:?}");
    }
    for (statement, sqlstate) in [
        ("UPDATE t SET a = 1", "42501"),
        ("TRUNCATE t", "42501"),
        ("DELETE FROM t", "42501"),
    ] {
        let error = session.as_role("data_stranger", |session| {
            session.error(&format!(
                "SELECT transmute.register('m', $x${statement}$x$)"
            ))
        });
        assert_eq!(error.sqlstate, sqlstate, "{statement}: {error:?}");
    }
    let error = session.error(
        "SELECT transmute.register('m', 'UPDATE t SET a = 1', meta => '{\"data\": \"often\"}')",
    );
    assert_eq!(error.sqlstate, "22023");
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["0"]
    );
}
