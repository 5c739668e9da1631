//! ALTER TABLE that rewrites a partitioned table: every partition by its own shadow, all swapped at once.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::Database;

use super::{assert_all_sound, assert_same, fingerprints, hot_tree, tree};
use crate::load::assert_equals_mirror;
use crate::migration::{self, Migration};

const GENERATED: &str = "ALTER TABLE p ALTER x TYPE bigint";
const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

#[test]
fn no_statement_fails_and_no_row_is_lost_while_a_partitioned_table_is_rewritten() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "20")],
    );
    let load = Workload::on("t").seed(41);
    let mut session = hot_tree(&database, &load);
    let before = fingerprints(&mut session);
    let watch = Lockwatch::start(&database, "t_low");
    let writers = load.start(&database);
    let ddl =
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CONSTRAINT clean CHECK (note <> 'poison')";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait_for("state", "RUNNING");
    writers.wait_for_more(100, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    watch.stop().assert_held_less_than(1_000.0);
    assert_equals_mirror(&mut session);
    assert_all_sound(&mut session);
    assert_eq!(
        session.lines("SELECT DISTINCT pg_typeof(a) FROM t"),
        ["bigint"]
    );
}

#[test]
fn what_comes_out_of_a_rewrite_is_what_the_server_would_have_made() {
    let database = Database::shared();
    let mut session = database.connect();
    for (i, ddl) in [
        "ALTER TABLE t ALTER a TYPE bigint",
        "ALTER TABLE t ALTER u TYPE bigint USING u * 2, ALTER a TYPE numeric(12,2), ADD CHECK (a >= 0)",
        "ALTER TABLE t ADD COLUMN extra uuid DEFAULT gen_random_uuid(), ADD UNIQUE (id, a)",
        "ALTER TABLE t ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED",
        "ALTER TABLE t ALTER a TYPE bigint; CREATE INDEX ON t (a, u); ALTER TABLE t ALTER u TYPE bigint",
        "ALTER TABLE p_0 SET UNLOGGED",
        "ALTER TABLE t_middle_2 SET TABLESPACE pg_default, SET (fillfactor = 50)",
        "ALTER TABLE t ADD COLUMN plain int DEFAULT 5, ALTER note SET DEFAULT 'x', ALTER note SET STATISTICS 50",
        GENERATED,
    ]
    .into_iter()
    .enumerate()
    {
        let prepare = |session: &mut transmute_tests::Session| {
            session.exec("DROP TABLE IF EXISTS t, p, r CASCADE; DROP VIEW IF EXISTS v");
            Workload::on("t").keys(600).create_partitioned(session);
            session.exec(
                "CREATE INDEX t_a ON t (a); CREATE INDEX t_expression ON t (lower(note), (a + 1)) WHERE u > 3;
                 CREATE INDEX own ON t_low (note, a);
                 CREATE TABLE r (id int, t_id int REFERENCES t); INSERT INTO r SELECT id, id FROM t WHERE id < 50;
                 CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
                 CREATE TABLE p (k int, x int, y int GENERATED ALWAYS AS (x + 1) STORED) PARTITION BY HASH (k);
                 CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                 ALTER TABLE p ADD PRIMARY KEY (k); INSERT INTO p SELECT i, i FROM generate_series(1, 100) i;
                 ANALYZE t; ANALYZE p",
            );
        };
        let more = |session: &mut transmute_tests::Session| -> Vec<String> {
            let mut all = fingerprints(session);
            for table in ["p", "p_0", "p_1", "r"] {
                all.push(migration::fingerprint(session, table));
            }
            all
        };
        session.exec("DROP FUNCTION IF EXISTS nothing CASCADE");
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        // What plain ALTER refuses to work around: the server gets it afterwards.
        let dependents = match ddl.contains("USING") || ddl.contains("ALTER u") {
            true => "SELECT 1",
            false => {
                "CREATE VIEW v AS SELECT id, a + u AS s FROM t; CREATE VIEW v_low AS SELECT a FROM t_low;
                 CREATE TRIGGER tr BEFORE UPDATE OF a ON t FOR EACH ROW WHEN (NEW.a > 3) EXECUTE FUNCTION nothing()"
            }
        };
        prepare(&mut session);
        session.exec(dependents);
        let before = more(&mut session);
        let mut migration = Migration::start(&database, id, ddl, SOAK);
        migration.wait("AWAITING_FINALIZATION");
        // That one has nothing to do at the end.
        if !ddl.contains("plain int") {
            migration.roll_back();
            assert_same(ddl, &more(&mut session), &before);
            migration.apply();
            migration.wait("AWAITING_FINALIZATION");
            migration.call("skip_soak", "'good'");
        }
        migration.finish();
        assert_all_sound(&mut session);
        let rows = "SELECT md5(string_agg(concat_ws('|', id, a, u, note), ',' ORDER BY id)) FROM t
            UNION ALL SELECT md5(string_agg(concat_ws('|', k, x, y), ',' ORDER BY k)) FROM p";
        let online = (more(&mut session), session.lines(rows));
        session.exec("DROP FUNCTION nothing CASCADE");
        prepare(&mut session);
        if ddl == GENERATED {
            // The server refuses it; the expression is another one then.
            session.exec("ALTER TABLE p DROP y; ALTER TABLE p ALTER x TYPE bigint; ALTER TABLE p ADD y int GENERATED ALWAYS AS (x + 1) STORED");
            assert_eq!(online.1, session.lines(rows), "{ddl}");
            continue;
        }
        session.exec(ddl);
        session.exec(dependents);
        assert_same(ddl, &online.0, &more(&mut session));
        assert_eq!(online.1, session.lines(rows), "{ddl}");
    }
}

#[test]
fn partitions_that_come_and_go_are_noticed_before_the_swap() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    session.exec("CREATE TABLE late (LIKE t INCLUDING ALL); SET transmute.allow_ddl = on");
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t ALTER a TYPE bigint", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    let before = session.lines("SELECT count(*) FROM t");
    // One with rows has no shadow.
    session.exec(
        "INSERT INTO late SELECT 2000 + i, i, i, repeat('x', 1000) FROM generate_series(1, 900) i;
         ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (2000) TO (3000)",
    );
    migration.call("skip_soak", "'good'");
    migration.wait_for(
        "last_error",
        "a partition was added while the table was being migrated",
    );
    // One that is gone neither; one that is as good as empty is altered with its table.
    session.exec("ALTER TABLE t DETACH PARTITION late; ALTER TABLE t DETACH PARTITION t_low");
    migration.call("resume", "'now?'");
    migration.wait_for(
        "last_error",
        "a partition was detached while its table was being migrated",
    );
    session.exec(
        "ALTER TABLE t ATTACH PARTITION t_low FOR VALUES FROM (MINVALUE) TO (300);
         CREATE TABLE made PARTITION OF t FOR VALUES FROM (3000) TO (4000)",
    );
    migration.call("resume", "'now'");
    migration.finish();
    assert_eq!(session.lines("SELECT count(*) FROM t"), before);
    assert_eq!(
        session.lines("SELECT DISTINCT atttypid::regtype FROM pg_attribute WHERE attname = 'a' AND attrelid IN (SELECT relid FROM pg_partition_tree('t'))"),
        ["bigint"]
    );
    assert_all_sound(&mut session);
}

#[test]
fn two_migrations_never_work_on_one_tree() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t ALTER a TYPE bigint", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    for ddl in [
        "ALTER TABLE t ADD COLUMN more int",
        "ALTER TABLE t_middle ALTER note SET DEFAULT 'x'",
        "ALTER TABLE t_low SET (fillfactor = 50)",
    ] {
        let error = session.error(&format!("SELECT transmute.register('n', $${ddl}$$)"));
        assert_eq!(error.sqlstate, "55006", "{ddl}: {error}");
    }
    migration.roll_back();
}

#[test]
fn what_a_rewrite_of_partitions_does_not_do_is_said_first() {
    let database = Database::shared();
    let mut session = tree(&database, 90);
    session.exec("CREATE MATERIALIZED VIEW w AS SELECT u FROM t");
    for (ddl, sqlstate) in [
        ("ALTER TABLE t ALTER id TYPE bigint", "42P16"),
        ("ALTER TABLE t_low ALTER a TYPE bigint", "42809"),
        ("ALTER TABLE t_low ADD COLUMN x int", "42809"),
        ("ALTER TABLE t ALTER u TYPE bigint", "0A000"),
        ("ALTER TABLE t ADD COLUMN n serial", "0A000"),
        (
            "ALTER TABLE t ALTER a TYPE bigint, DROP CONSTRAINT t_pkey",
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
}
