//! Dependents that come while the migration waits.

use super::*;
use transmute_tests::wait::wait_until;
use transmute_tests::waitpoint::Waitpoints;

#[test]
fn dependents_made_while_the_migration_waits_are_carried_too() {
    let database = Database::shared();
    let mut session = open(&database, &[PASS]);
    start(&mut session, TO_BIGINT, "{\"required_approvals\": 1}");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.batch(&[
        "SET transmute.allow_ddl = on",
        "CREATE VIEW late AS SELECT a FROM t",
        "CREATE POLICY late ON t USING (a > 0)",
        "CREATE TRIGGER late BEFORE UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION pass()",
        "CREATE PUBLICATION late FOR TABLE t WHERE (a > 3) WITH (publish = 'insert')",
        "COMMENT ON COLUMN t.a IS 'late'",
    ]);
    let before = facts(&mut session, "t");
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    wait(&mut session, "FINISHED");
    let after = facts(&mut session, "t");
    let own = |fact: &&String| !fact.contains(": type = ");
    // The capture's triggers are no facts of the table.
    assert_eq!(
        after.iter().filter(own).collect::<Vec<_>>(),
        before.iter().filter(own).collect::<Vec<_>>()
    );
    assert_eq!(session.lines("SELECT count(*) FROM late"), ["500"]);
}

#[test]
fn a_view_that_is_changed_while_the_lock_is_waited_for_keeps_its_change() {
    let database = Database::shared();
    let mut session = open(&database, &["CREATE VIEW v AS SELECT a FROM t WHERE a > 1"]);
    let mut points = Waitpoints::of(&database);
    points.hold("swap_before_lock");
    start(&mut session, TO_BIGINT, "{}");
    points.wait_reached("swap_before_lock", PATIENCE);
    // Some versions keep a lock on a view whose text was read: then this waits for the try that is under way, and its
    // retry must see it.
    let mut other = database.connect();
    let change = std::thread::spawn(move || {
        other.batch(&[
            "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 400",
            "GRANT SELECT ON v TO dependents_2",
        ]);
    });
    wait_until("the view to be changed, or waited for", PATIENCE, || {
        let waits: bool = session.scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND wait_event_type = 'Lock' AND query LIKE 'CREATE OR REPLACE VIEW%')",
        );
        (waits || change.is_finished()).then_some(())
    });
    points.release("swap_before_lock");
    change.join().expect("the view is changed");
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM v GROUP BY 1"),
        ["bigint|100"]
    );
    assert_eq!(
        session.lines("SELECT has_table_privilege('dependents_2', 'v', 'SELECT')"),
        ["t"]
    );
}
