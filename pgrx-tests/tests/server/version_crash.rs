//! A crash while versions are made, and while a swap makes them anew: each application finds its own shape afterwards.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::ledger::Ledger;
use super::scene::{apply, assert_log_is_clean, assert_sound, create_table, wait_state};

const ALTER: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
const META: &str = r#"{"versioned_views_before": "v1", "versioned_views": "v2"}"#;

fn types(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT attrelid::regclass, atttypid::regtype FROM pg_attribute
          WHERE attname = 'a' AND attrelid IN (SELECT view::regclass FROM transmute.versions) ORDER BY 1",
    )
}

#[test]
fn versions_survive_a_crash_while_they_are_made_and_made_anew() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let ledger = Ledger::start(&database);
    hold(&mut session, "version_before_commit");
    apply(&mut session, ALTER, META);
    for (crash, made) in [
        (Crash::Conductor, 0),
        (Crash::Server, 0),
        (Crash::ImmediateStop, 0),
    ] {
        let conductor = Waitpoints::of(&database).wait_reached("version_before_commit", PATIENCE);
        assert_eq!(types(&mut session).len(), made);
        session = crash.strike(&database, conductor, session);
    }
    Waitpoints::of(&database).wait_reached("version_before_commit", PATIENCE);
    hold(&mut session, "swap_before_commit");
    release(&mut session, "version_before_commit");
    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor = Waitpoints::of(&database).wait_reached("swap_before_commit", PATIENCE);
        assert_eq!(types(&mut session), ["v1.t|integer", "v2.t|bigint"]);
        session = crash.strike(&database, conductor, session);
    }
    Waitpoints::of(&database).wait_reached("swap_before_commit", PATIENCE);
    release(&mut session, "swap_before_commit");
    wait_state(&mut session, "FINISHED");
    assert_eq!(types(&mut session), ["v1.t|integer", "v2.t|bigint"]);
    assert_eq!(
        session.lines("SELECT version, converts FROM transmute.versions"),
        ["v1|t", "v2|f"]
    );
    ledger.stop_and_compare(&mut session);
    session.exec("INSERT INTO v1.t VALUES (-1, 1, 'x'); UPDATE v1.t SET a = 2 WHERE id = -1");
    assert_eq!(session.lines("SELECT a FROM v2.t WHERE id = -1"), ["2"]);
    assert_sound(&mut session, "t");
    assert_log_is_clean(&cluster);
}
