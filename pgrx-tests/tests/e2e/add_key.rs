//! ADD UNIQUE, ADD PRIMARY KEY: the index is built concurrently, the constraint takes it over.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{assert_sound, fingerprint, Migration};

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
/// As in the other tests under load, on two cores.
const HOLD_BUDGET_MS: f64 = 1_000.0;

#[test]
fn keys_are_added_and_taken_back_under_load() {
    let database = Database::shared();
    let load = Workload::on("t").seed(41);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);
    let mut failing = Migration::start(
        &database,
        "failing",
        "ALTER TABLE t ADD UNIQUE (id, note), ADD UNIQUE (a)",
        "{}",
    );
    failing.wait_in("AWAITING_ACTION");
    assert_eq!(failing.status("last_error_sqlstate"), "23505");
    failing.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ADD CONSTRAINT two UNIQUE (id, note) DEFERRABLE, ADD UNIQUE (u, id) INCLUDE (a)",
        "{}",
    );
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    watch.stop().assert_held_less_than(HOLD_BUDGET_MS);
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    assert_eq!(
        session.lines("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'u' ORDER BY 1"),
        ["t_u_id_a_key|UNIQUE (u, id) INCLUDE (a)", "t_u_key|UNIQUE (u)", "two|UNIQUE (id, note) DEFERRABLE"]
    );
}

fn make(session: &mut Session, schema: &str) {
    session.exec(&format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}; DROP TABLE IF EXISTS {schema}.t;
         CREATE TABLE {schema}.t (id int, a int, \"B b\" text, taken int CONSTRAINT t_a_key CHECK (taken > 0));
         INSERT INTO {schema}.t SELECT i, i, i, i FROM generate_series(1, 500) AS i"
    ));
}

fn described(session: &mut Session, schema: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT conname, pg_get_constraintdef(oid), replace(pg_get_indexdef(conindid), '{schema}.', '') FROM pg_constraint
          WHERE conrelid = '{schema}.t'::regclass AND contype <> 'n'
         UNION ALL SELECT attname, attnotnull::text, '' FROM pg_attribute WHERE attrelid = '{schema}.t'::regclass AND attnum > 0 AND NOT attisdropped
         ORDER BY 1, 2"
    ))
}

#[test]
fn a_key_is_what_the_plain_statement_would_have_made() {
    let database = Database::shared();
    let mut session = database.connect();
    for (id, clause) in [
        ("1", "ADD UNIQUE (a)"),
        (
            "2",
            "ADD CONSTRAINT \"my key\" UNIQUE (\"B b\", a) INCLUDE (id)",
        ),
        (
            "3",
            "ADD UNIQUE NULLS NOT DISTINCT (\"B b\") WITH (fillfactor = 70)",
        ),
        ("4", "ADD UNIQUE (a, id) DEFERRABLE INITIALLY DEFERRED"),
        ("5", "ADD PRIMARY KEY (id, a)"),
        (
            "6",
            "ADD CONSTRAINT p PRIMARY KEY (id) INCLUDE (a), ADD UNIQUE (a), ADD CHECK (a > 0)",
        ),
        ("7", "ALTER COLUMN id SET NOT NULL, ADD PRIMARY KEY (id)"),
        ("8", "ADD UNIQUE (a), ADD COLUMN c int UNIQUE"),
        (
            "9",
            "ADD COLUMN c int CHECK (c > a) CONSTRAINT \"c k\" UNIQUE DEFERRABLE",
        ),
    ] {
        make(&mut session, "plain");
        make(&mut session, "public");
        session.exec(&format!("ALTER TABLE plain.t {clause}"));
        let before = fingerprint(&mut session, "public.t");
        let mut migration = Migration::start(
            &database,
            id,
            // Something for the end, so that it waits before it.
            &format!("ALTER TABLE t {clause}; DO 'BEGIN END'"),
            LONG_SOAK,
        );
        migration.wait("AWAITING_FINALIZATION");
        migration.roll_back();
        assert_eq!(fingerprint(&mut session, "public.t"), before, "{clause}");
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        assert_eq!(
            described(&mut session, "public"),
            described(&mut session, "plain"),
            "{clause}"
        );
        migration.call("skip_soak", "'enough'");
        migration.finish();
        assert_sound(&mut session, "public.t");
    }
}

#[test]
fn what_violates_a_key_asks_a_person() {
    let database = Database::shared();
    let mut session = database.connect();
    make(&mut session, "public");
    session.exec("INSERT INTO t VALUES (NULL, 1, 'x', 1)");
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::start(
        &database,
        "null",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        "{}",
    );
    migration.wait_in("AWAITING_ACTION");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    let mut migration = Migration::start(&database, "dup", "ALTER TABLE t ADD UNIQUE (a)", "{}");
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("last_error_sqlstate"), "23505");
    session.exec("DELETE FROM t WHERE id IS NULL");
    migration.call("resume", "'mended'");
    migration.finish();
    for (ddl, sqlstate) in [
        ("ALTER TABLE t ADD UNIQUE (nothing)", "42703"),
        (
            "ALTER TABLE t ADD PRIMARY KEY (a), ADD PRIMARY KEY (id)",
            "42P16",
        ),
        ("ALTER TABLE t ADD EXCLUDE USING btree (a WITH =)", "0A000"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('bad', $${ddl}$$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
    }
}
