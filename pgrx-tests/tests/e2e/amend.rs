//! A script that is mended while it runs: what is converted is of the amended text, what is done stays done, and approvals lapse.

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{self, assert_sound, fingerprint, Migration};
use crate::surface::refused;

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour", "required_approvals": 1}"#;
const BAD: &str = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
const GOOD: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE int USING CASE WHEN a ~ '^[0-9]+$' THEN -a::int END";

fn numbers(database: &Database<'_>, rows: i32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int);
         CREATE INDEX t_a ON t (a);
         INSERT INTO t SELECT i, i::text FROM generate_series(1, {rows}) AS i;
         UPDATE t SET a = 'bad' WHERE id IN (10, {rows})"
    ));
    session
}

fn amend(up: &str) -> String {
    format!("$up${up}$up$, 'the conversion was wrong'")
}

#[test]
fn an_amended_conversion_is_that_of_every_row() {
    let database = Database::shared();
    let mut session = numbers(&database, 20_000);
    session.exec("CREATE MATERIALIZED VIEW m AS SELECT id, a FROM t WHERE id < 100");
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::start(&database, "m", BAD, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    migration.wait_for("dead_letters", "2");
    migration.call("approve", "'looks right'");
    assert_eq!(migration.status("approvals"), "1");
    let checksums = "SELECT checksum || ' ' || plan_checksum FROM _transmute.migrations";
    let checksum: String = session.scalar(checksums);
    migration.call("amend", &amend(GOOD));
    assert_ne!(session.scalar::<String>(checksums), checksum);
    // An approval of the old plan is none of the new one.
    assert_eq!(migration.status("approvals"), "0");
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        migration.status("dead_letters || ' ' || (soak_until > now() + interval '50 minutes')"),
        "0 true"
    );
    session.exec("INSERT INTO t VALUES (30000, '30000'), (30001, 'x')");
    migration.wait_for("lag", "0");
    migration.call("approve", "'now it does'");
    migration.call("skip_soak", "'seen'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT pg_typeof(max(a)), count(*), count(a), count(*) FILTER (WHERE a = -id) FROM t GROUP BY ()"),
        ["integer|20002|19999|19999"]
    );
    assert_eq!(
        session.lines("SELECT pg_typeof(a), a FROM m WHERE id = 1"),
        ["integer|-1"]
    );
    assert_eq!(
        session.lines(
            "SELECT detail::json ->> 'reason', detail::json #>> '{statements,0,before}', detail::json #>> '{statements,0,after}'
               FROM transmute.history WHERE event = 'amended'"
        ),
        [format!("the conversion was wrong|{BAD}|{GOOD}")]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    assert_ne!(fingerprint(&mut session, "t"), before);
    assert_sound(&mut session, "t");
}

#[test]
fn amended_under_load_nothing_is_lost_and_rolled_back_it_never_was() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "30")],
    );
    let load = Workload::on("t").seed(41);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let running = load.start(&database);
    let first = "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a::bigint * 2";
    let second = "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a::bigint";
    let mut migration = Migration::start(&database, "m", first, LONG_SOAK);
    // In the midst of the copy, with other processes at it.
    migration.wait_for("rows_done > 2000", "t");
    migration.call("amend", &amend(second));
    migration.wait("AWAITING_FINALIZATION");
    running.wait_for_more(300, PATIENCE);
    migration.call("amend", &amend(first));
    migration.wait("AWAITING_FINALIZATION");
    running.wait_for_more(300, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("amend", &amend(second));
    migration.call("approve", "'the test says so'");
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'the test says so'");
    migration.finish();
    running.wait_for_more(300, PATIENCE);
    running.stop().assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
}

#[test]
fn of_a_partitioned_table_every_partition_gets_the_amended_conversion() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int) PARTITION BY RANGE (id);
         CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (5000);
         CREATE TABLE t_high (b int, hole int, a text, id int NOT NULL);
         ALTER TABLE t_high DROP COLUMN hole;
         ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (5000) TO (MAXVALUE);
         CREATE INDEX t_a ON t (a);
         INSERT INTO t SELECT i, i::text FROM generate_series(1, 10000) AS i;
         UPDATE t SET a = 'bad' WHERE id IN (10, 10000)",
    );
    let mut migration = Migration::start(&database, "m", BAD, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    migration.wait_for("dead_letters", "2");
    migration.call("approve", "'looks right'");
    // Another shape, of a partition or of the table, is no amendment; nothing of it is left.
    let refusals = [
        "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a::bigint",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int, ADD COLUMN c int DEFAULT random() * 9",
    ];
    for up in refusals {
        assert_eq!(
            refused(
                &mut session,
                &format!("SELECT transmute.amend('m', {})", amend(up))
            ),
            "0A000: amend changes how rows are converted, not what becomes of the table",
            "{up}"
        );
    }
    migration.call("amend", &amend(GOOD));
    assert_eq!(migration.status("approvals"), "0");
    assert_eq!(
        session.lines("SELECT kind, count(*) FROM transmute.plan('m') WHERE sql LIKE '%-a::int%' GROUP BY 1 ORDER BY 1"),
        ["rewrite_swap|2", "rewrite_tree|1"]
    );
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(migration.status("dead_letters"), "0");
    session.exec("INSERT INTO t VALUES (-5, '-5'), (30000, '30000')");
    migration.call("approve", "'now it does'");
    migration.call("skip_soak", "'seen'");
    migration.finish();
    assert_eq!(
        session.lines(
            "SELECT pg_typeof(max(a)), count(*), count(a), count(*) FILTER (WHERE a = -id) FROM t"
        ),
        ["integer|10002|9999|9999"]
    );
    let error = session.error(&format!("SELECT transmute.amend('m', {})", amend(BAD)));
    assert_eq!(error.sqlstate, "55000", "{error}");
    for leaf in ["t_low", "t_high"] {
        assert_sound(&mut session, leaf);
    }
    // What versions convert by is not taken from under them.
    session.exec(
        "SELECT transmute.register('n', 'ALTER TABLE t ALTER a TYPE bigint USING a::bigint',
           meta => '{\"versioned_views\": \"v2\", \"pre_finalization_soak\": \"1 hour\"}', down => 'ALTER TABLE t ALTER a TYPE int');
         SELECT transmute.apply('n')",
    );
    session.exec("CALL transmute.wait('n', 'AWAITING_FINALIZATION', '60 s')");
    let other = "ALTER TABLE t ALTER a TYPE bigint USING a::bigint * 2";
    assert_eq!(
        refused(
            &mut session,
            &format!("SELECT transmute.amend('n', {})", amend(other))
        ),
        "0A000: a rewrite whose way back was proved is not amended"
    );
}

#[test]
fn a_migration_that_waits_for_a_person_goes_on_with_the_amended_text() {
    let database = Database::shared();
    migration::set(&database, &[("max_dead_letters", "1")]);
    let mut session = numbers(&database, 100);
    let mut migration = Migration::start(&database, "m", BAD, "{}");
    migration.wait_in("AWAITING_ACTION");
    migration.call("amend", &amend(GOOD));
    assert_eq!(migration.status("state"), "AWAITING_ACTION");
    migration.call("resume", "'amended'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), sum(a) FROM t"),
        ["100|-4940"]
    );
}

#[test]
fn a_statement_of_a_bundle_is_amended_where_it_stands() {
    let database = Database::shared();
    let mut session = numbers(&database, 100);
    let script = |using: &str| {
        format!("ALTER TABLE t ALTER COLUMN b TYPE bigint;\nALTER TABLE t ALTER COLUMN a TYPE int USING {using}; COMMENT ON TABLE t IS 'x'")
    };
    let mut migration = Migration::start(&database, "m", &script("a::int"), "{}");
    migration.wait_for("dead_letters", "2");
    migration.call("amend", &amend(&script("nullif(a, 'bad')::int")));
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(a), sum(a), pg_typeof(max(b)) FROM t"),
        ["98|4940|bigint"]
    );
}

#[test]
fn what_a_data_statement_has_done_stays_done() {
    let database = Database::shared();
    let mut session = numbers(&database, 20_000);
    let mut migration = Migration::start(&database, "m", "UPDATE t SET b = a::int", "{}");
    migration.wait_for("state || dead_letters", "FINISHING2");
    let amended = "UPDATE t SET b = CASE WHEN a ~ '^[0-9]+$' THEN -a::int ELSE 0 END";
    migration.call("amend", &amend(amended));
    migration.call("replay_dead_letters", "");
    migration.finish();
    assert_eq!(
        session.lines(
            "SELECT count(*) FILTER (WHERE b = id), count(*) FILTER (WHERE b = 0), count(*) FROM t"
        ),
        ["19998|2|20000"]
    );
    assert_eq!(
        session.lines("SELECT sql FROM transmute.plan('m')"),
        [amended]
    );
}

#[test]
fn an_amended_condition_leaves_rows_out() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "3"), ("backfill_duty", "10")],
    );
    let mut session = numbers(&database, 5_000);
    let mut migration =
        Migration::start(&database, "m", "UPDATE t SET b = a::int WHERE id > 0", "{}");
    // In the midst of it.
    migration.wait_for("rows_done > 100", "t");
    migration.call("pause", "'to think'");
    migration.call(
        "amend",
        &amend("UPDATE t SET b = a::int WHERE id > 0 AND a <> 'bad'"),
    );
    migration.call("resume", "'thought'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(b), count(*) FILTER (WHERE b = id) FROM t"),
        ["4998|4998"]
    );
}

#[test]
fn before_it_is_applied_a_script_is_amended_at_will() {
    let database = Database::shared();
    let mut session = numbers(&database, 100);
    let mut migration = Migration::register(&database, "m", BAD, "{}");
    migration.call(
        "amend",
        &amend("CREATE TABLE other (a int); COMMENT ON TABLE t IS 'amended'"),
    );
    assert_eq!(
        session.lines("SELECT count(*), max(sql) FROM transmute.plan('m')"),
        ["2|CREATE TABLE other (a int)"]
    );
    let error = migration.refused("amend", &amend("ALTER TABLE nobody ADD a int"));
    assert_eq!(error.sqlstate, "42P01");
    migration.apply();
    migration.finish();
    assert_eq!(
        session.lines("SELECT obj_description('t'::regclass)"),
        ["amended"]
    );
    assert_eq!(migration.refused("amend", &amend(BAD)).sqlstate, "55000");
}

#[test]
fn what_is_no_expression_is_refused_and_nothing_changes() {
    let database = Database::shared();
    let mut session = numbers(&database, 100);
    session.exec("CREATE TABLE u (id int PRIMARY KEY, a text)");
    let script = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int; COMMENT ON TABLE t IS 'x'; UPDATE u SET a = 'y'";
    let mut migration = Migration::start(&database, "m", script, "{}");
    migration.wait_for("waiting_for LIKE '2 dead letters open;%'", "t");
    let everything = "SELECT md5(string_agg(s::text, '' ORDER BY step)) || (SELECT up || plan_checksum FROM _transmute.migrations) || (SELECT shadow FROM _transmute.rewrites) FROM _transmute.steps s";
    let before: String = session.scalar(everything);
    for (up, expected) in [
        (script, "22023: nothing is amended"),
        (
            "",
            "0A000: amend changes expressions, not the statements of a script that runs",
        ),
        (
            "ALTER TABLE t ALTER COLUMN",
            "42601: syntax error at end of input",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int",
            "0A000: amend changes expressions, not the statements of a script that runs",
        ),
        (
            &script.replace("TYPE int USING a::int", "TYPE bigint USING a::bigint"),
            "0A000: amend changes how rows are converted, not what becomes of the table",
        ),
        (
            &script.replace("USING a::int", "USING a::int, ADD COLUMN c int"),
            "0A000: amend changes how rows are converted, not what becomes of the table",
        ),
        (
            &script.replace("USING a::int", "USING a::int, ADD UNIQUE (b)"),
            "0A000: amend changes how rows are converted, not what becomes of the table",
        ),
        (
            &script.replace("a::int", "nobody(a)"),
            "42883: function nobody(text) does not exist",
        ),
        (
            &script.replace("'x'", "'y'"),
            "0A000: this statement cannot be amended while the migration is under way",
        ),
        (
            &script.replace("UPDATE u SET a", "UPDATE t SET a"),
            "0A000: an amended statement must change the same columns of the same rows",
        ),
        (
            &script.replace("UPDATE u SET a = 'y'", "UPDATE u SET id = 1"),
            "0A000: an amended statement must change the same columns of the same rows",
        ),
    ] {
        let error = migration.refused("amend", &amend(up));
        assert_eq!(
            format!("{}: {}", error.sqlstate, error.message),
            expected,
            "{up}"
        );
        assert_eq!(session.scalar::<String>(everything), before, "{up}");
    }
    for (arguments, expected) in [
        ("NULL, 'x'", "22023: up is NULL"),
        ("'x', NULL", "22023: reason is NULL"),
        ("'x', ' '", "22023: a reason is needed"),
    ] {
        let error = migration.refused("amend", arguments);
        assert_eq!(format!("{}: {}", error.sqlstate, error.message), expected);
    }
    migration.roll_back();
}
