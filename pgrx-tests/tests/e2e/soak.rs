//! The time that has to pass before the start and before the point of no return.

use transmute_tests::Database;

use crate::lifecycle::{changes_of_state, table, TO_BIGINT};
use crate::migration::{self, Migration};

#[test]
fn a_soak_is_a_deadline_that_settings_do_not_move() {
    let database = Database::shared();
    migration::set(&database, &[("pre_finalization_soak", "2 s")]);
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_in("AWAITING_FINALIZATION");
    let deadline = migration.status("soak_until");
    migration::set(&database, &[("pre_finalization_soak", "1 hour")]);
    migration.wait_for(
        "waiting_for",
        "the soak, until soak_until; skip_soak ends it now",
    );
    assert_eq!(migration.status("soak_until"), deadline);
    migration.finish();
    let soaked: bool = session.scalar(
        "SELECT max(at) FILTER (WHERE to_state = 'FINISHING') - max(at) FILTER (WHERE to_state = 'AWAITING_FINALIZATION')
           BETWEEN interval '2 s' AND interval '20 s' FROM transmute.history WHERE id = 'm'",
    );
    assert!(soaked);
}

#[test]
fn in_production_nothing_begins_or_ends_by_itself() {
    let database = Database::shared();
    migration::set(&database, &[("environment", "Production")]);
    table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for(
        "waiting_for",
        "the soak before the start, until soak_until; skip_soak ends it now",
    );
    assert_eq!(
        migration
            .status("soak_until - now() BETWEEN interval '3 days 23:59' AND interval '4 days'"),
        "true"
    );
    assert_eq!(
        migration.status("state || ' ' || queued"),
        "UNINITIALIZED true"
    );
    assert_eq!(migration.refused("resume", "'go'").sqlstate, "55000");
    migration.call("skip_soak", "'it is urgent'");
    migration.wait_in("AWAITING_FINALIZATION");
    migration.wait_for(
        "waiting_for LIKE 'the soak, until soak_until; skip_soak ends it now; 1 approval missing%'",
        "t",
    );
    assert_eq!(
        migration
            .status("soak_until - now() BETWEEN interval '3 days 23:59' AND interval '4 days'"),
        "true"
    );
    migration.call("approve", "'reviewed'");
    migration.wait_for(
        "waiting_for",
        "the soak, until soak_until; skip_soak ends it now",
    );
    migration.call("skip_soak", "'still urgent'");
    migration.finish();
}

#[test]
fn a_rollback_before_the_start_takes_it_out_of_the_queue() {
    let database = Database::shared();
    let mut session = table(&database);
    let meta = r#"{"pre_execution_soak": "1 day"}"#;
    let mut migration = Migration::start(&database, "m", TO_BIGINT, meta);
    migration.wait_for("waiting_for LIKE 'the soak before the start%'", "t");
    migration.roll_back();
    assert_eq!(migration.status("queued"), "false");
    assert!(changes_of_state(&mut session, "m").is_empty());
    assert_eq!(migration.refused("rollback", "'again'").sqlstate, "55000");
}
