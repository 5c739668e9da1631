//! Releases: which one the database is at, and whether it may be called another one.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

fn answer(session: &mut Session, call: &str) -> String {
    session
        .lines(&format!("SELECT * FROM transmute.{call}"))
        .remove(0)
}

fn wait(session: &mut Session, id: &str, state: &str) {
    session.exec(&format!("CALL transmute.wait('{id}', '{state}', '60 s')"));
}

#[test]
fn checkpoints_follow_what_has_finished() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         SELECT transmute.register('one', 'ALTER TABLE t ADD COLUMN b int', 'ALTER TABLE t DROP COLUMN b', '{\"target_version\": \"1.1.0\"}');
         SELECT transmute.register('two', 'ALTER TABLE t ALTER COLUMN a TYPE bigint',
           meta => '{\"source_version\": \"1.1.0\", \"target_version\": \"1.2.0\", \"depends_on\": [\"one\"]}')",
    );
    assert_eq!(session.lines("SELECT transmute.current_version()"), ["∅"]);
    assert_eq!(
        answer(&mut session, "can_downgrade_to('0.9.0')"),
        "f|no release has been recorded"
    );
    session.exec("SELECT transmute.create_checkpoint('1.0.0', 'as it was')");
    assert_eq!(
        session.lines("SELECT transmute.current_version()"),
        ["1.0.0"]
    );
    assert_eq!(
        answer(&mut session, "can_upgrade_to('1.1.0')"),
        "f|migration \"one\", which leads to 1.1.0, is UNINITIALIZED"
    );
    let error = session.error("SELECT transmute.create_checkpoint('1.1.0', 'too early')");
    assert_eq!(error.sqlstate, "55000", "{error}");
    assert!(error
        .detail
        .unwrap_or_default()
        .contains("migration \"one\", which leads to 1.1.0, is UNINITIALIZED"));
    // Not from here: apply refuses it by name, and leaves it when all are asked for.
    let error = session.error("SELECT transmute.apply('two')");
    assert_eq!(error.sqlstate, "55000", "{error}");
    assert!(error
        .detail
        .unwrap_or_default()
        .starts_with("VERSION: migration \"two\". It waits for release 1.1.0"));
    assert_eq!(
        session.lines("SELECT id, action, detail FROM transmute.apply()"),
        [
            "two|left|release 1.1.0, from which it starts: the database is at 1.0.0",
            "one|queued|∅",
        ]
    );
    wait(&mut session, "one", "FINISHED");
    assert_eq!(
        answer(&mut session, "can_upgrade_to('1.1.0')"),
        "t|every migration that leads to 1.1.0 or below has finished"
    );
    session.exec("SELECT transmute.create_checkpoint('1.1.0', 'b is there')");
    session.exec("SELECT transmute.apply('two')");
    wait(&mut session, "two", "FINISHED");
    session.exec("SELECT transmute.create_checkpoint('1.2.0', 'a is big')");
    assert_eq!(
        answer(&mut session, "can_downgrade_to('1.1.0')"),
        "f|migration \"two\" is FINISHED since, past its point of no return, and has no down"
    );
    assert_eq!(
        answer(&mut session, "can_downgrade_to('1.0.5')"),
        "f|no checkpoint of 1.0.5 has been recorded"
    );
    assert_eq!(
        answer(&mut session, "can_downgrade_to('1.2.0')"),
        "f|the database is at 1.2.0, which is not above 1.2.0"
    );
    assert_eq!(
        answer(&mut session, "can_upgrade_to('1.2.0+build')"),
        "f|the database is at 1.2.0, which is not below 1.2.0+build"
    );
    assert_eq!(
        session.lines("SELECT version, finished, description FROM transmute.checkpoints"),
        [
            "1.0.0|{}|as it was",
            "1.1.0|{one}|b is there",
            "1.2.0|{one,two}|a is big"
        ]
    );
    assert_eq!(
        session.lines("SELECT detail::json->>'version' FROM transmute.audit_events WHERE event = 'checkpoint' ORDER BY seq"),
        ["1.0.0", "1.1.0", "1.2.0"]
    );
}

#[test]
fn a_release_is_left_again_when_what_came_since_was_taken_back() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY);
         SELECT transmute.create_checkpoint('1.0.0', 'x');
         SELECT transmute.register('m', 'ALTER TABLE t ADD COLUMN b int', 'ALTER TABLE t DROP COLUMN b', '{\"target_version\": \"2.0.0\", \"drop_policy\": \"drop\"}');
         SELECT transmute.apply('m')",
    );
    wait(&mut session, "m", "FINISHED");
    session.exec("SELECT transmute.create_checkpoint('2.0.0', 'y')");
    assert_eq!(
        answer(&mut session, "can_downgrade_to('1.0.0')"),
        "f|migration \"m\" has finished since; transmute.down(id, reason) takes it back"
    );
    session.exec("SELECT transmute.down('m', 'back')");
    wait(&mut session, "m:down", "FINISHED");
    assert_eq!(
        answer(&mut session, "can_downgrade_to('1.0.0')"),
        "t|nothing that finished since 1.0.0 holds any more"
    );
    session.exec("SELECT transmute.create_checkpoint('1.0.0', 'back again')");
    assert_eq!(
        session.lines("SELECT transmute.current_version()"),
        ["1.0.0"]
    );
}

#[test]
fn the_release_is_asked_for_again_when_a_migration_would_start() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT transmute.create_checkpoint('1.0.0', 'x');
         SELECT transmute.register('m', 'ALTER TABLE t ADD COLUMN b int',
           meta => '{\"source_version\": \"1.0.0\", \"target_version\": \"2.0.0\", \"pre_execution_soak\": \"1 hour\"}');
         SELECT transmute.apply('m'); SELECT transmute.create_checkpoint('1.5.0-rc.1', 'meanwhile')",
    );
    session.exec("SELECT transmute.skip_soak('m', 'now')");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'm'",
        "release 1.0.0, from which it starts: the database is at 1.5.0-rc.1",
        PATIENCE,
    );
    session.exec("SELECT transmute.rollback('m', 'too late')");
    wait(&mut session, "m", "UNINITIALIZED");
}

#[test]
fn versions_and_descriptions_are_checked() {
    let database = Database::shared();
    let mut session = database.connect();
    for version in [
        "",
        " ",
        "1",
        "1.0",
        "v1.0.0",
        "1.0.0.0",
        "1.0.0\n",
        "01.0.0",
        "1.0.x",
        "ünï",
        "'; DROP TABLE t; --",
    ] {
        let quoted = version.replace('\'', "''");
        for call in [
            "create_checkpoint(%, 'x')",
            "can_upgrade_to(%)",
            "can_downgrade_to(%)",
        ] {
            let call = call.replace('%', &format!("'{quoted}'"));
            let error = session.error(&format!("SELECT transmute.{call}"));
            assert_eq!(error.sqlstate, "22023", "{call}: {error}");
            assert_eq!(
                error.message, "the version is not a semantic version",
                "{call}"
            );
            assert!(error.hint.unwrap_or_default().contains("MAJOR.MINOR.PATCH"));
        }
    }
    for call in [
        "create_checkpoint(NULL, 'x')",
        "create_checkpoint('1.0.0', NULL)",
        "create_checkpoint('1.0.0', E' \\n')",
        "can_upgrade_to(NULL)",
        "can_downgrade_to(NULL)",
    ] {
        assert_eq!(
            session.error(&format!("SELECT transmute.{call}")).sqlstate,
            "22023",
            "{call}"
        );
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.checkpoints"),
        ["0"]
    );
}
