//! What applications read and write by the state of a migration, and one that asks and never fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{Database, Session};

use crate::migration::Migration;
use crate::surface::refused;

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

fn route(session: &mut Session) -> String {
    session
        .lines("SELECT read_from, write_to FROM transmute.route('m')")
        .remove(0)
}

#[test]
fn routing_follows_the_state_and_the_strategy() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int)");
    for (strategy, rule, middle) in [
        ("BOTH", "", "old|both"),
        ("OLD_ONLY", "", "old|old"),
        ("NEW_ONLY", "", "old|new"),
        ("CUSTOM", r#", "write_rule": "by tenant""#, "old|custom"),
    ] {
        let meta = format!(
            r#"{{"write_strategy": "{strategy}"{rule}, "pre_finalization_soak": "1 hour", "keep_old": "1 hour"}}"#
        );
        let mut migration = Migration::register(&database, "m", TO_BIGINT, &meta);
        assert_eq!(route(&mut session), "old|old", "{strategy}");
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        assert_eq!(route(&mut session), middle);
        assert_eq!(
            session.lines("SELECT id, state, read_from, write_to, write_strategy, write_rule IS NOT NULL FROM transmute.routing"),
            [format!("m|AWAITING_FINALIZATION|{middle}|{strategy}|{}", if rule.is_empty() { "f" } else { "t" })]
        );
        migration.call("skip_soak", "'enough'");
        migration.finish();
        assert_eq!(route(&mut session), "new|new", "{strategy}");
        migration.call("undo", "'back'");
        migration.wait_for("outcome", "UNDONE");
        assert_eq!(route(&mut session), "old|old", "{strategy}");
        migration.wait_for("queued", "f");
        session.exec("DELETE FROM _transmute.migrations");
    }
    assert_eq!(
        session.lines("SELECT read_from, write_to FROM transmute.route('nobody') UNION ALL SELECT read_from, write_to FROM transmute.route(NULL)"),
        ["∅|∅", "∅|∅"]
    );
    for (meta, expected) in [
        (
            r#"{"write_strategy": "SOMETIMES"}"#,
            "22023: the metadata is not valid",
        ),
        (
            r#"{"write_strategy": "both"}"#,
            "22023: the metadata is not valid",
        ),
        (
            r#"{"write_strategy": 1}"#,
            "22023: the metadata is not valid",
        ),
        (
            r#"{"write_strategy": "CUSTOM"}"#,
            "22023: the metadata is not valid",
        ),
        (r#"{"write_rule": "x"}"#, "22023: the metadata is not valid"),
        (
            r#"{"write_strategy": "BOTH", "write_rule": "x"}"#,
            "22023: the metadata is not valid",
        ),
        (
            r#"{"write_strategy": "CUSTOM", "write_rule": " "}"#,
            "22023: the metadata is not valid",
        ),
    ] {
        let sql = format!("SELECT transmute.register('m', '{TO_BIGINT}', meta => '{meta}')");
        assert_eq!(refused(&mut session, &sql), expected, "{meta}");
    }
    // One index lookup for who reads all of them, and everybody may ask.
    session.exec("SET enable_seqscan = off");
    let plan = session.lines(
        "EXPLAIN (ANALYZE, TIMING off, SUMMARY off) SELECT read_from, write_to FROM transmute.routing WHERE id = 'm'",
    );
    let (used, unused): (Vec<&String>, Vec<&String>) = plan
        .iter()
        .filter(|line| line.contains(" (cost=") && !line.contains("Subquery Scan on routing"))
        .partition(|line| !line.contains("(never executed)"));
    assert!(
        used.len() == 1 && used[0].contains("Index Scan using migrations_pkey"),
        "{plan:#?}"
    );
    assert!(!unused.is_empty(), "{plan:#?}");
    assert_eq!(
        session
            .lines("SELECT has_function_privilege('public', 'transmute.route(text)', 'EXECUTE')"),
        ["t"]
    );
}

/// The client of docs/routing.md: lock, ask, write, in one transaction.
fn one_transaction(session: &mut Session, id: i32) {
    session.exec("BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE");
    let write_to: String = session.scalar("SELECT write_to FROM transmute.route('m')");
    let column = match write_to.as_str() {
        "new" => "amount",
        _ => "a", // both names are one value until the end
    };
    session.exec(&format!(
        "INSERT INTO t (id, {column}) VALUES ({id}, {id}); COMMIT"
    ));
}

#[test]
fn a_client_that_asks_writes_through_a_rename_without_an_error() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int)");
    let mut migration = Migration::register(
        &database,
        "m",
        "ALTER TABLE t RENAME COLUMN a TO amount",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let mut client = database.connect();
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut id = number;
                while !stop.load(Ordering::Relaxed) {
                    one_transaction(&mut client, id);
                    id += 3;
                    written.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let more = || {
            let target = written.load(Ordering::Relaxed) + 100;
            wait_until("the clients to write", PATIENCE, || {
                (written.load(Ordering::Relaxed) >= target).then_some(())
            });
        };
        more();
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        more();
        migration.call("skip_soak", "'enough'");
        migration.finish();
        more();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        session.lines(&format!(
            "SELECT count(*) = {}, bool_and(amount = id) FROM t",
            written.load(Ordering::Relaxed)
        )),
        ["t|t"]
    );
}
