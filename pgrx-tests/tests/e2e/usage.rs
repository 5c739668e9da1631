//! Who still uses the old shape while a migration soaks.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session};

use crate::migration::Migration;

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, gone int, note text);
         INSERT INTO t SELECT i, i, i, 'x' FROM generate_series(1, 100) AS i;
         CREATE TABLE old (id int PRIMARY KEY, a int); INSERT INTO old VALUES (1, 1)",
    );
    session
}

/// A session of an application.
fn application(database: &Database<'_>, name: &str) -> Session {
    let mut session = database.connect();
    session.exec(&format!("SET application_name = '{name}'"));
    session
}

/// The soak has begun, and every session knows what is watched with its next statement.
fn soaking(database: &Database<'_>, ddl: &str, meta: &str) -> Migration {
    let mut migration = Migration::start(database, "m", ddl, meta);
    migration.wait_in("AWAITING_FINALIZATION");
    migration.wait_for("waiting_for IS NOT NULL", "t");
    migration
}

#[track_caller]
fn used(session: &mut Session, expected: &[&str]) {
    let sql = "SELECT coalesce(string_agg(concat_ws('|', object, application_name, reads, writes), ' ' ORDER BY object, application_name), '')
      FROM transmute.usage WHERE role_name IS NOT NULL";
    session.wait_for(sql, &expected.join(" "), PATIENCE);
}

/// Counts of one session come a second apart: these are not to be waited for.
fn each_from_a_session_of_its_own(database: &Database<'_>, name: &str, statements: &[&str]) {
    for sql in statements {
        application(database, name).exec(sql);
    }
}

#[test]
fn of_a_column_with_two_names_the_old_one_is_counted_and_the_new_one_is_not() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = soaking(&database, "ALTER TABLE t RENAME COLUMN a TO b", SOAK);
    used(&mut session, &[]);
    each_from_a_session_of_its_own(
        &database,
        "new",
        &[
            "SELECT b FROM t",
            "UPDATE t SET b = 7 WHERE id = 1",
            "INSERT INTO t (id, b) VALUES (1000, 1)",
            "SELECT count(*) FROM t",
            "DELETE FROM t WHERE id = 1000",
        ],
    );
    each_from_a_session_of_its_own(
        &database,
        "old",
        &[
            "SELECT a FROM t",
            "SELECT t FROM t",
            "SELECT id FROM t WHERE a > 5",
            "UPDATE t SET a = 7 WHERE id = 1",
            "INSERT INTO t (id, a) VALUES (1001, 1)",
            "PREPARE p AS SELECT a FROM t; EXECUTE p; EXECUTE p",
            "BEGIN READ ONLY; SELECT a FROM t; COMMIT",
            "EXPLAIN SELECT a FROM t",
        ],
    );
    used(&mut session, &["public.t.a|old|6|2"]);
    assert_eq!(
        migration.status("old_shape_used_at > now() - interval '1 minute' AND old_shape_users = ARRAY['postgres (old)']"),
        "true"
    );
    // What is refused uses nothing.
    session.exec("DROP ROLE IF EXISTS usage_ann; CREATE ROLE usage_ann LOGIN");
    let error = database.connect_as("usage_ann").error("SELECT a FROM t");
    assert_eq!(error.sqlstate, "42501");
    session.exec("DROP ROLE usage_ann");
    used(&mut session, &["public.t.a|old|6|2"]);
    migration.roll_back();
}

#[test]
fn an_old_name_of_a_table_and_what_will_be_dropped_are_counted() {
    let database = Database::shared();
    let mut session = table(&database);
    let ddl = "ALTER TABLE old RENAME TO fresh; ALTER TABLE t DROP COLUMN gone";
    let mut migration = soaking(&database, ddl, SOAK);
    each_from_a_session_of_its_own(
        &database,
        "app",
        &[
            "SELECT * FROM fresh",
            "SELECT id, a, note FROM t",
            "SELECT id FROM old",
            "INSERT INTO old VALUES (2, 2)",
            "COPY (SELECT gone FROM t) TO '/dev/null'",
            "UPDATE t SET gone = 1 WHERE id = 1",
            "COPY old (id) TO '/dev/null'",
            "COPY t (id, note) TO '/dev/null'",
            "COPY t TO '/dev/null'",
            "BEGIN; TRUNCATE old; ROLLBACK",
            "DO $$ BEGIN PERFORM gone FROM t LIMIT 1; END $$",
        ],
    );
    used(
        &mut session,
        &["public.old|app|2|2", "public.t.gone|app|3|1"],
    );
    migration.call("skip_soak", "'enough'");
    migration.finish();
    // After the end nothing is counted, and what was stays.
    application(&database, "app").exec("SELECT * FROM t");
    used(
        &mut session,
        &["public.old|app|2|2", "public.t.gone|app|3|1"],
    );
}

#[test]
fn of_a_column_that_changes_its_type_every_use_is_counted_and_of_an_older_version_its_view() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = soaking(
        &database,
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint",
        r#"{"soak_until_unused": "1 s"}"#,
    );
    let mut app = application(&database, "app");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        app.exec("UPDATE t SET a = 1 WHERE note = 'none'; SELECT note FROM t LIMIT 1");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");
    }
    drop(app);
    migration.finish();
    assert_eq!(
        session.lines("SELECT object, application_name, reads, writes > 5 FROM transmute.usage"),
        ["public.t.a|app|0|t", "public.t.id|∅|∅|∅"]
    );

    let mut migration = Migration::start(
        &database,
        "versions",
        "ALTER TABLE t ALTER COLUMN a TYPE int",
        r#"{"pre_finalization_soak": "1 hour", "versioned_views_before": "v1", "versioned_views": "v2"}"#,
    );
    migration.wait_in("AWAITING_FINALIZATION");
    migration.wait_for("waiting_for IS NOT NULL", "t");
    each_from_a_session_of_its_own(
        &database,
        "app",
        &[
            "SELECT a FROM v1.t",
            "SELECT a FROM v2.t",
            "UPDATE v2.t SET a = 5 WHERE id = 5",
            "UPDATE v1.t SET a = 6 WHERE id = 5",
        ],
    );
    session.wait_for(
        "SELECT object, reads, writes FROM transmute.usage WHERE id = 'versions'",
        "v1.t|1|1",
        PATIENCE,
    );
}

#[test]
fn without_preloading_the_triggers_of_the_migration_tell_who_writes() {
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = table(&database);
    for (id, ddl, old, new) in [
        (
            "type",
            "ALTER TABLE t ALTER COLUMN a TYPE bigint",
            "UPDATE t SET a = a + 1 WHERE id = 1",
            "SELECT a FROM t WHERE id = 1",
        ),
        (
            "rule",
            "ALTER TABLE t ADD COLUMN said text; UPDATE t SET said = upper(note); ALTER TABLE t DROP COLUMN note",
            "UPDATE t SET note = note || 'y' WHERE id = 1",
            "UPDATE t SET said = 'Z' WHERE id = 2",
        ),
    ] {
        session.exec(&format!(
            r#"SELECT transmute.register('{id}', '{ddl}', meta => '{{"soak_until_unused": "2 s", "reverse": {{"note": "lower(said)"}}}}'::jsonb - CASE '{id}' WHEN 'type' THEN 'reverse' ELSE '' END)"#
        ));
        session.exec(&format!(
            "SELECT transmute.apply('{id}', confirm => current_database())"
        ));
        let driver = database
            .connect()
            .in_background(&format!("CALL transmute.run('{id}')"));
        let status = format!("SELECT state FROM transmute.status WHERE id = '{id}'");
        session.wait_for(&status, "AWAITING_FINALIZATION", PATIENCE);
        let (mut app, mut other) = (
            application(&database, "writer"),
            application(&database, "other"),
        );
        // What was undone was not told.
        app.batch(&["BEGIN", old, "ROLLBACK", old]);
        session.wait_for(
            &format!("SELECT sum(writes) FROM transmute.usage WHERE id = '{id}'"),
            "1",
            PATIENCE,
        );
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(3_500) {
            app.exec(old);
            other.exec(new);
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(session.lines(&status), ["AWAITING_FINALIZATION"]);
        }
        let waiting: String = session.scalar(&format!(
            "SELECT waiting_for FROM transmute.status WHERE id = '{id}'"
        ));
        assert!(
            waiting.contains("application \"writer\"") && waiting.contains("reads are not seen"),
            "{waiting}"
        );
        let (_, result) = driver.join();
        result.expect("a run to its end");
        assert_eq!(session.lines(&status), ["FINISHED"]);
        assert_eq!(
            session.lines(&format!(
                "SELECT application_name, reads, writes BETWEEN 2 AND 8 FROM transmute.usage WHERE id = '{id}'"
            )),
            ["writer|0|t"]
        );
    }
}

#[test]
fn the_soak_lasts_until_the_old_shape_has_been_unused_for_so_long() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = soaking(
        &database,
        "ALTER TABLE t RENAME COLUMN a TO b",
        r#"{"soak_until_unused": "3 s"}"#,
    );
    let mut app = application(&database, "night batch");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        app.exec("SELECT a FROM t WHERE id = 1");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");
    }
    assert_eq!(
        migration.status("waiting_for"),
        r#"the old shape to be unused for 00:00:03; last used by role "postgres", application "night batch", of public.t.a; skip_soak ends it now"#
    );
    let last: String = session.scalar("SELECT max(last_used)::text FROM transmute.usage");
    migration.finish();
    let waited: bool = session.scalar(&format!(
        "SELECT at - '{last}' BETWEEN interval '2 s' AND interval '30 s' FROM transmute.history WHERE to_state = 'FINISHING'"
    ));
    assert!(waited);
}

#[test]
fn skip_soak_ends_that_wait_too() {
    let database = Database::shared();
    table(&database);
    let meta = r#"{"soak_until_unused": "1 day"}"#;
    let mut migration = soaking(&database, "ALTER TABLE t RENAME COLUMN a TO b", meta);
    assert_eq!(
        migration.status("waiting_for"),
        "the old shape to be unused for 1 day; not used since the soak began; skip_soak ends it now"
    );
    migration.call("skip_soak", "'nobody is left'");
    migration.finish();
}

#[test]
fn uses_while_a_person_is_waited_for_hold_up_the_soak_behind_that_too() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("CREATE TABLE allowed (ok boolean); INSERT INTO allowed VALUES (true)");
    let meta = r#"{"soak_until_unused": "5 s", "invariants": [
      {"name": "allowed", "phase": "PRE_FINALIZATION", "sql": "SELECT ok FROM allowed"}]}"#;
    let mut migration = soaking(&database, "ALTER TABLE t RENAME COLUMN a TO b", meta);
    application(&database, "early").exec("SELECT a FROM t");
    used(&mut session, &["public.t.a|early|1|0"]);
    session.exec("UPDATE allowed SET ok = false");
    migration.wait_in("AWAITING_ACTION");
    application(&database, "late").exec("SELECT a FROM t");
    used(
        &mut session,
        &["public.t.a|early|1|0", "public.t.a|late|1|0"],
    );
    session.exec("UPDATE allowed SET ok = true");
    migration.call("resume", "'allowed again'");
    migration.finish();
    // What had been counted before is known still, and the time runs from the last use.
    used(
        &mut session,
        &["public.t.a|early|1|0", "public.t.a|late|1|0"],
    );
    let waited: bool = session.scalar(
        "SELECT at >= (SELECT max(last_used) FROM transmute.usage) + interval '5 s' FROM transmute.history WHERE to_state = 'FINISHING'",
    );
    assert!(waited);
}

#[test]
fn uses_survive_a_crash_and_what_is_watched_does_too() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = table(&database);
    drop(soaking(
        &database,
        "ALTER TABLE t RENAME COLUMN a TO b",
        SOAK,
    ));
    each_from_a_session_of_its_own(&database, "before", &["SELECT a FROM t"]);
    used(&mut session, &["public.t.a|before|1|0"]);
    drop(session);
    cluster.kill9();
    cluster.start();
    let mut session = database.connect();
    session.wait_for(
        "SELECT count(*) FROM transmute.nodes WHERE role = 'conductor'",
        "1",
        PATIENCE,
    );
    session.wait_for(
        "SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'transmute conductor'",
        "t",
        PATIENCE,
    );
    each_from_a_session_of_its_own(&database, "after", &["UPDATE t SET a = 1 WHERE id = 1"]);
    used(
        &mut session,
        &["public.t.a|after|0|1", "public.t.a|before|1|0"],
    );
    let mut migration = Migration::attach(&database, "m");
    migration.call("skip_soak", "'enough'");
    migration.finish();
}

#[test]
fn more_applications_than_there_is_room_for_lose_nothing() {
    let database = Database::shared();
    let mut session = table(&database);
    soaking(&database, "ALTER TABLE t RENAME COLUMN a TO b", SOAK);
    let mut app = database.connect();
    for i in 0..700 {
        app.exec(&format!(
            "SET application_name = 'a{i}'; SELECT a FROM t WHERE id = 1"
        ));
    }
    drop(app);
    session.wait_for("SELECT sum(reads) FROM transmute.usage", "700", PATIENCE);
}

#[test]
fn a_soak_that_nobody_could_see_the_end_of_is_refused() {
    let database = Database::shared();
    let mut session = table(&database);
    for (ddl, meta, sqlstate, detail) in [
        (
            "ALTER TABLE t ADD COLUMN b bigint",
            r#"{"soak_until_unused": "1 day"}"#,
            "0A000",
            "meta.soak_until_unused is given, but the script takes nothing away from the old application",
        ),
        (
            "ALTER TABLE t RENAME COLUMN a TO b",
            r#"{"soak_until_unused": "-1 day"}"#,
            "22023",
            "meta.soak_until_unused is -1 day.",
        ),
        (
            "ALTER TABLE t RENAME COLUMN a TO b",
            r#"{"soak_until_unused": "soon"}"#,
            "22023",
            "meta.soak_until_unused is \"soon\"",
        ),
        (
            "ALTER TABLE t RENAME COLUMN a TO b",
            r#"{"soak_until_unused": 5}"#,
            "22023",
            "meta.soak_until_unused: a number",
        ),
    ] {
        let sql = format!("SELECT transmute.register('new', '{ddl}', meta => '{meta}')");
        let error = crate::surface::refusal(&mut session, &sql);
        let said = error.detail.clone().unwrap_or_default();
        assert_eq!(error.sqlstate, sqlstate, "{error}");
        assert!(said.starts_with(detail), "{error}");
    }
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = table(&database);
    let error = crate::surface::refusal(
        &mut session,
        r#"SELECT transmute.register('new', 'ALTER TABLE t RENAME COLUMN a TO b', meta => '{"soak_until_unused": "1 day"}')"#,
    );
    assert_eq!(error.sqlstate, "0A000", "{error}");
}
