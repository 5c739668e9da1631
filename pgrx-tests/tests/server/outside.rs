//! Statements that no transaction may hold: whoever dies in whatever moment, the index is built once and nothing invalid stays.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use transmute_tests::cluster::StopMode;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::scene::{
    apply, assert_log_is_clean, create_table, reconnect, wait_lost, wait_rolled_back, wait_state,
    ID,
};

/// In the order in which a build passes them; each commits after it, or is the statement itself.
const POINTS: [&str; 7] = [
    "outside_intent_before_commit",
    "outside_asked_before_commit",
    "outside_taken_before_commit",
    "outside_before_statement",
    "outside_after_statement",
    "outside_report_before_commit",
    "outside_done_before_commit",
];

#[derive(Clone, Copy)]
enum Crash {
    Terminate,
    Kill,
    Server,
}

/// Holds a waitpoint beyond a crash: the locks of a prepared transaction are back before the first connection is.
fn hold(session: &mut Session, point: &str) {
    session.exec(&format!(
        "BEGIN; SELECT pg_advisory_xact_lock(74616, hashtext('{point}')); PREPARE TRANSACTION '{point}'"
    ));
}

fn release(session: &mut Session, point: &str) {
    session.exec(&format!("ROLLBACK PREPARED '{point}'"));
}

fn indexes(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = 't'::regclass ORDER BY 1",
    )
}

fn runners(session: &mut Session) -> Vec<String> {
    session.lines("SELECT pid FROM pg_stat_activity WHERE backend_type = 'transmute runner'")
}

fn crash_at_every_point(crash: Crash) {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    for point in POINTS {
        hold(&mut session, point);
        session.exec("DROP INDEX IF EXISTS by_note; DELETE FROM _transmute.migrations");
        apply(&mut session, "CREATE INDEX by_note ON t (note)", "{}");
        let pid = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        match crash {
            Crash::Terminate => session.exec(&format!("SELECT pg_terminate_backend({pid})")),
            Crash::Kill => {
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("who stands at the point");
                wait_lost(session);
                session = reconnect(&database);
            }
            Crash::Server => {
                cluster.restart(StopMode::Immediate);
                session = reconnect(&database);
            }
        }
        release(&mut session, point);
        wait_state(&mut session, "FINISHED");
        assert_eq!(
            indexes(&mut session),
            ["by_note|t", "t_a|t", "t_pkey|t"],
            "after a crash at {point}"
        );
        session.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'transmute runner'",
            "0",
            PATIENCE,
        );
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn a_process_terminated_at_any_point_of_a_build_costs_only_that() {
    crash_at_every_point(Crash::Terminate);
}

#[test]
fn a_process_killed_at_any_point_of_a_build_costs_only_that() {
    crash_at_every_point(Crash::Kill);
}

#[test]
fn a_server_that_crashes_at_any_point_of_a_build_goes_on_with_it() {
    crash_at_every_point(Crash::Server);
}

#[test]
fn the_way_back_of_a_build_goes_on_after_a_crash() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    let before: String = session.scalar("SELECT _transmute.fingerprint('t'::regclass)");
    // Two: the first is there when the second has to be given up.
    let ddl = "CREATE INDEX by_note ON t (note); CREATE UNIQUE INDEX one_note ON t (note)";
    apply(&mut session, ddl, "{}");
    wait_state(&mut session, "AWAITING_ACTION");
    assert_eq!(indexes(&mut session), ["by_note|t", "t_a|t", "t_pkey|t"]);
    for point in ["outside_intent_before_commit", "outside_before_statement"] {
        hold(&mut session, point);
    }
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'a change of mind')"
    ));
    for point in ["outside_intent_before_commit", "outside_before_statement"] {
        let pid = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("who stands at the point");
        wait_lost(session);
        session = reconnect(&database);
        release(&mut session, point);
    }
    wait_rolled_back(&mut session);
    assert_eq!(
        session.scalar::<String>("SELECT _transmute.fingerprint('t'::regclass)"),
        before
    );
    assert_log_is_clean(&cluster);
}

#[test]
fn without_preloading_a_session_has_its_indexes_built_too() {
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    apply(
        &mut session,
        "CREATE INDEX by_note ON t (note); CREATE INDEX ON t ((a + 1)); DROP INDEX t_a",
        "{}",
    );
    session.exec(&format!("CALL transmute.run('{ID}')"));
    assert_eq!(
        indexes(&mut session),
        ["by_note|t", "t_expr_idx|t", "t_pkey|t"]
    );
    assert_eq!(
        session.lines("SELECT state FROM transmute.status"),
        ["FINISHED"]
    );
    assert_log_is_clean(&cluster);
}

#[test]
fn a_build_without_a_free_process_waits_for_one_and_says_so() {
    // One place is the launcher's, one the conductor's.
    let cluster = Cluster::builder()
        .conf("max_logical_replication_workers = 0")
        .conf("max_parallel_maintenance_workers = 0")
        .conf("max_worker_processes = 3")
        .start();
    let (first, second) = (Database::create(&cluster), Database::create(&cluster));
    let (mut holder, mut session) = (first.connect(), second.connect());
    create_table(&mut session, 100);
    create_table(&mut holder, 100);
    apply(
        &mut holder,
        super::scene::ALTER,
        r#"{"required_approvals": 1}"#,
    );
    wait_state(&mut holder, "AWAITING_FINALIZATION");
    apply(&mut session, "CREATE INDEX by_note ON t (note)", "{}");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status",
        "a free background worker slot: max_worker_processes are in use",
        PATIENCE,
    );
    assert_eq!(runners(&mut session), [""; 0]);
    holder.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    wait_state(&mut session, "FINISHED");
    assert_eq!(indexes(&mut session), ["by_note|t", "t_a|t", "t_pkey|t"]);
    wait_until_seen("the runner to end", PATIENCE, || {
        match runners(&mut session) {
            none if none.is_empty() => Ok(()),
            some => Err(some),
        }
    });
}
