//! What the swap takes away from a table and puts back: every fact of the catalog but the changed type is as before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{Database, Session};

/// Roles belong to the cluster, which other tests share.
const ROLES: &str = "DO $$ BEGIN
  FOR i IN 1..3 LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dependents_' || i) THEN
      EXECUTE 'CREATE ROLE dependents_' || i;
    END IF;
  END LOOP;
EXCEPTION WHEN unique_violation THEN NULL; -- another test was quicker
END $$";

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, n int);
  INSERT INTO t SELECT g, g, g % 10 FROM generate_series(1, 500) AS g";

const PASS: &str =
    "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

fn open(database: &Database<'_>, setup: &[&str]) -> Session {
    let mut session = database.connect();
    session.exec(ROLES);
    session.exec(TABLE);
    session.batch(setup);
    session
}

/// What the catalogs say of `table` and of everything that hangs on it.
fn facts(session: &mut Session, table: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT regexp_split_to_table(_transmute.fingerprint('{table}'::regclass), E'\\n')"
    ))
}

fn start(session: &mut Session, alter: &str, meta: &str) {
    session.exec(&format!(
        "SELECT transmute.migrate('{alter}', 'm', '{meta}')"
    ));
}

fn wait(session: &mut Session, state: &str) {
    session.exec(&format!("CALL transmute.wait('m', '{state}', '30 s')"));
}

/// Makes `a` a bigint, with these writes while the migration waits for its approval; the facts that are other ones then,
/// old with a minus, new with a plus.
fn changed_facts(session: &mut Session, table: &str, writes: &[&str]) -> Vec<String> {
    let before = facts(session, table);
    start(session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(session, "AWAITING_FINALIZATION");
    session.batch(writes);
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    wait(session, "FINISHED");
    let after = facts(session, table);
    let missing = before.iter().filter(|fact| !after.contains(fact));
    let added = after.iter().filter(|fact| !before.contains(fact));
    missing
        .map(|fact| format!("- {fact}"))
        .chain(added.map(|fact| format!("+ {fact}")))
        .collect()
}

/// Only these columns' type is another one.
fn type_changes(columns: &[&str]) -> Vec<String> {
    let lines = |sign: &str, name: &str| -> Vec<String> {
        columns
            .iter()
            .map(|column| format!("{sign} public.{column}: type = {name}"))
            .collect()
    };
    [lines("-", "integer"), lines("+", "bigint")].concat()
}

/// A failure must not leave the readers running, for whose end the scope waits.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const A: &str = "t column 0002 a";

#[test]
fn views_on_views_come_back_with_owner_options_privileges_and_comments() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v1 WITH (security_barrier, security_invoker = true) AS SELECT a, n FROM t WHERE a > 3",
            "ALTER VIEW v1 OWNER TO dependents_1",
            "GRANT SELECT, INSERT ON v1 TO dependents_2 WITH GRANT OPTION",
            "GRANT UPDATE (n) ON v1 TO dependents_3",
            "SET ROLE dependents_2",
            "GRANT SELECT ON v1 TO PUBLIC",
            "RESET ROLE",
            "REVOKE DELETE, TRIGGER ON v1 FROM dependents_1",
            "COMMENT ON VIEW v1 IS 'it''s'",
            "COMMENT ON COLUMN v1.n IS 'number'",
            "CREATE VIEW v2 AS SELECT x.a AS \"A b\", count(*) FROM v1 AS x GROUP BY 1",
            "CREATE VIEW v3 AS SELECT v.\"A b\", t.n, v AS whole FROM v2 AS v JOIN t ON t.a = v.\"A b\"",
            "CREATE VIEW aside AS SELECT n FROM t",
        ],
    );
    let views = [
        "v1 column 0001 a",
        "v2 column 0001 \"A b\"",
        "v3 column 0001 \"A b\"",
    ];
    let mut expected = type_changes(&[&[A], &views[..]].concat());
    expected.sort();
    let mut changed = changed_facts(&mut session, "t", &[]);
    changed.sort();
    assert_eq!(changed, expected);
    assert_eq!(
        session.lines("SELECT count(*), max(\"A b\") FROM v3"),
        ["497|500"]
    );
    let privileges = "SELECT has_table_privilege('dependents_3', 'v1', 'SELECT'), has_table_privilege('dependents_3', 'v1', 'INSERT')";
    assert_eq!(session.lines(privileges), ["t|f"]);
}

#[test]
fn a_view_that_can_be_written_to_comes_back_with_defaults_triggers_and_rules() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            PASS,
            "CREATE VIEW w (p, q, r) AS SELECT id, a, n FROM t WHERE a > 3 WITH LOCAL CHECK OPTION",
            "ALTER VIEW w ALTER COLUMN q SET DEFAULT 99",
            "CREATE TRIGGER statement AFTER INSERT ON w FOR EACH STATEMENT EXECUTE FUNCTION pass('a''b')",
            "COMMENT ON TRIGGER statement ON w IS 'it''s'",
            "CREATE RULE quiet AS ON DELETE TO w WHERE OLD.q = 7 DO INSTEAD NOTHING",
            "COMMENT ON RULE quiet ON w IS 'quiet'",
            "CREATE RULE away AS ON UPDATE TO t WHERE NEW.a = -5 DO INSTEAD NOTHING",
            "ALTER TABLE t ENABLE ALWAYS RULE away",
        ],
    );
    let changed = changed_facts(&mut session, "t", &[]);
    assert_eq!(changed, type_changes(&[A, "w column 0002 q"]));
    session.exec("INSERT INTO w (p, r) VALUES (1000, 1)");
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 1000"), ["99"]);
    let refused = session.error("INSERT INTO w VALUES (1001, 1, 1)");
    assert_eq!(refused.sqlstate, "44000", "{refused}");
    session.exec("UPDATE t SET a = -5 WHERE id = 9");
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 9"), ["9"]);
}

#[test]
fn policies_and_triggers_that_mention_the_column_come_back() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            PASS,
            "CREATE TABLE other (id int)",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON t AS RESTRICTIVE FOR SELECT TO dependents_1, dependents_2 USING (a < 6)",
            "CREATE POLICY all_of ON t FOR SELECT USING (true)",
            "CREATE POLICY elsewhere ON other USING (id IN (SELECT a FROM t))",
            "COMMENT ON POLICY few ON t IS 'it''s'",
            "CREATE TRIGGER condition BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.a IS DISTINCT FROM NEW.a) EXECUTE FUNCTION pass()",
            "CREATE TRIGGER of_column AFTER UPDATE OF n, a ON t FOR EACH ROW EXECUTE FUNCTION pass('x')",
            "ALTER TABLE t DISABLE TRIGGER condition, ENABLE ALWAYS TRIGGER of_column",
            "COMMENT ON TRIGGER of_column ON t IS 'of'",
            "GRANT SELECT ON t TO dependents_1",
        ],
    );
    assert_eq!(changed_facts(&mut session, "t", &[]), type_changes(&[A]));
    session.exec("SET ROLE dependents_1");
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["5"]);
}

#[test]
fn foreign_keys_in_and_out_of_the_column_come_back_and_are_valid() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "ALTER TABLE t ADD CONSTRAINT t_a_key UNIQUE (a)",
            "CREATE TABLE target (id bigint PRIMARY KEY)",
            "INSERT INTO target SELECT generate_series(1, 500)",
            "ALTER TABLE t ADD CONSTRAINT outward FOREIGN KEY (a) REFERENCES target ON DELETE CASCADE DEFERRABLE",
            "CREATE TABLE child (x int CONSTRAINT inward REFERENCES t (a) MATCH FULL ON UPDATE CASCADE, y int)",
            "INSERT INTO child SELECT a, NULL FROM t WHERE a % 2 = 0",
            "INSERT INTO child VALUES (1, 100000)",
            "ALTER TABLE child ADD CONSTRAINT unproven FOREIGN KEY (y) REFERENCES t (a) NOT VALID",
            "ALTER TABLE t ADD parent int, ADD CONSTRAINT self FOREIGN KEY (parent) REFERENCES t (a)",
            "UPDATE t SET parent = a - 1 WHERE a > 1",
            "COMMENT ON CONSTRAINT inward ON child IS 'it''s'",
        ],
    );
    let of_child = facts(&mut session, "child");
    assert_eq!(changed_facts(&mut session, "t", &[]), type_changes(&[A]));
    assert_eq!(facts(&mut session, "child"), of_child);
    for orphan in [
        "INSERT INTO child (x) VALUES (501)",
        "INSERT INTO child (y) VALUES (501)",
        "INSERT INTO t VALUES (501, 501)",
        "UPDATE t SET parent = 501 WHERE a = 4",
        "DELETE FROM t WHERE a = 2",
    ] {
        let refused = session.error(orphan);
        assert_eq!(refused.sqlstate, "23503", "{orphan}: {refused}");
    }
    session.exec("UPDATE t SET parent = NULL; INSERT INTO target VALUES (700); UPDATE t SET a = 700 WHERE a = 4");
    assert_eq!(
        session.lines("SELECT count(*) FROM child WHERE x = 700"),
        ["1"]
    );
}

#[test]
fn publications_replica_identity_clustering_and_statistics_stay() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE UNIQUE INDEX t_a ON t (a)",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_a",
            "ALTER TABLE t CLUSTER ON t_a",
            "CREATE PUBLICATION filtered FOR TABLE t WHERE (a > 3 AND a <> 5)",
            "CREATE PUBLICATION listed FOR TABLE t (a, id)",
            "CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA public",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "CREATE STATISTICS two (dependencies, mcv) ON a, n FROM t",
            "COMMENT ON STATISTICS two IS 'both'",
            "CREATE STATISTICS computed ON (a + n) FROM t",
            "ALTER TABLE t ALTER a SET STATISTICS 50, ALTER a SET (n_distinct = -1)",
        ],
    );
    // All that is published has to be identified, in the shadow and in the extension's own tables as well.
    let writes = [
        "UPDATE t SET a = a + 10000 WHERE id < 50",
        "DELETE FROM t WHERE id > 490",
        "UPDATE t SET id = -id WHERE id = 100",
    ];
    assert_eq!(
        changed_facts(&mut session, "t", &writes),
        type_changes(&[A])
    );
    // Statistics came along with the rows: the planner need not wait for the next ANALYZE.
    let bounds = "SELECT count(*) FROM pg_stats WHERE tablename = 't' AND attname = 'a' AND schemaname = 'public' AND histogram_bounds IS NOT NULL";
    assert_eq!(session.lines(bounds), ["1"]);
    session.exec("UPDATE t SET a = 1000 WHERE a = 60; DELETE FROM t WHERE a = 1000");
    let rows = session.lines("SELECT count(*), count(*) FILTER (WHERE a > 10000), min(id) FROM t");
    assert_eq!(rows, ["489|49|-100"]);
}

#[test]
fn what_cannot_be_put_back_is_refused_by_name_before_anything_is_written() {
    let cases = [
        ("materialized", "CREATE MATERIALIZED VIEW materialized AS SELECT a FROM t"),
        ("above", "CREATE VIEW below AS SELECT a FROM t; CREATE MATERIALIZED VIEW above AS SELECT a FROM below"),
        ("body", "CREATE FUNCTION body() RETURNS bigint BEGIN ATOMIC SELECT max(a) FROM t; END"),
        ("storing", "CREATE TABLE storing (x t)"),
        ("short_lived", "CREATE TEMP VIEW short_lived AS SELECT a FROM t"),
        ("generated", "ALTER TABLE t ADD generated int GENERATED ALWAYS AS (a + 1) STORED"),
    ];
    for (name, sql) in cases {
        let database = Database::shared();
        let mut session = open(&database, &[sql]);
        let before = facts(&mut session, "t");
        for call in [
            format!("SELECT * FROM transmute.explain('{TO_BIGINT}')"),
            format!("SELECT transmute.register('m', '{TO_BIGINT}')"),
            format!("SELECT transmute.migrate('{TO_BIGINT}', 'm')"),
        ] {
            let error = session.error(&call);
            assert_eq!(error.sqlstate, "0A000", "{name}: {error}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert!(error.detail.is_some(), "{name}: {error}");
        }
        assert!(session.rows("SELECT FROM transmute.status").is_empty());
        let events = session.lines("SELECT event, id FROM transmute.audit_events WHERE id = 'm'");
        assert!(events.is_empty(), "{events:?}");
        let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'";
        assert!(session.rows(schemas).is_empty());
        assert_eq!(facts(&mut session, "t"), before);
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["500"]);
    }
}

#[test]
fn dependents_made_while_the_migration_waits_are_carried_too() {
    let database = Database::shared();
    let mut session = open(&database, &[PASS]);
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.batch(&[
        "CREATE VIEW late AS SELECT a FROM t",
        "CREATE POLICY late ON t USING (a > 0)",
        "CREATE TRIGGER late BEFORE UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION pass()",
        "CREATE PUBLICATION late FOR TABLE t WHERE (a > 3) WITH (publish = 'insert')",
        "COMMENT ON COLUMN t.a IS 'late'",
    ]);
    let before = facts(&mut session, "t");
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    wait(&mut session, "FINISHED");
    let after = facts(&mut session, "t");
    let own = |fact: &&String| !fact.contains(": type = ");
    // The capture's triggers are no facts of the table.
    assert_eq!(
        after.iter().filter(own).collect::<Vec<_>>(),
        before.iter().filter(own).collect::<Vec<_>>()
    );
    assert_eq!(session.lines("SELECT count(*) FROM late"), ["500"]);
}

#[test]
fn a_materialized_view_made_while_the_migration_waits_stops_the_swap_until_it_is_gone() {
    let database = Database::shared();
    let mut session = open(&database, &[]);
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.exec("CREATE MATERIALIZED VIEW in_the_way AS SELECT a FROM t");
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    let error = session.error("CALL transmute.wait('m', 'FINISHED', '30 s')");
    assert!(error.to_string().contains("0A000"), "{error}");
    let seen = session.lines("SELECT state, last_error_sqlstate FROM transmute.status");
    assert_eq!(seen, ["AWAITING_FINALIZATION|0A000"]);
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM t GROUP BY 1"),
        ["integer|500"]
    );
    session.exec("INSERT INTO t VALUES (1000, 1000, 1)");
    session.exec("DROP MATERIALIZED VIEW in_the_way");
    session.exec("SELECT transmute.resume('m', 'it is gone')");
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM t GROUP BY 1"),
        ["bigint|501"]
    );
}

#[test]
fn readers_of_a_view_never_miss_it_while_it_is_made_again() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE VIEW v1 AS SELECT a, n FROM t",
            "CREATE VIEW v2 AS SELECT max(a) AS top, count(*) AS rows FROM v1",
        ],
    );
    let stop = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = database.connect();
                let stop = &stop;
                scope.spawn(move || {
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(reader.lines("SELECT top, rows FROM v2"), ["500|500"]);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        // There and back again, so that several swaps meet readers.
        for (number, kind) in ["bigint", "int", "bigint"].iter().enumerate() {
            session.exec(&format!(
                "SELECT transmute.migrate('ALTER TABLE t ALTER a TYPE {kind}', 'm{number}')"
            ));
            wait_until("the migration", PATIENCE, || {
                session
                    .scalar::<bool>(&format!("SELECT transmute.is_finished('m{number}')"))
                    .then_some(())
            });
        }
        drop(stopper);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no read failed"))
            .sum::<u32>()
    });
    assert!(reads > 10, "{reads} reads");
    let held = session.scalar::<f64>("SELECT max(lock_held_ms)::float8 FROM transmute.progress");
    assert!(
        held < Duration::from_secs(2).as_secs_f64() * 1000.0,
        "{held} ms"
    );
}
