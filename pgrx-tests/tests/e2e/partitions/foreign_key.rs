//! Foreign keys from and to partitioned tables.

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use super::{assert_same, fingerprints, hot_tree};
use crate::load::assert_equals_mirror;
use crate::migration::{fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn make(session: &mut Session) {
    session.exec("DROP TABLE IF EXISTS t, r, pointing CASCADE");
    Workload::on("t").keys(600).create_partitioned(session);
    session.exec(
        "CREATE TABLE r (k int PRIMARY KEY); INSERT INTO r SELECT generate_series(0, 999);
         ALTER TABLE t_low ADD CONSTRAINT own FOREIGN KEY (a) REFERENCES r;
         CREATE TABLE pointing (id int PRIMARY KEY, t int); INSERT INTO pointing SELECT i, i FROM generate_series(1, 599, 2) i;
         ANALYZE t",
    );
}

fn print(session: &mut Session) -> Vec<String> {
    let mut all = fingerprints(session);
    all.extend(["r", "pointing"].map(|t| fingerprint(session, t)));
    all
}

#[test]
fn what_comes_out_is_what_the_server_would_have_made() {
    let database = Database::shared();
    let mut session = database.connect();
    for (i, ddl) in [
        "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r",
        "ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES r (k) ON DELETE SET NULL DEFERRABLE, ADD CHECK (u > 0)",
        "ALTER TABLE pointing ADD FOREIGN KEY (t) REFERENCES t",
    ]
    .into_iter()
    .enumerate()
    {
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        make(&mut session);
        let before = print(&mut session);
        let mut migration = Migration::start(&database, id, &format!("{ddl}; DO 'BEGIN END'"), SOAK);
        migration.wait("AWAITING_FINALIZATION");
        migration.roll_back();
        assert_same(ddl, &print(&mut session), &before);
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        migration.call("skip_soak", "'good'");
        migration.finish();
        let online = print(&mut session);
        make(&mut session);
        session.exec(ddl);
        // NOT VALID constraints are proved by other steps, so that which of two equal ones a partition keeps may differ.
        let without_own = |print: Vec<String>| -> Vec<String> {
            print
                .iter()
                .flat_map(|p| p.lines().map(str::to_string))
                .filter(|l| !l.contains("t_low constraint") && !l.contains("r referenced by public.t_low"))
                .collect()
        };
        assert_same(ddl, &without_own(online), &without_own(print(&mut session)));
    }
}

#[test]
fn no_statement_fails_while_a_partitioned_table_gets_a_foreign_key() {
    let database = Database::shared();
    let load = Workload::on("t").seed(61);
    let mut session = hot_tree(&database, &load);
    session.exec(
        "CREATE TABLE r (k int PRIMARY KEY); INSERT INTO r SELECT generate_series(-100, 20000)",
    );
    let before = fingerprints(&mut session);
    let writers = load.start(&database);
    let ddl = "ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES r; DO 'BEGIN END'";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(200, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'good'");
    migration.finish();
    writers.wait_for_more(200, PATIENCE);
    writers.stop().assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), bool_and(convalidated) FROM pg_constraint WHERE conname = 'fk' AND contype = 'f'"),
        ["6|t"]
    );
}

#[test]
fn a_partition_with_orphans_asks_a_person_and_one_that_comes_late_is_proved() {
    let database = Database::shared();
    let mut session = database.connect();
    make(&mut session);
    session.exec("UPDATE t SET a = 5000 WHERE id = 401");
    let before = print(&mut session);
    let ddl = "ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES r; DO 'BEGIN END'";
    let mut migration = Migration::start(&database, "m", ddl, SOAK);
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("last_error_sqlstate"), "23503");
    migration.roll_back();
    assert_same(ddl, &print(&mut session), &before);
    session.exec("UPDATE t SET a = 5 WHERE id = 401");
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    session.exec(
        "CREATE TABLE late PARTITION OF t FOR VALUES FROM (2000) TO (3000); INSERT INTO t VALUES (2001, 1, 1)",
    );
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT convalidated FROM pg_constraint WHERE conrelid = 'late'::regclass AND contype = 'f'"),
        ["t"]
    );
}
