//! CREATE INDEX, UNIQUE and PRIMARY KEY on a partitioned table: concurrently on each partition, then taken over.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use super::{assert_all_sound, assert_same, fingerprints, hot_tree, tree};
use crate::load::assert_equals_mirror;
use crate::migration::{fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// Every index of the tree: its table, definition without its name, whether it is valid and what it belongs to.
fn indexes(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT i.indrelid::regclass, c.relname, i.indisvalid, h.inhparent::regclass
           FROM pg_partition_tree('t') p JOIN pg_index i ON i.indrelid = p.relid JOIN pg_class c ON c.oid = i.indexrelid
           LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
          ORDER BY p.level, 1::text, i.indrelid::regclass::text, c.relname",
    )
}

#[test]
fn no_statement_fails_while_the_index_of_a_partitioned_table_is_built() {
    let database = Database::shared();
    let load = Workload::on("t").seed(31);
    let mut session = hot_tree(&database, &load);
    let before = fingerprints(&mut session);
    let watch = Lockwatch::start(&database, "t_low");
    let writers = load.start(&database);
    let ddl = "CREATE INDEX by_note ON t (note, a); CREATE INDEX ON t (u) WHERE a > 10";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(100, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    let report = watch.stop();
    assert!(report.held.is_empty(), "{:?}", report.held);
    assert_equals_mirror(&mut session);
    assert_all_sound(&mut session);
    session.exec("DROP INDEX by_note, t_u_idx");
    assert_eq!(fingerprints(&mut session), before);
}

#[test]
fn what_comes_out_is_what_the_server_would_have_made() {
    let database = Database::shared();
    let make = "DROP TABLE IF EXISTS t, t_keyless";
    let mut session = database.connect();
    for (i, ddl) in [
        "CREATE INDEX ON t (a)",
        "CREATE UNIQUE INDEX one ON t (u, id) INCLUDE (note)",
        "CREATE INDEX i ON t USING hash (note)",
        "CREATE INDEX i ON t (lower(note) COLLATE \"C\" DESC NULLS LAST, (a + u)) WHERE a > 5",
        "ALTER TABLE t ADD UNIQUE (id, u)",
        "ALTER TABLE t ADD CONSTRAINT k UNIQUE (id, a) INCLUDE (note) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE t_keyless ADD PRIMARY KEY (id, u)",
        "ALTER TABLE t ALTER u SET NOT NULL, ADD CONSTRAINT pair UNIQUE (u, id)",
        "CREATE INDEX IF NOT EXISTS there ON t (a)",
        "CREATE INDEX alone ON ONLY t (a)",
        "CREATE INDEX a1 ON t (a); CREATE INDEX a2 ON t (a); ALTER TABLE t_middle ADD UNIQUE (id, a)",
    ]
    .into_iter()
    .enumerate()
    {
        let prepare = |session: &mut Session| {
            session.exec(make);
            Workload::on("t").keys(600).create_partitioned(session);
            // One that will do for the first, which the server takes over as well; one that is there already.
            session.exec(
                "CREATE TABLE t_keyless (id int, u int) PARTITION BY RANGE (id);
                 CREATE TABLE t_keyless_1 PARTITION OF t_keyless FOR VALUES FROM (0) TO (100);
                 INSERT INTO t_keyless SELECT i, i FROM generate_series(1, 99) i;
                 CREATE INDEX own_a ON t_low (a); CREATE INDEX there ON t (a, u); UPDATE t SET u = id; ANALYZE t",
            );
        };
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        prepare(&mut session);
        let print = |session: &mut Session| {
            let mut all = fingerprints(session);
            all.extend(["t_keyless", "t_keyless_1"].map(|t| fingerprint(session, t)));
            all.extend(indexes(session));
            all
        };
        let before = print(&mut session);
        let mut migration = Migration::start(&database, id, ddl, SOAK);
        migration.wait("AWAITING_FINALIZATION");
        // These two have nothing to do at the end.
        if !ddl.contains("IF NOT EXISTS") && !ddl.contains("ONLY") {
            migration.roll_back();
            assert_same(ddl, &print(&mut session), &before);
            migration.apply();
            migration.wait("AWAITING_FINALIZATION");
            migration.call("skip_soak", "'good'");
        }
        migration.finish();
        let online = print(&mut session);
        prepare(&mut session);
        session.exec(ddl);
        assert_same(ddl, &online, &print(&mut session));
        assert_eq!(
            session.lines("SELECT count(*) FROM _transmute.leaf_indexes"),
            ["0"]
        );
    }
}

#[test]
fn partitions_that_come_and_go_meanwhile_are_met() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    session.exec("CREATE TABLE late (LIKE t INCLUDING ALL); INSERT INTO late SELECT 2000 + i, i, i FROM generate_series(1, 50) i");
    let mut points = Waitpoints::of(&database);
    points.hold("leaf_built_before_commit");
    let mut migration = Migration::start(&database, "m", "CREATE INDEX i ON t (a, u)", SOAK);
    points.wait_reached("leaf_built_before_commit", PATIENCE);
    points.release("leaf_built_before_commit");
    migration.wait("AWAITING_FINALIZATION");
    // After the last build, before the statement: each is seen when the whole tree is looked at again.
    assert_eq!(
        session
            .error("ALTER TABLE t DETACH PARTITION t_low")
            .sqlstate,
        "55006"
    );
    session.exec(
        "SET transmute.allow_ddl = on; ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (2000) TO (3000);
         CREATE TABLE made PARTITION OF t FOR VALUES FROM (3000) TO (4000);
         ALTER TABLE t DETACH PARTITION t_low; DROP TABLE t_middle_1",
    );
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines(
            "SELECT i.indrelid::regclass, i.indisvalid FROM pg_index i
              WHERE i.indexrelid::regclass::text ~ '^(i|.*_a_u_idx)$' AND i.indrelid IN (SELECT relid FROM pg_partition_tree('t')) ORDER BY 1::text, i.indrelid::regclass::text"
        ),
        ["late|t", "made|t", "t|t", "t_middle|t", "t_middle_2|t", "t_rest|t"]
    );
}

#[test]
fn duplicates_in_one_partition_ask_a_person_and_leave_nothing_invalid() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    session.exec("DROP INDEX t_middle_2_u; ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t SELECT * FROM t WHERE id = 601");
    let before = fingerprints(&mut session);
    let mut migration = Migration::start(&database, "m", "CREATE UNIQUE INDEX one ON t (id)", SOAK);
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("last_error_sqlstate"), "23505");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(session.lines(invalid), ["0"]);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait_in("AWAITING_ACTION");
    session.exec("DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t_middle_2 WHERE id = 601) AND id = 601 AND tableoid = 't_middle_2'::regclass");
    migration.call("resume", "'one of them is gone'");
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_all_sound(&mut session);
}

#[test]
fn an_old_transaction_and_a_pause_stop_a_build_and_nothing_half_made_stays() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    let before = fingerprints(&mut session);
    let mut old = database.connect();
    old.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t");
    let mut migration = Migration::start(&database, "m", "CREATE INDEX i ON t (a, u)", SOAK);
    migration.wait_for("waiting_for LIKE 'others to end%'", "t");
    migration.call("pause", "'not now'");
    // What is left of it is being dropped, which waits for the old transaction as well.
    session.wait_for(
        "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()",
        "0",
        PATIENCE,
    );
    migration.call("resume", "'now'");
    migration.wait_for("waiting_for LIKE 'others to end%'", "t");
    migration.call("rollback", "'not at all'");
    old.exec("COMMIT");
    migration.wait("UNINITIALIZED");
    assert_eq!(fingerprints(&mut session), before);
}

#[test]
fn the_index_of_a_partitioned_table_is_dropped_and_rebuilt() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    session.exec("CREATE INDEX i ON t (a); CREATE INDEX j ON t (u)");
    let mut migration = Migration::start(
        &database,
        "m",
        "REINDEX INDEX i; REINDEX TABLE t; DROP INDEX IF EXISTS j",
        SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(session.lines("SELECT to_regclass('j')"), ["j"]);
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT to_regclass('i'), to_regclass('j') IS NULL, count(*) FROM pg_index WHERE NOT indisvalid"),
        ["i|t|0"]
    );
    assert_all_sound(&mut session);
}

#[test]
fn what_is_wrong_is_said_before_anything_is_written() {
    let database = Database::shared();
    let mut session = tree(&database, 90);
    session.exec(
        "CREATE INDEX i ON t (a); CREATE UNIQUE INDEX i_id ON t (id); CREATE TABLE f (id int NOT NULL, x int) PARTITION BY RANGE (id);
         CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE f1 PARTITION OF f FOR VALUES FROM (0) TO (10) SERVER s",
    );
    for (ddl, sqlstate) in [
        ("CREATE UNIQUE INDEX ON t (a)", "0A000"),
        ("ALTER TABLE t ADD UNIQUE (a)", "0A000"),
        ("ALTER TABLE t ADD CONSTRAINT i UNIQUE (id, a)", "42P07"),
        ("CREATE INDEX i ON t (a)", "42P07"),
        ("CREATE INDEX ON t (nothing)", "42703"),
        ("CREATE UNIQUE INDEX ON f (id)", "42809"),
        ("DROP INDEX t_low_a_idx", "2BP01"),
        ("DROP INDEX t_pkey", "2BP01"),
        (
            "ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX i_id",
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
