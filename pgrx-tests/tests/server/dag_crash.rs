//! A crash before each commit that comes before the first step: the plan that is made late, and the start.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database};

use super::crash::{hold, release, Crash};
use super::scene::assert_ends_well;

#[test]
fn a_late_plan_and_a_start_survive_any_crash() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "SELECT transmute.register('make', 'CREATE TABLE made (id int PRIMARY KEY, a int)', 'DROP TABLE made', '{\"drop_policy\": \"drop\"}');
         SELECT transmute.register('alter', 'ALTER TABLE made ALTER COLUMN a TYPE bigint', meta => '{\"depends_on\": [\"make\"]}')",
    );
    hold(&mut session, "plan_before_commit");
    session.exec("SELECT transmute.apply()");
    let planned =
        "SELECT count(*) > 0 FROM transmute.plan('alter'), transmute.status WHERE id = 'alter' AND state = 'UNINITIALIZED'";
    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor = Waitpoints::of(&database).wait_reached("plan_before_commit", PATIENCE);
        assert_eq!(session.lines(planned), ["f"]);
        session = crash.strike(&database, conductor, session);
    }
    Waitpoints::of(&database).wait_reached("plan_before_commit", PATIENCE);
    hold(&mut session, "start_locked");
    release(&mut session, "plan_before_commit");
    for crash in [Crash::Conductor, Crash::Server, Crash::ImmediateStop] {
        let conductor = Waitpoints::of(&database).wait_reached("start_locked", PATIENCE);
        assert_eq!(session.lines(planned), ["t"]);
        session = crash.strike(&database, conductor, session);
    }
    Waitpoints::of(&database).wait_reached("start_locked", PATIENCE);
    release(&mut session, "start_locked");
    session.exec("CALL transmute.wait('alter', timeout => '60 s')");
    assert_eq!(
        session.lines(
            "SELECT event, count(*) FROM transmute.history WHERE id = 'alter' AND event IN ('planned anew', 'started', 'finished')
              GROUP BY 1 ORDER BY 1"
        ),
        ["finished|1", "planned anew|1", "started|1"]
    );
    assert_ends_well(&mut session, &cluster);
}
