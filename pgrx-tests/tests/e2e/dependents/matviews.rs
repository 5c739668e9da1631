//! Materialized views: filled from the shadow before the lock, put in place in it.

use super::*;

const AMCHECK: &str = "SELECT count(*) FROM pg_class c, LATERAL verify_heapam(c.oid) WHERE c.relkind IN ('r', 'm') AND c.relnamespace = 'public'::regnamespace";
const AMCHECK_INDEXES: &str = "SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam WHERE a.amname = 'btree' AND c.relnamespace = 'public'::regnamespace";

fn amcheck(session: &mut Session) {
    session.exec("CREATE EXTENSION IF NOT EXISTS amcheck");
    assert_eq!(session.lines(AMCHECK), ["0"]);
    session.rows(AMCHECK_INDEXES);
}

#[test]
fn materialized_views_come_back_filled_with_all_that_hangs_on_them() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v AS SELECT id, a, n, repeat(md5(a::text), 300) AS long FROM t WHERE a > 3",
            "CREATE MATERIALIZED VIEW m WITH (fillfactor = 70, toast.autovacuum_enabled = off) AS WITH t AS (SELECT * FROM v) SELECT t.*, a * 2 AS twice FROM t",
            "ALTER MATERIALIZED VIEW m OWNER TO dependents_1",
            "GRANT SELECT ON v, t TO dependents_1",
            "GRANT SELECT ON m TO dependents_2 WITH GRANT OPTION",
            "GRANT SELECT (a) ON m TO dependents_3",
            "CREATE UNIQUE INDEX m_id ON m (id) INCLUDE (n)",
            "CREATE UNIQUE INDEX partial ON m (a DESC NULLS LAST) WHERE n > 4",
            "CREATE INDEX computed ON m ((a + n), (long || 'x') text_pattern_ops) WITH (fillfactor = 50)",
            "ALTER INDEX computed ALTER COLUMN 1 SET STATISTICS 70",
            "COMMENT ON INDEX computed IS 'it''s'",
            "ALTER MATERIALIZED VIEW m CLUSTER ON m_id",
            "ALTER MATERIALIZED VIEW m ALTER long SET STORAGE EXTERNAL, ALTER long SET COMPRESSION pglz, ALTER a SET STATISTICS 30, ALTER n SET (n_distinct = -0.5)",
            "COMMENT ON MATERIALIZED VIEW m IS 'it''s'",
            "COMMENT ON COLUMN m.twice IS 'twice'",
            "CREATE STATISTICS of_both (mcv) ON a, n FROM m",
            "ALTER STATISTICS of_both SET STATISTICS 20",
            "CREATE MATERIALIZED VIEW empty AS SELECT a FROM m WITH NO DATA",
            "CREATE MATERIALIZED VIEW top AS SELECT n, count(*), sum(a) AS total FROM m GROUP BY n",
            "CREATE UNIQUE INDEX ON top (n)",
            "CREATE VIEW above AS SELECT * FROM top JOIN m USING (n)",
            "CREATE MATERIALIZED VIEW aside AS SELECT n FROM t",
        ],
    );
    let columns = [
        A,
        "v column 0002 a",
        "m column 0002 a",
        "m column 0005 twice",
        "empty column 0001 a",
        "above column 0005 a",
        "above column 0007 twice",
    ];
    let before = session.lines("SELECT oid FROM pg_class WHERE relname = 'aside'");
    let mut changed = changed_facts(
        &mut session,
        "t",
        &[
            "UPDATE t SET a = a + 10000 WHERE id < 50",
            "DELETE FROM t WHERE id > 490",
            // What it shows then is not taken back.
            "REFRESH MATERIALIZED VIEW m",
        ],
    );
    changed.retain(|c| !c.contains("column 0003 total"));
    changed.sort();
    let mut expected = type_changes(&columns);
    expected.sort();
    assert_eq!(changed, expected);
    // As after a REFRESH: sum(bigint) is numeric.
    assert_eq!(
        session.lines("SELECT pg_typeof(total), sum(count) OVER () FROM top LIMIT 1"),
        ["numeric|490"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM m FULL JOIN v USING (id) WHERE m.id IS NULL OR v.id IS NULL OR m.a <> v.a OR m.long <> v.long"),
        ["0"]
    );
    assert_eq!(
        before,
        session.lines("SELECT oid FROM pg_class WHERE relname = 'aside'")
    );
    let unpopulated = session.error("SELECT * FROM empty");
    assert_eq!(unpopulated.sqlstate, "55000", "{unpopulated}");
    let bounds = "SELECT count(*) FROM pg_stats WHERE tablename = 'm' AND schemaname = 'public' AND attname = 'a' AND histogram_bounds IS NOT NULL";
    assert_eq!(session.lines(bounds), ["1"]);
    amcheck(&mut session);
    session.batch(&[
        "SET enable_seqscan = off",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY top",
        "REFRESH MATERIALIZED VIEW m",
        "VACUUM FULL m",
        "REINDEX TABLE m",
    ]);
    amcheck(&mut session);
    let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%\\_views'";
    assert!(session.rows(left).is_empty());
    assert!(session.rows("SELECT FROM _transmute.mirrors").is_empty());
}

#[test]
fn a_refresh_while_the_migration_waits_is_not_taken_back() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE MATERIALIZED VIEW m AS SELECT id, a FROM t",
            "CREATE UNIQUE INDEX ON m (id)",
            "CREATE MATERIALIZED VIEW c AS SELECT id, a FROM t",
            "CREATE UNIQUE INDEX ON c (id)",
            "CREATE MATERIALIZED VIEW late AS SELECT a FROM t WITH NO DATA",
        ],
    );
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT count(*) FROM _transmute.mirrors"),
        ["2"]
    );
    session.batch(&[
        "INSERT INTO t SELECT g, g FROM generate_series(501, 600) g",
        "REFRESH MATERIALIZED VIEW m",
        "REFRESH MATERIALIZED VIEW late",
        "CREATE MATERIALIZED VIEW later AS SELECT max(a) AS a FROM m",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY c",
    ]);
    // What the counters say of it comes within a second.
    session.wait_for(
        "SELECT pg_stat_get_tuples_inserted('c'::regclass)",
        "600",
        PATIENCE,
    );
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    wait(&mut session, "FINISHED");
    for view in ["m", "c", "late"] {
        assert_eq!(
            session.lines(&format!(
                "SELECT pg_typeof(a), count(*) FROM {view} GROUP BY 1"
            )),
            ["bigint|600"],
            "{view}"
        );
    }
    assert_eq!(
        session.lines("SELECT pg_typeof(a), a FROM later"),
        ["bigint|600"]
    );
    amcheck(&mut session);
}

#[test]
fn a_migration_with_materialized_views_rolls_back_to_what_was() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE MATERIALIZED VIEW m AS SELECT id, a FROM t",
            "CREATE UNIQUE INDEX ON m (id)",
        ],
    );
    let before = facts(&mut session, "t");
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.exec("SELECT transmute.rollback('m', 'on second thoughts')");
    wait(&mut session, "UNINITIALIZED");
    assert_eq!(facts(&mut session, "t"), before);
    let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'";
    assert!(session.rows(left).is_empty());
    assert!(session.rows("SELECT FROM _transmute.mirrors").is_empty());
}

#[test]
fn a_materialized_view_on_two_tables_that_change_together_sees_both() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE TABLE u (id int PRIMARY KEY, b int)",
            "INSERT INTO u SELECT g, g * 3 FROM generate_series(1, 500) g",
            "CREATE VIEW joined AS SELECT t.id, a, b FROM t JOIN u USING (id)",
            "CREATE MATERIALIZED VIEW m AS SELECT id, a + b AS c FROM joined",
            "CREATE UNIQUE INDEX ON m (id)",
        ],
    );
    start(
        &mut session,
        "ALTER TABLE t ALTER a TYPE numeric; ALTER TABLE u ALTER b TYPE bigint",
        "{}",
    );
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT pg_typeof(c), count(*), sum(c) FROM m GROUP BY 1"),
        ["numeric|500|501000"]
    );
    amcheck(&mut session);
}

#[test]
fn the_owner_of_a_materialized_view_sees_no_more_than_before() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "ALTER TABLE t ADD secret text DEFAULT 'secret'",
            "GRANT SELECT (id, a) ON t TO dependents_1",
            "CREATE FUNCTION look() RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
               EXECUTE (SELECT 'SELECT secret FROM ' || n.nspname || '.t' FROM pg_namespace n WHERE nspname LIKE '%_new'); RETURN 'seen'; \
             EXCEPTION WHEN insufficient_privilege THEN RETURN 'refused'; WHEN null_value_not_allowed THEN RETURN 'none'; END $$",
            "CREATE MATERIALIZED VIEW m AS SELECT id, a, look() AS look FROM t WHERE id < 3 WITH NO DATA",
            "ALTER MATERIALIZED VIEW m OWNER TO dependents_1",
            "REFRESH MATERIALIZED VIEW m",
        ],
    );
    assert_eq!(session.lines("SELECT DISTINCT look FROM m"), ["none"]);
    start(&mut session, TO_BIGINT, "{}");
    wait(&mut session, "FINISHED");
    assert_eq!(session.lines("SELECT DISTINCT look FROM m"), ["refused"]);

    session.batch(&[
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON t USING (a < 6)",
    ]);
    let error = session.error("SELECT transmute.register('m2', 'ALTER TABLE t ALTER a TYPE int')");
    assert_eq!(error.sqlstate, "0A000", "{error}");
    assert!(error.to_string().contains("dependents_1"), "{error}");
}

#[test]
fn readers_of_materialized_views_never_miss_them() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE MATERIALIZED VIEW m1 AS SELECT id, a, n FROM t",
            "CREATE UNIQUE INDEX ON m1 (id)",
            "CREATE VIEW v2 AS SELECT max(a) AS top, count(*) AS rows FROM m1",
        ],
    );
    let reads = there_and_back(&database, &mut session, |reader| {
        assert_eq!(reader.lines("SELECT top, rows FROM v2"), ["500|500"]);
        assert_eq!(reader.lines("SELECT a FROM m1 WHERE id = 7"), ["7"]);
    });
    assert!(reads > 10, "{reads} reads");
    amcheck(&mut session);
}
