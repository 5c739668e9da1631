//! Rows of our tables that somebody writes by hand who can do everything: the trail does not tell of them.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Database;

use crate::migration::Migration;

const ONE_APPROVAL: &str = r#"{"required_approvals": 1, "pre_finalization_soak": "1 hour"}"#;

#[test]
fn what_is_written_into_our_tables_by_hand_is_found_and_named() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 10) AS i; CREATE TABLE u (LIKE t INCLUDING ALL);
         CREATE TABLE v (id int PRIMARY KEY, a text); INSERT INTO v VALUES (1, '1'), (2, 'x'), (3, 'y');
         CREATE FUNCTION hooked(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'; CREATE FUNCTION other(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT transmute.hook('post_apply', 'hooked(jsonb)')",
    );
    let mut soaks = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        ONE_APPROVAL,
    );
    soaks.wait("AWAITING_FINALIZATION");
    soaks.call("approve", "'seen'");
    soaks.call("revoke_approval", "'seen again'");
    soaks.call("approve", "'and good'");
    soaks.call("tune", "'slower', backfill_duty => 50");
    Migration::register(
        &database,
        "n",
        "ALTER TABLE u ALTER COLUMN a TYPE bigint",
        "{}",
    );
    let mut letters = Migration::start(
        &database,
        "l",
        "ALTER TABLE v ALTER COLUMN a TYPE int USING a::int",
        "{}",
    );
    letters.wait_for("dead_letters", "2");
    session.exec("SELECT transmute.discard_dead_letters('l', ARRAY[(SELECT min(dead_letter) FROM transmute.dead_letters)], 'one of them')");
    session
        .exec("SELECT transmute.emergency_stop('a stop'); SELECT transmute.resume_all('no stop')");
    letters.wait_for("dead_letters", "1");
    let verdict = "SELECT ok, fault, fault_seq, detail FROM transmute.audit_verify()";
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"],
        "{:?}",
        session.lines(verdict)
    );
    let approval = "INSERT INTO _transmute.approvals (migration_id, reason, plan_checksum, expires_at) SELECT id, 'forged', plan_checksum, 'infinity' FROM _transmute.migrations WHERE id = 'm'";
    for (forged, named) in [
        (approval, "approvals holds: 3: nobody has approved"),
        ("UPDATE _transmute.approvals SET expires_at = 'infinity' WHERE reason = 'and good'", "approvals holds: 2: it holds longer"),
        ("UPDATE _transmute.approvals SET actor = 'somebody_else' WHERE reason = 'and good'", "approvals holds: 2: the trail has another one"),
        ("UPDATE _transmute.approvals SET revoked_at = NULL, revoked_by = NULL, revoke_reason = NULL", "approvals holds: m: 0 are revoked"),
        ("UPDATE _transmute.approvals SET waived = '{1}' WHERE reason = 'and good'", "approvals holds: 2: the trail has another one"),
        ("DELETE FROM _transmute.approvals WHERE reason = 'and good'", "approvals holds: approval 2 of m: it was given, and is gone"),
        ("UPDATE _transmute.migrations SET state = 'FINISHING' WHERE id = 'm'", "migrations holds: m: its state is FINISHING, and the trail leads to AWAITING_FINALIZATION"),
        ("UPDATE _transmute.migrations SET state = 'INITIALIZING' WHERE id = 'n'", "migrations holds: n: its state is INITIALIZING"),
        ("UPDATE _transmute.migrations SET required_approvals = 0 WHERE id = 'm'", "migrations holds: m: it asks for 0 approvals, and asked for 1"),
        ("UPDATE _transmute.migrations SET soak_until = now() WHERE id = 'm'", "migrations holds: m: its soak ends too early"),
        ("UPDATE _transmute.migrations SET queued = true WHERE id = 'n'", "migrations holds: n: it is under way, and nobody has applied it"),
        ("UPDATE _transmute.migrations SET registered_by = 'somebody_else' WHERE id = 'm'", "migrations holds: m: registered by somebody_else"),
        ("UPDATE _transmute.migrations SET owner_name = 'somebody_else' WHERE id = 'n'", "migrations holds: n: registered by"),
        ("UPDATE _transmute.migrations SET applied_by = 'somebody_else' WHERE id = 'm'", "migrations holds: m: applied by somebody_else"),
        ("UPDATE _transmute.migrations SET tuned = '{}' WHERE id = 'm'", "migrations holds: m: it is tuned"),
        ("UPDATE _transmute.migrations SET up = 'DROP TABLE t' WHERE id = 'n'", "migrations holds: n: its script, way back or metadata were replaced"),
        ("UPDATE _transmute.migrations SET meta = '{\"required_approvals\": 0}' WHERE id = 'm'", "migrations holds: m: its script, way back or metadata were replaced"),
        ("UPDATE _transmute.migrations SET plan_checksum = md5('x') WHERE id = 'm'", "migrations holds: m: its plan has another checksum"),
        ("DELETE FROM _transmute.migrations WHERE id = 'n'", "migrations holds: n: it was registered, and is gone"),
        ("UPDATE _transmute.steps SET sql = 'DROP TABLE t' WHERE migration_id = 'm' AND kind = 'rewrite_swap'", "steps holds: m, step "),
        ("UPDATE _transmute.steps SET sql = 'DROP TABLE t', detail = jsonb_set(detail, '{sql}', '\"DROP TABLE t\"') WHERE migration_id = 'm'", "migrations holds: m: its steps were replaced"),
        ("UPDATE _transmute.dead_letters SET status = 'discarded', resolved_at = now(), reason = 'forged' WHERE status = 'open'", "dead_letters holds: "),
        ("INSERT INTO _transmute.stops (reason) VALUES ('forged')", "stops holds: "),
        ("UPDATE _transmute.hooks SET function = 'public.other(jsonb)'", "hooks holds: "),
        ("INSERT INTO _transmute.hooks (event, function, owner_name) VALUES ('pre_apply', 'other(jsonb)', current_user)", "hooks holds: other(jsonb) at pre_apply: nobody has registered it"),
    ] {
        session.exec("BEGIN");
        session.exec(forged);
        let found = session.lines(verdict).remove(0);
        session.exec("ROLLBACK");
        assert!(
            found.starts_with("f|tables_differ|∅|the chain is whole, and does not tell what _transmute."),
            "{forged}: {found}"
        );
        assert!(found.contains(named), "{forged}: {found}");
    }
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    // Nor does a forged approval let anything pass.
    session.exec(
        "SELECT transmute.revoke_approval('m', 'none'); SELECT transmute.skip_soak('m', 'enough')",
    );
    session.exec(approval);
    session.wait_for(
        "SELECT waiting_for LIKE '%approval%' FROM transmute.status WHERE id = 'm'",
        "t",
        PATIENCE,
    );
    soaks.call("tune", "'look again', backfill_duty => 60");
    soaks.call("pause", "'x'");
    soaks.call("resume", "'x'");
    soaks.wait_for("waiting_for LIKE '%approval%'", "t");
    assert_eq!(soaks.status("state"), "AWAITING_FINALIZATION");
    soaks.call("approve", "'a true one'");
    soaks.finish();
}
