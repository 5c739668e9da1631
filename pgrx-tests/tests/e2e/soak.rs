//! The time that has to pass before the start and before the point of no return.

use transmute_tests::Database;

use crate::lifecycle::{changes_of_state, table, TO_BIGINT};
use crate::migration::{self, Migration};

#[test]
fn a_soak_is_a_deadline_that_settings_do_not_move() {
    let database = Database::shared();
    migration::set(&database, &[("pre_finalization_soak", "2 s")]);
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_in("AWAITING_FINALIZATION");
    let deadline = migration.status("soak_until");
    migration::set(&database, &[("pre_finalization_soak", "1 hour")]);
    migration.wait_for(
        "waiting_for",
        "the soak, until soak_until; skip_soak ends it now",
    );
    assert_eq!(migration.status("soak_until"), deadline);
    migration.finish();
    let soaked: bool = session.scalar(
        "SELECT max(at) FILTER (WHERE to_state = 'FINISHING') - max(at) FILTER (WHERE to_state = 'AWAITING_FINALIZATION')
           BETWEEN interval '2 s' AND interval '20 s' FROM transmute.history WHERE id = 'm'",
    );
    assert!(soaked);
}

#[test]
fn in_production_nothing_begins_or_ends_by_itself() {
    let database = Database::shared();
    migration::set(&database, &[("environment", "Production")]);
    table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    migration.wait_for(
        "waiting_for",
        "the soak before the start, until soak_until; skip_soak ends it now",
    );
    assert_eq!(
        migration
            .status("soak_until - now() BETWEEN interval '3 days 23:59' AND interval '4 days'"),
        "true"
    );
    assert_eq!(
        migration.status("state || ' ' || queued"),
        "UNINITIALIZED true"
    );
    assert_eq!(migration.refused("resume", "'go'").sqlstate, "55000");
    migration.call("skip_soak", "'it is urgent'");
    migration.wait_in("AWAITING_FINALIZATION");
    migration.wait_for(
        "waiting_for LIKE 'the soak, until soak_until; skip_soak ends it now; 1 approval missing%'",
        "t",
    );
    assert_eq!(
        migration
            .status("soak_until - now() BETWEEN interval '3 days 23:59' AND interval '4 days'"),
        "true"
    );
    migration.call("approve", "'reviewed'");
    migration.wait_for(
        "waiting_for",
        "the soak, until soak_until; skip_soak ends it now",
    );
    migration.call("skip_soak", "'still urgent'");
    migration.finish();
}

#[test]
fn a_rollback_before_the_start_takes_it_out_of_the_queue() {
    let database = Database::shared();
    let mut session = table(&database);
    let meta = r#"{"pre_execution_soak": "1 day"}"#;
    let mut migration = Migration::start(&database, "m", TO_BIGINT, meta);
    migration.wait_for("waiting_for LIKE 'the soak before the start%'", "t");
    migration.roll_back();
    assert_eq!(migration.status("queued"), "false");
    assert!(changes_of_state(&mut session, "m").is_empty());
    assert_eq!(migration.refused("rollback", "'again'").sqlstate, "55000");
}

#[test]
fn extreme_times_are_refused_in_our_words_with_their_place() {
    let database = Database::shared();
    let mut session = table(&database);
    let keys = [
        "estimated_duration",
        "pre_execution_soak",
        "pre_finalization_soak",
        "soak_until_unused",
        "keep_artifacts",
        "keep_old",
        "invariants[0].timeout",
    ];
    for key in keys {
        for (text, problem) in [
            ("-1 s", "an interval is negative or infinite"),
            ("101 years", "an interval is longer than 100 years"),
            ("170000000 years", "an interval is longer than 100 years"),
            (
                "1 day -170000000 years",
                "an interval is negative or infinite",
            ),
            ("1000000000000 years", "an interval cannot be read"),
            ("infinity", "an interval "),
            ("soon", "an interval cannot be read"),
        ] {
            let meta = match key.strip_prefix("invariants[0].") {
                None => format!(r#"{{"{key}": "{text}"}}"#),
                Some(part) => format!(
                    r#"{{"invariants": [{{"name": "i", "phase": "PRE_RUN", "sql": "SELECT true", "{part}": "{text}"}}]}}"#
                ),
            };
            let error = session.error(&format!(
                "SELECT transmute.register('x', $${TO_BIGINT}$$, meta => '{meta}')"
            ));
            assert_eq!(error.sqlstate, "22023", "{meta}: {error}");
            assert!(error.message.starts_with(problem), "{meta}: {error}");
            let detail = error.detail.unwrap_or_default();
            assert!(
                detail.starts_with(&format!("meta.{key} is ")),
                "{meta}: {detail}"
            );
            assert!(error.hint.is_some(), "{meta}");
        }
    }
    let soak = r#"{"pre_execution_soak": "100 years"}"#;
    let mut migration = Migration::register(&database, "m", TO_BIGINT, soak);
    for ttl in [
        "0",
        "-1 s",
        "101 years",
        "170000000 years",
        "-170000000 years",
    ] {
        let error = session.error(&format!("SELECT transmute.approve('m', 'x', '{ttl}')"));
        assert_eq!(error.sqlstate, "22023", "{ttl}: {error}");
        assert!(error.message.contains("time to live"), "{ttl}: {error}");
    }
    migration.apply();
    migration.wait_for("waiting_for LIKE 'the soak before the start%'", "t");
}

#[test]
fn tries_are_counted_from_the_last_one_that_went_well() {
    let database = Database::shared();
    migration::set(&database, &[("max_retries", "1"), ("retry_delay", "50ms")]);
    let mut session = database.connect();
    // What passes, every second time that the row is brought over: a disk is full for a moment.
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
         CREATE SEQUENCE tries;
         CREATE FUNCTION converted(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
           IF n > 1000 AND nextval('tries') % 2 = 1 THEN
             RAISE 'no space left' USING ERRCODE = '53100';
           END IF;
           RETURN n;
         END $$",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN n TYPE bigint USING converted(n)",
        r#"{"required_approvals": 1}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    for round in 1..=4 {
        session.exec(&format!("UPDATE t SET n = 1000 + {round} WHERE id = 1"));
        migration.wait_for(
            &format!(
                "lag = 0 AND waiting_for ~ 'approv' AND (SELECT retries >= {round} FROM _transmute.migrations)"
            ),
            "t",
        );
    }
    assert_eq!(migration.status("outcome"), "RUNNING");
    session.exec("UPDATE t SET n = 7 WHERE id = 1");
    migration.call("approve", "'good'");
    migration.finish();
}
