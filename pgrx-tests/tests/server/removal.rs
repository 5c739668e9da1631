//! DROP EXTENSION wherever a migration is, and CREATE EXTENSION again.

use transmute_tests::Cluster;

use super::scene::{assert_log_is_clean, wait_state, ID};
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
