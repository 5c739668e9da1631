//! What only reads: for a role that may do nothing else, in a read-only transaction, and on a standby.

use transmute_tests::{Cluster, Database, Session};

use super::scene::{assert_log_is_clean, create_table, wait_state, ALTER};
use super::standby::{catch_up, config_of};

/// A role that may look, and no more.
const READER: &str = "looks";

/// Calls that read, each with arguments; `explain` and what else tries a statement is not among them.
const CALLS: [&str; 26] = [
    "state('m')",
    "is_finished('m')",
    "route('m')",
    "transform('{\"a\": 1}', '[{\"rename\": {\"a\": \"b\"}}]')",
    "plan('m')",
    "rollback_plan('m')",
    "progress_line('m')",
    "metrics()",
    "audit_verify()",
    "audit_head()",
    "execution_order()",
    "parallel_groups()",
    "dependencies('m')",
    "dependents('m')",
    "graph()",
    "export('m')",
    "export_sql('l')",
    "can_upgrade_to('1.1.0')",
    "can_downgrade_to('1.0.0')",
    "current_version()",
    "head()",
    "history()",
    "history('2020-01-01', true)",
    "verify_checksums('{\"m\": \"x\", \"n\": \"y\"}')",
    "verify_files('d', '{1_a.up.sql}', '{SELECT 1}')",
    "audit_export()",
];

/// Those that try statements, on empty tables that they take away again: that writes.
const TRIES: [&str; 3] = ["explain", "plain_locks", "explain"];

/// Runs one statement in a transaction that may not write; its rows, and that it has not even got a transaction id.
fn read(session: &mut Session, sql: &str) -> Vec<String> {
    session.exec("BEGIN TRANSACTION READ ONLY");
    let rows = session.lines(sql);
    assert_eq!(
        session.lines("SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id_if_assigned() IS NOT NULL ELSE false END"),
        ["f"],
        "{sql} has written"
    );
    session.exec("COMMIT");
    rows
}

#[test]
fn whoever_may_only_look_sees_everything_in_a_read_only_transaction_and_on_a_standby() {
    let primary = Cluster::builder().start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 300);
    session.batch(&[
        &format!("CREATE ROLE {READER} LOGIN IN ROLE transmute_reader, pg_read_server_files"),
        "SELECT transmute.register('m', $$CREATE TABLE u (id int)$$, NULL, '{\"mode\": \"direct\"}')",
        "SELECT transmute.seed_load('rows', 'SELECT 1')",
        "SELECT transmute.create_checkpoint('1.0.0', 'the first')",
        "SELECT transmute.apply('m')",
        "SELECT transmute.load(E'-- id: l\\n-- migrate: up\\nCREATE TABLE w (id int)')",
    ]);
    wait_state(&mut session, "FINISHED");
    // One in the midst of its way, with old names that somebody may use.
    session.query(
        "SELECT transmute.register('n', $1, NULL, '{\"required_approvals\": 1}')",
        &[&ALTER],
    );
    session.exec("SELECT transmute.apply('n')");
    session.wait_for(
        "SELECT transmute.state('n')",
        "AWAITING_FINALIZATION",
        transmute_tests::wait::PATIENCE,
    );
    let standby = Cluster::builder().start_standby_of(&primary);
    let mut config = config_of(&standby, &database);
    config.user(READER);
    let mut there = Session::open(config);
    let mut here = database.connect_as(READER);
    catch_up(&mut session, &mut there);

    // No call that a reader may make is left out here.
    let may = session.lines(&format!(
        "SELECT DISTINCT p.proname FROM pg_proc p WHERE p.pronamespace = 'transmute'::regnamespace
           AND has_function_privilege('{READER}', p.oid, 'EXECUTE') ORDER BY 1"
    ));
    let mut named: Vec<&str> = CALLS.iter().filter_map(|c| c.split('(').next()).collect();
    named.extend(TRIES);
    named.push("verify_dir");
    named.sort_unstable();
    named.dedup();
    assert_eq!(may, named);
    for call in CALLS {
        let sql = format!("SELECT * FROM transmute.{call}");
        let rows = read(&mut here, &sql);
        // Its text holds the time.
        if call != "metrics()" {
            assert_eq!(read(&mut there, &sql), rows, "{call}");
        }
        assert!(!rows.is_empty() || call.starts_with("depend"), "{call}");
    }
    // Both servers are on one machine, and see its files.
    let folder = primary.dir().join("files");
    std::fs::create_dir(&folder).expect("the file system");
    std::fs::write(folder.join("1_a.up.sql"), "SELECT 1").expect("the file system");
    for reader in [&mut here, &mut there] {
        let sql = format!(
            "SELECT id, result FROM transmute.verify_dir('{}')",
            folder.display()
        );
        assert_eq!(read(reader, &sql), ["1_a|extra"]);
    }
    let views = "SELECT viewname FROM pg_views WHERE schemaname = 'transmute' ORDER BY viewname";
    for view in session.lines(views) {
        let sql = format!("SELECT count(*) FROM transmute.{view}");
        let rows = read(&mut here, &sql);
        // Processes are those of the server that one looks at.
        if view != "nodes" {
            assert_eq!(read(&mut there, &sql), rows, "{view}");
        }
    }
    assert_eq!(read(&mut there, "SELECT transmute.head()"), ["m"]);
    assert_eq!(
        read(&mut there, "SELECT id, status FROM transmute.list"),
        ["m|applied", "l|pending", "n|running"]
    );
    assert_eq!(
        read(&mut there, "SELECT id, result FROM transmute.verify_checksums('{\"m\": \"CREATE TABLE u (id int)\", \"z\": \"\"}') ORDER BY id"),
        ["l|missing", "m|ok", "n|missing", "z|extra"]
    );
    // What tries a statement says why it does not.
    for call in TRIES {
        let sql = format!("SELECT * FROM transmute.{call}('CREATE TABLE v (id int)')");
        assert_eq!(there.error(&sql).sqlstate, "25006", "{call}");
        here.exec("BEGIN TRANSACTION READ ONLY");
        assert_eq!(here.error(&sql).sqlstate, "25006", "{call}");
        here.exec("ROLLBACK");
    }
    // He may not do anything.
    for call in [
        "apply()",
        "up()",
        "seed()",
        "down()",
        "rollback(1)",
        "create('x')",
    ] {
        assert_eq!(
            here.error(&format!("SELECT transmute.{call}")).sqlstate,
            "42501",
            "{call}"
        );
    }
    session.exec(&format!(
        "SELECT transmute.rollback('n', 'seen'); DROP ROLE {READER}"
    ));
    drop(there);
    assert_log_is_clean(&standby);
    assert_log_is_clean(&primary);
}
