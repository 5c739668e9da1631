//! Who drives, and who only asks: people never wait for long work, and nobody drives what is not his.

use std::time::{Duration, Instant};

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, fingerprint, Migration};
use crate::privileges::world;

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
const AT_ONCE: Duration = Duration::from_millis(1_000);

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 2000) AS i;
         CREATE INDEX t_a ON t (a)",
    );
    session
}

#[track_caller]
fn at_once(what: &str, call: impl FnOnce()) {
    let start = Instant::now();
    call();
    let took = start.elapsed();
    assert!(took < AT_ONCE, "{what} took {took:?}");
}

/// At each of these the conductor stands in the midst of a long piece of work, before its commit.
#[test]
fn people_do_not_wait_for_long_work_and_it_is_interrupted_for_them() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let mut waitpoints = Waitpoints::of(&database);
    for (id, point) in [
        ("copy", "copy_before_commit"),
        ("index", "index_before_commit"),
        ("check", "check_before_commit"),
    ] {
        waitpoints.hold(point);
        let mut migration = Migration::start(
            &database,
            id,
            TO_BIGINT,
            r#"{"required_approvals": 1, "pre_finalization_soak": "1 hour"}"#,
        );
        let conductor = waitpoints.wait_reached(point, PATIENCE);
        at_once("approve", || migration.call("approve", "'seen'"));
        // What is only asked for does not disturb.
        assert_eq!(waitpoints.waiting(point), [conductor], "{id}");
        at_once("pause", || migration.call("pause", "'not now'"));
        migration.wait_for("waiting_for", "resume: paused, not now");
        assert!(waitpoints.waiting(point).is_empty(), "{id}");
        at_once("resume", || migration.call("resume", "'now'"));
        // Long steps have a process of their own, which ends when it is interrupted and nothing else is to do.
        waitpoints.wait_reached(point, PATIENCE);
        at_once("rollback", || {
            migration.call("rollback", "'not at all'");
            migration.wait("UNINITIALIZED");
        });
        waitpoints.release(point);
        assert_eq!(
            migration.session().lines(&format!(
                "SELECT count(*) FILTER (WHERE event = 'failed') FROM transmute.history WHERE id = '{id}'"
            )),
            ["0"]
        );
        assert_eq!(
            migration.status("dead_letters || coalesce(last_error, ' none')"),
            "0 none"
        );
        assert_eq!(fingerprint(&mut session, "t"), before);
    }
    // As if nothing had been.
    let mut migration = Migration::start(&database, "last", TO_BIGINT, "{}");
    migration.finish();
    assert_sound(&mut session, "t");
}

#[test]
fn a_call_that_is_not_committed_keeps_nobody_from_driving_others() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("CREATE TABLE u (id int PRIMARY KEY, a int)");
    let mut soaking = Migration::start(
        &database,
        "soaking",
        TO_BIGINT,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    soaking.wait("AWAITING_FINALIZATION");
    let mut thinking = database.connect();
    thinking.exec("BEGIN; SELECT transmute.pause('soaking', 'perhaps')");
    session.exec("UPDATE t SET a = -a");
    // The shadow is kept current, and others go on – but for what needs the audit trail, which the open call holds.
    session.wait_for(
        "SELECT drained_keys >= 0 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    thinking.exec("ROLLBACK");
    session.wait_for(
        "SELECT drained_keys >= 2000 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    let mut quick = Migration::start(&database, "quick", "COMMENT ON TABLE u IS 'x'", "{}");
    quick.finish();
    soaking.roll_back();
}

#[test]
fn a_long_step_of_one_migration_keeps_no_other_waiting() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("CREATE TABLE u (id int PRIMARY KEY, a int); CREATE TABLE v (); INSERT INTO u SELECT i, i FROM generate_series(1, 500) AS i");
    let mut soaking = Migration::start(
        &database,
        "soaking",
        "ALTER TABLE u ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    soaking.wait("AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("index_before_commit");
    let mut long = Migration::start(&database, "long", TO_BIGINT, "{}");
    let builder = waitpoints.wait_reached("index_before_commit", PATIENCE);
    assert_eq!(
        session.lines(&format!(
            "SELECT backend_type FROM pg_stat_activity WHERE pid = {builder}"
        )),
        ["transmute driver"]
    );
    session.exec("UPDATE u SET a = -a");
    session.wait_for(
        "SELECT drained_keys >= 500 FROM transmute.progress WHERE id = 'soaking'",
        "t",
        PATIENCE,
    );
    let mut quick = Migration::start(&database, "quick", "COMMENT ON TABLE v IS 'x'", "{}");
    quick.finish();
    assert_eq!(waitpoints.waiting("index_before_commit"), [builder]);
    waitpoints.release("index_before_commit");
    long.finish();
    soaking.roll_back();
    assert_sound(&mut session, "t");
}

#[test]
fn a_session_that_drives_is_interrupted_for_a_rollback_and_goes_on_with_it() {
    let database = Database::shared();
    let mut session = table(&database);
    // No process of ours here: this session alone drives.
    session.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'transmute conductor' AND datname = current_database()");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("copy_before_commit");
    session.exec(&format!("SELECT transmute.register('m', '{TO_BIGINT}')"));
    // The conductor's lock, so that none comes.
    session.wait_for("SELECT pg_try_advisory_lock(74617, 2)", "t", PATIENCE);
    session.exec("SELECT transmute.apply('m')");
    let driver = database.connect().in_background("CALL transmute.run('m')");
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    at_once("rollback", || {
        session.exec("SELECT transmute.rollback('m', 'not at all')");
    });
    let (mut driver, result) = driver.join();
    result.unwrap();
    assert_eq!(
        driver.lines("SELECT outcome, last_error IS NULL FROM transmute.status"),
        ["ROLLED_BACK|t"]
    );
    // Whoever sits there may interrupt it as any statement, and the migration is as it was.
    driver.exec("SELECT transmute.apply('m')");
    let pid = driver.pid();
    let driver = driver.in_background("CALL transmute.run('m')");
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    session.exec(&format!("SELECT pg_cancel_backend({pid})"));
    let (mut driver, result) = driver.join();
    assert_eq!(result.unwrap_err().sqlstate, "57014");
    assert_eq!(
        driver.lines("SELECT state, last_error IS NULL FROM transmute.status"),
        ["RUNNING|t"]
    );
    waitpoints.release("copy_before_commit");
    driver.exec("CALL transmute.run('m')");
    assert_eq!(
        driver.lines("SELECT state FROM transmute.status"),
        ["FINISHED"]
    );
    session.exec("SELECT pg_advisory_unlock(74617, 2)");
    assert_sound(&mut session, "t");
}

#[test]
fn an_owner_drives_what_is_his_and_nothing_else() {
    let database = Database::shared();
    let mut session = world(&database, &["drive_ann", "drive_bob"]);
    session.wait_for("SELECT pg_try_advisory_lock(74617, 2)", "t", PATIENCE);
    for role in ["drive_ann", "drive_bob"] {
        session.exec(&format!(
            "GRANT EXECUTE ON ROUTINE transmute.migrate, transmute.run TO {role};
             CREATE TABLE of_{role} (id int PRIMARY KEY, a int); ALTER TABLE of_{role} OWNER TO {role}"
        ));
    }
    let mut ann = database.connect_as("drive_ann");
    let mut bob = database.connect_as("drive_bob");
    ann.exec("SELECT transmute.migrate('ALTER TABLE of_drive_ann ALTER COLUMN a TYPE bigint; CREATE INDEX i ON of_drive_ann (a)', 'ann')");
    bob.exec(
        "SELECT transmute.migrate('ALTER TABLE of_drive_bob ALTER COLUMN a TYPE bigint', 'bob')",
    );
    let error = bob.error("CALL transmute.run('ann')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("42501", "must be a member of the migration's owner")
    );
    // To who may not read migrations, one that is not there is the same.
    assert_eq!(bob.error("CALL transmute.run('nobody')").sqlstate, "42501");
    for hidden in [
        "SELECT _transmute.needs_person('ann')",
        "SELECT * FROM _transmute.drivers",
        "SELECT * FROM _transmute.outside",
        "UPDATE _transmute.outside SET sql = 'x'",
    ] {
        assert_eq!(bob.error(hidden).sqlstate, "42501", "{hidden}");
    }
    let states = "SELECT id, state FROM transmute.status ORDER BY id";
    bob.exec("CALL transmute.run()");
    assert_eq!(session.lines(states), ["ann|UNINITIALIZED", "bob|FINISHED"]);
    // No transaction may be open, and the right is asked for.
    assert_eq!(
        ann.error("BEGIN; CALL transmute.run('ann')").sqlstate,
        "2D000"
    );
    ann.exec("ROLLBACK");
    ann.exec("CALL transmute.run('ann', 1)");
    assert_eq!(session.lines(states)[0], "ann|INITIALIZING");
    ann.exec("CALL transmute.run()");
    assert_eq!(session.lines(states), ["ann|FINISHED", "bob|FINISHED"]);
    session.exec("REVOKE EXECUTE ON ROUTINE transmute.run FROM drive_ann");
    assert_eq!(ann.error("CALL transmute.run()").sqlstate, "42501");
    session.exec("SELECT pg_advisory_unlock(74617, 2)");
    assert_sound(&mut session, "of_drive_ann");
}
