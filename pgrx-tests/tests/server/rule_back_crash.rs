//! Whatever ends at a commit of the way back of a rule that was derived: it goes on from the last committed transaction, until the
//! table is described as before and no row is lost.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use transmute_tests::tools::output_of;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{apply, assert_ends_well, assert_sound, wait_state};

const SCRIPT: &str = "ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text;
    UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
    ALTER TABLE t DROP COLUMN name";
const REVERSE: &str = r#"{"reverse": {"name": "first || ' ' || last"}}"#;
/// Before the contract phase.
const FILL: [&str; 4] = [
    "rule_make_before_commit",
    "rule_fill_before_commit",
    "rule_filled_before_commit",
    "rule_check_before_commit",
];
const UNDO: [&str; 2] = ["rule_undo_before_lock", "rule_undo_before_commit"];
const END: &str = "rule_end_before_commit";

#[derive(Clone, Copy, Debug)]
enum Blow {
    Killed,
    Terminated,
    ServerKilled,
}

/// Each comes at each point, over the rounds.
const BLOWS: [Blow; 3] = [Blow::Killed, Blow::Terminated, Blow::ServerKilled];

impl Blow {
    fn strike(self, database: &Database<'_>, pid: i32, mut session: Session) -> Session {
        match self {
            Blow::Killed => Crash::Conductor.strike(database, pid, session),
            Blow::ServerKilled => Crash::Server.strike(database, pid, session),
            Blow::Terminated => {
                kill(Pid::from_raw(pid), Signal::SIGTERM).expect("whoever drives");
                let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                session.wait_for(&there, "0", PATIENCE);
                session
            }
        }
    }
}

/// What pg_dump says of the table.
fn dump(database: &Database<'_>) -> String {
    let mut command = database.command("pg_dump");
    command.args(["--schema-only", "--table=public.t"]);
    let lines = output_of(&mut command);
    let lines = lines
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What is committed, as everybody can see it.
fn position(session: &mut Session) -> Vec<String> {
    let mut lines = session.lines("SELECT id, state FROM transmute.status ORDER BY 1");
    lines.extend(
        session.lines("SELECT step, kind, status FROM transmute.steps WHERE id = 'm:down'"),
    );
    lines.extend(session.lines(
        "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    ));
    lines.extend(session.lines("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"));
    lines
}

/// A call whose strong lock somebody stands in the way of, until that is seen.
fn call_and_wait_for_lock(database: &Database<'_>, session: &mut Session, call: &str) {
    let mut other = database.connect();
    other.exec("BEGIN; SELECT count(*) FROM t");
    session.exec(call);
    session.wait_for(
        "SELECT waiting_for ~ 'idle in transaction' FROM transmute.status WHERE id = 'm:down'",
        "t",
        PATIENCE,
    );
    other.exec("COMMIT");
}

/// Something ends at each of these points, of which the first is held.
fn strike_at(
    database: &Database<'_>,
    mut session: Session,
    points: &[&str],
    round: usize,
) -> Session {
    for (i, point) in points.iter().enumerate() {
        let pid = Waitpoints::of(database).wait_reached(point, PATIENCE);
        let before = position(&mut session);
        let blow = BLOWS[(i + round) % BLOWS.len()];
        session = blow.strike(database, pid, session);
        Waitpoints::of(database).wait_reached(point, PATIENCE);
        assert_eq!(
            position(&mut session),
            before,
            "after {blow:?} at {point}, round {round}"
        );
        if let Some(next) = points.get(i + 1) {
            hold(&mut session, next);
        }
        release(&mut session, point);
    }
    session
}

fn wait_down(session: &mut Session, state: &str) {
    session.wait_for("SELECT transmute.state('m:down')", state, PATIENCE);
}

#[test]
fn whatever_ends_at_a_commit_of_the_way_back_of_a_rule_costs_only_that_transaction() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'no body'); CREATE UNIQUE INDEX t_name ON t (name)",
        "INSERT INTO t SELECT i, 'A' || i || ' B' || i FROM generate_series(1, 500) AS i",
    ]);
    let before = dump(&database);
    apply(&mut session, SCRIPT, REVERSE);
    wait_state(&mut session, "FINISHED");
    session.exec("UPDATE t SET first = 'C' || id WHERE id % 10 = 1");
    session.exec("INSERT INTO t (id, first, last) VALUES (501, 'new', 'app')");
    let split = dump(&database);
    for (round, call) in [
        "SET transmute.pre_finalization_soak = '1 hour'; SELECT transmute.down('m', 'the test')",
        "SELECT transmute.apply('m:down')",
        "SELECT transmute.apply('m:down')",
    ]
    .into_iter()
    .enumerate()
    {
        hold(&mut session, FILL[0]);
        match round {
            0 => call_and_wait_for_lock(&database, &mut session, call),
            _ => session.exec(call),
        }
        session = strike_at(&database, session, &FILL, round);
        wait_down(&mut session, "AWAITING_FINALIZATION");
        // Both applications write, and the last of the rounds ends.
        let name = format!("old app{round}");
        session.exec(&format!(
            "UPDATE t SET name = '{name}' WHERE id = 2; UPDATE t SET last = 'x' WHERE id = 3"
        ));
        if round < BLOWS.len() - 1 {
            hold(&mut session, UNDO[0]);
            session.exec("SELECT transmute.rollback('m:down', 'not yet')");
            session = strike_at(&database, session, &UNDO, round);
            session.wait_for(
                "SELECT outcome FROM transmute.status WHERE id = 'm:down'",
                "ROLLED_BACK",
                PATIENCE,
            );
            assert_eq!(dump(&database), split);
            let row = session.lines("SELECT first, last FROM t WHERE id = 2");
            assert_eq!(row, [name.replace(' ', "|")]);
        }
    }
    hold(&mut session, END);
    let call = "SELECT transmute.skip_soak('m:down', 'enough')";
    call_and_wait_for_lock(&database, &mut session, call);
    for blow in BLOWS {
        let pid = Waitpoints::of(&database).wait_reached(END, PATIENCE);
        session = blow.strike(&database, pid, session);
    }
    Waitpoints::of(&database).wait_reached(END, PATIENCE);
    release(&mut session, END);
    wait_down(&mut session, "FINISHED");
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.lines(
            "SELECT count(*), count(*) FILTER (WHERE name = 'A' || id || ' B' || id), count(*) FILTER (WHERE name = 'C' || id || ' B' || id) FROM t"
        ),
        ["501|448|50"]
    );
    assert_eq!(
        session.lines("SELECT name FROM t WHERE id IN (2, 3, 501) ORDER BY id"),
        ["old app2", "A3 x", "new app"]
    );
    assert_sound(&mut session, "t");
    assert_ends_well(&mut session, &cluster);
}
