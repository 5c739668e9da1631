//! What somebody does to the trail who can do everything, and how it is found.

use transmute_tests::{Database, Session};

use super::{independent_verdict, make_hash_function, trail, verdict};

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
    // Whoever has only the trail has no tables to compare it with.
    let of_the_chain = match found.as_str() {
        "tables_differ" => "ok",
        other => other,
    };
    assert_eq!(
        independent_verdict(session, expected_head),
        of_the_chain,
        "{what}"
    );
    session.exec("ROLLBACK");
    found
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

    // A cut tail leaves a good chain, which does not lead to what the tables hold; were those put back too, only a head that was
    // kept elsewhere tells, if it is newer than the cut.
    for cut in [5, events - 1] {
        let cut_off = format!("{delete} > {cut}");
        assert_eq!(ask(&cut_off, None), "tables_differ");
        assert_eq!(ask(&cut_off, Some(&old_head)), "tables_differ");
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
