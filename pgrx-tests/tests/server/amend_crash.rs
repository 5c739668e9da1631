//! A crash while a migration is amended, and while the amended rows are brought over: it is of the one text or of the other.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database};

use super::crash::{hold, release, Crash};
use super::scene::{apply, assert_ends_well, assert_sound, wait_state, ID};

const FIRST: &str = "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int";
const AMENDED: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE int USING CASE WHEN a ~ '^[0-9]+$' THEN -a::int END";

fn crash_around_the_amendment(crash: Crash) {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text, note text)",
        "INSERT INTO t SELECT i, i::text, repeat('x', 200) FROM generate_series(1, 5000) AS i",
        "UPDATE t SET a = 'bad' WHERE id = 77",
    ]);
    apply(&mut session, FIRST, "{}");
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let seen = "SELECT up, plan_checksum, (SELECT shadow FROM _transmute.rewrites) FROM _transmute.migrations";
    let before = session.lines(seen);

    hold(&mut session, "amend_before_commit");
    let amend = format!("SELECT transmute.amend('{ID}', $up${AMENDED}$up$, 'wrong')");
    let amending = database.connect().in_background(&amend);
    let caller = Waitpoints::of(&database).wait_reached("amend_before_commit", PATIENCE);
    session = crash.strike(&database, caller, session);
    assert!(amending.join().1.is_err());
    assert_eq!(session.lines(seen), before);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    release(&mut session, "amend_before_commit");

    hold(&mut session, "copy_before_commit");
    session.exec(&amend);
    wait_state(&mut session, "RUNNING");
    let conductor = Waitpoints::of(&database).wait_reached("copy_before_commit", PATIENCE);
    session = crash.strike(&database, conductor, session);
    Waitpoints::of(&database).wait_reached("copy_before_commit", PATIENCE);
    release(&mut session, "copy_before_commit");
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), count(a), count(*) FILTER (WHERE a = -id) FROM t"),
        ["5000|4999|4999"]
    );
    assert_eq!(
        session.lines("SELECT DISTINCT status FROM transmute.dead_letters"),
        ["resolved"]
    );
    assert_sound(&mut session, "t");
    assert_ends_well(&mut session, &cluster);
}

#[test]
fn a_process_killed_around_an_amendment_leaves_one_text_or_the_other() {
    crash_around_the_amendment(Crash::Conductor);
}

#[test]
fn a_server_killed_around_an_amendment_leaves_one_text_or_the_other() {
    crash_around_the_amendment(Crash::Server);
}
