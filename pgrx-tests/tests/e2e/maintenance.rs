//! DROP INDEX, REINDEX, REFRESH, VACUUM, ANALYZE, ALTER TYPE … ADD VALUE.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::Database;

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{assert_sound, fingerprint, Migration};
use crate::privileges::world;

#[test]
fn no_statement_fails_while_indexes_go_and_are_built_anew() {
    let database = Database::shared();
    let load = Workload::on("t").seed(31);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);
    let files = "SELECT string_agg(relfilenode::text, ' ' ORDER BY relname) FROM pg_class WHERE relname IN ('t_pkey', 't_a', 't_note')";
    let old: String = session.scalar(files);
    let mut migration = Migration::start(
        &database,
        "m",
        "REINDEX TABLE t; REINDEX (VERBOSE) INDEX t_a; VACUUM (ANALYZE) t; ANALYZE t (a); DROP INDEX t_expression, t_note",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    let new: String = session.scalar(files);
    assert!(
        old.split(' ').zip(new.split(' ')).all(|(a, b)| a != b),
        "{old} {new}"
    );
    // Nothing was made that had to be taken back, and what is to go is still there.
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    let report = watch.stop();
    assert!(report.held.is_empty(), "{:?}", report.held);
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines(
            "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"
        ),
        session.lines("SELECT unnest(ARRAY['t_pkey', 't_u_key', 't_a']::regclass[]) ORDER BY 1")
    );
}

#[test]
fn each_statement_does_what_it_does_by_itself() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, a text);
         INSERT INTO s.t SELECT i, i FROM generate_series(1, 1000) AS i; CREATE INDEX ON s.t (a);
         CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE MATERIALIZED VIEW seen AS SELECT id, a FROM s.t; CREATE UNIQUE INDEX ON seen (id);
         CREATE MATERIALIZED VIEW empty AS SELECT count(*) FROM s.t WITH NO DATA;
         DELETE FROM s.t WHERE id > 500",
    );
    let files = "SELECT sum(relfilenode::bigint) FROM pg_class WHERE relnamespace = 's'::regnamespace AND relkind = 'i'";
    let before = session.lines(files);
    let script = "REINDEX SCHEMA s; VACUUM s.t; ALTER TYPE mood ADD VALUE 'so so' AFTER 'sad'; ALTER TYPE mood ADD VALUE IF NOT EXISTS 'sad';
        REFRESH MATERIALIZED VIEW seen; REFRESH MATERIALIZED VIEW empty; DROP INDEX IF EXISTS s.t_a_idx, s.nothing";
    let mut migration = Migration::start(&database, "m", script, "{}");
    migration.finish();
    assert_ne!(session.lines(files), before);
    assert_eq!(
        session.lines("SELECT enum_range(NULL::mood), (SELECT count(*) FROM seen), (SELECT count FROM empty), to_regclass('s.t_a_idx') IS NULL, (SELECT reltuples FROM pg_class WHERE oid = 's.t'::regclass)"),
        ["{sad,\"so so\",glad}|500|500|t|500"]
    );
    assert_eq!(
        migration
            .session()
            .lines("SELECT DISTINCT action FROM transmute.rollback_plan('m')"),
        ["cannot be taken back: past the point of no return"]
    );
}

#[test]
fn a_table_is_written_anew_under_load_and_in_the_order_of_an_index() {
    let database = Database::shared();
    let load = Workload::on("t").seed(33);
    let mut session = hot_table(&database, &load);
    session.exec(
        "CREATE TABLE o (id int PRIMARY KEY, a int, note text);
         INSERT INTO o SELECT i, i * 7919 % 5003, repeat('x', 50) FROM generate_series(1, 6000) i;
         CREATE INDEX o_a ON o (a); DELETE FROM o WHERE id % 3 > 0; ANALYZE o",
    );
    let tables = ["t", "o"];
    let before = tables.map(|t| fingerprint(&mut session, t));
    let blocks = "SELECT pg_relation_size('o') / current_setting('block_size')::int";
    let old: i64 = session.scalar(blocks);
    let ordered = "SELECT bool_and(ordered)::text FROM (SELECT a >= lag(a, 1, 0) OVER (ORDER BY ctid) AS ordered FROM o) AS x";
    let writers = load.start(&database);
    let mut m = Migration::start(
        &database,
        "m",
        "CLUSTER t USING t_a; VACUUM FULL o",
        r#"{"required_approvals": 1}"#,
    );
    m.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(100, PATIENCE);
    m.roll_back();
    assert_eq!(tables.map(|t| fingerprint(&mut session, t)), before);
    m.apply();
    m.wait("AWAITING_FINALIZATION");
    m.call("approve", "'good'");
    m.finish();
    writers.wait_for_more(100, PATIENCE);
    writers.stop().assert_no_failures();
    assert_equals_mirror(&mut session);
    let new: i64 = session.scalar(blocks);
    assert!(new * 3 < old * 2, "{new} of {old} blocks");
    assert_eq!(fingerprint(&mut session, "o"), before[1]);
    assert_eq!(session.scalar::<String>(ordered), "false");

    Migration::start(&database, "n", "CLUSTER o USING o_a", "{}").finish();
    assert_eq!(session.scalar::<String>(ordered), "true");
    session.exec("INSERT INTO o VALUES (0, 9), (-1, 3)");
    Migration::start(&database, "p", "CLUSTER (VERBOSE) o", "{}").finish();
    assert_eq!(session.scalar::<String>(ordered), "true");
    for table in tables {
        assert_sound(&mut session, table);
    }
    assert_eq!(
        session.lines("SELECT indexrelid::regclass FROM pg_index WHERE indisclustered AND indrelid IN ('t'::regclass, 'o'::regclass) ORDER BY 1"),
        session.lines("SELECT unnest(ARRAY['t_a', 'o_a']::regclass[]) ORDER BY 1")
    );
}

#[test]
fn what_would_lock_or_lose_is_refused_by_name() {
    let database = Database::shared();
    let mut session = world(&database, &["upkeep_ann"]);
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE); CREATE INDEX i ON t (a);
         CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE INDEX pi ON p (id);
         CREATE MATERIALIZED VIEW mv AS SELECT * FROM t; CREATE VIEW v AS SELECT * FROM t; CREATE TYPE mood AS ENUM ('sad');
         DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg('c' || i || ' int', ',') FROM generate_series(1, 1600) i) || ')'; END $$",
    );
    for (ddl, sqlstate) in [
        ("DROP INDEX i CASCADE", "0A000"),
        ("DROP INDEX nothing", "42704"),
        ("DROP INDEX t", "42809"),
        ("DROP INDEX t_a_key", "2BP01"),
        ("REINDEX SYSTEM postgres", "0A000"),
        ("REINDEX DATABASE postgres", "0A000"),
        ("REINDEX (TABLESPACE pg_default) TABLE t", "0A000"),
        ("REINDEX INDEX t", "42809"),
        ("REINDEX TABLE nothing", "42P01"),
        ("REINDEX SCHEMA nothing", "42704"),
        ("VACUUM", "0A000"),
        ("VACUUM t, p", "0A000"),
        ("VACUUM (FULL) t, p", "0A000"),
        ("VACUUM FULL p", "0A000"),
        ("VACUUM (FULL, NONSENSE) t", "0A000"),
        ("VACUUM (FULL, PARALLEL 2) t", "0A000"),
        ("VACUUM FULL t (a)", "0A000"),
        ("VACUUM t (a)", "0A000"),
        ("VACUUM (NONSENSE) t", "42601"),
        ("VACUUM (PARALLEL 'x') t", "42601"),
        ("CLUSTER (NONSENSE) t USING i", "0A000"),
        ("VACUUM FULL wide", "0A000"),
        ("VACUUM FULL v", "42809"),
        ("CLUSTER", "0A000"),
        ("CLUSTER t", "55000"),
        ("CLUSTER p USING pi", "0A000"),
        ("ANALYZE v", "42809"),
        ("REFRESH MATERIALIZED VIEW mv", "0A000"),
        ("REFRESH MATERIALIZED VIEW mv WITH NO DATA", "0A000"),
        ("REFRESH MATERIALIZED VIEW t", "42809"),
        ("ALTER TYPE mood ADD VALUE 'sad'", "42710"),
        ("ALTER TYPE nothing ADD VALUE 'sad'", "42704"),
        ("CLUSTER t USING nothing", "42704"),
        ("ALTER SYSTEM SET work_mem = '1GB'", "0A000"),
        ("CREATE DATABASE d", "0A000"),
        ("DROP DATABASE d", "0A000"),
        ("CREATE TABLESPACE x LOCATION '/x'", "0A000"),
        ("DROP TABLESPACE x", "0A000"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $${ddl}$$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{ddl}: {error}"
        );
    }
    // Only what is one's own.
    session.exec("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO upkeep_ann");
    let mut ann = database.connect_as("upkeep_ann");
    for ddl in [
        "DROP INDEX i",
        "REINDEX TABLE t",
        "REINDEX SCHEMA public",
        "VACUUM t",
        "REFRESH MATERIALIZED VIEW mv",
        "ALTER TYPE mood ADD VALUE 'x'",
        "CREATE INDEX ON t (a)",
    ] {
        let error = ann.error(&format!("SELECT transmute.register('m', $${ddl}$$)"));
        assert_eq!(error.sqlstate, "42501", "{ddl}: {error}");
    }
    assert_eq!(session.lines("SELECT enum_range(NULL::mood)"), ["{sad}"]);
}
