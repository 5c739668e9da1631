//! A crash at every commit of the protocol, before and after it: the migration goes on by itself from the last committed
//! transaction, and no committed write of the application is lost.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::ledger::Ledger;
use super::scene::{
    apply, assert_finished, assert_log_is_clean, assert_rolled_back, create_table, reconnect,
    rows_done, wait_lost, ALTER, ID,
};

/// In the order in which a migration comes by.
const POINTS: [&str; 12] = [
    "expand_before_lock",
    "expand_before_commit",
    "copy_before_commit",
    "rewrite_copy_done_before_commit",
    "index_before_commit",
    "drain_before_commit",
    "rewrite_index_done_before_commit",
    "check_before_commit",
    "rewrite_check_done_before_commit",
    "views_before_commit",
    "swap_before_lock",
    "swap_before_commit",
];

#[derive(Clone, Copy)]
pub enum Crash {
    /// SIGKILL for the process that stands at the waitpoint: the server ends all others and starts them anew.
    Conductor,
    /// SIGKILL for the postmaster and all its children.
    Server,
    /// No farewell, no checkpoint.
    ImmediateStop,
}

impl Crash {
    /// Crashes, and returns a session of the server that came back.
    pub fn strike(self, database: &Database<'_>, conductor: i32, session: Session) -> Session {
        let cluster = database.cluster();
        match self {
            Crash::Conductor => {
                kill(Pid::from_raw(conductor), Signal::SIGKILL).expect("the conductor");
                wait_lost(session);
            }
            Crash::Server => {
                cluster.kill9();
                cluster.start();
            }
            Crash::ImmediateStop => cluster.restart(StopMode::Immediate),
        }
        reconnect(database)
    }
}

/// Holds a waitpoint beyond a crash, so that whoever comes back stops there again: the locks of a prepared transaction
/// are back before the first connection is.
pub fn hold(session: &mut Session, point: &str) {
    session.exec(&format!(
        "BEGIN; SELECT pg_advisory_xact_lock(74616, hashtext('{point}')); PREPARE TRANSACTION '{point}'"
    ));
}

pub fn release(session: &mut Session, point: &str) {
    session.exec(&format!("ROLLBACK PREPARED '{point}'"));
}

/// How far the migration is, as everybody can see it: what is committed.
fn position(session: &mut Session) -> Vec<String> {
    let mut lines = progress(session);
    lines.push(rows_checked(session).to_string());
    lines
}

/// The same without the rows of the check, which may go on while a crash is survived.
fn progress(session: &mut Session) -> Vec<String> {
    let mut lines = session.lines(&format!(
        "SELECT state FROM transmute.status WHERE id = '{ID}'"
    ));
    lines.extend(session.lines("SELECT kind, status FROM transmute.steps"));
    lines.extend(session.lines(
        "SELECT blocks_done, rows_done, indexes_built, checked_at IS NULL, swapped_at IS NULL FROM transmute.progress",
    ));
    lines
}

fn rows_checked(session: &mut Session) -> i64 {
    session.scalar("SELECT coalesce(sum(rows_checked), 0)::bigint FROM transmute.progress")
}

fn small_batches() -> Cluster {
    Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start()
}

fn crash_before_every_commit(crash: Crash) {
    let cluster = small_batches();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    session.batch(&[
        "CREATE MATERIALIZED VIEW shown AS SELECT id, a, note FROM t WHERE id <= 2000",
        "CREATE UNIQUE INDEX ON shown (id)",
    ]);
    let ledger = Ledger::start(&database);
    hold(&mut session, POINTS[0]);
    apply(&mut session, ALTER, "{}");

    for (i, point) in POINTS.into_iter().enumerate() {
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        if point == "copy_before_commit" {
            // In the midst of the copy, where there is something to lose.
            while rows_done(&mut session) < 700 {
                release(&mut session, point);
                hold(&mut session, point);
                Waitpoints::of(&database).wait_reached(point, PATIENCE);
            }
        }
        let before = progress(&mut session);
        let checked = rows_checked(&mut session);
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        session = crash.strike(&database, conductor, session);
        // What was not committed is done again, what was committed is not.
        Waitpoints::of(&database).wait_reached(point, PATIENCE);
        assert_eq!(progress(&mut session), before, "after a crash at {point}");
        let again = rows_checked(&mut session);
        // Before it is done the check looks at blocks that the table has grown by meanwhile.
        let grown = point == "rewrite_check_done_before_commit" && again > checked;
        assert!(
            grown || again == checked,
            "after a crash at {point}: {again} rows checked, {checked} before"
        );
        if let Some(next) = POINTS.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
    }
    assert_finished(&mut session);
    let shown = "SELECT pg_typeof(a), count(*) > 1000 FROM shown GROUP BY 1";
    assert_eq!(session.lines(shown), ["bigint|t"]);
    ledger.wait_for_more(20);
    let lost = ledger.stop_and_compare(&mut session);
    assert!(lost > 0, "no writer was ever cut off: nothing was tested");
    assert_log_is_clean(&cluster);
}

#[test]
fn a_conductor_killed_before_any_commit_of_the_protocol_costs_only_that_transaction() {
    crash_before_every_commit(Crash::Conductor);
}

#[test]
fn a_server_killed_before_any_commit_of_the_protocol_costs_only_that_transaction() {
    crash_before_every_commit(Crash::Server);
}

#[test]
fn an_immediate_stop_before_any_commit_of_the_protocol_costs_only_that_transaction() {
    crash_before_every_commit(Crash::ImmediateStop);
}

#[test]
fn what_was_committed_before_a_crash_is_never_done_again() {
    let cluster = small_batches();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 1_000);
    let ledger = Ledger::start(&database);
    // From now on the conductor stops after every commit: each crash is followed by exactly one transaction.
    hold(&mut session, "after_commit");
    apply(&mut session, ALTER, "{}");

    let kinds = [
        Crash::Conductor,
        Crash::Server,
        Crash::Conductor,
        Crash::ImmediateStop,
    ];
    let mut seen = Vec::new();
    let mut copied = 0;
    for crash in kinds.into_iter().cycle() {
        let conductor = Waitpoints::of(&database).wait_reached("after_commit", PATIENCE);
        let now = position(&mut session);
        assert!(
            !seen.contains(&now),
            "done twice: {now:?}; before: {seen:#?}"
        );
        let is_finishing = now[0] == "FINISHING";
        seen.push(now);
        let rows = rows_done(&mut session);
        assert!(rows >= copied, "{rows} rows copied after {copied}");
        copied = rows;
        session = crash.strike(&database, conductor, session);
        if is_finishing {
            break;
        }
    }
    release(&mut session, "after_commit");
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    // Writers have moved some of the rows behind the end of the copy.
    assert!(copied > 500, "{copied} rows copied");
    assert!(seen.len() >= 12, "crashes: {}", seen.len());
    assert_log_is_clean(&cluster);
}

#[test]
fn a_rollback_goes_on_after_every_kind_of_crash() {
    let cluster = small_batches();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    let ledger = Ledger::start(&database);
    hold(&mut session, "copy_before_commit");
    hold(&mut session, "rollback_before_commit");
    apply(&mut session, ALTER, "{}");
    Waitpoints::of(&database).wait_reached("copy_before_commit", PATIENCE);
    // Interrupts the batch under way, which stands at the waitpoint.
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'a change of mind')"
    ));
    release(&mut session, "copy_before_commit");

    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor = Waitpoints::of(&database).wait_reached("rollback_before_commit", PATIENCE);
        let before = position(&mut session);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached("rollback_before_commit", PATIENCE);
        assert_eq!(position(&mut session), before);
    }
    release(&mut session, "rollback_before_commit");
    assert_rolled_back(&mut session);
    ledger.stop_and_compare(&mut session);
    assert_log_is_clean(&cluster);
}

#[test]
fn tables_that_are_swapped_together_are_all_swapped_or_none_whatever_dies() {
    let cluster = small_batches();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         CREATE TABLE child (id int PRIMARY KEY, t int NOT NULL REFERENCES t ON DELETE CASCADE);
         INSERT INTO t SELECT i, i FROM generate_series(1, 2000) AS i;
         INSERT INTO child SELECT i, i FROM generate_series(1, 2000) AS i",
    );
    let types = "SELECT attrelid::regclass, atttypid::regtype FROM pg_attribute
      WHERE (attrelid, attname) IN (('t'::regclass, 'id'), ('child'::regclass, 't')) ORDER BY 1";
    hold(&mut session, "swap_before_commit");
    apply(
        &mut session,
        "ALTER TABLE t ALTER COLUMN id TYPE bigint",
        "{}",
    );
    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor = Waitpoints::of(&database).wait_reached("swap_before_commit", PATIENCE);
        session = crash.strike(&database, conductor, session);
        Waitpoints::of(&database).wait_reached("swap_before_commit", PATIENCE);
        // Whoever swaps has the tables locked; nobody else sees anything of it.
        assert_eq!(
            session.lines(types),
            ["t|integer", "child|integer"],
            "the swap was undone as a whole"
        );
    }
    // The commit that follows is the last thing before the next crash.
    hold(&mut session, "after_commit");
    release(&mut session, "swap_before_commit");
    let conductor = Waitpoints::of(&database).wait_reached("after_commit", PATIENCE);
    session = Crash::Server.strike(&database, conductor, session);
    assert_eq!(session.lines(types), ["t|bigint", "child|bigint"]);
    release(&mut session, "after_commit");
    super::scene::wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f' AND conrelid = 'child'::regclass"),
        ["child_t_fkey|t"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM child JOIN t ON t.id = child.t"),
        ["2000"]
    );
    for table in ["t", "child"] {
        super::scene::assert_sound(&mut session, table);
    }
    assert_log_is_clean(&cluster);
}
