//! Logical decoding across a migration: a consumer gets the application's changes and nothing of ours, in the old shape
//! before the swap and in the new one after it.

use std::collections::BTreeMap;

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{Cluster, Database, Session};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_finished, assert_log_is_clean, create_table, wait_state, ALTER, ID,
};

/// What follows `name[type]:` in a line of test_decoding, with the type.
fn column<'l>(line: &'l str, name: &str) -> Option<(&'l str, &'l str)> {
    let start = line.rfind(&format!(" {name}["))? + name.len() + 2;
    let (kind, rest) = line[start..].split_once("]:")?;
    Some((kind, rest.split(' ').next()?))
}

/// Does to a copy of the table what the decoded changes say; each must fit what is there.
fn replay(changes: &[String], rows: &mut BTreeMap<i32, i64>) {
    let mut is_new_shape = false;
    for line in changes {
        if line.contains(": TRUNCATE:") {
            rows.clear();
            continue;
        }
        let number = |name: &str| {
            column(line, name).map(|(_, value)| value.parse::<i64>().expect("a number"))
        };
        let id = number("id").expect("every change has a key") as i32;
        if let Some((kind, _)) = column(line, "a") {
            assert!(
                kind == "bigint" || (kind == "integer" && !is_new_shape),
                "{line}"
            );
            is_new_shape = kind == "bigint";
        }
        let before = match line.split_once("old-key: ") {
            Some((_, key)) => column(
                &format!(" {}", key.split(" new-tuple:").next().unwrap()),
                "id",
            )
            .map(|(_, value)| value.parse::<i32>().expect("a number"))
            .expect("the old key"),
            None => id,
        };
        if line.contains(": INSERT:") {
            assert!(
                rows.insert(id, number("a").unwrap()).is_none(),
                "there already: {line}"
            );
        } else {
            assert!(rows.remove(&before).is_some(), "not there: {line}");
            if line.contains(": UPDATE:") {
                assert!(
                    rows.insert(id, number("a").unwrap()).is_none(),
                    "there already: {line}"
                );
            }
        }
    }
    assert!(is_new_shape, "no change came in the new shape");
}

fn changes(session: &mut Session, of: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT data FROM pg_logical_slot_peek_changes('s', NULL, NULL) WHERE data ~ '^table {of}'"
    ))
}

#[test]
fn a_slot_delivers_the_applications_changes_in_the_shape_of_their_time_and_nothing_of_ours() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 1_000);
    let mut rows = rows_of(&mut session);
    session.exec("SELECT pg_create_logical_replication_slot('s', 'test_decoding')");
    let ledger = Ledger::start(&database);
    ledger.wait_for_more(50);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    ledger.wait_for_more(100);
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    ledger.wait_for_more(100);
    ledger.stop_and_compare(&mut session);

    assert_eq!(changes(&mut session, "_transmute_"), [""; 0]);
    replay(&changes(&mut session, r"public\.t:"), &mut rows);
    assert_eq!(rows, rows_of(&mut session));
    session.exec("SELECT pg_drop_replication_slot('s')");
    assert_log_is_clean(&cluster);
}

#[test]
fn a_truncated_table_is_truncated_once_for_a_slot() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 200);
    let mut rows = rows_of(&mut session);
    session.exec("SELECT pg_create_logical_replication_slot('s', 'test_decoding')");
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    // The drain empties the shadow in turn.
    session.batch(&[
        "TRUNCATE t",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 20) AS i",
    ]);
    session.wait_for("SELECT count(*) FROM _transmute_1_new.t", "20", PATIENCE);
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    session.exec("UPDATE t SET a = 0 WHERE id = 20");

    assert_eq!(changes(&mut session, "_transmute_"), [""; 0]);
    replay(&changes(&mut session, r"public\.t:"), &mut rows);
    assert_eq!(rows, rows_of(&mut session));
    session.exec("SELECT pg_drop_replication_slot('s')");
}

/// A publication `what` with a real subscriber, whose table has the new shape from the start; the extension comes to the
/// publisher only after that, and never to the subscriber.
fn a_subscriber_follows(what: &str) {
    let publisher = Cluster::builder().start();
    let source = Database::bare(&publisher);
    let mut session = source.connect();
    create_table(&mut session, 1_000);
    session.exec(&format!("CREATE PUBLICATION p {what}"));

    let subscriber = Cluster::builder().without_preload().start();
    let mut target = subscriber.connect();
    target.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a bigint NOT NULL, note text,
                         twice bigint GENERATED ALWAYS AS (a * 2) STORED)",
    );
    target.exec(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port=5432 user=postgres dbname={}' PUBLICATION p",
        publisher.dir().display(),
        source.name()
    ));
    session.exec("CREATE EXTENSION transmute");
    let ledger = Ledger::start(&source);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    ledger.wait_for_more(100);
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    ledger.wait_for_more(100);
    ledger.stop_and_compare(&mut session);
    session.exec("INSERT INTO t (id, a) VALUES (-1, 4000000000)");

    wait_until_seen("the subscriber to catch up", PATIENCE, || {
        let there = target.lines("SELECT a FROM t WHERE id = -1");
        if there == ["4000000000"] {
            Ok(())
        } else {
            Err((there, subscriber.log_tail(3)))
        }
    });
    let all = "SELECT id, a, note, twice FROM t ORDER BY id";
    assert_eq!(target.lines(all), session.lines(all));
    target.exec("DROP SUBSCRIPTION s");
    drop(target);
    assert_log_is_clean(&publisher);
    assert_log_is_clean(&subscriber);
}

#[test]
fn a_subscriber_of_the_table_follows_through_a_migration() {
    a_subscriber_follows("FOR TABLE t");
}

#[test]
fn a_subscriber_of_all_tables_follows_through_a_migration() {
    a_subscriber_follows("FOR ALL TABLES");
}

/// L8: what a subscription writes fires no ordinary trigger, and updates rows by whatever identity the publisher sends.
#[test]
fn both_sides_of_a_subscription_are_migrated_while_rows_arrive() {
    const TABLES: [&str; 3] = ["t", "whole", "added"];
    const RULE: &str = "ALTER TABLE ruled ADD COLUMN b bigint; UPDATE ruled SET b = a * 2; ALTER TABLE ruled DROP COLUMN a";
    let publisher = Cluster::builder().start();
    let subscriber = Cluster::builder().start();
    let (source, target) = (Database::create(&publisher), Database::create(&subscriber));
    let (mut session, mut there) = (source.connect(), target.connect());
    for side in [&mut session, &mut there] {
        create_table(side, 500);
        side.exec(
            "CREATE TABLE whole (id int PRIMARY KEY, a int NOT NULL); CREATE TABLE added (LIKE whole INCLUDING INDEXES);
             CREATE TABLE ruled (LIKE whole INCLUDING INDEXES);
             ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE added REPLICA IDENTITY NOTHING",
        );
    }
    there.exec("TRUNCATE t");
    session.exec(&format!(
        "CREATE PUBLICATION p FOR TABLE ruled, {}; INSERT INTO ruled SELECT i, i FROM generate_series(1, 200) AS i",
        TABLES.join(", ")
    ));
    there.exec(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port=5432 user=postgres dbname={}' PUBLICATION p",
        publisher.dir().display(),
        source.name()
    ));
    let mut marker = 0;
    // What the publisher has committed up to now is there, and everything is equal.
    let mut catch_up = |session: &mut Session, there: &mut Session| {
        marker += 1;
        let row = format!("SELECT count(*) FROM ruled WHERE id = {}", -marker);
        // What is waited for is committed last.
        for statement in [
            "INSERT INTO whole (id, a) VALUES",
            "INSERT INTO added (id, a) VALUES",
            "UPDATE whole SET a = a + 1 WHERE (id, a) =",
            "INSERT INTO ruled (id, a) VALUES",
        ] {
            session.exec(&format!("{statement} ({}, 3)", -marker));
        }
        wait_until_seen("the subscriber to catch up", PATIENCE, || {
            match there.lines(&row) == ["1"] {
                true => Ok(()),
                false => Err(subscriber.log_tail(3)),
            }
        });
        // The application goes on in the other one.
        for table in &TABLES[1..] {
            let rows = format!("SELECT id, a FROM {table} ORDER BY id");
            assert_eq!(there.lines(&rows), session.lines(&rows), "{table}");
        }
    };
    there.wait_for(
        "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel",
        "t",
        PATIENCE,
    );
    let ledger = Ledger::start(&source);
    catch_up(&mut session, &mut there);
    // A publisher of whole rows wants all of their columns published, computed ones too.
    let retype = format!(
        "{ALTER}; ALTER TABLE whole ALTER COLUMN a TYPE bigint; ALTER TABLE added ALTER COLUMN a TYPE bigint"
    );
    // The subscriber's columns first, so that they take what both shapes send.
    for side in [0, 1] {
        let at: &mut Session = if side == 0 { &mut there } else { &mut session };
        apply(at, &retype, r#"{"required_approvals": 1}"#);
        wait_state(at, "AWAITING_FINALIZATION");
        ledger.wait_for_more(100);
        catch_up(&mut session, &mut there);
        let at: &mut Session = if side == 0 { &mut there } else { &mut session };
        at.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
        wait_state(at, "FINISHED");
        ledger.wait_for_more(100);
        catch_up(&mut session, &mut there);
        let at: &mut Session = if side == 0 { &mut there } else { &mut session };
        let wrong = "SELECT count(*) FROM t WHERE twice IS DISTINCT FROM a * 2";
        assert_eq!(at.lines(wrong), ["0"]);
    }
    // A rule by trigger holds for rows that arrive, too.
    there.exec(&format!(
        "SELECT transmute.register('rule', '{RULE}', meta => '{{\"required_approvals\": 1, \"dual_write\": \"trigger\"}}'); SELECT transmute.apply('rule')"
    ));
    there.wait_for(
        "SELECT transmute.state('rule')",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    session.exec("UPDATE ruled SET a = a + 1 WHERE id % 2 = 0; DELETE FROM ruled WHERE id > 190; INSERT INTO ruled (id, a) VALUES (1000, 7)");
    catch_up(&mut session, &mut there);
    assert_eq!(
        there.lines("SELECT count(*), count(*) FILTER (WHERE b IS DISTINCT FROM a * 2) FROM ruled WHERE id > 0"),
        ["191|0"]
    );
    ledger.stop_and_compare(&mut session);
    catch_up(&mut session, &mut there);
    let rows = "SELECT id, a, twice FROM t ORDER BY id";
    assert_eq!(there.lines(rows), session.lines(rows));
    there.exec("DROP SUBSCRIPTION s");
    drop(there);
    for cluster in [&publisher, &subscriber] {
        assert_log_is_clean(cluster);
    }
}
