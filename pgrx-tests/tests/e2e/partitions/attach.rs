//! ATTACH PARTITION without a scan under lock, DETACH PARTITION concurrently.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use super::{assert_all_sound, assert_same, fingerprints, hot_tree};
use crate::load::assert_equals_mirror;
use crate::migration::{fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// A table of everything that an ATTACH has to see to, and one that lacks it.
fn tables(session: &mut Session) {
    session.exec("DROP TABLE IF EXISTS t, late, low, r, h, h1, l, other CASCADE");
    session.exec(
        "CREATE TABLE r (k int PRIMARY KEY); INSERT INTO r SELECT generate_series(0, 99);
         CREATE TABLE t (id int NOT NULL, a int NOT NULL REFERENCES r, note text, at timestamptz, CHECK (a >= 0)) PARTITION BY RANGE (id, lower(note));
         CREATE TABLE t_d PARTITION OF t DEFAULT;
         ALTER TABLE t ADD COLUMN u int, ADD COLUMN w text DEFAULT 'w';
         CREATE INDEX t_a ON t (a) WHERE note <> ''; CREATE INDEX ON t ((a + u), note);
         INSERT INTO t SELECT i, i % 100, 'n', now(), i FROM generate_series(1, 2000) i;
         CREATE TABLE late (w text DEFAULT 'w', u int, gone int, at timestamptz, note text, a int NOT NULL, id int NOT NULL, CONSTRAINT t_a_check CHECK (a >= 0));
         ALTER TABLE late DROP gone;
         INSERT INTO late (id, a, note, u) SELECT i, i % 100, 'l', i FROM generate_series(10001, 14000) i;
         CREATE TABLE l (k text, v int) PARTITION BY LIST (k); CREATE TABLE other (k text, v int);
         INSERT INTO other VALUES ('a', 1), ('b', 2), (NULL, 3);
         CREATE TABLE h (k int, v int) PARTITION BY HASH (k); CREATE TABLE h1 (k int, v int);
         ANALYZE t; ANALYZE late",
    );
}

fn print(session: &mut Session) -> Vec<String> {
    ["t", "t_d", "late", "r", "l", "other", "h", "h1"]
        .map(|table| fingerprint(session, table))
        .to_vec()
}

#[test]
fn what_comes_out_of_an_attach_is_what_the_server_would_have_made() {
    let database = Database::shared();
    let mut session = database.connect();
    for (i, ddl) in [
        "ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (10000, MINVALUE) TO (20000, MINVALUE)",
        "ALTER TABLE l ATTACH PARTITION other FOR VALUES IN ('a', 'b', NULL)",
        "ALTER TABLE h ATTACH PARTITION h1 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "ALTER TABLE l ATTACH PARTITION other DEFAULT",
    ]
    .into_iter()
    .enumerate()
    {
        tables(&mut session);
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        let before = print(&mut session);
        // SELECT 1 waits for the end.
        let mut migration = Migration::start(&database, id, &format!("{ddl}; SELECT 1"), SOAK);
        migration.wait("AWAITING_FINALIZATION");
        migration.roll_back();
        assert_same(ddl, &print(&mut session), &before);
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        migration.call("skip_soak", "'good'");
        migration.finish();
        let online = print(&mut session);
        tables(&mut session);
        session.exec(ddl);
        assert_same(ddl, &online, &print(&mut session));
    }
}

#[test]
fn the_attach_itself_reads_no_row() {
    let database = Database::shared();
    let mut session = database.connect();
    tables(&mut session);
    let attach = "ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (10000, MINVALUE) TO (20000, MINVALUE)";
    let mut migration = Migration::start(&database, "m", &format!("{attach}; SELECT 1"), SOAK);
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    // The steps of the plan up to the last, by hand: then the server tells how often the tables are read.
    let steps = session.lines(
        "SELECT sql FROM _transmute.steps WHERE migration_id = 'm' AND phase = 'validate' ORDER BY step",
    );
    let (last, before) = steps.split_last().expect("steps");
    assert!(last.starts_with(attach), "{last}");
    for step in before {
        session.exec(step);
    }
    let scans = "SELECT relname, seq_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname IN ('late', 't_d') ORDER BY 1";
    let mut fresh = database.connect();
    fresh.exec(&format!("BEGIN; {last}"));
    let read = fresh.lines(scans);
    fresh.exec("COMMIT");
    assert_eq!(read, ["late|0|0", "t_d|0|0"], "{steps:#?}");
}

#[test]
fn no_statement_fails_while_a_table_is_attached_and_a_partition_detached() {
    let database = Database::shared();
    let load = Workload::on("t").seed(51);
    let mut session = hot_tree(&database, &load);
    session.exec(
        "CREATE TABLE late (LIKE t); INSERT INTO late SELECT 5000000 + i, i, i, 'late' FROM generate_series(1, 20000) i;
         ALTER TABLE t_rest RENAME TO t_default; ANALYZE late",
    );
    let before = fingerprints(&mut session);
    let watch = Lockwatch::start(&database, "t_default");
    let writers = load.start(&database);
    let ddl =
        "ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (5000000) TO (6000000); SELECT 1";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(200, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    writers.wait_for_more(200, PATIENCE);
    // With a default partition the server takes no CONCURRENTLY.
    Migration::start(
        &database,
        "n",
        "ALTER TABLE t DETACH PARTITION late CONCURRENTLY",
        "{}",
    )
    .finish();
    writers.wait_for_more(200, PATIENCE);
    writers.stop().assert_no_failures();
    watch.stop().assert_held_less_than(1_000.0);
    assert_equals_mirror(&mut session);
    assert_all_sound(&mut session);
    assert_eq!(session.lines("SELECT count(*), 'late' IN (SELECT relid::regclass::text FROM pg_partition_tree('t')) FROM late"), ["20000|f"]);
}

#[test]
fn a_partition_is_detached_concurrently_and_what_was_interrupted_is_ended() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200);
         INSERT INTO t SELECT i, i FROM generate_series(0, 199) i",
    );
    let mut old = database.connect();
    old.exec("BEGIN; SELECT count(*) FROM t");
    let mut migration =
        Migration::start(&database, "m", "ALTER TABLE t DETACH PARTITION low", "{}");
    session.wait_for(
        "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'low'::regclass",
        "t",
        PATIENCE,
    );
    // Who does it dies in the middle: the server is left half-way, and FINALIZE ends it.
    session.exec(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'transmute runner' AND datname = current_database()",
    );
    old.exec("COMMIT");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), (SELECT count(*) FROM low), (SELECT count(*) FROM pg_inherits WHERE inhrelid = 'low'::regclass) FROM t"),
        ["100|100|0"]
    );
    // Back again, by the same recipe: the CHECK that the server left proves it.
    Migration::start(
        &database,
        "back",
        "ALTER TABLE t ATTACH PARTITION low FOR VALUES FROM (0) TO (100)",
        "{}",
    )
    .finish();
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["200"]);
}

#[test]
fn rows_that_do_not_belong_ask_a_person_and_bad_input_is_refused() {
    let database = Database::shared();
    let mut session = database.connect();
    tables(&mut session);
    session.exec("INSERT INTO t VALUES (15000, 1, 'in the way')");
    let before = print(&mut session);
    let attach = "ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (10000, MINVALUE) TO (20000, MINVALUE)";
    let mut migration = Migration::start(&database, "m", attach, "{}");
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("last_error_sqlstate"), "23514");
    migration.roll_back();
    assert_eq!(print(&mut session), before);
    for (ddl, sqlstate) in [
        (
            "ALTER TABLE t ATTACH PARTITION r FOR VALUES FROM (1) TO (2)",
            "42P16",
        ),
        ("ALTER TABLE t ATTACH PARTITION other DEFAULT", "42804"),
        ("ALTER TABLE t ATTACH PARTITION late DEFAULT", "42P17"),
        ("ALTER TABLE late ATTACH PARTITION other DEFAULT", "42809"),
        ("ALTER TABLE t ATTACH PARTITION nowhere DEFAULT", "42P01"),
        ("ALTER TABLE l DETACH PARTITION other", "42809"),
        ("ALTER TABLE t DETACH PARTITION t_d FINALIZE", "55000"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('x', $${ddl}$$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{ddl}: {error}"
        );
    }
}
