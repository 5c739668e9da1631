//! Reasons where they are true, and only there; places of errors; who is in the way, and who is ended.

use std::time::Duration;

use transmute_tests::{Database, Session};

use crate::migration::Migration;

/// Reasons of the plain statement, of all statements of the script.
fn reasons(session: &mut Session, ddl: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT DISTINCT unnest(plain_reasons) FROM transmute.explain($q${ddl}$q$) ORDER BY 1"
    ))
}

#[track_caller]
fn has(session: &mut Session, ddl: &str, reason: &str, wanted: bool) {
    let reasons = reasons(session, ddl);
    assert_eq!(
        reasons.iter().any(|r| r == reason),
        wanted,
        "{ddl}: {reasons:?}"
    );
}

#[test]
fn reasons_follow_size_traffic_and_shape() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, c varchar(20)); CREATE TABLE bare (a int);
         INSERT INTO t SELECT i, i, i FROM generate_series(1, 100) i; ANALYZE t; CREATE ROLE risk_role",
    );
    session.exec("SELECT pg_stat_force_next_flush()");
    session.exec("SELECT pg_stat_reset_single_table_counters('t'::regclass)");
    let alter = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
    for (ddl, reason) in [
        (alter, "LOCK_ACCESS_EXCLUSIVE"),
        (alter, "TABLE_REWRITE"),
        (alter, "DISK_SPACE"),
        (
            "ALTER TABLE t ALTER COLUMN c TYPE varchar(10)",
            "NARROWING_CAST",
        ),
        (
            "ALTER TABLE t ADD COLUMN u uuid DEFAULT gen_random_uuid()",
            "VOLATILE_DEFAULT",
        ),
        ("GRANT SELECT ON t TO risk_role", "PRIVILEGE_CHANGE"),
        ("CREATE POLICY p ON t USING (true)", "PRIVILEGE_CHANGE"),
        ("ALTER TABLE t DROP COLUMN a", "DATA_LOSS"),
        ("ALTER TABLE t DROP COLUMN a", "BREAKS_OLD_CLIENTS"),
        ("CREATE INDEX ON t (a)", "LOCK_SHARE"),
    ] {
        has(&mut session, ddl, reason, true);
    }
    for (ddl, reason) in [
        (alter, "LARGE_TABLE"),
        (alter, "LONG_TRANSACTION"),
        (alter, "HOT_TABLE"),
        (alter, "REPLICATION_IMPACT"),
        (alter, "NARROWING_CAST"),
        (
            "ALTER TABLE t ADD COLUMN n int DEFAULT 5",
            "VOLATILE_DEFAULT",
        ),
        ("ALTER TABLE t ADD COLUMN n int DEFAULT 5", "TABLE_REWRITE"),
        (
            "ALTER TABLE t ALTER COLUMN c TYPE varchar(30)",
            "TABLE_REWRITE",
        ),
        ("COMMENT ON TABLE t IS 'x'", "LOCK_ACCESS_EXCLUSIVE"),
    ] {
        has(&mut session, ddl, reason, false);
    }
    // The same statements on a table that is published, large and hot.
    session.exec("CREATE PUBLICATION p FOR TABLE t");
    has(&mut session, alter, "REPLICATION_IMPACT", true);
    session.exec("UPDATE pg_class SET reltuples = 50000000 WHERE oid = 't'::regclass");
    has(&mut session, alter, "LARGE_TABLE", true);
    has(&mut session, alter, "LONG_TRANSACTION", true);
    session.exec("INSERT INTO t SELECT i, i, i FROM generate_series(101, 200000) i");
    session.exec("SELECT pg_stat_force_next_flush()");
    session.wait_for(
        "SELECT n_tup_ins > 100000 FROM pg_stat_user_tables WHERE relid = 't'::regclass",
        "t",
        Duration::from_secs(20),
    );
    has(&mut session, alter, "HOT_TABLE", true);
    // Asked twice, answered the same.
    let all = format!("SELECT risk_score, reasons, plain_risk_score, plain_reasons FROM transmute.explain('{alter}')");
    assert_eq!(session.lines(&all), session.lines(&all));
    session.exec("DROP ROLE risk_role");
}

#[test]
fn what_this_server_measured_decides_the_estimate() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 20000) i; ANALYZE t");
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    migration.finish();
    let rate: f64 =
        session.scalar("SELECT rows / seconds FROM _transmute.rates WHERE kind = 'rewrite_copy'");
    let estimate: f64 = session.scalar(
        "SELECT estimated_seconds FROM transmute.explain('ALTER TABLE t ALTER COLUMN a TYPE int') WHERE kind = 'rewrite_copy'",
    );
    assert!(
        (estimate * rate / 20000.0 - 1.0).abs() < 0.1,
        "{estimate} s at {rate} rows/s"
    );
}

/// DETAIL of the error of a script.
fn place(session: &mut Session, script: &str) -> String {
    let error = session.error(&format!("SELECT * FROM transmute.explain(E'{script}')"));
    assert!(error.hint.is_some(), "{error}");
    error.detail.unwrap_or_default()
}

#[test]
fn errors_name_line_and_column_of_the_script() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a text)");
    for (script, wanted) in [
        ("SELEC 1", "In line 1, column 1 of the script."),
        ("COMMENT ON TABLE t IS NULL;\\n\\n  ALTER TABL t", "In line 3, column 9 of the script."),
        // Characters, not bytes; carriage returns end no line.
        ("/* äöü – */ COMMENT ON TABLE t IS \\'é\\';\\r\\n-- ß\\r\\n  ALTER TABL t", "In line 3, column 9 of the script."),
        ("COMMENT ON TABLE t IS NULL;\\n/* ß */ ALTER TABLE t\\n  ALTER COLUMN a TYPE bigintt", "In line 3, column 23 of the script."),
        ("-- äöü\\nALTER TABLE t ALTER COLUMN a TYPE int USING legth(a)", "In line 2, column 45 of the script."),
        ("COMMENT ON TABLE t IS NULL;\\nALTER TABLE t ALTER COLUMN nothing TYPE int", "In the statement that begins in line 2, column 1 of the script."),
        ("COMMENT ON TABLE t IS NULL;\\n ALTER TABLE nothing ADD COLUMN n int",
            "There is no table nothing; search_path is \"$user\", public. In the statement that begins in line 2, column 2 of the script."),
        ("COMMENT ON TABLE t IS NULL;\\n   COMMIT", "COMMIT stands in line 2, column 4."),
        ("BEGIN;", "BEGIN stands in line 1, column 1."),
        ("CREATE TABLE x (a text DEFAULT $x$\\n;\\n$x$);\\nSELEC", "In line 4, column 1 of the script."),
    ] {
        let said = place(&mut session, script);
        // 15 gives no position for a type in ALTER COLUMN.
        let without_position = script.contains("bigintt") && said.starts_with("In the statement that begins in line 2, column 9");
        assert!(said == wanted || without_position, "{script}: {said}");
    }
}

#[test]
fn who_is_in_the_way_is_named_and_not_ended_unasked() {
    let database = Database::shared();
    let mut session = crate::privileges::world(&database, &["report_role"]);
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); GRANT SELECT ON t TO report_role");
    let mut idle = database.connect_as("report_role");
    idle.exec("SET application_name = 'the report'");
    idle.exec("BEGIN");
    idle.exec("SELECT count(*) FROM t");
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t ADD COLUMN n int", "{}");
    migration.wait_for(
        "waiting_for ~ 'Held by pid [0-9]+ \\(the report\\), idle in transaction, for [2-9] s: SELECT count\\(\\*\\) FROM t'",
        "t",
    );
    assert_eq!(idle.lines("SELECT 1"), ["1"]);
    idle.exec("COMMIT");
    migration.finish();
}

/// Its query is nobody's business whom the table's owner may not look at.
#[test]
fn a_query_is_shown_only_to_whom_it_may_be() {
    let database = Database::shared();
    let mut session = crate::privileges::world(&database, &["secret_owner", "secret_reader"]);
    session.exec(
        "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO secret_owner; CREATE TABLE t (id int PRIMARY KEY, a text);
         ALTER TABLE t OWNER TO secret_owner; GRANT SELECT ON t TO secret_reader",
    );
    let mut reader = database.connect_as("secret_reader");
    reader.exec("BEGIN");
    reader.exec("SELECT count(*) FROM t WHERE a = 'password'");
    let mut owner = database.connect_as("secret_owner");
    owner.exec("SELECT transmute.register('m', 'ALTER TABLE t ADD COLUMN n int')");
    owner.exec("SELECT transmute.apply('m')");
    let waiting = "SELECT waiting_for ~ 'Held by pid [0-9]+.*idle in transaction, for [0-9]+ s\\.$' FROM transmute.status";
    session.wait_for(waiting, "t", Duration::from_secs(30));
    reader.exec("COMMIT");
    session.exec("CALL transmute.wait('m')");
}

#[test]
fn idle_blockers_are_ended_where_the_setting_says_so_but_no_superuser() {
    let database = Database::shared();
    crate::migration::set(&database, &[("cancel_blockers", "1 s")]);
    let mut session = crate::privileges::world(&database, &["idle_role", "idle_super"]);
    session.exec(
        "ALTER ROLE idle_super SUPERUSER; CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int PRIMARY KEY);
         GRANT SELECT ON t TO idle_role",
    );
    let mut idle = database.connect_as("idle_role");
    idle.exec("SET application_name = 'the report'");
    idle.exec("BEGIN");
    idle.exec("SELECT count(*) FROM t");
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t ADD COLUMN n int", "{}");
    migration.finish();
    assert_eq!(
        session.lines(
            "SELECT detail::json->>'user', detail::json->>'application_name', (detail::json->>'idle_seconds')::int >= 1
               FROM transmute.history WHERE event = 'blocker ended'"
        ),
        ["idle_role|the report|t"]
    );
    assert!(idle.try_exec("SELECT 1").is_err());
    let mut boss = database.connect_as("idle_super");
    boss.exec("BEGIN");
    boss.exec("SELECT count(*) FROM u");
    let mut migration = Migration::start(&database, "n", "ALTER TABLE u ADD COLUMN n int", "{}");
    migration.wait_for("waiting_for ~ 'for [3-9] s: '", "t");
    assert_eq!(boss.lines("SELECT 1"), ["1"]);
    boss.exec("COMMIT");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.history WHERE event = 'blocker ended'"),
        ["1"]
    );
}
