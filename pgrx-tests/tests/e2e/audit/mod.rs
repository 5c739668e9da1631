//! The audit trail: linear whoever appends, the same whoever looks, and nobody changes it unnoticed.

use std::collections::BTreeSet;
use std::process::Command;

use transmute_tests::{tools, Database, Session};

use crate::migration::Migration;

mod appending;
mod by_hand;
mod length;
mod tampering;

/// The trail of one migration that went forth, back and forth again.
pub fn trail(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i",
    );
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
    let mut migration =
        Migration::start(database, "m", ddl, r#"{"pre_finalization_soak": "1 hour"}"#);
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough; ''quoted'' and ünïcode'");
    migration.finish();
    session
}

/// What the extension says of its trail: `ok`, or the fault and the event it is at.
#[track_caller]
pub fn verdict(session: &mut Session, arguments: &str) -> String {
    session
        .lines(&format!(
            "SELECT CASE WHEN ok THEN 'ok' ELSE concat_ws(' at ', fault, fault_seq) END FROM transmute.audit_verify({arguments})"
        ))
        .remove(0)
}

/// What the verifier that was written from the documentation says of the export.
#[track_caller]
pub fn independent_verdict(session: &mut Session, head: Option<&str>) -> String {
    let export = session.lines("SELECT transmute.audit_export()").join("\n");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), export).expect("a file");
    let mut command = Command::new("python3");
    command
        .arg(tools::project_root().join("pgrx-tests/audit/verify.py"))
        .arg(file.path());
    if let Some(head) = head {
        command.args(["--head", head]);
    }
    let output = tools::run(&mut command);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let text = text.trim_start_matches("fault: ");
    assert!(
        !text.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.split(':').next().unwrap_or_default().to_string()
}

/// The rule of docs/audit-format.md once more, in SQL: what somebody would use who rewrites the trail.
pub fn make_hash_function(session: &mut Session) {
    session.exec(
        "CREATE FUNCTION pg_temp.number(n bigint) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x02'::bytea || int8send(n) $$;
         CREATE FUNCTION pg_temp.words(t text) RETURNS bytea LANGUAGE sql AS $$
           SELECT coalesce('\\x01'::bytea || int8send(length(convert_to(t, 'UTF8'))) || convert_to(t, 'UTF8'), '\\x00') $$;
         CREATE FUNCTION pg_temp.hash_of(e _transmute.audit_events) RETURNS bytea LANGUAGE sql AS $$
           SELECT sha256('transmute-audit-v1'::bytea || '\\x00'::bytea || e.prev_hash || pg_temp.number(e.seq)
             || pg_temp.number(e.encoding_version) || pg_temp.number((extract(epoch FROM e.at) * 1000000)::bigint)
             || pg_temp.number((extract(epoch FROM e.transaction_at) * 1000000)::bigint) || pg_temp.words(e.xid)
             || pg_temp.words(e.session_user_name) || pg_temp.words(e.current_user_name) || pg_temp.words(e.application_name)
             || pg_temp.words(e.client_addr) || pg_temp.words(e.migration_id) || pg_temp.words(e.event)
             || pg_temp.words(e.from_state) || pg_temp.words(e.to_state) || pg_temp.words(e.detail)) $$",
    );
}

#[test]
fn an_untouched_trail_verifies_here_and_outside_and_in_sql() {
    let database = Database::shared();
    let mut session = trail(&database);
    let head: String = session.scalar("SELECT transmute.audit_head()");
    assert_eq!(verdict(&mut session, ""), "ok");
    assert_eq!(
        verdict(&mut session, &format!("expected_head => '{head}'")),
        "ok"
    );
    assert_eq!(verdict(&mut session, "from_seq => 5"), "ok");
    assert_eq!(independent_verdict(&mut session, Some(&head)), "ok");
    make_hash_function(&mut session);
    assert_eq!(
        session.lines("SELECT seq FROM _transmute.audit_events e WHERE hash <> pg_temp.hash_of(e)"),
        [] as [&str; 0]
    );
    for (arguments, sqlstate) in [
        ("from_seq => 1000", "42704"),
        ("expected_head => 'no head'", "22023"),
        ("expected_head => ''", "22023"),
        ("expected_head => '5:abcd'", "22023"),
    ] {
        let error = session.error(&format!(
            "SELECT * FROM transmute.audit_verify({arguments})"
        ));
        assert_eq!(error.sqlstate, sqlstate, "{arguments}");
        assert!(error.detail.is_some() && error.hint.is_some(), "{error}");
    }
    assert_eq!(
        session
            .error("SELECT transmute.audit_export('csv')")
            .sqlstate,
        "22023"
    );
}

#[test]
fn settings_of_a_session_change_neither_what_is_written_nor_what_is_read() {
    let database = Database::shared();
    let mut session = trail(&database);
    session.exec(
        "CREATE SCHEMA hostile;
         CREATE FUNCTION hostile.no(bytea, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT false';
         CREATE FUNCTION hostile.wrong(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION hostile.encode(bytea, text) RETURNS text LANGUAGE sql AS $$ SELECT 'fooled' $$;
         CREATE OPERATOR hostile.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = hostile.no);
         CREATE OPERATOR hostile.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.wrong);
         CREATE TABLE hostile.audit_events (seq bigint)",
    );
    let settings = [
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'German'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "lc_messages = 'C'; SET lc_numeric = 'C'; SET lc_monetary = 'C'",
        "search_path = hostile, _transmute, pg_catalog",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "default_transaction_isolation = 'serializable'; SET default_transaction_deferrable = on",
        "xmloption = document; SET application_name = 'naïve; ''x'''",
        "role = pg_monitor",
    ];
    let before = session.lines("SELECT * FROM transmute.audit_verify()");
    let export = session.lines("SELECT transmute.audit_export()");
    for setting in settings {
        let mut other = database.connect();
        other.exec(&format!("SET {setting}"));
        assert_eq!(
            other.lines("SELECT * FROM transmute.audit_verify()"),
            before,
            "{setting}"
        );
        assert_eq!(
            other.lines("SELECT transmute.audit_export()"),
            export,
            "{setting}"
        );
    }
    let written: BTreeSet<String> = (1..)
        .zip(&settings[..settings.len() - 1])
        .map(|(number, setting)| {
            let mut other = database.connect();
            other.exec(&format!("SET {setting}"));
            let id = format!("written {number}");
            other.exec(&format!(
                "SELECT transmute.register('{id}', 'COMMENT ON SCHEMA public IS NULL')"
            ));
            id
        })
        .collect();
    assert_eq!(
        session.lines("SELECT id FROM transmute.audit_events WHERE id LIKE 'written%' ORDER BY id COLLATE \"C\""),
        Vec::from_iter(written)
    );
    assert_eq!(verdict(&mut session, ""), "ok");
    assert_eq!(independent_verdict(&mut session, None), "ok");
}

#[test]
fn every_act_has_its_actor_and_every_change_of_state_leaves_the_database() {
    let database = Database::shared();
    let mut session = trail(&database);
    session.exec("DROP ROLE IF EXISTS audit_boss; CREATE ROLE audit_boss SUPERUSER");
    session.exec(
        "SET ROLE audit_boss; SET application_name = 'the console';
         SELECT transmute.register('n', 'COMMENT ON TABLE t IS NULL', meta => '{\"pre_execution_soak\": \"1 day\"}')",
    );
    for call in [
        "apply('n')",
        "pause('n', 'p')",
        "resume('n', 'r')",
        "approve('n', 'a')",
        "revoke_approval('n', 'b')",
        "rollback('n', 'c')",
    ] {
        session.exec(&format!("SELECT transmute.{call}"));
    }
    // What is refused did not happen.
    assert_eq!(
        session
            .error("SELECT transmute.skip_soak('m', 'too late')")
            .sqlstate,
        "55000"
    );
    session.exec("RESET ROLE");
    assert_eq!(
        session.lines(
            "SELECT event, actor, current_user_name, application_name, detail::jsonb ->> 'reason'
               FROM transmute.audit_events WHERE id = 'n' ORDER BY seq"
        ),
        [
            "registered|postgres|audit_boss|the console|∅",
            "applied|postgres|audit_boss|the console|∅",
            "paused|postgres|audit_boss|the console|p",
            "resumed|postgres|audit_boss|the console|r",
            "approved|postgres|audit_boss|the console|a",
            "approval revoked|postgres|audit_boss|the console|b",
            "rollback requested|postgres|audit_boss|the console|c",
        ]
    );
    let changes = session.lines(
        "SELECT format('transmute: migration \"m\": %s -> %s, audit head %s:%s', from_state, to_state, seq, hash)
           FROM transmute.audit_events WHERE id = 'm' AND to_state IS NOT NULL",
    );
    assert_eq!(changes.len(), 10, "{changes:?}");
    for line in changes {
        assert!(
            database.cluster().log_contains(&line),
            "not in the server's log: {line}"
        );
    }
}
