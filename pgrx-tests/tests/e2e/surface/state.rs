//! Calls that come at the wrong time.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Database;

use super::{refusal, register, tables};
use crate::migration::Migration;

#[test]
fn one_table_has_one_migration_at_a_time() {
    let database = Database::shared();
    let mut session = tables(&database);
    let to_bigint = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
    Migration::register(&database, "second", to_bigint, "{}");
    let mut first = Migration::start(
        &database,
        "first",
        to_bigint,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    first.wait("AWAITING_FINALIZATION");
    let error = refusal(&mut session, &register("ALTER TABLE t ADD COLUMN c int"));
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55006", "another migration is rewriting the table")
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("Migration \"first\" works on public.t.")
    );
    // One that was registered before it waits for it, and says so.
    session.exec("SELECT transmute.apply('second')");
    session.wait_for(
        "SELECT waiting_for LIKE '%\"first\"%' FROM transmute.status WHERE id = 'second'",
        "t",
        PATIENCE,
    );
    first.call("rollback", "'the other one first'");
    first.wait("UNINITIALIZED");
    session.exec("CALL transmute.wait('second', timeout => '60 s')");
    assert_eq!(session.lines("SELECT pg_typeof(a) FROM t"), ["bigint"]);
}

#[test]
fn calls_that_the_state_does_not_allow_say_so() {
    let database = Database::shared();
    let mut session = tables(&database);
    let mut migration = Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    let mut check = |state: &str, verbs: &[&str]| {
        for verb in verbs {
            let error = refusal(&mut session, &format!("SELECT transmute.{verb}('m', 'x')"));
            assert_eq!(error.sqlstate, "55000", "{verb}: {error}");
            assert_eq!(
                error.message,
                format!("the state of the migration does not allow {verb}")
            );
            assert_eq!(
                error.detail.as_deref(),
                Some(format!("Migration \"m\" is in state {state}.").as_str())
            );
        }
    };
    check(
        "UNINITIALIZED",
        &["pause", "resume", "skip_soak", "rollback"],
    );
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    check("AWAITING_FINALIZATION", &["resume"]);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    check(
        "FINISHED",
        &[
            "pause",
            "resume",
            "skip_soak",
            "rollback",
            "approve",
            "revoke_approval",
        ],
    );
    assert_eq!(migration.refused("apply", "").sqlstate, "55000");
}
