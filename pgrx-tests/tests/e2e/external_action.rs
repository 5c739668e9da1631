//! meta.requires_external_action: a person confirms what no database can know.

use transmute_tests::{Database, Session};

use crate::migration::Migration;

const META: &str = r#"{"requires_external_action": true}"#;
const WAITS: &str =
    "a person: the external action (meta.requires_external_action); acknowledge says that it was done";

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
    );
    session
}

fn events(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT event, detail::json ->> 'reason' FROM transmute.history
          WHERE event IN ('external action needed', 'acknowledged', 'running again', 'ready') ORDER BY seq",
    )
}

#[test]
fn it_waits_for_a_person_and_both_shapes_are_kept() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut m = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        META,
    );
    m.wait_in("AWAITING_ACTION");
    m.wait_for("waiting_for", WAITS);
    assert_eq!(m.status("outcome || coalesce(last_error, '')"), "RUNNING");
    session.exec("UPDATE t SET a = a + 1");
    m.wait_for("lag = 0 AND dead_letters = 0", "t");
    // resume is for errors.
    let error = m.refused("resume", "'go on'");
    assert_eq!(error.sqlstate, "55000");
    assert!(error
        .hint
        .unwrap_or_default()
        .contains("transmute.acknowledge("));
    // A pause does not lose what it waits for.
    m.call("pause", "'look'");
    m.wait_for("waiting_for", "resume: paused, look");
    m.call("resume", "'looked'");
    m.wait_for("waiting_for", WAITS);
    assert_eq!(m.status("state"), "AWAITING_ACTION");
    m.call("acknowledge", "'the partner has switched'");
    m.finish();
    assert_eq!(
        events(&mut session),
        [
            "external action needed|∅",
            "acknowledged|the partner has switched",
            "running again|∅",
            "ready|∅"
        ]
    );
    assert_eq!(m.refused("acknowledge", "'again'").sqlstate, "55000");
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn it_may_be_acknowledged_before_and_holds_for_one_apply() {
    let database = Database::shared();
    let mut session = table(&database);
    let meta = r#"{"requires_external_action": true, "required_approvals": 1}"#;
    let mut m = Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        meta,
    );
    assert_eq!(m.refused("acknowledge", "'too early'").sqlstate, "55000");
    m.apply();
    m.call("acknowledge", "'done already'");
    m.wait_for("waiting_for", "1 approval missing");
    m.roll_back();
    m.apply();
    m.wait_in("AWAITING_ACTION");
    m.roll_back();
    let mut plain = Migration::start(&database, "plain", "COMMENT ON TABLE t IS NULL", "{}");
    plain.finish();
    let mut additive = Migration::start(
        &database,
        "additive",
        "ALTER TABLE t ADD COLUMN b int",
        META,
    );
    additive.wait_in("AWAITING_ACTION");
    assert_eq!(
        additive.refused("acknowledge", "''").message,
        "a reason is needed"
    );
    additive.call("acknowledge", "'x'");
    additive.finish();
    session.exec(
        "SELECT transmute.register('without', 'COMMENT ON TABLE t IS NULL', meta => '{\"pre_execution_soak\": \"1 hour\"}');
         SELECT transmute.apply('without')",
    );
    let error = session.error("SELECT transmute.acknowledge('without', 'x')");
    assert!(error
        .hint
        .unwrap_or_default()
        .contains("meta.requires_external_action"));
}
