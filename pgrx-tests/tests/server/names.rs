//! A crash before and after the commits that give tables and columns other names: there is no moment at which one of the
//! names is missing that should be there, and nothing is done twice.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{apply, assert_log_is_clean, wait_rolled_back, wait_state, ID};

struct Case {
    ddl: &'static str,
    /// The waitpoint before the commits in question.
    point: &'static str,
    /// Whether it is passed on the way forth and back, and not only at the end.
    from_the_start: bool,
    /// Works before the start.
    old: &'static str,
    /// Works at the end.
    new: &'static str,
    /// Works during the soak.
    both: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        ddl: "ALTER TABLE t RENAME COLUMN a TO b",
        point: "second_name_before_commit",
        from_the_start: true,
        old: "SELECT sum(a) FROM t",
        new: "SELECT sum(b) FROM t",
        both: "SELECT (sum(a) + sum(b)) / 2 FROM t",
    },
    Case {
        ddl: "ALTER TABLE t RENAME TO u",
        point: "alias_before_commit",
        from_the_start: true,
        old: "SELECT sum(a) FROM t",
        new: "SELECT sum(a) FROM u",
        both: "SELECT sum(t.a + u.a) / 2 FROM t JOIN u USING (id)",
    },
    Case {
        ddl: "ALTER TABLE t DROP COLUMN note",
        point: "hide_before_commit",
        from_the_start: false,
        old: "SELECT sum(a) FROM t WHERE note IS NULL",
        new: "SELECT sum(a) FROM t",
        both: "SELECT sum(a) FROM t WHERE note IS NULL",
    },
    Case {
        ddl: "DROP TABLE t",
        point: "hide_before_commit",
        from_the_start: false,
        old: "SELECT sum(a) FROM t",
        new: "SELECT sum(a) FROM kept",
        both: "SELECT sum(a) FROM t",
    },
    // What a partition has of its own goes with the column.
    Case {
        ddl: "ALTER TABLE p DROP COLUMN note",
        point: "hide_before_commit",
        from_the_start: false,
        old: "SELECT sum(a) FROM p WHERE note IS NULL",
        new: "SELECT sum(a) FROM p WHERE to_regclass('p_low_note') IS NULL",
        both: "SELECT sum(a) FROM p_low WHERE note IS NULL",
    },
    Case {
        ddl: "DROP TABLE p",
        point: "hide_before_commit",
        from_the_start: false,
        old: "SELECT sum(a) FROM p",
        new: "SELECT sum(a) FROM kept WHERE to_regclass('p_low') IS NULL",
        both: "SELECT sum(a) FROM p_low",
    },
];

/// Waits for the point, crashes there, and waits until the same transaction has come there again.
fn crash_at(database: &Database<'_>, session: Session, point: &str, crash: Crash) -> Session {
    let conductor = Waitpoints::of(database).wait_reached(point, PATIENCE);
    let mut session = crash.strike(database, conductor, session);
    Waitpoints::of(database).wait_reached(point, PATIENCE);
    release(&mut session, point);
    session
}

#[test]
fn a_crash_before_a_change_of_names_costs_only_that_transaction() {
    let cluster = Cluster::builder().start();
    for case in CASES {
        let database = Database::create(&cluster);
        let mut session = database.connect();
        session.exec(
            "CREATE TABLE t (id int PRIMARY KEY, a int, note text);
             CREATE TABLE kept AS SELECT 1 AS id, 55 AS a;
             INSERT INTO t SELECT i, i FROM generate_series(1, 10) AS i;
             CREATE TABLE p (id int PRIMARY KEY, a int, note text) PARTITION BY RANGE (id);
             CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE INDEX p_low_note ON p_low (note);
             INSERT INTO p SELECT * FROM t",
        );
        let fingerprint = "SELECT string_agg(_transmute.fingerprint(t::regclass), ' ') FROM unnest(ARRAY['t', 'p', 'p_low']) AS t";
        let before: String = session.scalar(fingerprint);
        if case.from_the_start {
            hold(&mut session, case.point);
        }
        apply(
            &mut session,
            case.ddl,
            r#"{"pre_finalization_soak": "1 hour"}"#,
        );
        if case.from_the_start {
            session = crash_at(&database, session, case.point, Crash::Conductor);
        }
        wait_state(&mut session, "AWAITING_FINALIZATION");
        assert_eq!(session.lines(case.both), ["55"], "{}", case.ddl);

        if case.from_the_start {
            hold(&mut session, case.point);
        }
        session.exec(&format!(
            "SELECT transmute.rollback('{ID}', 'the test says so')"
        ));
        if case.from_the_start {
            session = crash_at(&database, session, case.point, Crash::Server);
        }
        wait_rolled_back(&mut session);
        assert_eq!(
            session.scalar::<String>(fingerprint),
            before,
            "{}",
            case.ddl
        );
        assert_eq!(session.lines(case.old), ["55"], "{}", case.ddl);

        session.exec(&format!("SELECT transmute.apply('{ID}')"));
        wait_state(&mut session, "AWAITING_FINALIZATION");
        hold(&mut session, case.point);
        session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'enough')"));
        session = crash_at(&database, session, case.point, Crash::ImmediateStop);
        wait_state(&mut session, "FINISHED");
        assert_eq!(session.lines(case.new), ["55"], "{}", case.ddl);
        assert!(session.try_exec(case.old).is_err(), "{}", case.ddl);
    }
    assert_log_is_clean(&cluster);
}
