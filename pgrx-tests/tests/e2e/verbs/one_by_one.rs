//! Statements one by one: those that no transaction may hold, and what is left when one of them fails.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::{direct, settle, statuses};

fn none(session: &mut Session, id: &str, up: &str) {
    session.query(
        "SELECT transmute.register($1, $2, NULL, '{\"transaction\": \"none\"}')",
        &[&id, &up],
    );
}

#[test]
fn statements_that_no_transaction_may_hold_run_one_by_one_and_go_back() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(
        &mut session,
        "a",
        "CREATE TYPE kind AS ENUM ('x'); CREATE TABLE t (id int PRIMARY KEY, k kind); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i",
    );
    none(
        &mut session,
        "b",
        "SET search_path = public; ALTER TYPE kind ADD VALUE 'y'; CREATE INDEX CONCURRENTLY t_k ON t (k);
         UPDATE t SET k = 'y' WHERE id = 1; VACUUM t; ANALYZE t; REINDEX INDEX CONCURRENTLY t_k",
    );
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(statuses(&mut session), ["a|applied", "b|applied"]);
    assert_eq!(
        session.lines("SELECT step, kind, status FROM transmute.steps WHERE id = 'b'"),
        [
            "1|direct|done",
            "2|outside|done",
            "3|direct|done",
            "4|outside|done",
            "5|direct|done",
            "6|outside|done"
        ]
    );
    assert_eq!(session.lines("SELECT k FROM t WHERE id = 1"), ["y"]);
    // What cannot be taken back is named.
    let error = session.error("SELECT transmute.down()");
    assert_eq!(error.sqlstate, "55000");
    let detail = error.detail.expect("a DETAIL");
    assert!(
        detail.ends_with("\"b\": UPDATE of line 2: the rows that it changes."),
        "{detail}"
    );
    let error = session.error("SELECT transmute.down(allow_missing_down => true)");
    assert_eq!(error.message, "a reason is needed");
    // The value goes, so no row may have it.
    session.exec("UPDATE t SET k = 'x' WHERE id = 1; SELECT transmute.rollback(1, 'the row is mended', allow_missing_down => true)");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT enum_range(NULL::kind), count(*) FROM t"),
        ["{x}|1000"]
    );
    assert_eq!(statuses(&mut session), ["a|applied", "b|taken back"]);
    assert_eq!(
        session.lines("SELECT to_regclass('t_k'), to_regclass('t')"),
        ["∅|t"]
    );
}

#[test]
fn a_value_of_an_enum_that_the_same_script_makes_goes_with_it() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TYPE other AS ENUM ('x')");
    let before = super::history::dump(&database);
    direct(
        &mut session,
        "a",
        "CREATE TYPE mood AS ENUM ('x'); ALTER TYPE mood ADD VALUE 'y'; CREATE TABLE t (m mood)",
    );
    direct(
        &mut session,
        "b",
        "SELECT 1;\nALTER TYPE other RENAME VALUE 'x' TO 'y'; SELECT 2",
    );
    for call in ["apply('a')", "down()", "apply('a')", "down()"] {
        session.exec(&format!("SELECT transmute.{call}"));
        settle(&mut session);
        if call == "down()" {
            assert_eq!(super::history::dump(&database), before);
        }
    }
    session.exec("SELECT transmute.apply('b', allow_out_of_order => true)");
    settle(&mut session);
    let error = session.error("SELECT transmute.down()");
    assert!(
        error.detail.as_deref().unwrap_or_default().contains(
            "SELECT of line 1: it cannot be derived from the catalogs; SELECT of line 2: "
        ),
        "{error:?}"
    );
}

#[test]
fn what_is_about_another_database_or_the_server_is_refused_with_the_reason() {
    let database = Database::shared();
    let mut session = database.connect();
    let modes = ["{}", r#"{"mode": "direct"}"#, r#"{"transaction": "none"}"#];
    let mut refused = |meta: &str, statement: &str, state: &str, part: &str| {
        let error = session.error(&format!(
            "SELECT transmute.register('x', $x$SELECT 1;\n{statement}$x$, NULL, '{meta}')"
        ));
        assert_eq!(error.sqlstate, state, "{statement} {meta}: {error}");
        let text = format!("{} {}", error.message, error.detail.unwrap_or_default());
        assert!(text.contains(part), "{statement} {meta}: {text}");
        assert!(text.contains("in line 2"), "{statement} {meta}: {text}");
        assert!(error.hint.is_some(), "{statement} {meta}");
    };
    // However a script runs.
    for (statement, part) in [
        ("ALTER SYSTEM SET work_mem = '1GB'", "a file of the server"),
        ("ALTER SYSTEM RESET ALL", "a file of the server"),
        ("CREATE DATABASE x", "nothing of it shows in this database"),
        ("DROP DATABASE x", "nothing brings it back"),
        (
            "CREATE TABLESPACE x LOCATION '/x'",
            "a directory of the server",
        ),
        ("DROP TABLESPACE x", "a directory of the server"),
        (
            "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
            "a slot on another server",
        ),
        ("DROP SUBSCRIPTION s", "a slot of another server"),
        ("COPY t FROM stdin", "a client"),
        ("LISTEN x", "the session that runs it"),
    ] {
        for meta in modes {
            refused(meta, statement, "0A000", part);
        }
    }
    for statement in ["BEGIN", "COMMIT", "PREPARE TRANSACTION 'x'"] {
        for meta in modes {
            refused(meta, statement, "22023", "controls transactions");
        }
    }
    // Those that no transaction may hold, and nothing would tell of after a crash.
    for statement in [
        "ALTER DATABASE postgres SET TABLESPACE pg_default",
        "CLUSTER",
        "DISCARD ALL",
    ] {
        refused(modes[1], statement, "0A000", "does not run");
        refused(modes[2], statement, "0A000", "whether it was done");
    }
    for (statement, part) in [
        ("CREATE INDEX CONCURRENTLY ON t (id)", "by its name"),
        ("DROP TABLE t", "could not be taken back with the others"),
        ("RESET work_mem", "runs for itself"),
    ] {
        refused(modes[2], statement, "0A000", part);
    }
    for statement in ["VACUUM t", "CREATE INDEX CONCURRENTLY i ON t (id)"] {
        let error = session.error(&format!(
            "SELECT transmute.register('x', '{statement}', NULL, '{{\"mode\": \"direct\"}}')"
        ));
        assert_eq!(error.sqlstate, "0A000");
        assert!(error
            .hint
            .expect("a HINT")
            .contains("meta.transaction \"none\""));
    }
    assert_eq!(statuses(&mut session), Vec::<String>::new());
}

#[test]
fn a_failure_in_the_midst_blocks_what_follows_until_somebody_says_what_became_of_it() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1)");
    let script = "CREATE TABLE made (id int); CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id); CREATE TABLE behind (id int)";
    for action in ["removed", "applied"] {
        none(&mut session, action, script);
        direct(
            &mut session,
            &format!("{action} next"),
            &format!("CREATE TABLE next_{action} (id int)"),
        );
        session.exec(&format!(
            "SELECT transmute.apply('{action}'); SELECT transmute.apply('{action} next')"
        ));
        session.wait_for(
            &format!("SELECT status FROM transmute.list WHERE id = '{action}'"),
            "dirty",
            PATIENCE,
        );
        // It says why, and nothing half made stays.
        assert_eq!(
            session.lines(&format!("SELECT state, last_error_sqlstate, last_error_hint LIKE '%transmute.fix(id,%' FROM transmute.status WHERE id = '{action}'")),
            ["AWAITING_ACTION|23505|t"]
        );
        assert_eq!(
            session.lines("SELECT to_regclass('made'), to_regclass('t_id'), to_regclass('behind')"),
            ["made|∅|∅"]
        );
        // What follows waits, and what would come later is refused.
        direct(&mut session, &format!("{action} later"), "SELECT 1");
        let error = session.error(&format!("SELECT transmute.apply('{action} later')"));
        assert!(error.detail.expect("a DETAIL").starts_with("FAILED_BEFORE"));
        assert_eq!(
            session.lines(&format!("SELECT to_regclass('next_{action}')")),
            ["∅"]
        );
        for (call, message) in [
            (format!("fix('{action}', 'mended', 'x')"), "unknown action"),
            (
                format!("fix('{action}', '{action}', ' ')"),
                "a reason is needed",
            ),
            (
                format!("fix('{action} next', '{action}', 'x')"),
                "the state of the migration does not allow fix",
            ),
            (
                "fix('nobody', 'applied', 'x')".to_string(),
                "migration does not exist",
            ),
        ] {
            assert_eq!(
                session.error(&format!("SELECT transmute.{call}")).message,
                message
            );
        }
        session.exec(match action {
            "removed" => "DROP TABLE made",
            _ => "CREATE TABLE behind (id int)",
        });
        session.exec(&format!(
            "SELECT transmute.fix('{action}', '{action}', 'by hand')"
        ));
        settle(&mut session);
        match action {
            "removed" => {
                // What follows is pending again: it may need what was removed.
                assert_eq!(
                    statuses(&mut session),
                    [
                        "removed|pending",
                        "removed next|pending",
                        "removed later|pending"
                    ]
                );
                assert_eq!(
                    session.lines("SELECT applied_at FROM transmute.list WHERE id = 'removed'"),
                    ["∅"]
                );
                session.exec("SELECT transmute.baseline('removed later', 'done with')");
            }
            _ => {
                session.exec("SELECT transmute.apply()");
                settle(&mut session);
                assert_eq!(
                    session.lines("SELECT id, status FROM transmute.list WHERE id LIKE 'applied%'"),
                    [
                        "applied|applied",
                        "applied next|applied",
                        "applied later|applied"
                    ]
                );
                assert_eq!(
                    session.lines("SELECT to_regclass('next_applied')"),
                    ["next_applied"]
                );
            }
        }
        assert_eq!(
            session.lines(&format!("SELECT event, reason FROM transmute.history() WHERE id = '{action}' AND event = 'fixed'")),
            ["fixed|by hand"]
        );
    }
}
