//! CREATE INDEX: built concurrently by a process of its own, whatever happens meanwhile.

use std::time::{Duration, Instant};

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{assert_sound, fingerprint, Migration};
use crate::privileges::world;

fn table(database: &Database<'_>, rows: u32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text);
         INSERT INTO t SELECT i, i % 100, 'b' || i FROM generate_series(1, {rows}) AS i; ANALYZE t"
    ));
    session
}

fn indexes(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT c.relname, i.indisvalid, i.indisunique FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = 't'::regclass ORDER BY 1",
    )
}

/// The process that runs the statement; waits for it.
fn runner(session: &mut Session) -> i32 {
    wait_until_seen("a runner", PATIENCE, || {
        let rows = session.query(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'transmute runner' AND datname = current_database()",
            &[],
        );
        rows.first().map(|row| row.get(0)).ok_or(rows.len())
    })
}

fn assert_no_runner(session: &mut Session) {
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'transmute runner' AND datname = current_database()",
        "0",
        PATIENCE,
    );
}

/// An old transaction, which a concurrent build waits for in the end.
fn old_transaction(database: &Database<'_>) -> Session {
    let mut old = database.connect();
    old.exec("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    old
}

#[test]
fn no_statement_fails_while_an_index_is_built_and_none_waits_for_it() {
    let database = Database::shared();
    let load = Workload::on("t").seed(21);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);
    let ddl = "CREATE INDEX by_note ON t (note, a); CREATE INDEX ON t (u) WHERE a > 10";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    let mut taken_back = Migration::start(
        &database,
        "n",
        "CREATE INDEX again ON t (a, note); CREATE UNIQUE INDEX dup ON t (a)",
        "{}",
    );
    taken_back.wait_in("AWAITING_ACTION");
    taken_back.roll_back();
    let tally = writers.stop();
    tally.assert_no_failures();
    let report = watch.stop();
    assert!(report.held.is_empty(), "{:?}", report.held);
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    session.exec("DROP INDEX by_note, t_u_idx");
    assert_eq!(fingerprint(&mut session, "t"), before);
}

#[test]
fn an_index_without_a_name_gets_the_one_the_server_would_choose() {
    let database = Database::shared();
    let mut session = table(&database, 10);
    session.exec("CREATE TABLE plain (LIKE t INCLUDING ALL); CREATE SCHEMA \"S p\"; CREATE TABLE \"S p\".\"T t\" (LIKE t)");
    let definitions = [
        "(a)",
        "(a)",
        "(a, b)",
        "(lower(b), (a + 1), a)",
        "(a) INCLUDE (b)",
        "USING hash (b)",
        "(b COLLATE \"C\" text_pattern_ops DESC) WHERE a > 3",
        "((a * 2), (a * 3))",
    ];
    for definition in definitions {
        session.exec(&format!("CREATE INDEX ON plain {definition}"));
    }
    let script: Vec<String> = definitions
        .iter()
        .map(|d| format!("/* one */ CREATE INDEX ON t {d}"))
        .collect();
    // The names of one script are chosen one after the other, as the server would.
    for (id, statement) in ["1", "2", "3", "4", "5", "6", "7", "8"]
        .into_iter()
        .zip(&script)
    {
        Migration::start(&database, id, statement, "{}").finish();
    }
    let names = |session: &mut Session, table: &str| {
        session.lines(&format!(
            "SELECT regexp_replace(regexp_replace(pg_get_indexdef(indexrelid), ' ON public.{table} ', ' ON '), 'INDEX {table}', 'INDEX ')
               FROM pg_index WHERE indrelid = '{table}'::regclass ORDER BY 1"
        ))
    };
    assert_eq!(names(&mut session, "t"), names(&mut session, "plain"));
    Migration::start(
        &database,
        "quoted",
        "CREATE UNIQUE INDEX CONCURRENTLY \"I i\" ON ONLY \"S p\" . \"T t\" (id); CREATE INDEX IF NOT EXISTS \"I i\" ON \"S p\".\"T t\" (id)",
        "{}",
    )
    .finish();
    assert_eq!(
        session.lines("SELECT pg_get_indexdef('\"S p\".\"I i\"'::regclass)"),
        ["CREATE UNIQUE INDEX \"I i\" ON \"S p\".\"T t\" USING btree (id)"]
    );
}

#[test]
fn what_is_wrong_with_an_index_is_said_before_anything_is_written() {
    let database = Database::shared();
    let mut session = table(&database, 10);
    session.exec(
        "CREATE VIEW v AS SELECT * FROM t; CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE twin (t_pkey int)",
    );
    for (ddl, sqlstate) in [
        ("CREATE INDEX ON t (nothing)", "42703"),
        ("CREATE INDEX ON nothing (a)", "42P01"),
        ("CREATE INDEX t_pkey ON t (a)", "42P07"),
        ("CREATE INDEX ON t ((random()))", "42P17"),
        ("CREATE INDEX ON v (a)", "42809"),
        ("CREATE INDEX ON t/* c */.x (a)", "42P01"),
        ("CREATE INDEX ON t /* c */ . t (a)", "42P01"),
        (
            "ALTER TABLE t ADD COLUMN n int; CREATE INDEX ON t (n)",
            "0A000",
        ),
        (
            "CREATE TABLE made (i int); CREATE INDEX CONCURRENTLY ON made (i)",
            "0A000",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $${ddl}$$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{ddl}: {error}"
        );
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["0"]
    );
}

#[test]
fn an_index_that_follows_what_it_is_about() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    Migration::start(
        &database,
        "column",
        "ALTER TABLE t ADD COLUMN n int DEFAULT 7; CREATE INDEX by_n ON t (n)",
        "{}",
    )
    .finish();
    Migration::start(
        &database,
        "table",
        "CREATE TABLE made (i int); CREATE INDEX ON made (i); CREATE UNIQUE INDEX made_u ON made (i)",
        "{}",
    )
    .finish();
    // The table is rewritten first; its new index is built on what it is then.
    Migration::start(
        &database,
        "rewrite",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint; CREATE INDEX by_a ON t ((a + 3000000000))",
        "{}",
    )
    .finish();
    assert_eq!(
        session.lines("SELECT indexrelid::regclass FROM pg_index WHERE indrelid IN ('made'::regclass, 't'::regclass) ORDER BY indexrelid::regclass::text"),
        ["by_a", "by_n", "made_i_idx", "made_u", "t_pkey"]
    );
    assert_sound(&mut session, "t");
    // Before it: one copy for both, and the way back takes both.
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::start(
        &database,
        "before",
        "CREATE INDEX first ON t (b); ALTER TABLE t ALTER COLUMN n TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT to_regclass('first') IS NOT NULL, pg_typeof(n) FROM t LIMIT 1"),
        ["t|bigint"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn if_not_exists_keeps_what_is_there_and_never_an_invalid_index() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    session.exec("CREATE INDEX there ON t (a)");
    let ddl = "CREATE INDEX IF NOT EXISTS there ON t (a); CREATE INDEX IF NOT EXISTS new ON t (a)";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.finish();
    assert_eq!(
        indexes(&mut session),
        ["new|t|f", "t_pkey|t|t", "there|t|f"]
    );
    // What a build by hand has left.
    let error = session.error("CREATE UNIQUE INDEX CONCURRENTLY half ON t (a)");
    assert_eq!(error.sqlstate, "23505");
    let mut migration = Migration::start(
        &database,
        "n",
        "CREATE INDEX IF NOT EXISTS half ON t (a)",
        "{}",
    );
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("last_error_sqlstate"), "55000");
    migration.roll_back();
    // It was not ours to remove.
    assert!(indexes(&mut session).contains(&"half|f|t".to_string()));
    session.exec("DROP INDEX half");
    migration.apply();
    migration.finish();
    assert!(indexes(&mut session).contains(&"half|t|f".to_string()));
}

#[test]
fn duplicates_ask_a_person_and_leave_no_invalid_index() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    let before = fingerprint(&mut session, "t");
    let ddl = "CREATE UNIQUE INDEX one_a ON t (a)";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(
        migration.status("last_error || ' ' || last_error_sqlstate"),
        "could not create unique index \"one_a\" 23505"
    );
    assert_eq!(fingerprint(&mut session, "t"), before);
    // Mended and tried again.
    session.exec("DELETE FROM t WHERE id > 100");
    migration.call("resume", "'no duplicates any more'");
    migration.finish();
    assert_eq!(indexes(&mut session), ["one_a|t|t", "t_pkey|t|t"]);
}

#[test]
fn who_keeps_a_build_waiting_is_said_and_nothing_times_out() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    let mut old = old_transaction(&database);
    let mut migration = Migration::start(&database, "m", "CREATE INDEX i ON t (a)", "{}");
    let pid = old.pid();
    migration.wait_for(
        "regexp_replace(waiting_for, '[0-9]+ s$', 'N s')",
        &format!("others to end: pid {pid} (report), idle in transaction, for N s"),
    );
    // Far longer than transmute.lock_timeout.
    let start = Instant::now();
    session.exec("SELECT pg_sleep(0.5)");
    assert!(start.elapsed() > Duration::from_millis(400));
    assert_eq!(
        migration.status("state || coalesce(last_error, '')"),
        "RUNNING"
    );
    assert_eq!(
        session.lines("SELECT role, id FROM transmute.nodes WHERE role = 'runner'"),
        ["runner|m"]
    );
    old.exec("COMMIT");
    migration.finish();
    assert_eq!(migration.status("waiting_for IS NULL"), "true");
    assert_no_runner(&mut session);
}

#[test]
fn pause_and_rollback_interrupt_a_build_at_once_and_it_is_no_error() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    let before = fingerprint(&mut session, "t");
    let mut old = old_transaction(&database);
    let mut migration = Migration::start(&database, "m", "CREATE INDEX i ON t (a)", "{}");
    migration.wait_for("waiting_for LIKE 'others to end%'", "t");
    let start = Instant::now();
    migration.call("pause", "'not now'");
    assert_no_runner(&mut session);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // DROP INDEX CONCURRENTLY waits for who may still use the index, so here for nobody: the transaction has not.
    session.wait_for(
        "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass",
        "1",
        PATIENCE,
    );
    assert_no_runner(&mut session);
    migration.call("resume", "'now'");
    migration.wait_for("waiting_for LIKE 'others to end%'", "t");
    migration.call("rollback", "'not at all'");
    migration.wait("UNINITIALIZED");
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.history WHERE event = 'failed'"),
        ["0"]
    );
    migration.apply();
    old.exec("COMMIT");
    migration.finish();
    assert_eq!(indexes(&mut session), ["i|t|f", "t_pkey|t|t"]);
}

#[test]
fn a_runner_that_is_terminated_ends_at_once_and_its_index_is_built_anew() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    let mut old = old_transaction(&database);
    let mut migration = Migration::start(&database, "m", "CREATE INDEX i ON t (a)", "{}");
    migration.wait_for("waiting_for LIKE 'others to end%'", "t");
    let first = runner(&mut session);
    assert_eq!(indexes(&mut session)[0], "i|f|f");
    let start = Instant::now();
    session.exec(&format!("SELECT pg_terminate_backend({first})"));
    session.wait_for(
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {first}"),
        "0",
        PATIENCE,
    );
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    old.exec("COMMIT");
    migration.finish();
    assert_eq!(indexes(&mut session), ["i|t|f", "t_pkey|t|t"]);
    assert_no_runner(&mut session);
}

#[test]
fn the_conductor_drives_others_while_an_index_is_built() {
    let database = Database::shared();
    let mut session = table(&database, 1000);
    session.exec("CREATE TABLE u (id int PRIMARY KEY, a int); INSERT INTO u SELECT i, i FROM generate_series(1, 1000) AS i");
    let mut soaking = Migration::start(
        &database,
        "soaking",
        "ALTER TABLE u ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    soaking.wait("AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("outside_before_statement");
    let mut building = Migration::start(&database, "building", "CREATE INDEX i ON t (a)", "{}");
    waitpoints.wait_reached("outside_before_statement", PATIENCE);
    session.exec("UPDATE u SET a = -a");
    session.wait_for(
        "SELECT drained_keys >= 1000 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    session.exec("CREATE TABLE v (id int)");
    let mut quick = Migration::start(&database, "quick", "COMMENT ON TABLE v IS 'x'", "{}");
    quick.finish();
    assert_eq!(building.status("state"), "RUNNING");
    waitpoints.release("outside_before_statement");
    building.finish();
    soaking.roll_back();
}

#[test]
fn expressions_of_an_index_run_as_the_owner_of_the_table_and_nobody_else() {
    let database = Database::shared();
    let mut session = world(&database, &["index_eve"]);
    crate::hostile::plant_spy(&mut session, "index_eve");
    session.exec(
        "SET ROLE index_eve;
         CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i;
         RESET ROLE; ALTER ROLE index_eve NOLOGIN",
    );
    // The operator is a superuser, and the index calls what it likes.
    let ddl = "CREATE INDEX evil ON t ((public.same(a, 'expression')), (public.same(1, 'constant'))) WHERE public.same(a, 'predicate') > 0";
    let mut migration = Migration::start(&database, "m", ddl, "{}");
    migration.finish();
    crate::hostile::assert_spied(
        &mut session,
        "index_eve",
        &["constant", "expression", "predicate"],
    );
    assert_eq!(
        session.lines("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'evil'"),
        ["index_eve"]
    );
    migration = Migration::start(
        &database,
        "n",
        "CREATE INDEX evil2 ON t ((public.same(a, 'other')))",
        "{}",
    );
    migration.finish();
}
