//! Scripts as written have what every other migration has: locks that nobody queues behind, gates, soak and approvals.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Database;

use super::{direct, settle, statuses};

#[test]
fn a_lock_that_is_not_to_be_had_undoes_the_script_which_is_tried_again_and_nobody_waits_behind_it()
{
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY)");
    let mut reader = database.connect();
    reader.exec("BEGIN; SELECT count(*) FROM t");
    direct(
        &mut session,
        "a",
        "CREATE TABLE before (id int); ALTER TABLE t ADD COLUMN n int; CREATE TABLE behind (id int)",
    );
    session.exec("SELECT transmute.apply()");
    session.wait_for(
        "SELECT waiting_for LIKE '%lock%' FROM transmute.status",
        "t",
        PATIENCE,
    );
    // What came before it was undone.
    assert_eq!(
        session.lines("SELECT to_regclass('before'), to_regclass('behind')"),
        ["∅|∅"]
    );
    // Whoever writes waits for milliseconds, not for the reader.
    let mut writer = database.connect();
    writer.exec("SET lock_timeout = '20 s'");
    for id in 1..=50 {
        writer.exec(&format!("INSERT INTO t VALUES ({id})"));
    }
    assert_eq!(statuses(&mut session), ["a|running"]);
    reader.exec("COMMIT");
    settle(&mut session);
    assert_eq!(statuses(&mut session), ["a|applied"]);
    assert_eq!(
        session.lines(
            "SELECT count(*), count(n), to_regclass('before'), to_regclass('behind') FROM t"
        ),
        ["50|0|before|behind"]
    );
}

#[test]
fn what_a_script_removes_waits_for_the_gates_the_soak_and_approvals() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, n int)");
    session.exec(
        "SELECT transmute.register('a', 'DROP TABLE t', NULL, '{\"mode\": \"direct\", \"required_approvals\": 1}')",
    );
    let risk: i32 = session.scalar("SELECT max(risk_score) FROM transmute.plan('a')");
    assert!(risk > 5, "{risk}");
    for (setting, call, gate) in [
        (
            "RESET transmute.max_risk",
            "apply(max_risk => 5)",
            "MAX_RISK",
        ),
        (
            "SET transmute.blocked_kinds = 'drop_table'",
            "apply()",
            "BLOCKED_KIND",
        ),
        (
            "RESET transmute.blocked_kinds; SET transmute.risk_budget = 3",
            "up()",
            "RISK_BUDGET",
        ),
    ] {
        session.exec(setting);
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, "55000", "{call}: {error}");
        assert!(
            error
                .detail
                .as_deref()
                .unwrap_or_default()
                .starts_with(gate),
            "{call}: {error:?}"
        );
    }
    session.exec("RESET transmute.risk_budget; SELECT transmute.apply()");
    session.wait_for(
        "SELECT state, waiting_for FROM transmute.status",
        "AWAITING_FINALIZATION|1 approval missing",
        PATIENCE,
    );
    assert_eq!(session.lines("SELECT to_regclass('t')"), ["t"]);
    session.exec("SELECT transmute.approve('a', 'it may go')");
    settle(&mut session);
    assert_eq!(session.lines("SELECT to_regclass('t')"), ["∅"]);
    assert_eq!(
        session.lines("SELECT event FROM transmute.history(verbose => true) WHERE event IN ('approved', 'finished') ORDER BY at"),
        ["approved", "finished"]
    );
}
