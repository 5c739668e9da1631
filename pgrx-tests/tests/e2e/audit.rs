//! The audit trail: linear whoever appends, the same whoever looks, and nobody changes it unnoticed.

use std::collections::BTreeSet;
use std::process::Command;

use transmute_tests::{tools, Database, DbError, Session};

use crate::migration::Migration;

/// The trail of one migration that went forth, back and forth again.
fn trail(database: &Database<'_>) -> Session {
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
fn verdict(session: &mut Session, arguments: &str) -> String {
    session
        .lines(&format!(
            "SELECT CASE WHEN ok THEN 'ok' ELSE fault || ' at ' || fault_seq END FROM transmute.audit_verify({arguments})"
        ))
        .remove(0)
}

/// What the verifier that was written from the documentation says of the export.
#[track_caller]
fn independent_verdict(session: &mut Session, head: Option<&str>) -> String {
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

/// Does something to the trail as a superuser who has switched its triggers off; both verifiers must find it; all is
/// undone.
#[track_caller]
fn tamper(session: &mut Session, what: &str, expected_head: Option<&str>) -> String {
    session.exec("BEGIN; ALTER TABLE _transmute.audit_events DISABLE TRIGGER ALL");
    session.exec(what);
    let argument = match expected_head {
        Some(head) => format!("expected_head => '{head}'"),
        None => String::new(),
    };
    let found = verdict(session, &argument);
    assert_eq!(independent_verdict(session, expected_head), found, "{what}");
    session.exec("ROLLBACK");
    found
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

/// The rule of docs/audit-format.md once more, in SQL: what somebody would use who rewrites the trail.
fn make_hash_function(session: &mut Session) {
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
fn a_change_of_any_column_is_found_and_named() {
    let database = Database::shared();
    let mut session = trail(&database);
    for (column, value) in [
        ("encoding_version", "2"),
        ("at", "at + interval '1 microsecond'"),
        (
            "transaction_at",
            "transaction_at - interval '1 microsecond'",
        ),
        ("xid", "xid || '0'"),
        ("session_user_name", "'somebody'"),
        ("current_user_name", "current_user_name || ' '"),
        ("application_name", "application_name || 'x'"),
        ("client_addr", "''"),
        ("migration_id", "NULL"),
        ("event", "upper(event)"),
        ("from_state", "coalesce(from_state, '') || ''"),
        ("to_state", "'FINISHED'"),
        ("detail", "coalesce(detail, '') || ' '"),
        (
            "prev_hash",
            "set_byte(prev_hash, 31, get_byte(prev_hash, 31) # 1)",
        ),
        ("hash", "set_byte(hash, 0, get_byte(hash, 0) # 128)"),
    ] {
        // An event without change of state, so that each of the values is another one.
        let change = format!(
            "UPDATE _transmute.audit_events SET {column} = {value}
              WHERE seq = (SELECT min(seq) FROM _transmute.audit_events WHERE event = 'applied')"
        );
        let expected = match column {
            "encoding_version" => "unknown_encoding at 3",
            "prev_hash" => "link_broken at 3",
            _ => "content_changed at 3",
        };
        assert_eq!(tamper(&mut session, &change, None), expected, "{column}");
    }
    assert_eq!(verdict(&mut session, ""), "ok");
}

#[test]
fn what_is_missing_moved_or_forged_is_found() {
    let database = Database::shared();
    let mut session = trail(&database);
    let events: i64 = session.scalar("SELECT count(*) FROM transmute.audit_events");
    let head: String = session.scalar("SELECT transmute.audit_head()");
    let old_head: String =
        session.scalar("SELECT seq || ':' || hash FROM transmute.audit_events WHERE seq = 4");
    let next = events + 1;
    let columns = "seq, encoding_version, at, transaction_at, xid, session_user_name, current_user_name, application_name,
                   client_addr, migration_id, event, from_state, to_state, detail";
    let delete = "DELETE FROM _transmute.audit_events WHERE seq";
    let (mut ask, kept) = (
        |what: &str, head: Option<&str>| tamper(&mut session, what, head),
        Some(&*head),
    );

    assert_eq!(ask(&format!("{delete} = 6"), None), "sequence_gap at 6");
    assert_eq!(ask(&format!("{delete} = 1"), None), "sequence_gap at 1");
    let swap = "UPDATE _transmute.audit_events SET seq = -seq WHERE seq IN (6, 7);
                UPDATE _transmute.audit_events SET seq = 13 + seq WHERE seq < 0";
    assert_eq!(ask(swap, None), "link_broken at 6");
    let renumbered = format!(
        "{delete} = 6; UPDATE _transmute.audit_events SET seq = -seq WHERE seq > 6;
                UPDATE _transmute.audit_events SET seq = -seq - 1 WHERE seq < 0"
    );
    assert_eq!(ask(&renumbered, None), "link_broken at 6");
    let forged = format!(
        "INSERT INTO _transmute.audit_events ({columns}, prev_hash, hash)
         SELECT seq + 1 {}, hash, sha256(hash) FROM _transmute.audit_events WHERE seq = {events}",
        columns.strip_prefix("seq").unwrap_or_default()
    );
    assert_eq!(ask(&forged, None), format!("content_changed at {next}"));

    // A cut tail leaves a good trail: only a head that was kept elsewhere tells, if it is newer than the cut.
    for cut in [5, events - 1] {
        let cut_off = format!("{delete} > {cut}");
        assert_eq!(ask(&cut_off, None), "ok");
        assert_eq!(ask(&cut_off, Some(&old_head)), "ok");
        assert_eq!(ask(&cut_off, kept), format!("tail_missing at {}", cut + 1));
    }
    assert_eq!(
        ask("TRUNCATE _transmute.audit_events", kept),
        "tail_missing at 1"
    );
    assert_eq!(ask("SELECT 1", kept), "ok");
}

#[test]
fn a_rewritten_trail_is_found_against_any_head_kept_since() {
    let database = Database::shared();
    let mut session = trail(&database);
    make_hash_function(&mut session);
    let heads = session.lines("SELECT seq || ':' || hash FROM transmute.audit_events ORDER BY seq");
    session.exec(
        "CREATE TEMP TABLE rewritten AS TABLE _transmute.audit_events;
         UPDATE rewritten SET session_user_name = 'somebody_else' WHERE seq = 5",
    );
    session.exec(
        "DO $$
         DECLARE prev bytea := decode(repeat('00', 32), 'hex'); e _transmute.audit_events;
         BEGIN
           FOR e IN SELECT * FROM rewritten ORDER BY seq LOOP
             e.prev_hash := prev;
             prev := pg_temp.hash_of(e);
             UPDATE rewritten SET prev_hash = e.prev_hash, hash = prev WHERE seq = e.seq;
           END LOOP;
         END $$",
    );
    let rewrite = "DELETE FROM _transmute.audit_events; INSERT INTO _transmute.audit_events SELECT * FROM rewritten";
    assert_eq!(
        tamper(&mut session, rewrite, None),
        "ok",
        "it is a good chain, only not ours"
    );
    for (seq, head) in (1..).zip(&heads) {
        let found = tamper(&mut session, rewrite, Some(head));
        if seq < 5 {
            assert_eq!(found, "ok", "{head}");
        } else {
            assert_eq!(found, format!("head_mismatch at {seq}"));
        }
    }
}

#[test]
fn nobody_changes_it_with_its_triggers_on() {
    let database = Database::shared();
    let mut session = trail(&database);
    for role in ["origin", "replica", "local"] {
        session.exec(&format!("SET session_replication_role = {role}"));
        for statement in [
            "UPDATE _transmute.audit_events SET event = event",
            "UPDATE _transmute.audit_events SET event = 'x' WHERE false",
            "DELETE FROM _transmute.audit_events WHERE seq = 3",
            "TRUNCATE _transmute.audit_events",
            "MERGE INTO _transmute.audit_events e USING (SELECT 3 AS seq) s ON s.seq = e.seq WHEN MATCHED THEN DELETE",
        ] {
            let error = session.error(statement);
            assert_eq!(
                (error.sqlstate.as_str(), error.message.as_str()),
                ("55000", "the audit trail cannot be changed"),
                "{statement}"
            );
        }
    }
    // Neither do two events follow the same one.
    let fork = session.error(
        "INSERT INTO _transmute.audit_events SELECT (e).* FROM (SELECT jsonb_populate_record(e, '{\"seq\": 1000}') AS e
           FROM _transmute.audit_events e WHERE seq = 4) AS x",
    );
    assert_eq!(fork.sqlstate, "23505", "{fork}");
}

#[test]
fn sixteen_sessions_append_one_chain_under_every_isolation_level() {
    const SESSIONS: usize = 16;
    const ACTS: usize = 10;
    let database = Database::shared();
    let levels = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
    let threads: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let mut session = database.connect();
            std::thread::spawn(move || {
                let mut retries = 0;
                for act in 0..ACTS {
                    let register = |what: &str| {
                        format!("SELECT transmute.register('{what}-{number}-{act}', 'COMMENT ON SCHEMA public IS NULL')")
                    };
                    // A snapshot from before the act, an act that is taken back, one that is kept.
                    let statements = [
                        format!("BEGIN ISOLATION LEVEL {}", levels[number % levels.len()]),
                        "SELECT count(*) FROM transmute.audit_events".to_string(),
                        "SAVEPOINT s".to_string(),
                        register("undone"),
                        "ROLLBACK TO SAVEPOINT s".to_string(),
                        register("kept"),
                        if act % 3 == 2 { "ROLLBACK" } else { "COMMIT" }.to_string(),
                    ];
                    while let Err(error) = statements.iter().try_for_each(|sql| session.try_exec(sql)) {
                        assert_serialization(&error);
                        session.exec("ROLLBACK");
                        retries += 1;
                    }
                }
                retries
            })
        })
        .collect();
    let retries: usize = threads
        .into_iter()
        .map(|thread| thread.join().expect("a session"))
        .sum();
    println!("{retries} serialization failures");
    let mut session = database.connect();
    let kept = SESSIONS * (0..ACTS).filter(|act| act % 3 != 2).count();
    assert_eq!(
        session.lines(
            "SELECT count(*), count(DISTINCT id), max(seq) - min(seq) + 1 = count(*) FROM transmute.audit_events WHERE event = 'registered'"
        ),
        [format!("{kept}|{kept}|t")]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        [kept.to_string()]
    );
    assert_eq!(verdict(&mut session, ""), "ok");
    assert_eq!(independent_verdict(&mut session, None), "ok");
}

fn assert_serialization(error: &DbError) {
    assert_eq!(error.sqlstate, "40001", "{error}");
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
