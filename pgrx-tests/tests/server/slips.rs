//! What slips past the guard, wherever a migration is: nothing wrong comes of it, and there is a way out.

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{Cluster, Database};

use super::scene::{
    apply, assert_log_is_clean, assert_rolled_back, create_table, wait_rolled_back, ALTER, ID,
};
use super::stage::Held;

/// What a person who switched the guard off does to the table, and what that leaves for anybody to see.
const SLIPS: [(&str, &str); 3] = [
    (
        "ALTER TABLE t ADD COLUMN extra int DEFAULT 7",
        "SELECT sum(extra) FROM t",
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT extra CHECK (id > -2000)",
        "SELECT 7 * count(*) FROM t",
    ),
    (
        "CREATE INDEX extra ON t (note, a)",
        "SELECT 7 * count(*) FROM t",
    ),
];

#[test]
fn what_slips_past_the_guard_in_any_stage_is_kept_or_found_and_leads_to_an_end() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let all = Held::all(&cluster, 300, |stage| {
        // There the table's name is a view.
        (stage.is_under_way() && stage.name != "two names") || stage.name == "queued"
    });
    for (i, mut held) in all.into_iter().enumerate() {
        let (name, state) = (held.stage.name, held.stage.state);
        let mut session = held.connect();
        let (slip, look) = SLIPS[i % SLIPS.len()];
        session.exec("SET transmute.allow_ddl = on; SET lock_timeout = '10s'");
        // A transaction that stands at a waitpoint holds the table: it comes first.
        let locked = session
            .try_exec(&format!(
                "SET lock_timeout = '50ms'; {slip}; SET lock_timeout = '10s'"
            ))
            .is_err();
        held.let_go();
        if locked {
            session.exec(&format!("SET lock_timeout = '20s'; {slip}"));
        }
        session.exec("INSERT INTO t (id, a) VALUES (-1, 1)");
        // It comes to an end, finds it, or waits as it did before.
        let ends = "SELECT outcome FROM transmute.status";
        if !matches!(state, "FINISHED" | "UNINITIALIZED") {
            let _ = session.try_exec(&format!("SELECT transmute.approve('{ID}', 'a test')"));
            let _ = session.try_exec(&format!("SELECT transmute.acknowledge('{ID}', 'a test')"));
            wait_until_seen(name, PATIENCE, || {
                match session.lines(ends).concat().as_str() {
                    "RUNNING" | "" => {
                        Err(session.lines("SELECT state, waiting_for FROM transmute.status"))
                    }
                    _ => Ok(()),
                }
            });
        }
        let outcome = session.lines(ends).concat();
        if outcome == "FAILED" {
            let said = session.lines(
                "SELECT last_error_sqlstate, last_error_hint ~ 'rollback|resume' FROM transmute.status",
            );
            assert!(
                said[0].ends_with("|t") && !said[0].starts_with("XX"),
                "{name}: {said:?}"
            );
            if session
                .try_exec(&format!("SELECT transmute.rollback('{ID}', 'a test')"))
                .is_ok()
            {
                wait_rolled_back(&mut session);
            }
        } else {
            held.end(&mut session);
        }
        // Whatever became of it: the rows are there, and so is what the person made.
        assert_eq!(
            session.lines("SELECT count(*) FROM t"),
            ["301"],
            "{name}: {outcome}"
        );
        assert_eq!(session.lines(look), ["2107"], "{name}: {outcome}");
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn what_goes_between_a_look_and_an_open_is_said_to_be_gone() {
    let cluster = Cluster::builder()
        .without_preload()
        .conf("transmute.lock_timeout = '30s'")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 100);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    let run = format!("CALL transmute.run('{ID}')");
    session.exec(&run);
    session.exec("UPDATE t SET a = a + 1 WHERE id = 1");

    session.exec("SET transmute.allow_ddl = on; BEGIN; DROP SCHEMA _transmute_1_new CASCADE");
    let mut driver = database.connect();
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {}",
        driver.pid()
    );
    let driving = driver.in_background(&run);
    database.connect().wait_for(&waits, "1", PATIENCE);
    session.exec("COMMIT");
    driving.join().1.expect("run");
    session.exec(&run);
    assert_eq!(
        session.lines(
            "SELECT s.outcome, s.last_error, m.retries FROM transmute.status s JOIN _transmute.migrations m USING (id)"
        ),
        ["FAILED|the shadow table is gone|1"]
    );
    session.exec(&format!("SELECT transmute.rollback('{ID}', 'a test')"));
    session.exec(&run);
    assert_rolled_back(&mut session);
}
