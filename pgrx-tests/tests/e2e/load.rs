//! Migrations under an application that does everything to the table: no statement fails, no row is lost.

use postgres::types::ToSql;
use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::pgbench::Pgbench;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::{Kind, Running, Tally, Workload};
use transmute_tests::{Database, DbError, Session};

use crate::migration::{self, assert_sound, fingerprint, Migration};

/// What a test on a loaded two-core machine may see; the benchmarks measure the real figure.
const HOLD_BUDGET_MS: f64 = 1_000.0;
/// Rows beside those that the writers draw from, so that the copy takes a while.
const STILL_ROWS: u32 = 40_000;

/// A slow copy, so that the writers are at work in the middle of it.
fn slowly(database: &Database<'_>) {
    migration::set(
        database,
        &[("batch_target_ms", "5"), ("backfill_duty", "20")],
    );
}

/// The workload's table with indexes of every kind, and a mirror of it that triggers keep in the writers' own transactions.
fn hot_table(database: &Database<'_>, load: &Workload) -> Session {
    // The writers' own conflicts would drown what else the server says.
    database.cluster().connect().exec(&format!(
        "ALTER DATABASE {} SET log_min_messages = 'log'",
        database.name()
    ));
    let mut session = database.connect();
    load.create_table(&mut session);
    session.exec(&format!(
        "CREATE INDEX t_a ON t (a);
         CREATE INDEX t_note ON t (note) WHERE a < 500;
         CREATE INDEX t_expression ON t (lower(note), (a + 1));
         INSERT INTO t SELECT 1000000 + i, i % 1000, -i, 'still ' || i FROM generate_series(1, {STILL_ROWS}) AS i;
         CREATE TABLE mirror AS TABLE t;
         CREATE INDEX ON mirror (id);
         CREATE FUNCTION mirror() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           IF TG_OP = 'TRUNCATE' THEN
             TRUNCATE mirror;
           ELSE
             IF TG_OP <> 'INSERT' THEN
               DELETE FROM mirror WHERE id = (to_jsonb(OLD) ->> 'id')::int;
             END IF;
             IF TG_OP <> 'DELETE' THEN
               INSERT INTO mirror SELECT * FROM jsonb_populate_record(NULL::mirror, to_jsonb(NEW));
             END IF;
           END IF;
           RETURN NULL;
         END $$;
         CREATE TRIGGER mirror AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION mirror();
         CREATE TRIGGER mirror_truncate AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION mirror();
         ANALYZE t"
    ));
    session
}

/// Whatever committed is there, and nothing else.
#[track_caller]
fn assert_equals_mirror(session: &mut Session) {
    let differences = session.lines(
        "(SELECT 'only in t', id::text, a::text, u::text, note FROM t
          EXCEPT ALL SELECT 'only in t', id::text, a::text, u::text, note FROM mirror)
         UNION ALL
         (SELECT 'missing in t', id::text, a::text, u::text, note FROM mirror
          EXCEPT ALL SELECT 'missing in t', id::text, a::text, u::text, note FROM t)
         LIMIT 10",
    );
    assert!(differences.is_empty(), "{differences:#?}");
}

fn some_more(writers: &Running) {
    writers.wait_for_more(300, PATIENCE);
}

#[track_caller]
fn assert_did_everything(tally: &Tally) {
    for kind in [
        Kind::Insert,
        Kind::Update,
        Kind::UpdateUnique,
        Kind::Delete,
        Kind::KeyChange,
        Kind::Upsert,
        Kind::Copy,
        Kind::CopyColumns,
        Kind::Merge,
        Kind::SelectAll,
        Kind::Savepoint,
        Kind::Rollback,
        Kind::Transaction,
        Kind::RepeatableRead,
    ] {
        assert!(tally.done.contains_key(&kind), "no {kind:?}: {tally:?}");
    }
}

#[test]
fn no_statement_fails_and_no_row_is_lost_through_every_transition() {
    let database = Database::shared();
    slowly(&database);
    let load = Workload::on("t").seed(11);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);

    let to_bigint =
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CONSTRAINT clean CHECK (note <> 'poison')";
    let mut migration = Migration::start(
        &database,
        "m",
        to_bigint,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait_for(
        "state = 'RUNNING' AND rows_done BETWEEN 1 AND rows_total - 1",
        "t",
    );
    migration.roll_back();
    assert_eq!(
        fingerprint(&mut session, "t"),
        before,
        "after a rollback in mid-copy"
    );
    some_more(&writers);

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    some_more(&writers);
    migration.roll_back();
    assert_eq!(
        fingerprint(&mut session, "t"),
        before,
        "after a rollback during the soak"
    );
    some_more(&writers);

    // A thousand and one refused rows are more than is taken without asking.
    session.exec("UPDATE t SET note = 'poison' WHERE id BETWEEN 1000001 AND 1001001");
    migration.apply();
    migration.wait_in("AWAITING_ACTION");
    some_more(&writers);
    session.exec("UPDATE t SET note = 'mended' WHERE note = 'poison'");
    migration.call("resume", "'mended'");
    migration.wait("AWAITING_FINALIZATION");
    some_more(&writers);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    some_more(&writers);

    let mut back = Migration::start(
        &database,
        "back",
        "ALTER TABLE t ALTER COLUMN a TYPE int, DROP CONSTRAINT clean",
        "{}",
    );
    back.finish();
    some_more(&writers);
    let tally = writers.stop();
    tally.assert_no_failures();
    assert_did_everything(&tally);
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    assert_eq!(fingerprint(&mut session, "t"), before, "there and back");
    let report = watch.stop();
    println!(
        "{} statements, {} writers' own conflicts; ACCESS EXCLUSIVE {} times, longest {:.0} ms, longest wait for it {:.0} ms",
        tally.total(),
        tally.expected.values().sum::<u64>(),
        report.held.len(),
        report.longest_hold_ms(),
        report.longest_wait_ms()
    );
    report.assert_held_less_than(HOLD_BUDGET_MS);
}

#[test]
fn a_key_and_everything_else_changes_its_type_under_load() {
    let database = Database::shared();
    slowly(&database);
    let load = Workload::on("t").seed(12);
    let mut session = hot_table(&database, &load);
    let writers = load.start(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN id TYPE bigint, ALTER COLUMN a TYPE numeric,
           ALTER COLUMN u TYPE text USING u::text, ALTER COLUMN note TYPE varchar(200)",
        "{}",
    );
    migration.wait("AWAITING_FINALIZATION");
    migration.finish();
    some_more(&writers);
    let tally = writers.stop();
    // An assignment cast exists from integer to text, so the writers' statements stay valid.
    tally.assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
}

#[test]
fn truncate_at_any_moment_loses_nothing_and_fails_nothing() {
    let database = Database::shared();
    slowly(&database);
    let load = Workload::on("t").seed(13).keys(500).with_truncate();
    let mut session = hot_table(&database, &load);
    let writers = load.start(&database);
    for (id, ddl) in [
        ("one", "ALTER TABLE t ALTER COLUMN a TYPE bigint"),
        ("two", "ALTER TABLE t ALTER COLUMN a TYPE numeric"),
        ("three", "ALTER TABLE t ALTER COLUMN a TYPE int"),
    ] {
        let mut migration =
            Migration::start(&database, id, ddl, r#"{"pre_finalization_soak": "1 hour"}"#);
        migration.wait("AWAITING_FINALIZATION");
        writers.wait_for_more(1_000, PATIENCE);
        migration.call("skip_soak", "'enough'");
        migration.finish();
    }
    // So that at least one came, whatever was drawn.
    session.exec("TRUNCATE t");
    some_more(&writers);
    let tally = writers.stop();
    tally.assert_no_failures();
    assert!(tally.done.contains_key(&Kind::Truncate), "{tally:?}");
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
}

#[test]
fn a_prepared_statement_that_returns_a_changed_column_is_refused_once_a_connection() {
    const WRITERS: u32 = 4;
    let database = Database::shared();
    let load = Workload::on("t").seed(14).writers(WRITERS).prepared();
    let mut session = hot_table(&database, &load);
    let writers = load.start(&database);
    // Every writer has prepared, and used, each kind of statement.
    writers.wait_for_more(800, PATIENCE);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    migration.finish();
    writers.wait_for_more(800, PATIENCE);
    let tally = writers.stop();
    for failure in &tally.unexpected {
        assert_eq!(failure.kind, Kind::SelectAll, "{failure:?}");
        assert_is_changed_result(&failure.error);
    }
    assert_eq!(
        tally.unexpected.len(),
        WRITERS as usize,
        "{:?}",
        tally.unexpected
    );
    assert_equals_mirror(&mut session);
}

#[track_caller]
fn assert_is_changed_result(error: &DbError) {
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("0A000", "cached plan must not change result type")
    );
}

#[test]
fn prepared_statements_that_return_no_changed_column_go_on() {
    let database = Database::shared();
    let mut session = hot_table(&database, &Workload::on("t"));
    let statements: [(&str, &[&(dyn ToSql + Sync)], bool); 6] = [
        ("SELECT id, note FROM t WHERE id = $1", &[&1i32], false),
        (
            "SELECT count(*) FROM t WHERE a < $1::int8",
            &[&500i64],
            false,
        ),
        (
            "UPDATE t SET note = note WHERE id = $1 RETURNING id, u",
            &[&1i32],
            false,
        ),
        (
            "INSERT INTO t VALUES ($1, 1, $1, 'new') ON CONFLICT (id) DO UPDATE SET note = 'again'",
            &[&2_000_000i32],
            false,
        ),
        ("SELECT * FROM t WHERE id = $1", &[&1i32], true),
        (
            "DELETE FROM t WHERE id = $1 RETURNING a",
            &[&1_000_001i32],
            true,
        ),
    ];
    let client = session.client();
    let mut prepared = Vec::new();
    for (sql, parameters, returns_it) in statements {
        let statement = client.prepare(sql).expect(sql);
        client.query(&statement, parameters).expect(sql);
        prepared.push((sql, statement, parameters, returns_it));
    }
    Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    )
    .finish();
    for (sql, statement, parameters, returns_it) in prepared {
        match client.query(&statement, parameters) {
            Ok(_) => assert!(!returns_it, "went on with another result type: {sql}"),
            Err(error) => {
                assert!(returns_it, "{error:?}: {sql}");
                assert_is_changed_result(&DbError::from(&error));
                // Prepared again, as drivers do, it works.
                client.query(sql, parameters).expect(sql);
            }
        }
    }
    assert_equals_mirror(&mut session);
}

#[test]
fn a_plpgsql_trigger_that_names_the_changed_column_goes_on() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         CREATE TABLE log (a bigint);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO log VALUES (NEW.a); NEW.a := NEW.a + 1; RETURN NEW; END $$;
         CREATE TRIGGER log BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log();
         INSERT INTO t VALUES (1, 1)",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("after_commit");
    // The last call before the swap: what is cached now was planned for the old type.
    session.exec("UPDATE t SET a = 2 WHERE id = 1");
    migration.call("skip_soak", "'enough'");
    waitpoints.wait_reached("after_commit", PATIENCE);
    assert_eq!(migration.status("state"), "FINISHING");
    // After a plain ALTER this session would be refused with "type of parameter (bigint) does not match that when
    // preparing the plan (integer)" until it reconnects.
    session.exec("INSERT INTO t VALUES (2, 3000000000)");
    session.exec("UPDATE t SET a = 5 WHERE id = 1");
    assert_eq!(
        session.lines("SELECT id, a FROM t ORDER BY id"),
        ["1|6", "2|3000000001"]
    );
    assert_eq!(
        session.lines("SELECT a FROM log ORDER BY a"),
        ["1", "2", "5", "3000000000"]
    );
    waitpoints.release("after_commit");
    migration.finish();
}

#[test]
fn pgbench_notices_nothing_and_its_books_balance() {
    let database = Database::shared();
    slowly(&database);
    Pgbench::initialize(&database, 1);
    let watch = Lockwatch::start(&database, "pgbench_accounts");
    let mut bench = Pgbench::new(&database).clients(2).rate(300).start();
    bench.wait_running();
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE bigint, ADD COLUMN stamp timestamptz DEFAULT clock_timestamp()",
        r#"{"pre_finalization_soak": "1 s"}"#,
    );
    migration.wait_for("rows_done > 0", "t");
    migration.roll_back();
    migration.apply();
    migration.finish();
    let report = bench.stop();
    assert_eq!(report.failures(), 0, "{:?}", report.errors);
    let session = migration.session();
    // Every transaction adds one number to an account, a teller and a branch, and writes it down.
    assert_eq!(
        session.lines(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) - sum(delta),
                    (SELECT sum(tbalance) FROM pgbench_tellers) - sum(delta) FROM pgbench_history"
        ),
        ["0|0"]
    );
    assert_eq!(
        session.lines(
            "SELECT count(*), count(stamp), count(DISTINCT stamp) > 100 FROM pgbench_accounts"
        ),
        ["100000|100000|t"]
    );
    assert_sound(session, "pgbench_accounts");
    let stats = report.stats();
    let locks = watch.stop();
    println!(
        "{} transactions, p50 {:.1} ms, p99 {:.1} ms; ACCESS EXCLUSIVE at most {:.0} ms",
        stats.count,
        stats.p50_ms,
        stats.p99_ms,
        locks.longest_hold_ms()
    );
    locks.assert_held_less_than(HOLD_BUDGET_MS);
}
