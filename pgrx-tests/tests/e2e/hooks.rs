//! Functions that are called at events of every migration.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

/// A table, and a hook for every event that writes down what it was told and as whom it ran.
fn scene(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL);
         INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i;
         CREATE TABLE called (n int GENERATED ALWAYS AS IDENTITY, event text, state text, who text, path text);
         CREATE FUNCTION note(facts jsonb) RETURNS void LANGUAGE sql AS $$
           INSERT INTO public.called (event, state, who, path)
           VALUES (facts ->> 'event', facts ->> 'state', current_user, current_setting('search_path')) $$;
         CREATE FUNCTION refuse(facts jsonb) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO public.called (event) VALUES ('never seen');
           RAISE EXCEPTION 'not on a Friday' USING ERRCODE = '23514';
         END $$",
    );
    session
}

fn hook(session: &mut Session, events: &[&str], function: &str) {
    for event in events {
        session.exec(&format!(
            "SELECT transmute.hook('{event}', '{function}(jsonb)')"
        ));
    }
}

const ALL: [&str; 6] = [
    "pre_apply",
    "post_apply",
    "pre_rollback",
    "post_rollback",
    "pre_finalize",
    "post_finalize",
];

fn called(session: &mut Session) -> Vec<String> {
    session.lines("SELECT event, state FROM called ORDER BY n")
}

#[test]
fn hooks_are_called_at_their_events_once() {
    let database = Database::shared();
    let mut session = scene(&database);
    hook(&mut session, &ALL, "note");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, r#"{"required_approvals": 1}"#);
    migration.wait_in("AWAITING_FINALIZATION");
    // Those before a call are called by who calls, those after an event when it has been committed.
    session.wait_for("SELECT count(*) FROM called", "2", PATIENCE);
    migration.roll_back();
    session.wait_for("SELECT count(*) FROM called", "4", PATIENCE);
    migration.apply();
    migration.wait_in("AWAITING_FINALIZATION");
    session.wait_for("SELECT count(*) FROM called", "6", PATIENCE);
    migration.call("approve", "'reviewed'");
    migration.finish();
    session.wait_for("SELECT count(*) FROM called", "8", PATIENCE);
    assert_eq!(
        called(&mut session),
        [
            "pre_apply|UNINITIALIZED",
            "post_apply|AWAITING_FINALIZATION",
            "pre_rollback|AWAITING_FINALIZATION",
            "post_rollback|UNINITIALIZED",
            "pre_apply|UNINITIALIZED",
            "post_apply|AWAITING_FINALIZATION",
            "pre_finalize|AWAITING_FINALIZATION",
            "post_finalize|FINISHED"
        ]
    );
    assert_eq!(
        session.lines("SELECT DISTINCT who, path FROM called"),
        ["postgres|pg_catalog, pg_temp"]
    );
    assert_eq!(
        session.lines("SELECT event, error FROM transmute.hook_runs WHERE ended_at IS NULL OR error IS NOT NULL"),
        [""; 0]
    );
}

#[test]
fn a_hook_before_a_call_that_errors_stops_it_before_anything_is_written() {
    let database = Database::shared();
    let mut session = scene(&database);
    hook(&mut session, &["pre_apply", "pre_rollback"], "refuse");
    let mut migration =
        Migration::register(&database, "m", TO_BIGINT, r#"{"required_approvals": 1}"#);
    let error = crate::surface::refusal(&mut session, "SELECT transmute.apply('m')");
    assert_eq!(
        (
            error.sqlstate.as_str(),
            error.message.as_str(),
            error.detail.as_deref()
        ),
        (
            "55000",
            "a pre_apply hook refuses",
            Some("public.refuse(jsonb): not on a Friday (23514).")
        )
    );
    assert_eq!(
        migration.status("state || ' ' || queued"),
        "UNINITIALIZED false"
    );
    session.exec("SELECT transmute.unhook('pre_apply', 'public.refuse(jsonb)')");
    migration.apply();
    migration.wait_in("AWAITING_FINALIZATION");
    let error = crate::surface::refusal(
        &mut session,
        "SELECT transmute.rollback('m', 'a change of mind')",
    );
    assert_eq!(error.message, "a pre_rollback hook refuses");
    assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");
    assert_eq!(called(&mut session), [""; 0]);
}

#[test]
fn a_hook_before_finalization_that_errors_keeps_the_table_as_it_is() {
    let database = Database::shared();
    let mut session = scene(&database);
    hook(&mut session, &["pre_finalize"], "note");
    hook(&mut session, &["pre_finalize"], "refuse");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for("outcome", "FAILED");
    assert_eq!(
        migration.status("state || ': ' || waiting_for"),
        "AWAITING_FINALIZATION: a person: a pre_finalize hook refuses: public.refuse(jsonb): not on a Friday (23514)."
    );
    assert_eq!(
        session.lines("SELECT pg_typeof(a) FROM t LIMIT 1"),
        ["integer"]
    );
    // Without its schema, where there is only one of that name.
    session.exec("SELECT transmute.unhook('pre_finalize', 'refuse(jsonb)')");
    migration.call("resume", "'no refusal any more'");
    migration.finish();
    // The one that had been called was not called again.
    assert_eq!(called(&mut session), ["pre_finalize|AWAITING_FINALIZATION"]);
    assert_eq!(
        session.lines("SELECT function, error FROM transmute.hook_runs ORDER BY asked_at"),
        [
            "public.note(jsonb)|∅",
            "public.refuse(jsonb)|not on a Friday"
        ]
    );
}

/// The rollback interrupts the hook, which answers with an error of its own: that of a try that nobody wants any more.
#[test]
fn a_try_that_fails_while_a_rollback_is_asked_for_does_not_hold_it_up() {
    let database = Database::shared();
    let mut session = scene(&database);
    session.exec(
        "CREATE FUNCTION stubborn(jsonb) RETURNS void LANGUAGE plpgsql AS $$
           BEGIN
             PERFORM pg_sleep(600);
           EXCEPTION WHEN query_canceled THEN
             RAISE EXCEPTION 'leave me alone' USING ERRCODE = '23514';
           END $$",
    );
    hook(&mut session, &["pre_finalize"], "stubborn");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_asleep();
    migration.call("rollback", "'not now'");
    migration.wait_for("state", "UNINITIALIZED");
    assert_eq!(migration.status("outcome"), "ROLLED_BACK");
}

#[test]
fn what_fails_in_a_hook_afterwards_is_written_down_and_undoes_nothing() {
    let database = Database::shared();
    let mut session = scene(&database);
    hook(&mut session, &["post_apply", "post_finalize"], "refuse");
    hook(&mut session, &["post_finalize"], "note");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.finish();
    session.wait_for("SELECT count(*) FROM called", "1", PATIENCE);
    assert_eq!(
        migration.status("state || ' ' || outcome"),
        "FINISHED COMPLETED"
    );
    assert_eq!(
        session.lines("SELECT detail::json ->> 'event', detail::json ->> 'message', detail::json ->> 'sqlstate' FROM transmute.history WHERE event = 'hook failed' ORDER BY seq"),
        ["post_apply|not on a Friday|23514", "post_finalize|not on a Friday|23514"]
    );
    assert_eq!(called(&mut session), ["post_finalize|FINISHED"]);
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn a_hook_runs_as_the_owner_it_was_registered_with_or_not_at_all() {
    let database = Database::shared();
    let mut session = scene(&database);
    session.exec(
        "DROP ROLE IF EXISTS hook_ann; CREATE ROLE hook_ann LOGIN; GRANT CREATE ON SCHEMA public TO hook_ann;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA transmute TO hook_ann;
         GRANT INSERT ON called TO hook_ann; ALTER FUNCTION note(jsonb) OWNER TO hook_ann",
    );
    let mut ann = database.connect_as("hook_ann");
    let refused = ann.error("SELECT transmute.hook('pre_apply', 'public.note(jsonb)')");
    assert_eq!(
        (refused.sqlstate.as_str(), refused.message.as_str()),
        ("42501", "must be a superuser")
    );
    let refused = ann.error("SELECT transmute.unhook('pre_apply', 'public.note(jsonb)')");
    assert_eq!(refused.sqlstate, "42501");
    hook(&mut session, &["pre_apply"], "note");
    // She may change what it does, and it does so as herself: restricted, so that it cannot become anybody else.
    ann.exec(
        "CREATE OR REPLACE FUNCTION public.note(facts jsonb) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO public.called (event, who) VALUES ('mine', current_user);
           SET LOCAL ROLE postgres;
         END $$",
    );
    Migration::register(&database, "m", TO_BIGINT, "{}");
    let error = session.error("SELECT transmute.apply('m')");
    assert!(
        error
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("within security-"),
        "{error}"
    );
    ann.exec(
        "CREATE OR REPLACE FUNCTION public.note(facts jsonb) RETURNS void LANGUAGE sql AS
         'INSERT INTO public.called (event, who) VALUES (''mine'', current_user)'",
    );
    session.exec("BEGIN; SELECT transmute.apply('m')");
    assert_eq!(
        session.lines("SELECT event, who FROM called"),
        ["mine|hook_ann"]
    );
    session.exec("ROLLBACK; ALTER FUNCTION note(jsonb) OWNER TO postgres");
    let error = session.error("SELECT transmute.apply('m')");
    assert_eq!(
        error.detail.as_deref(),
        Some("public.note(jsonb): the function has another owner than when it became a hook (55000).")
    );
    session.exec("DROP FUNCTION note(jsonb)");
    let error = session.error("SELECT transmute.apply('m')");
    assert_eq!(
        error.detail.as_deref(),
        Some("public.note(jsonb): the function does not exist any more (42704).")
    );
    session.exec(
        "SELECT transmute.unhook('pre_apply', 'public.note(jsonb)'); SELECT transmute.apply('m')",
    );
    session.exec("CALL transmute.wait('m')");
    drop(ann);
    session.exec("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA transmute FROM hook_ann; DROP OWNED BY hook_ann; DROP ROLE hook_ann");
}

#[test]
fn a_hook_that_takes_too_long_is_interrupted() {
    let database = Database::shared();
    let mut session = scene(&database);
    migration::set(&database, &[("hook_timeout", "100 ms")]);
    session.exec(
        "CREATE FUNCTION slow(facts jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(100)'",
    );
    hook(&mut session, &["pre_apply", "post_finalize"], "slow");
    let mut migration = Migration::register(&database, "m", TO_BIGINT, "{}");
    let error = migration.refused("apply", "");
    assert_eq!(
        error.detail.as_deref(),
        Some("public.slow(jsonb): it took longer than 100 ms (57014).")
    );
    // The session's own timeout is not the hook's.
    session.exec("SELECT transmute.unhook('pre_apply', 'public.slow(jsonb)'); SET statement_timeout = '60 s'");
    migration.apply();
    migration.finish();
    session.wait_for(
        "SELECT error FROM transmute.hook_runs WHERE event = 'post_finalize'",
        "it took longer than 100 ms",
        PATIENCE,
    );
}

#[test]
fn what_cannot_be_a_hook_is_refused() {
    let database = Database::shared();
    let mut session = scene(&database);
    session.exec(
        "CREATE FUNCTION two(a jsonb, b jsonb) RETURNS void LANGUAGE sql AS '';
         CREATE FUNCTION of_text(a text) RETURNS void LANGUAGE sql AS '';
         CREATE FUNCTION many(a jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
         CREATE PROCEDURE proc(a jsonb) LANGUAGE sql AS ''",
    );
    hook(&mut session, &["pre_apply"], "note");
    for (call, expected) in [
        ("hook(NULL, 'note(jsonb)')", "22023: event is NULL"),
        ("hook('pre_apply', NULL)", "22023: function is NULL"),
        ("hook('', 'note(jsonb)')", "22023: unknown event"),
        ("hook('PRE_APPLY', 'note(jsonb)')", "22023: unknown event"),
        (
            "hook(E'pre_apply\\n', 'note(jsonb)')",
            "22023: unknown event",
        ),
        (
            "hook('pre_apply', 'note(jsonb)')",
            "55000: the hook is registered already",
        ),
        (
            "hook('pre_apply', 'two(jsonb, jsonb)')",
            "22023: the function cannot be a hook",
        ),
        (
            "hook('pre_apply', 'of_text(text)')",
            "22023: the function cannot be a hook",
        ),
        (
            "hook('pre_apply', 'many(jsonb)')",
            "22023: the function cannot be a hook",
        ),
        (
            "hook('pre_apply', 'proc(jsonb)')",
            "22023: the function cannot be a hook",
        ),
        (
            "hook('pre_apply', 'jsonb_array_elements(jsonb)')",
            "22023: the function cannot be a hook",
        ),
        (
            "hook('pre_apply', 0::oid)",
            "42704: function does not exist",
        ),
        ("unhook(NULL, 'public.note(jsonb)')", "22023: event is NULL"),
        ("unhook('pre_apply', NULL)", "22023: function is NULL"),
        (
            "unhook('sometimes', 'public.note(jsonb)')",
            "22023: unknown event",
        ),
        (
            "unhook('post_apply', 'public.note(jsonb)')",
            "42704: there is no such hook",
        ),
        (
            "unhook('pre_apply', 'nobody(jsonb)')",
            "42704: there is no such hook",
        ),
        ("unhook('pre_apply', '')", "42704: there is no such hook"),
        ("unhook('pre_apply', '(((')", "42704: there is no such hook"),
    ] {
        assert_eq!(
            crate::surface::refused(&mut session, &format!("SELECT transmute.{call}")),
            expected,
            "{call}"
        );
    }
    assert_eq!(
        session.lines("SELECT event, function, owner_name FROM transmute.hooks"),
        ["pre_apply|public.note(jsonb)|postgres"]
    );
}
