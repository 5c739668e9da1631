//! A column under its old and its new name at once: both applications do everything they did, and both see one value.

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load;
use crate::migration::{assert_sound, fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn clients(session: &mut Session, seed: u64) -> Workload {
    let version: i32 = session.scalar("SELECT current_setting('server_version_num')::int / 10000");
    let load = Workload::on("t").seed(seed).seeing_more_columns(1);
    // MERGE into a view came with 17: docs/operations.md says so.
    match version < 17 {
        true => load.without_merge(),
        false => load,
    }
}

/// Rows that differ between the names, as everybody sees them.
fn differences(session: &mut Session) -> String {
    session
        .lines("SELECT count(*) FROM t WHERE a IS DISTINCT FROM renamed")
        .remove(0)
}

#[test]
fn old_and_new_clients_write_the_same_column_through_every_transition() {
    let database = Database::shared();
    let mut session = load::hot_table(&database, &Workload::on("t").seed(3));
    session.exec("CREATE VIEW on_it AS SELECT id, a FROM t; CREATE POLICY p ON t USING (a > 0); GRANT SELECT (a), UPDATE (a) ON t TO PUBLIC; COMMENT ON COLUMN t.a IS 'an a'");
    // The mirror is told the value whatever the column is called.
    let mirror: String = session.scalar("SELECT pg_get_functiondef('mirror'::regproc)");
    session.exec(&mirror.replace(
        "to_jsonb(NEW)",
        "(SELECT to_jsonb(NEW) || jsonb_build_object('a', coalesce(to_jsonb(NEW) -> 'a', to_jsonb(NEW) -> 'renamed')))",
    ));
    let before = fingerprint(&mut session, "t");
    let old_clients = clients(&mut session, 4).start(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t RENAME COLUMN a TO renamed",
        SOAK,
    );
    for round in 0..2 {
        migration.wait("AWAITING_FINALIZATION");
        let new_clients = clients(&mut session, 5 + round)
            .calling_a("renamed")
            .start(&database);
        for _ in 0..5 {
            new_clients.wait_for_more(60, PATIENCE);
            old_clients.wait_for_more(60, PATIENCE);
            assert_eq!(differences(&mut session), "0");
        }
        new_clients.stop().assert_no_failures();
        migration.roll_back();
        assert_eq!(fingerprint(&mut session, "t"), before);
        old_clients.wait_for_more(60, PATIENCE);
        migration.apply();
    }
    migration.wait("AWAITING_FINALIZATION");
    old_clients.stop().assert_no_failures();
    let new_clients = clients(&mut session, 8)
        .calling_a("renamed")
        .start(&database);
    new_clients.wait_for_more(100, PATIENCE);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    new_clients.wait_for_more(100, PATIENCE);
    new_clients.stop().assert_no_failures();
    assert_eq!(session.error("SELECT a FROM t").sqlstate, "42703");
    assert_sound(&mut session, "t");

    // The catalog is that of the plain rename.
    let after = fingerprint(&mut session, "t");
    session.exec("ALTER TABLE t RENAME COLUMN renamed TO a");
    load::assert_equals_mirror(&mut session);
    assert_eq!(fingerprint(&mut session, "t"), before);
    session.exec("ALTER TABLE t RENAME COLUMN a TO renamed");
    assert_eq!(fingerprint(&mut session, "t"), after);
}

#[test]
fn both_names_are_one_value_in_every_statement() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int UNIQUE DEFAULT 7, c text NOT NULL DEFAULT 'c',
           g int GENERATED ALWAYS AS (a * 2) STORED);
         CREATE FUNCTION even() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := NEW.a - NEW.a % 2; RETURN NEW; END $$;
         CREATE TRIGGER even BEFORE INSERT OR UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION even()",
    );
    let mut migration =
        Migration::start(&database, "m", "ALTER TABLE t RENAME COLUMN a TO n", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("PREPARE by_old AS UPDATE t SET a = $2 WHERE id = $1; PREPARE by_new AS UPDATE t SET n = $2 WHERE id = $1");
    for (sql, row) in [
        ("INSERT INTO t (a) VALUES (11) RETURNING a, n, g", "10|10|20"),
        ("INSERT INTO t (n) VALUES (13) RETURNING a, n, g", "12|12|24"),
        ("INSERT INTO t DEFAULT VALUES RETURNING a, n", "6|6"),
        ("INSERT INTO t (n) VALUES (NULL) RETURNING coalesce(n, -1), coalesce(a, -1)", "-1|-1"),
        ("INSERT INTO t VALUES (DEFAULT, 21, 'x') RETURNING id, n", "5|20"),
        ("INSERT INTO t (n) VALUES (20) ON CONFLICT (n) DO UPDATE SET c = 'met', n = EXCLUDED.n + 11 RETURNING a, c", "30|met"),
        ("INSERT INTO t (a) VALUES (30) ON CONFLICT (a) DO UPDATE SET a = EXCLUDED.n + 11 RETURNING n", "40"),
        ("UPDATE t SET n = n + 3 WHERE a = 40 RETURNING n", "42"),
        ("DELETE FROM t WHERE n = 42 RETURNING a", "42"),
        ("SELECT n FROM t WHERE a = 12 FOR UPDATE", "12"),
    ] {
        assert_eq!(session.lines(sql), [row], "{sql}");
    }
    session.exec("EXECUTE by_old(1, 101); EXECUTE by_new(2, 103)");
    assert_eq!(
        session.lines("SELECT n FROM t WHERE id < 3 ORDER BY id"),
        ["100", "102"]
    );
    let error = session.error("UPDATE t SET a = 1, n = 2");
    assert_eq!(
        error.sqlstate, "42601",
        "nobody knows which one is meant: {error}"
    );
    for (name, value) in [("a", "200"), ("n", "300")] {
        let mut writer = session
            .client()
            .copy_in(&format!("COPY t ({name}, c) FROM STDIN"))
            .expect("COPY");
        std::io::Write::write_all(&mut writer, format!("{value}\tcopied\n").as_bytes())
            .expect("a row");
        assert_eq!(writer.finish().expect("the end of COPY"), 1);
    }
    assert_eq!(
        session.lines("SELECT a, n FROM t WHERE c = 'copied' ORDER BY a"),
        ["200|200", "300|300"]
    );
    session.exec("EXPLAIN SELECT 1");
    session.exec("SET enable_seqscan = off");
    let plan = session.lines("EXPLAIN SELECT * FROM t WHERE n = 200");
    assert!(
        plan[0].contains("Index Scan"),
        "the index serves both names: {plan:?}"
    );
    session.exec("TRUNCATE t");
    // The server does not know what a PL/pgSQL function means by a name: as with the plain rename, it is told.
    session.exec("CREATE OR REPLACE FUNCTION even() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$");
    // What was prepared before the end goes on after it, by the name that is left.
    session.exec("INSERT INTO t (n) VALUES (1)");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    let id: i32 = session.scalar("SELECT id FROM t");
    session.exec(&format!("EXECUTE by_new({id}, 55)"));
    assert_eq!(session.lines("SELECT n, g FROM t"), ["55|110"]);
}

#[test]
fn several_columns_of_a_table_keep_both_names_until_one_moment() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, \"Old A\" int, b int); INSERT INTO t VALUES (1, 2, 3)",
    );
    let before = fingerprint(&mut session, "t");
    let ddl = "ALTER TABLE t RENAME \"Old A\" TO a; ALTER TABLE t RENAME b TO \"New B\"";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(session.lines("SELECT * FROM t"), ["1|2|3|2|3"]);
    session.exec("UPDATE t SET a = 20; UPDATE t SET \"New B\" = 30");
    assert_eq!(session.lines("SELECT \"Old A\", b FROM t"), ["20|30"]);
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    session.exec("CREATE FUNCTION watch() RETURNS text LANGUAGE plpgsql AS $$ DECLARE n int := 0; BEGIN LOOP
        PERFORM a + \"New B\" FROM t; n := n + 1; EXIT WHEN n > 500; PERFORM pg_sleep(0.002); END LOOP; RETURN 'never missed'; END $$");
    let watcher = database.connect().in_background("SELECT watch()");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    let (_, result) = watcher.join();
    result.expect("the new names are there all the time");
    assert_eq!(session.lines("SELECT * FROM t"), ["1|20|30"]);
    assert_eq!(session.lines("SELECT a, \"New B\" FROM t"), ["20|30"]);
}

#[test]
fn rights_on_the_column_hold_for_both_names() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE ROLE rc_a; CREATE ROLE rc_none;
         CREATE TABLE t (id int, a int, secret int); INSERT INTO t VALUES (1, 2, 3);
         GRANT SELECT (id, a), UPDATE (a) ON t TO rc_a",
    );
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t RENAME a TO n", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    for (role, sql, allowed) in [
        ("rc_a", "SELECT a FROM t", true),
        ("rc_a", "SELECT n FROM t", true),
        ("rc_a", "UPDATE t SET n = 4 WHERE a = 2", true),
        ("rc_a", "UPDATE t SET id = 4", false),
        ("rc_a", "SELECT secret FROM t", false),
        ("rc_none", "SELECT n FROM t", false),
        ("rc_none", "SELECT a FROM t", false),
    ] {
        session.exec(&format!("SET ROLE {role}"));
        let result = session.try_exec(sql);
        session.exec("RESET ROLE");
        let expected = if allowed {
            Ok(())
        } else {
            Err("42501".to_string())
        };
        assert_eq!(result.map_err(|e| e.sqlstate), expected, "{role}: {sql}");
    }
    migration.roll_back();
    session.exec("DROP TABLE t; DROP ROLE rc_a; DROP ROLE rc_none");
}

#[test]
fn what_somebody_builds_on_both_names_is_not_dropped() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (a int)");
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t RENAME a TO n", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("CREATE VIEW mine AS SELECT a, n FROM t");
    migration.call("skip_soak", "'enough'");
    migration.wait_for(
        "last_error",
        "other objects were built on a table while a column of it has two names",
    );
    session.exec("DROP VIEW mine");
    migration.call("resume", "'dropped'");
    migration.finish();
    assert_eq!(session.lines("SELECT count(n) FROM t"), ["0"]);
}

#[test]
fn what_the_plain_rename_refuses_is_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (a int, b int); CREATE VIEW v AS SELECT a FROM t; CREATE TABLE sent (a int); CREATE PUBLICATION p FOR TABLE sent",
    );
    for (ddl, sqlstate) in [
        ("ALTER TABLE t RENAME a TO b", "42701"),
        ("ALTER TABLE t RENAME nothing TO c", "42703"),
        ("ALTER TABLE t RENAME a TO ctid", "42701"),
        ("ALTER TABLE nowhere RENAME a TO b", "42P01"),
        ("ALTER TABLE v RENAME a TO b", "42809"),
        ("ALTER TABLE sent RENAME a TO b", "0A000"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', '{ddl}')"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
    }
    assert!(session.lines("SELECT * FROM transmute.status").is_empty());
    let mut plain = Migration::start(
        &database,
        "m",
        "ALTER TABLE sent RENAME a TO b",
        r#"{"rename": "in_place"}"#,
    );
    plain.finish();
    assert_eq!(session.lines("SELECT count(b) FROM sent"), ["0"]);
}

#[test]
fn another_migration_of_a_table_with_two_names_waits_for_the_end() {
    let database = Database::shared();
    let mut session = database.connect();
    session
        .exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t VALUES (1, 2, 3)");
    let mut other = Migration::register(
        &database,
        "other",
        "ALTER TABLE t ALTER COLUMN b TYPE bigint",
        "{}",
    );
    let mut plain = Migration::register(
        &database,
        "plain",
        "ALTER TABLE t ADD COLUMN c int DEFAULT 4",
        "{}",
    );
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t RENAME a TO n", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    let error =
        session.error("SELECT transmute.register('third', 'ALTER TABLE t ADD COLUMN d int')");
    assert_eq!(error.sqlstate, "55006", "{error}");
    for waiting in [&mut other, &mut plain] {
        waiting.apply();
        waiting.wait_for(
            "waiting_for",
            "migration \"m\", which is under way and touches public.t too",
        );
    }
    migration.call("skip_soak", "'enough'");
    migration.finish();
    other.finish();
    plain.finish();
    assert_eq!(
        session.lines("SELECT id, n, b, pg_typeof(b), c FROM t"),
        ["1|2|3|bigint|4"]
    );
}

#[test]
fn a_partitioned_table_is_renamed_whole_and_later_statements_know_the_new_name() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t_2 PARTITION OF t DEFAULT;
         INSERT INTO t VALUES (1, 1), (11, 11)",
    );
    let before = fingerprint(&mut session, "t");
    let error = session.error("SELECT transmute.register('m', 'ALTER TABLE t_1 RENAME a TO n')");
    assert_eq!(error.sqlstate, "0A000", "{error}");
    let ddl = "ALTER TABLE t RENAME a TO n; COMMENT ON COLUMN t.n IS 'renamed'; ALTER TABLE t ADD CHECK (n > 0)";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec(
        "UPDATE t SET id = id + 10, n = n + 10 WHERE a = 1; INSERT INTO t (id, a) VALUES (2, 2)",
    );
    assert_eq!(session.lines("SELECT n FROM t ORDER BY n").len(), 3);
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(session.lines("SELECT n FROM t_1 ORDER BY 1"), ["2"]);
    assert_eq!(
        session.lines("SELECT convalidated FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"),
        ["t"]
    );
}
