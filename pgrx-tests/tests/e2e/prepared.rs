//! What sessions have planned before the swap and use after it.

use postgres::types::ToSql;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::{Kind, Workload};
use transmute_tests::{Database, DbError};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::Migration;

#[test]
fn a_prepared_statement_that_returns_a_changed_column_is_refused_once_a_connection() {
    const WRITERS: u32 = 4;
    let database = Database::shared();
    let load = Workload::on("t").seed(14).writers(WRITERS).prepared();
    let mut session = hot_table(&database, &load);
    let writers = load.start(&database);
    // Every writer has prepared, and used, each kind of statement.
    writers.wait_for_more(800, PATIENCE);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    migration.finish();
    writers.wait_for_more(800, PATIENCE);
    let tally = writers.stop();
    for failure in &tally.unexpected {
        assert_eq!(failure.kind, Kind::SelectAll, "{failure:?}");
        assert_is_changed_result(&failure.error);
    }
    assert_eq!(
        tally.unexpected.len(),
        WRITERS as usize,
        "{:?}",
        tally.unexpected
    );
    assert_equals_mirror(&mut session);
}

#[track_caller]
fn assert_is_changed_result(error: &DbError) {
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("0A000", "cached plan must not change result type")
    );
}

#[test]
fn prepared_statements_that_return_no_changed_column_go_on() {
    let database = Database::shared();
    let mut session = hot_table(&database, &Workload::on("t"));
    let statements: [(&str, &[&(dyn ToSql + Sync)], bool); 6] = [
        ("SELECT id, note FROM t WHERE id = $1", &[&1i32], false),
        (
            "SELECT count(*) FROM t WHERE a < $1::int8",
            &[&500i64],
            false,
        ),
        (
            "UPDATE t SET note = note WHERE id = $1 RETURNING id, u",
            &[&1i32],
            false,
        ),
        (
            "INSERT INTO t VALUES ($1, 1, $1, 'new') ON CONFLICT (id) DO UPDATE SET note = 'again'",
            &[&2_000_000i32],
            false,
        ),
        ("SELECT * FROM t WHERE id = $1", &[&1i32], true),
        (
            "DELETE FROM t WHERE id = $1 RETURNING a",
            &[&1_000_001i32],
            true,
        ),
    ];
    let client = session.client();
    let mut prepared = Vec::new();
    for (sql, parameters, returns_it) in statements {
        let statement = client.prepare(sql).expect(sql);
        client.query(&statement, parameters).expect(sql);
        prepared.push((sql, statement, parameters, returns_it));
    }
    Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    )
    .finish();
    for (sql, statement, parameters, returns_it) in prepared {
        match client.query(&statement, parameters) {
            Ok(_) => assert!(!returns_it, "went on with another result type: {sql}"),
            Err(error) => {
                assert!(returns_it, "{error:?}: {sql}");
                assert_is_changed_result(&DbError::from(&error));
                // Prepared again, as drivers do, it works.
                client.query(sql, parameters).expect(sql);
            }
        }
    }
    assert_equals_mirror(&mut session);
}

#[test]
fn a_plpgsql_trigger_that_names_the_changed_column_goes_on() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         CREATE TABLE log (a bigint);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO log VALUES (NEW.a); NEW.a := NEW.a + 1; RETURN NEW; END $$;
         CREATE TRIGGER log BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log();
         INSERT INTO t VALUES (1, 1)",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("after_commit");
    // The last call before the swap: what is cached now was planned for the old type.
    session.exec("UPDATE t SET a = 2 WHERE id = 1");
    migration.call("skip_soak", "'enough'");
    waitpoints.wait_reached("after_commit", PATIENCE);
    assert_eq!(migration.status("state"), "FINISHING");
    // After a plain ALTER this session would be refused with "type of parameter (bigint) does not match that when
    // preparing the plan (integer)" until it reconnects.
    session.exec("INSERT INTO t VALUES (2, 3000000000)");
    session.exec("UPDATE t SET a = 5 WHERE id = 1");
    assert_eq!(
        session.lines("SELECT id, a FROM t ORDER BY id"),
        ["1|6", "2|3000000001"]
    );
    assert_eq!(
        session.lines("SELECT a FROM log ORDER BY a"),
        ["1", "2", "5", "3000000000"]
    );
    waitpoints.release("after_commit");
    migration.finish();
}
