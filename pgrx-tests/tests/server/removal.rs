//! DROP EXTENSION wherever a migration is, and CREATE EXTENSION again.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database};

use super::scene::{assert_log_is_clean, count_in_log, wait_state, ID};
use super::stage::Held;

/// What of ours hangs on somebody's table, or would call what is gone.
const TRACES: &str = "SELECT tgname FROM pg_trigger t WHERE tgname ~ '^_transmute' OR NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = t.tgfoid)
    UNION ALL SELECT evtname FROM pg_event_trigger WHERE evtname ~ '^transmute'
    UNION ALL SELECT conname FROM pg_constraint WHERE conname ~ '^_transmute'
    UNION ALL SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid";

#[test]
fn the_extension_is_dropped_only_where_nothing_is_under_way_and_comes_back_clean() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    for mut held in Held::all(&cluster, 300, |_| true) {
        let stage = held.stage;
        let mut session = held.connect();
        if stage.is_under_way() {
            for drop in [
                "DROP EXTENSION transmute",
                "DROP EXTENSION transmute CASCADE",
                "SET transmute.allow_ddl = on; DROP EXTENSION transmute CASCADE",
            ] {
                let error = session.error(drop);
                assert_eq!(error.sqlstate, "55006", "{}: {drop}: {error}", stage.name);
                assert!(error.message.contains("\"m\""), "{}: {error}", stage.name);
            }
            held.end(&mut session);
        }
        session.exec("DROP EXTENSION transmute");
        let traces = session.lines(TRACES);
        assert!(traces.is_empty(), "{}: {traces:?}", stage.name);
        session.exec("INSERT INTO t VALUES (-1, 1, 'x'); UPDATE t SET note = 'y' WHERE id < 10; DELETE FROM t WHERE id = -1");
        session.exec("CREATE EXTENSION transmute");
        if !matches!(stage.name, "registered" | "soaking" | "kept") {
            continue;
        }
        // The same name again: nothing of its former life is in the way.
        let ddl = "ALTER TABLE t ALTER COLUMN note TYPE varchar(80)";
        session.exec(&format!(
            "SELECT transmute.register('{ID}', '{ddl}'); SELECT transmute.apply('{ID}')"
        ));
        wait_state(&mut session, "FINISHED");
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"]
        );
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["300"]);
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn a_drop_waits_for_a_look_that_has_begun_and_neither_waits_for_the_other() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    // What waits for its time keeps a worker, and nothing under way.
    session.exec(&format!(
        "CREATE TABLE t (id int);
         SELECT transmute.register('{ID}', 'ALTER TABLE t ADD COLUMN note text', meta => '{{\"pre_execution_soak\": \"1 hour\"}}')"
    ));
    // The look for work has a lock on one table of ours, and wants one on another.
    let mut points = Waitpoints::of(&database);
    points.hold("watches_locked");
    session.exec(&format!("SELECT transmute.apply('{ID}')"));
    points.wait_reached("watches_locked", PATIENCE);
    let error = session.error("SET lock_timeout = '100ms'; DROP EXTENSION transmute");
    assert_eq!(error.sqlstate, "55P03", "{error}");
    let mut other = database.connect();
    let dropping = std::thread::spawn(move || other.exec("DROP EXTENSION transmute"));
    session.wait_for(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'",
        "1",
        PATIENCE,
    );
    points.release("watches_locked");
    dropping.join().expect("the drop");
    session.exec("CREATE EXTENSION transmute");
    for trace in ["deadlock", "does not exist"] {
        assert_eq!(count_in_log(&cluster, trace), 0, "{trace}");
    }
    assert_log_is_clean(&cluster);
}
