//! Migrations under an application that does everything to the table: no statement fails, no row is lost.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::pgbench::Pgbench;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::{Kind, Running, Tally, Workload};
use transmute_tests::{Database, Session};

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
pub fn hot_table(database: &Database<'_>, load: &Workload) -> Session {
    // The writers' own conflicts would drown what else the server says.
    database.cluster().connect().exec(&format!(
        "ALTER DATABASE {} SET log_min_messages = 'log'",
        database.name()
    ));
    let mut session = database.connect();
    load.create_table(&mut session);
    make_hot(&mut session);
    session
}

/// Indexes of every kind on `t`, more rows, and the mirror.
pub fn make_hot(session: &mut Session) {
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
}

/// Whatever committed is there, and nothing else.
#[track_caller]
pub fn assert_equals_mirror(session: &mut Session) {
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
