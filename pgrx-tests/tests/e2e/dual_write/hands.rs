//! A fill in several hands.

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::Database;

use crate::migration::{self, fingerprint, Migration};

const SCRIPT: &str =
    "ALTER TABLE wide ADD COLUMN up text, ADD COLUMN twice numeric, ADD COLUMN day date;
    UPDATE wide SET up = upper(name), twice = n * 2, day = at::date";
const POINT: &str = "rule_fill_before_commit";

/// Both columns that are compared by their own operators and one that is not, and values that are equal and stored differently.
#[test]
fn several_hands_fill_a_table_side_by_side_and_stop_for_a_rollback() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("max_parallel_backfill", "2"), ("batch_target_ms", "5")],
    );
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE wide (id int PRIMARY KEY, name text COLLATE \"C\", n numeric, at timestamp, pad text) WITH (fillfactor = 70);
         INSERT INTO wide SELECT i, CASE WHEN i % 7 > 0 THEN 'name ' || i END, i, '2026-01-01', repeat('x', 200) FROM generate_series(1, 20000) i",
    );
    let before = fingerprint(&mut session, "wide");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold(POINT);
    let mut migration = Migration::start(
        &database,
        "m",
        SCRIPT,
        r#"{"dual_write": "trigger", "pre_finalization_soak": "1 hour"}"#,
    );
    let two = |waitpoints: &mut Waitpoints| {
        wait_until("two processes that fill", PATIENCE, || {
            (waitpoints.waiting(POINT).len() == 2).then_some(())
        });
    };
    two(&mut waitpoints);
    migration.call("rollback", "'the test says so'");
    waitpoints.release(POINT);
    migration.wait_for("state", "UNINITIALIZED");
    assert_eq!(fingerprint(&mut session, "wide"), before);

    waitpoints.hold(POINT);
    migration.apply();
    two(&mut waitpoints);
    // A row that moves from one lane into the other's, and one that is written meanwhile.
    session.exec("UPDATE wide SET pad = repeat('y', 4000) WHERE id = 19000; DELETE FROM wide WHERE id = 9000");
    waitpoints.release(POINT);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(
        session.lines(
            "SELECT count(*), count(*) FILTER (WHERE (up, day) IS NOT DISTINCT FROM (upper(name), at::date) AND twice::text = (n * 2)::text) FROM wide"
        ),
        ["19999|19999"]
    );
    // A lane a hand.
    assert_eq!(
        session.lines("SELECT count(*) FROM _transmute.fills"),
        ["2"]
    );
}
