//! Each statement of ours fails once, wherever it is: state and table agree, whoever drives goes on or a person is asked, and nothing is
//! lost.

use transmute_tests::{invariants, Cluster, Database};

use super::ledger::Ledger;
use super::scene::{
    apply, assert_finished, assert_rolled_back, create_table, wait_state, ALTER, ID,
};

/// A way of a migration takes so many tries at most: as many as it has statements, and some.
const TRIES: usize = 2_000;

#[test]
fn each_statement_of_ours_may_fail_once_and_nothing_is_lost() {
    let cluster = Cluster::builder()
        .without_preload()
        .conf("transmute.retry_delay = '1ms'")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    // A process of its own for each way: what has failed in one does not fail there again.
    let mut failures = Vec::new();
    for (end, then) in [
        ("state = 'AWAITING_FINALIZATION'", "rollback"),
        ("outcome = 'ROLLED_BACK'", "apply"),
        ("state = 'AWAITING_FINALIZATION'", "approve"),
        ("state = 'FINISHED'", ""),
    ] {
        let mut driver = database.connect();
        driver.exec("SET transmute_test.fail = on");
        let mut failed = 0;
        for tries in 0.. {
            assert!(tries < TRIES, "{end} does not come: {failed} failures");
            // Also while the failure is written down; then the caller is told.
            let told = driver
                .try_exec(&format!("CALL transmute.run('{ID}')"))
                .is_err();
            let status = "SELECT coalesce(last_error, '') ~ 'a test lets this fail', coalesce(waiting_for, '') ~ 'a person', STATE
                FROM transmute.status"
                .replace("STATE", end);
            let status = session.rows(&status).remove(0);
            let is = |column: usize| status[column].as_deref() == Some("t");
            failed += usize::from(told || is(0));
            if is(2) && !told && !is(0) {
                break;
            }
            if is(1) {
                // Calls of people are statements, too.
                let resume = format!("SELECT transmute.resume('{ID}', 'a test')");
                if driver.try_exec(&resume).is_err() {
                    failed += 1;
                    let _ = session.try_exec(&resume);
                }
            }
        }
        failures.push(failed);
        match then {
            "rollback" => session.exec(&format!("SELECT transmute.rollback('{ID}', 'a test')")),
            "apply" => {
                assert_rolled_back(&mut session);
                session.exec(&format!("SELECT transmute.apply('{ID}')"));
            }
            "approve" => session.exec(&format!("SELECT transmute.approve('{ID}', 'a test')")),
            _ => {}
        }
    }
    println!("failures: {failures:?}");
    // The way forth, back, forth in another process, and to the end.
    assert!(failures.iter().all(|failed| *failed >= 10), "{failures:?}");
    assert!(failures.iter().sum::<usize>() >= 150, "{failures:?}");
    wait_state(&mut session, "FINISHED");
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    invariants::check(&mut session);
}
