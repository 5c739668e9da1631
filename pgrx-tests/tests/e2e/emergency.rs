//! Everything stops at once, and goes on; what is tuned acts while it runs.

use std::time::Duration;

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{self, assert_sound, Migration};

fn table(database: &Database<'_>, name: &str, rows: i32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, a int, b text);
         INSERT INTO {name} SELECT i, i, repeat('x', 100) FROM generate_series(1, {rows}) AS i"
    ));
    session
}

#[test]
fn an_emergency_stop_stops_everything_at_once_until_it_is_ended() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "2"), ("backfill_duty", "10")],
    );
    let mut session = table(&database, "copied", 30_000);
    table(&database, "soaking", 100);
    table(&database, "going_back", 100);
    let meta = r#"{"pre_finalization_soak": "1 hour"}"#;
    let mut soaking = Migration::start(
        &database,
        "soaking",
        "ALTER TABLE soaking ALTER COLUMN a TYPE bigint",
        meta,
    );
    soaking.wait("AWAITING_FINALIZATION");
    let mut copied = Migration::start(
        &database,
        "copied",
        "ALTER TABLE copied ALTER COLUMN a TYPE bigint",
        "{}",
    );
    session.wait_for(
        "SELECT rows_done > 0 FROM transmute.progress WHERE id = 'copied'",
        "t",
        PATIENCE,
    );

    assert_eq!(
        session
            .error("SELECT transmute.emergency_stop('')")
            .sqlstate,
        "22023"
    );
    assert_eq!(
        session.lines("SELECT transmute.emergency_stop('the disk is nearly full')"),
        ["2"]
    );
    assert_eq!(
        session
            .error("SELECT transmute.emergency_stop('again')")
            .sqlstate,
        "55000"
    );
    for migration in [&mut soaking, &mut copied] {
        migration.wait_for(
            "waiting_for",
            "resume_all: emergency stop, the disk is nearly full",
        );
    }
    // Asked for while stopped: noted, not done.
    soaking.call("rollback", "'not needed any more'");
    let mut late = Migration::start(
        &database,
        "late",
        "ALTER TABLE going_back ALTER COLUMN a TYPE bigint",
        "{}",
    );
    late.wait_for("waiting_for LIKE 'resume_all%'", "t");
    session.exec("UPDATE soaking SET a = a + 1; UPDATE copied SET a = a + 1 WHERE id % 7 = 0");
    let look =
        "SELECT string_agg(format('%s %s %s', s.id, s.state, p.rows_done), ', ' ORDER BY s.id)
                  FROM transmute.status s LEFT JOIN transmute.progress p USING (id)";
    let before = session.lines(look);
    std::thread::sleep(Duration::from_millis(1500)); // three looks of the conductor
    assert_eq!(session.lines(look), before);

    assert_eq!(
        session.lines("SELECT transmute.resume_all('space again')"),
        ["3"]
    );
    assert_eq!(
        session
            .error("SELECT transmute.resume_all('again')")
            .sqlstate,
        "55000"
    );
    copied.finish();
    late.finish();
    soaking.wait("UNINITIALIZED");
    assert_sound(&mut session, "copied");
    assert_eq!(
        session
            .lines("SELECT count(*), sum(a - id), (SELECT sum(a - id) FROM soaking) FROM copied"),
        ["30000|4285|100"]
    );
    assert_eq!(
        session.lines(
            "SELECT event FROM transmute.audit_events WHERE event LIKE 'emergency%' ORDER BY seq"
        ),
        ["emergency stop", "emergency stop ended"]
    );
    assert_eq!(
        session.lines("SELECT reason, resume_reason FROM transmute.emergency_stops"),
        ["the disk is nearly full|space again"]
    );
}

#[test]
fn what_is_tuned_acts_on_the_next_batch_is_shown_and_audited() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "2"), ("backfill_duty", "1")],
    );
    let mut session = table(&database, "t", 60_000);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    session.wait_for(
        "SELECT rows_done > 0 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    // At one percent of the time it would take minutes.
    assert_eq!(
        migration
            .refused("tune", "'x', backfill_duty => 0")
            .sqlstate,
        "22023"
    );
    assert_eq!(migration.refused("tune", "''").sqlstate, "22023");
    migration.call(
        "tune",
        "'the night has come', backfill_duty => 100, batch_target_ms => 50",
    );
    assert_eq!(
        migration.status("tuned"),
        r#"{"backfill_duty": 100, "batch_target_ms": 50}"#
    );
    migration.finish();
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT detail::jsonb -> 'after' FROM transmute.history WHERE id = 'm' AND event = 'tuned'"),
        [r#"{"backfill_duty": 100, "batch_target_ms": 50}"#]
    );
    assert_eq!(migration.refused("tune", "'x'").sqlstate, "55000");
}

#[test]
fn load_may_be_tuned_and_forgotten_again() {
    let database = Database::shared();
    let mut session = table(&database, "t", 20_000);
    let sleepers = [(), ()].map(|()| database.connect().in_background("SELECT pg_sleep(60)"));
    let mut migration = Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    migration.call("tune", "'only when it is quiet', max_load => 1");
    migration.apply();
    migration.wait_for("waiting_for LIKE 'the load: %'", "t");
    migration.call("tune", "'not needed', reset => true");
    session.wait_for(
        "SELECT rows_done > 0 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    // The swap waits for their snapshots.
    session.exec(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()",
    );
    for sleeper in sleepers {
        assert!(sleeper.join().1.is_err());
    }
    migration.finish();
    assert_sound(&mut session, "t");
}
