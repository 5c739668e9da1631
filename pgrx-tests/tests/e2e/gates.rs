//! What keeps `apply` and `migrate` from queueing a migration, and the trace that a refusal leaves.

use std::time::Duration;

use transmute_tests::wait::wait_until;
use transmute_tests::{Database, Session};

use crate::surface::refusal_but_audit;

fn world(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 1, 'x');
         SELECT transmute.register('adds', 'ALTER TABLE t ADD COLUMN n int');
         SELECT transmute.register('drops', 'ALTER TABLE t DROP COLUMN b', meta => '{\"drop_policy\": \"drop\"}');
         SELECT transmute.register('rewrites', 'ALTER TABLE t ALTER COLUMN a TYPE bigint')",
    );
    session
}

/// Refused with this code, nothing written, and the refusal in the trail although the statement was undone.
#[track_caller]
fn refuses(session: &mut Session, call: &str, code: &str) {
    let events = "SELECT count(*) FROM transmute.audit_events WHERE event = 'refused'";
    let before: i64 = session.scalar(events);
    let error = refusal_but_audit(session, &format!("SELECT transmute.{call}"));
    assert_eq!(error.sqlstate, "55000", "{call}: {error}");
    assert_eq!(
        error.message, "a gate refuses to apply the migration",
        "{call}"
    );
    let detail = error.detail.clone().unwrap_or_default();
    assert!(
        detail.starts_with(&format!("{code}: migration \"")),
        "{call}: {detail}"
    );
    wait_until(
        "the refusal is in the trail",
        Duration::from_secs(20),
        || (session.scalar::<i64>(events) == before + 1).then_some(()),
    );
    assert_eq!(
        session.lines(
            "SELECT e.actor = session_user, e.detail::json->>'gate' FROM transmute.audit_events e
              WHERE event = 'refused' ORDER BY seq DESC LIMIT 1"
        ),
        [format!("t|{code}")]
    );
}

#[test]
fn every_gate_refuses_before_anything_is_written_and_is_audited() {
    let database = Database::shared();
    let mut session = world(&database);
    let mut with = |setting: &str, call: &str, code: &str| {
        session.exec(&format!("SET {setting}"));
        refuses(&mut session, call, code);
        session.exec(&format!(
            "RESET {}",
            setting.split(' ').next().unwrap_or_default()
        ));
    };
    with(
        "transmute.risk_budget = 10",
        "apply('drops')",
        "RISK_BUDGET",
    );
    with("transmute.max_risk = 50", "apply('drops')", "MAX_RISK");
    with(
        "transmute.blocked_kinds = 'truncate, DROP_COLUMN'",
        "apply('drops')",
        "BLOCKED_KIND",
    );
    with(
        "transmute.blocked_reasons = 'data_loss'",
        "apply('drops')",
        "BLOCKED_REASON",
    );
    with(
        "transmute.enforce_additive_first = on",
        "apply('drops')",
        "ADDITIVE_FIRST",
    );
    with(
        "transmute.require_preflight = on",
        "apply('rewrites')",
        "PREFLIGHT",
    );
    for environment in ["prod", "Production", "LIVE"] {
        with(
            &format!("transmute.environment = '{environment}'"),
            "apply('adds')",
            "CONFIRMATION",
        );
    }
    with(
        "transmute.environment = 'production'",
        "apply('adds', confirm => 'other')",
        "CONFIRMATION",
    );
    with(
        "transmute.max_risk = 50",
        "migrate('ALTER TABLE t DROP COLUMN b', 'new', '{\"drop_policy\": \"drop\"}')",
        "MAX_RISK",
    );
    with(
        "transmute.max_risk = 94",
        "apply(NULL, max_risk => 50)",
        "MAX_RISK",
    );
    // The call can only lower the limit.
    with(
        "transmute.max_risk = 50",
        "apply('drops', max_risk => 100)",
        "MAX_RISK",
    );
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM transmute.status WHERE queued OR state <> 'UNINITIALIZED'"
        ),
        ["0"]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn what_the_gates_ask_for_lets_a_migration_pass() {
    let database = Database::shared();
    let mut session = world(&database);
    session.exec(
        "SET transmute.environment = 'production'; SET transmute.pre_execution_soak = '0'; SET transmute.risk_budget = 60;
         SET transmute.require_preflight = on; SET transmute.enforce_additive_first = on; SET transmute.blocked_kinds = 'drop_table'",
    );
    let failed =
        session.lines("SELECT \"check\", detail FROM transmute.preflight('adds') WHERE NOT ok");
    assert!(failed.is_empty(), "{failed:?}");
    session.exec("SELECT transmute.apply('adds', confirm => current_database())");
    session.exec("CALL transmute.wait('adds')");
}

#[test]
fn a_list_of_nonsense_refuses_everything_and_says_so() {
    let database = Database::shared();
    let mut session = world(&database);
    for (setting, message) in [
        (
            "transmute.blocked_kinds = 'drop everything'",
            "transmute.blocked_kinds names something that is not known",
        ),
        (
            "transmute.blocked_reasons = 'FEAR'",
            "transmute.blocked_reasons names something that is not known",
        ),
    ] {
        session.exec(&format!("SET {setting}"));
        let error = session.error("SELECT transmute.apply('adds')");
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("22023", message)
        );
        session.exec("RESET ALL");
    }
    let error = session.error("SELECT transmute.apply('adds', max_risk => 101)");
    assert_eq!(error.sqlstate, "22023");
}

#[test]
fn a_refusal_inside_a_transaction_is_written_down_when_that_has_ended() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, b text); SET transmute.max_risk = 50");
    session
        .exec("BEGIN; SELECT transmute.register('m', 'ALTER TABLE t DROP COLUMN b', meta => '{\"drop_policy\": \"drop\"}'); SAVEPOINT s");
    assert_eq!(
        session.error("SELECT transmute.apply('m')").sqlstate,
        "55000"
    );
    session.exec("ROLLBACK TO s; COMMIT");
    session.wait_for(
        "SELECT string_agg(event, ',' ORDER BY seq) FROM transmute.history WHERE id = 'm'",
        "registered,refused",
        Duration::from_secs(20),
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn only_a_superuser_moves_the_gates() {
    let database = Database::shared();
    let mut session = crate::privileges::world(&database, &["gate_role"]);
    session.exec("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO gate_role");
    let mut plain = database.connect_as("gate_role");
    for setting in [
        "risk_budget = 1000",
        "max_risk = 100",
        "blocked_kinds = ''",
        "blocked_reasons = ''",
        "enforce_additive_first = off",
        "require_preflight = off",
        "environment = 'development'",
        "cancel_blockers = '1 s'",
    ] {
        let error = plain.error(&format!("SET transmute.{setting}"));
        assert_eq!(error.sqlstate, "42501", "{setting}");
    }
}
