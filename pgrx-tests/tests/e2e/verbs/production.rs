//! On a production server each call that changes something names the database.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::{direct, settle};

#[test]
fn in_production_whatever_changes_something_names_the_database() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(&mut session, "a", "CREATE TABLE a (id int)");
    direct(&mut session, "b", "CREATE TABLE b (id int)");
    session.query(
        "SELECT transmute.register('c', 'CREATE TABLE c (id int)', NULL, '{\"transaction\": \"none\"}')",
        &[],
    );
    session.exec("SELECT transmute.seed_load('s', 'SELECT 1')");
    let calls = [
        "apply()",
        "apply('a')",
        "apply('a', dry_run => true)",
        "apply(dry_run => true)",
        "apply(max_risk => 5)",
        "up()",
        "down()",
        "down('a', 'why')",
        "rollback('a', 'why')",
        "rollback(1)",
        "fix('c', 'applied', 'why')",
        "seed()",
        "seed('s')",
        "baseline('a', 'it is there')",
    ];
    for environment in ["prod", "Production", "LIVE", " Prod ", "PRODUCTION", "live"] {
        session.exec(&format!("SET transmute.environment = '{environment}'"));
        for call in calls {
            let (name, arguments) = call.trim_end_matches(')').split_once('(').unwrap();
            let comma = if arguments.is_empty() { "" } else { ", " };
            // Neither without it nor with the name of another database, or nearly that of this one.
            for confirm in [
                String::new(),
                format!("{comma}confirm => NULL"),
                format!("{comma}confirm => 'another'"),
                format!("{comma}confirm => ''"),
                format!("{comma}confirm => upper(current_database())"),
            ] {
                let error =
                    session.error(&format!("SELECT transmute.{name}({arguments}{confirm})"));
                assert_eq!(error.sqlstate, "55000", "{call}: {error}");
                assert!(
                    error
                        .detail
                        .as_deref()
                        .unwrap_or_default()
                        .starts_with("CONFIRMATION: "),
                    "{call}: {error}"
                );
                assert!(error
                    .hint
                    .unwrap_or_default()
                    .contains("confirm => current_database()"));
            }
        }
    }
    // Nothing was written but that somebody was refused.
    assert_eq!(
        session.lines("SELECT id, state, queued FROM transmute.status ORDER BY id"),
        [
            "a|UNINITIALIZED|f",
            "b|UNINITIALIZED|f",
            "c|UNINITIALIZED|f"
        ]
    );
    assert_eq!(
        session.lines("SELECT status FROM transmute.seeds"),
        ["pending"]
    );
    session.exec("SET transmute.pre_execution_soak = '0'");
    assert_eq!(
        session.lines("SELECT id, action FROM transmute.apply('a', dry_run => true, confirm => current_database())"),
        ["a|would run"]
    );
    assert_eq!(
        session.lines("SELECT id, action FROM transmute.up(confirm => current_database())"),
        ["a|queued"]
    );
    session.exec("SELECT transmute.apply(confirm => current_database())");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT transmute.seed(confirm => current_database())"),
        ["(s,run)"]
    );
    // Nor is it left out because there is nothing to do.
    for call in ["apply()", "apply('a')", "up()"] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, "55000", "{call}: {error}");
    }
    assert_eq!(
        session.lines("SELECT * FROM transmute.apply(confirm => current_database())"),
        Vec::<String>::new()
    );
    // Elsewhere a wrong name is an error, too.
    session.exec("RESET transmute.environment");
    let error = session.error("SELECT transmute.rollback(1, confirm => 'another')");
    assert!(
        error
            .detail
            .unwrap_or_default()
            .contains("this database is"),
        "the name"
    );
    session.notices();
    session.exec("SELECT transmute.rollback(1)");
    // It says what it will do.
    let said = session.notices();
    assert!(
        said.iter().any(|notice| notice.contains("is taken back by what was kept when it ran: DROP TABLE")),
        "{said:?}"
    );
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT to_regclass('a'), to_regclass('b'), to_regclass('c')"),
        ["a|b|∅"]
    );
}

fn holding(session: &mut Session) {
    session.exec("BEGIN");
    session.exec("SELECT transmute.apply()");
}

#[test]
fn who_waits_for_another_caller_is_told_for_whom_and_applies_nothing_twice() {
    let database = Database::shared();
    let mut first = database.connect();
    direct(&mut first, "a", "CREATE TABLE a (id int)");
    direct(&mut first, "b", "CREATE TABLE b (id int)");
    holding(&mut first);
    let pid = first.pid();
    let mut second = database.connect();
    second.exec("SET application_name = 'the second'");
    let waiting = second.in_background("SELECT transmute.apply()");
    first.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the second' AND wait_event = 'advisory'",
        "1",
        PATIENCE,
    );
    assert!(!waiting.is_finished());
    first.exec("COMMIT");
    let (mut second, result) = waiting.join();
    result.unwrap();
    let notices = second.notices().join("\n");
    assert!(
        notices.contains(&format!("waiting for pid {pid}, user \""))
            && notices.contains("application \"transmute-tests\""),
        "{notices}"
    );
    settle(&mut first);
    assert_eq!(
        first.lines("SELECT id, event, count(*) FROM transmute.history() WHERE event IN ('applied', 'finished') GROUP BY 1, 2 ORDER BY 1, 2"),
        ["a|applied|1", "a|finished|1", "b|applied|1", "b|finished|1"]
    );
    // Another lock, or none, and nobody waits.
    direct(&mut first, "c", "CREATE TABLE c (id int)");
    holding(&mut first);
    for lock in ["0", "42"] {
        second.exec(&format!("SET transmute.lock_id = {lock}"));
        second.exec("SELECT transmute.seed()");
        assert!(second.notices().is_empty());
    }
    first.exec("ROLLBACK");
}
