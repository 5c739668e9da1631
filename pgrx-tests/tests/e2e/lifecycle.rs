//! The eight states: every way between them, back out of them, and what holds a migration in one.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{self, assert_no_traces, assert_sound, fingerprint, Migration};

pub const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
/// Rows with a negative number are refused.
const TO_POSITIVE_BIGINT: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CONSTRAINT positive CHECK (a > 0)";
const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// What may follow what, written once more by hand.
const NEXT: [(&str, &[&str]); 8] = [
    ("UNINITIALIZED", &["INITIALIZING"]),
    ("INITIALIZING", &["RUNNING", "ROLLING_BACK"]),
    (
        "RUNNING",
        &["AWAITING_ACTION", "AWAITING_FINALIZATION", "ROLLING_BACK"],
    ),
    ("AWAITING_ACTION", &["RUNNING", "ROLLING_BACK"]),
    (
        "AWAITING_FINALIZATION",
        &["AWAITING_ACTION", "RUNNING", "FINISHING", "ROLLING_BACK"],
    ),
    ("FINISHING", &["FINISHED"]),
    ("FINISHED", &[]),
    ("ROLLING_BACK", &["UNINITIALIZED"]),
];

/// A table with some of everything that a migration takes off and puts back.
pub fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE other (id int PRIMARY KEY);
         CREATE TABLE t (gone text, id int PRIMARY KEY, a int DEFAULT 7, note text, other int REFERENCES other);
         ALTER TABLE t DROP COLUMN gone, ALTER COLUMN note SET STORAGE EXTERNAL;
         CREATE TABLE child (t int REFERENCES t);
         CREATE INDEX t_a ON t (a) WHERE a > 5;
         CREATE VIEW v WITH (security_barrier) AS SELECT a, note FROM t WHERE a > 0;
         CREATE POLICY p ON t USING (a > 0);
         CREATE STATISTICS s ON a, note FROM t;
         COMMENT ON COLUMN t.a IS 'a number';
         ALTER TABLE t ALTER COLUMN a SET STATISTICS 50;
         INSERT INTO t SELECT i, i, repeat('x', 50) FROM generate_series(1, 20000) AS i;
         INSERT INTO child VALUES (1);
         ANALYZE t",
    );
    session
}

/// Batches so far apart that a copy is always found under way.
fn crawling(database: &Database<'_>) {
    migration::set(
        database,
        &[
            ("batch_target_ms", "1"),
            ("backfill_duty", "1"),
            ("max_dead_letters", "0"),
        ],
    );
}

pub fn changes_of_state(session: &mut Session, id: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT from_state || ' ' || to_state FROM transmute.history WHERE id = '{id}' AND to_state IS NOT NULL ORDER BY seq"
    ))
}

#[test]
fn every_state_is_passed_and_every_change_is_in_the_trail() {
    let database = Database::shared();
    migration::set(&database, &[("max_dead_letters", "0")]);
    let mut session = table(&database);
    session.exec("UPDATE t SET a = -1 WHERE id = 10000");
    let mut migration = Migration::start(&database, "m", TO_POSITIVE_BIGINT, LONG_SOAK);
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(
        migration.status("outcome || ' ' || last_error_sqlstate"),
        "FAILED 55000"
    );
    session.exec("UPDATE t SET a = 1 WHERE id = 10000");
    migration.call("resume", "'mended'");
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(migration.status("outcome"), "ROLLED_BACK");
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'now'");
    migration.finish();
    assert_eq!(
        migration.status("outcome || ' ' || progress"),
        "COMPLETED 1"
    );
    let forth = ["UNINITIALIZED INITIALIZING", "INITIALIZING RUNNING"];
    let asked = ["RUNNING AWAITING_ACTION", "AWAITING_ACTION RUNNING"];
    let ready = ["RUNNING AWAITING_FINALIZATION"];
    let back = [
        "AWAITING_FINALIZATION ROLLING_BACK",
        "ROLLING_BACK UNINITIALIZED",
    ];
    let end = ["AWAITING_FINALIZATION FINISHING", "FINISHING FINISHED"];
    let expected: Vec<&str> = [&forth[..], &asked, &ready, &back, &forth, &ready, &end].concat();
    assert_eq!(changes_of_state(&mut session, "m"), expected);
    assert_sound(&mut session, "t");
}

#[test]
fn the_database_refuses_every_other_change_of_state_even_by_hand() {
    let database = Database::shared();
    let mut session = table(&database);
    Migration::register(&database, "m", TO_BIGINT, "{}");
    for replication_role in ["origin", "replica"] {
        session.exec(&format!(
            "SET session_replication_role = {replication_role}"
        ));
        for (from, next) in NEXT {
            for (to, _) in NEXT.iter().filter(|(to, _)| *to != from) {
                session.exec(
                    "BEGIN; CREATE TEMP TABLE copy ON COMMIT DROP AS TABLE _transmute.migrations;
                     ALTER TABLE copy DROP COLUMN seq; UPDATE copy SET id = 'copy'",
                );
                // A row may be born in any state; it may not move from there as it likes.
                session.exec(&format!("UPDATE copy SET state = '{from}'"));
                let columns: String = session.scalar(
                    "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
                      WHERE attrelid = 'copy'::regclass AND attnum > 0 AND NOT attisdropped",
                );
                session.exec(&format!(
                    "INSERT INTO _transmute.migrations ({columns}) SELECT {columns} FROM copy"
                ));
                let result = session.try_exec(&format!(
                    "UPDATE _transmute.migrations SET state = '{to}' WHERE id = 'copy'"
                ));
                match result {
                    Ok(()) => assert!(next.contains(to), "{from} to {to} went through"),
                    Err(error) => {
                        assert!(!next.contains(to), "{from} to {to}: {error}");
                        assert_eq!(error.sqlstate, "55000");
                        let detail = error.detail.expect("a detail");
                        assert!(detail.contains(&format!("{from} to {to}")), "{detail}");
                    }
                }
                session.exec("ROLLBACK");
            }
        }
    }
}

#[test]
fn a_rollback_from_every_state_leaves_the_catalog_as_it_was() {
    let database = Database::shared();
    crawling(&database);
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let rows = "SELECT count(*), sum(a), md5(string_agg(t::text, ',' ORDER BY id)) FROM t";
    let rows_before = session.lines(rows);
    let mut migration = Migration::register(&database, "m", TO_POSITIVE_BIGINT, LONG_SOAK);

    // INITIALIZING: somebody's open transaction keeps the triggers off the table – and does not keep the rollback waiting.
    let mut writer = database.connect();
    writer.exec("BEGIN; DELETE FROM t WHERE id = 1 AND a = 0");
    migration.apply();
    migration.wait_for(
        "state = 'INITIALIZING' AND waiting_for LIKE '%Held by pid%'",
        "t",
    );
    migration.roll_back();
    writer.exec("ROLLBACK");
    assert_eq!(fingerprint(&mut session, "t"), before, "from INITIALIZING");
    assert_no_traces(&mut session, "t");

    migration.apply();
    migration.wait_for(
        "state = 'RUNNING' AND rows_done BETWEEN 1 AND rows_total - 1",
        "t",
    );
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before, "from RUNNING");
    assert_no_traces(&mut session, "t");

    session.exec("UPDATE t SET a = -1 WHERE id = 1");
    migration.apply();
    migration.wait_in("AWAITING_ACTION");
    migration.roll_back();
    assert_eq!(
        fingerprint(&mut session, "t"),
        before,
        "from AWAITING_ACTION"
    );
    assert_no_traces(&mut session, "t");
    session.exec("UPDATE t SET a = 1 WHERE id = 1");

    migration::set(&database, &[("backfill_duty", "100")]);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(
        fingerprint(&mut session, "t"),
        before,
        "from AWAITING_FINALIZATION"
    );
    assert_no_traces(&mut session, "t");
    assert_eq!(session.lines(rows), rows_before);
    assert_sound(&mut session, "t");
}

#[test]
fn behind_the_point_of_no_return_there_is_no_rollback() {
    let database = Database::shared();
    table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.finish();
    for (call, arguments) in [
        ("rollback", "'too late'"),
        ("pause", "'too late'"),
        ("approve", "'too late'"),
        ("skip_soak", "'too late'"),
        ("resume", "'too late'"),
        ("revoke_approval", "'too late'"),
        ("apply", ""),
    ] {
        let error = migration.refused(call, arguments);
        assert_eq!(error.sqlstate, "55000", "{call}");
        assert_eq!(
            error.message,
            format!("the state of the migration does not allow {call}")
        );
        assert_eq!(
            error.detail.as_deref(),
            Some("Migration \"m\" is in state FINISHED.")
        );
        assert!(error.hint.is_some(), "{call}");
    }
}

#[test]
fn a_paused_migration_stands_still_until_it_is_resumed() {
    let database = Database::shared();
    crawling(&database);
    let mut session = table(&database);
    session.exec("CREATE TABLE clock (id int PRIMARY KEY, a int)");
    let mut ticks = ["1", "2"].into_iter();
    // Another migration of the same conductor, from beginning to end, is the time that passes.
    let mut some_time = || {
        let ddl = match ticks.next() {
            Some("1") => "ALTER TABLE clock ALTER COLUMN a TYPE bigint",
            _ => "ALTER TABLE clock ALTER COLUMN a TYPE int",
        };
        let mut session = database.connect();
        let id: String = session.scalar(&format!("SELECT transmute.migrate('{ddl}')"));
        session.exec(&format!("CALL transmute.wait('{id}')"));
    };

    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for("rows_done BETWEEN 1 AND rows_total - 1", "t");
    migration.call("pause", "'lunch'");
    assert_eq!(migration.status("paused_reason"), "lunch");
    let done = migration.status("rows_done");
    some_time();
    assert_eq!(
        migration.status("rows_done"),
        done,
        "copied on while paused"
    );
    assert_eq!(migration.status("waiting_for"), "resume: paused, lunch");
    assert_eq!(migration.refused("pause", "' '").sqlstate, "22023");

    migration.call("resume", "'back'");
    migration.wait_for(
        "state <> 'RUNNING' OR rows_done > 0 AND progress > 0.3",
        "t",
    );
    migration.call("pause", "'tea'");
    // A paused shadow that is complete is still kept current.
    session.exec("UPDATE t SET a = a + 1 WHERE id <= 10");
    some_time();
    assert_ne!(migration.status("state"), "FINISHED");
    migration.call("resume", "'back again'");
    migration.finish();
    assert_eq!(migration.status("coalesce(paused_reason, 'none')"), "none");
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT event FROM transmute.history WHERE id = 'm' AND event IN ('paused', 'resumed') ORDER BY seq"),
        ["paused", "resumed", "paused", "resumed"]
    );
}

#[test]
fn waiting_ends_with_an_error_when_only_a_person_can_help() {
    let database = Database::shared();
    migration::set(&database, &[("max_dead_letters", "0")]);
    let mut session = table(&database);
    session.exec("UPDATE t SET a = -1 WHERE id = 5");
    let mut migration = Migration::register(&database, "m", TO_POSITIVE_BIGINT, "{}");
    let error = session.error("CALL transmute.wait('m')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "the migration is not running")
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("SELECT * FROM transmute.apply(id) starts it.")
    );

    migration.apply();
    let error = session.error("CALL transmute.wait('m')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "the migration needs a person")
    );
    assert!(error.detail.unwrap().contains("too many rows are refused"));
    assert!(error.hint.unwrap().contains("transmute.resume(id, reason)"));
    // Who waits for that very state gets it.
    session.exec("CALL transmute.wait('m', 'AWAITING_ACTION')");

    session.exec("UPDATE t SET a = 5 WHERE id = 5");
    migration.call("resume", "'mended'");
    migration.finish();
    let mut patient = Migration::start(
        &database,
        "patient",
        "ALTER TABLE t ALTER COLUMN a TYPE int",
        LONG_SOAK,
    );
    patient.wait("AWAITING_FINALIZATION");
    let error = session.error("CALL transmute.wait('patient', timeout => '0')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("57014", "the migration did not get there in time")
    );
    assert_eq!(
        session
            .error("CALL transmute.wait('patient', 'DONE')")
            .sqlstate,
        "22023"
    );
    assert_eq!(
        session
            .error("CALL transmute.wait('patient', timeout => '-1 s')")
            .sqlstate,
        "22023"
    );
    assert_eq!(
        session.error("CALL transmute.wait('nobody')").sqlstate,
        "42704"
    );
    assert!(
        session.notices().iter().all(|notice| notice.contains('%')),
        "progress is told in percent"
    );
    patient.wait_at_most("lag", "0", PATIENCE);
}
