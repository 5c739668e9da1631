//! What a runner of files does, and a crash wherever something commits: each migration is applied once, each statement runs once,
//! and what was half done says so until somebody says what became of it.

use std::collections::HashSet;

use transmute_tests::cluster::StopMode;
use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{assert_ends_well, reconnect};

const KINDS: [Crash; 3] = [Crash::Conductor, Crash::Server, Crash::ImmediateStop];

/// Registers a script; its own way back where it has one.
fn register(session: &mut Session, id: &str, up: &str, down: Option<&str>, meta: &str) {
    session.query(
        "SELECT transmute.register($1, $2, $3, $4::text::jsonb)",
        &[&id, &up, &down, &meta],
    );
}

const DIRECT: &str = r#"{"mode": "direct"}"#;
const NONE: &str = r#"{"transaction": "none"}"#;

fn statuses(session: &mut Session) -> Vec<String> {
    session.lines("SELECT id, status FROM transmute.list")
}

/// How far everything is, as it is committed.
fn position(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT m.id, m.state, m.queued, s.step, s.status FROM _transmute.migrations m LEFT JOIN _transmute.steps s ON s.migration_id = m.id
          ORDER BY 1, s.step",
    )
}

/// Lets drivers go on until nothing is queued, and crashes once at each of the points in each position; how often.
fn crash_all_the_way(
    database: &Database<'_>,
    session: Session,
    points: &[&str],
) -> (Session, usize) {
    let mut session = session;
    let mut seen = HashSet::new();
    let mut crashes = KINDS.into_iter().cycle();
    loop {
        let mut waitpoints = Waitpoints::of(database);
        let reached = wait_until("a waitpoint, or the end", PATIENCE, || {
            let at = points
                .iter()
                .find_map(|point| waitpoints.waiting(point).first().map(|pid| (*point, *pid)));
            let over = at.is_none()
                && session.lines(
                    "SELECT count(*) FROM transmute.list WHERE status IN ('queued', 'running')",
                ) == ["0"]
                && session.lines(
                    "SELECT count(*) FROM transmute.status WHERE queued AND last_error IS NULL",
                ) == ["0"];
            (at.is_some() || over).then_some(at)
        });
        let Some((point, pid)) = reached else {
            return (session, seen.len());
        };
        let before = position(&mut session);
        if !seen.insert((point, before.clone())) {
            release(&mut session, point);
            if point == "outside_before_statement" {
                // CREATE INDEX CONCURRENTLY waits for whoever has a snapshot, and when he prepares his transaction, for the end of that.
                wait_until("the statement to be through", PATIENCE, || {
                    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                    let through = waitpoints.waiting("outside_after_statement").contains(&pid);
                    (through || session.lines(&gone) == ["0"]).then_some(())
                });
            }
            hold(&mut session, point);
            continue;
        }
        drop(waitpoints);
        let crash = crashes.next().expect("a cycle");
        session = crash.strike(database, pid, session);
        // Who comes back may be as far as the next point, not beyond.
        assert!(
            session.lines("SELECT count(*) FROM transmute.history WHERE event = 'finished'")
                == session.lines(
                    "SELECT count(DISTINCT id) FROM transmute.history WHERE event = 'finished'"
                ),
            "after a crash at {point}: {before:?}"
        );
    }
}

#[test]
fn of_several_that_are_applied_each_runs_once_and_goes_back_once_whatever_dies_between_and_in_them()
{
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec("CREATE TABLE done (n int GENERATED ALWAYS AS IDENTITY, id text)");
    for (id, ddl, undo) in [
        ("a", "CREATE TABLE a (id int)", "DROP TABLE a"),
        (
            "b",
            "ALTER TABLE a ADD COLUMN b int",
            "ALTER TABLE a DROP COLUMN b",
        ),
        ("c", "CREATE INDEX a_b ON a (b)", "DROP INDEX a_b"),
    ] {
        let up = format!("{ddl}; INSERT INTO done (id) VALUES ('{id}')");
        let down = format!("{undo}; DELETE FROM done WHERE id = '{id}'");
        register(&mut session, id, &up, Some(&down), DIRECT);
    }
    let points = ["start_locked", "direct_before_commit", "after_commit"];
    for point in points {
        hold(&mut session, point);
    }
    // The first by itself, the others together.
    session.exec("SELECT transmute.up()");
    let (back, mut crashes) = crash_all_the_way(&database, session, &points);
    session = back;
    assert_eq!(
        statuses(&mut session),
        ["a|applied", "b|pending", "c|pending"]
    );
    session.exec("SELECT transmute.apply()");
    let (back, more) = crash_all_the_way(&database, session, &points);
    session = back;
    crashes += more;
    assert_eq!(
        statuses(&mut session),
        ["a|applied", "b|applied", "c|applied"]
    );
    assert_eq!(
        session.lines("SELECT id FROM done ORDER BY n"),
        ["a", "b", "c"]
    );
    assert_eq!(session.lines("SELECT to_regclass('a_b')"), ["a_b"]);
    session.exec("SELECT transmute.rollback(2, confirm => current_database())");
    let (back, more) = crash_all_the_way(&database, session, &points);
    session = back;
    crashes += more;
    assert_eq!(
        statuses(&mut session),
        ["a|applied", "b|taken back", "c|taken back"]
    );
    assert_eq!(session.lines("SELECT id FROM done"), ["a"]);
    assert_eq!(session.lines("SELECT to_regclass('a_b'), count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attnum > 0 AND NOT attisdropped"), ["∅|1"]);
    assert!(crashes >= 15, "{crashes} crashes");
    for point in points {
        release(&mut session, point);
    }
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn a_way_back_that_is_derived_leads_back_whatever_dies_while_it_is_kept_and_gone() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text NOT NULL, c int); CREATE INDEX t_b ON t (b); CREATE TABLE u (id int REFERENCES t);
         INSERT INTO t SELECT i, i, i, i FROM generate_series(1, 50) i; INSERT INTO u VALUES (7)",
    );
    let shape = "SELECT c.relname, a.attname, a.atttypid::regtype, a.attnotnull FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                  WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum";
    let before = session.lines(shape);
    register(
        &mut session,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint; DROP TABLE u",
        None,
        "{}",
    );
    register(
        &mut session,
        "n",
        "ALTER TABLE t DROP COLUMN b",
        None,
        r#"{"depends_on": ["m"]}"#,
    );
    let points = [
        "way_back_before_commit",
        "recover_before_commit",
        "back_before_commit",
    ];
    for point in points {
        hold(&mut session, point);
    }
    session.exec("SELECT transmute.apply()");
    let (back, mut crashes) = crash_all_the_way(&database, session, &points);
    session = back;
    assert_eq!(statuses(&mut session), ["m|applied", "n|applied"]);
    session.exec("SELECT transmute.rollback(2, confirm => current_database())");
    let (back, more) = crash_all_the_way(&database, session, &points);
    session = back;
    crashes += more;
    assert_eq!(statuses(&mut session), ["m|taken back", "n|taken back"]);
    assert_eq!(session.lines(shape), before);
    assert_eq!(
        session.lines("SELECT count(*), count(b), sum(a), (SELECT id FROM u) FROM t"),
        ["50|50|1275|7"]
    );
    assert!(crashes >= 6, "{crashes} crashes");
    for point in points {
        release(&mut session, point);
    }
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn statements_without_a_transaction_run_once_each_and_what_fails_stays_dirty_whatever_dies() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec("CREATE TYPE kind AS ENUM ('x'); CREATE TABLE t (id int, k kind); INSERT INTO t VALUES (1), (1)");
    let script = "INSERT INTO t SELECT generate_series(2, 101); ALTER TYPE kind ADD VALUE 'y'; CREATE INDEX CONCURRENTLY t_k ON t (k);
        VACUUM t; UPDATE t SET k = 'y' WHERE id = 2";
    register(&mut session, "whole", script, None, NONE);
    let points = [
        "direct_before_commit",
        "step_before_commit",
        "outside_before_statement",
        "outside_after_statement",
    ];
    for point in points {
        hold(&mut session, point);
    }
    session.exec("SELECT transmute.apply()");
    let (back, crashes) = crash_all_the_way(&database, session, &points);
    session = back;
    assert!(crashes >= 8, "{crashes} crashes");
    assert_eq!(statuses(&mut session), ["whole|applied"]);
    assert_eq!(session.lines("SELECT count(*), count(k) FROM t"), ["102|1"]);
    assert_eq!(
        session.lines(
            "SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 't'::regclass"
        ),
        ["t_k|t"]
    );
    for point in points {
        release(&mut session, point);
    }

    let script = "CREATE TABLE made (id int); CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id); CREATE TABLE behind (id int)";
    register(&mut session, "half", script, None, NONE);
    register(
        &mut session,
        "next",
        "CREATE TABLE next (id int)",
        None,
        DIRECT,
    );
    let dirty = ["whole|applied", "half|dirty", "next|queued"];
    session.exec("SELECT transmute.apply()");
    session.wait_for(
        "SELECT status FROM transmute.list WHERE id = 'half'",
        "dirty",
        PATIENCE,
    );
    // It stays so over crashes, that of a call which would have mended it among them.
    for crash in [Crash::Server, Crash::ImmediateStop] {
        session.exec("BEGIN; SELECT transmute.fix('half', 'removed', 'not yet')");
        session = crash.strike(&database, 0, session);
        assert_eq!(statuses(&mut session), dirty);
        assert_eq!(
            session.lines("SELECT to_regclass('made'), to_regclass('t_id'), to_regclass('behind'), to_regclass('next')"),
            ["made|∅|∅|∅"]
        );
    }
    // Removed: what is committed with the call holds, and what follows is pending.
    hold(&mut session, "after_commit");
    session.exec("DROP TABLE made");
    session.exec("SELECT transmute.fix('half', 'removed', 'by hand')");
    let conductor = Waitpoints::of(&database).wait_reached("after_commit", PATIENCE);
    session = Crash::Conductor.strike(&database, conductor, session);
    release(&mut session, "after_commit");
    session.wait_for(
        "SELECT string_agg(status, ' ' ORDER BY place) FROM transmute.list",
        "applied pending pending",
        PATIENCE,
    );
    // Again, and this time the rest is done by hand.
    session.exec("SELECT transmute.apply()");
    session.wait_for(
        "SELECT status FROM transmute.list WHERE id = 'half'",
        "dirty",
        PATIENCE,
    );
    hold(&mut session, "direct_before_commit");
    session.exec("CREATE TABLE behind (id int)");
    session.exec("SELECT transmute.fix('half', 'applied', 'by hand')");
    let conductor = Waitpoints::of(&database).wait_reached("direct_before_commit", PATIENCE);
    assert_eq!(
        statuses(&mut session),
        ["whole|applied", "half|applied", "next|running"]
    );
    session = Crash::Conductor.strike(&database, conductor, session);
    release(&mut session, "direct_before_commit");
    session.wait_for(
        "SELECT string_agg(status, ' ' ORDER BY place) FROM transmute.list",
        "applied applied applied",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT to_regclass('made'), to_regclass('next')"),
        ["made|next"]
    );
    assert_eq!(
        session
            .lines("SELECT detail::json ->> 'action' FROM transmute.history WHERE event = 'fixed'"),
        ["removed", "applied"]
    );
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn a_seed_that_is_interrupted_has_done_nothing_and_runs_again() {
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY)",
        "SELECT transmute.seed_load('first', 'INSERT INTO t VALUES (1)')",
        "SELECT transmute.seed_load('second', 'INSERT INTO t VALUES (2); SELECT pg_advisory_xact_lock(7); INSERT INTO t VALUES (3)')",
    ]);
    for how in ["cancel", "terminate", "stop", "kill"] {
        let mut other = database.connect();
        other.exec("SELECT pg_advisory_lock(7)");
        let mut caller = database.connect();
        let pid = caller.pid();
        let running = caller.in_background("SELECT transmute.seed()");
        other.wait_for(
            &format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted"),
            "1",
            PATIENCE,
        );
        match how {
            "cancel" => other.exec(&format!("SELECT pg_cancel_backend({pid})")),
            "terminate" => other.exec(&format!("SELECT pg_terminate_backend({pid})")),
            "stop" => cluster.restart(StopMode::Immediate),
            _ => {
                cluster.kill9();
                cluster.start();
            }
        }
        let (_, result) = running.join();
        result.expect_err("it was interrupted");
        drop(other);
        session = reconnect(&database);
        assert_eq!(
            session.lines("SELECT name, status FROM transmute.seeds"),
            ["first|pending", "second|pending"],
            "{how}"
        );
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["0"], "{how}");
    }
    assert_eq!(
        session.lines("SELECT transmute.seed()"),
        ["(first,run)", "(second,run)"]
    );
    assert_eq!(
        session.lines("SELECT id FROM t ORDER BY id"),
        ["1", "2", "3"]
    );
    assert_eq!(
        session.lines("SELECT transmute.seed()"),
        ["(first,unchanged)", "(second,unchanged)"]
    );
    assert_ends_well(&mut session, &cluster);
}
