//! Constraints on tables with rows: what comes out is what the plain statement makes, nobody waits for a scan, and the way
//! back leads to the catalog as it was.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{fingerprint, Migration};

/// Something that only contract does, so that the migration waits before it.
const LAST: &str = "; SELECT 1";
const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn tables(session: &mut Session) {
    session.batch(&[
        "DROP TABLE IF EXISTS \"T T\", t, r CASCADE",
        "CREATE TABLE r (id int PRIMARY KEY, code text UNIQUE, x int, y int, UNIQUE (x, y))",
        "INSERT INTO r SELECT i, 'c' || i, i, i FROM generate_series(1, 10) i",
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, r int, code text, \"q \"\"q\" int, self int, proved int CHECK (proved IS NOT NULL AND proved > 0))",
        "INSERT INTO t SELECT i, i, i, i % 10 + 1, 'c' || i % 10 + 1, i, i, i FROM generate_series(1, 1000) i",
        "CREATE TABLE \"T T\" (i int, CONSTRAINT t_a_check CHECK (i > 0), CONSTRAINT t_a_not_null CHECK (i > 1))",
    ]);
}

/// Each with how many rows the scan counters of `t` may show under the last step: everything was read before it.
const CASES: [&str; 24] = [
    "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE t ALTER a SET NOT NULL, ALTER b SET NOT NULL, ALTER \"q \"\"q\" SET NOT NULL",
    "ALTER TABLE t ALTER COLUMN proved SET NOT NULL",
    "ALTER TABLE t ALTER COLUMN id SET NOT NULL",
    "ALTER TABLE ONLY public.t ADD CHECK (a > 0)",
    "ALTER TABLE t ADD CHECK (a > 0), ADD CHECK (a < 10000), ADD CHECK (a <= b), ADD CONSTRAINT \"n, (\" CHECK (code <> ', ) '', ADD')",
    "ALTER TABLE t ADD CONSTRAINT whole CHECK (t IS NOT NULL) NO INHERIT, ADD CHECK (true)",
    "ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES r",
    "ALTER TABLE t ADD CONSTRAINT to_r FOREIGN KEY (r) REFERENCES r (id) ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED",
    "ALTER TABLE t ADD FOREIGN KEY (r, r) REFERENCES r (x, y) MATCH FULL",
    "ALTER TABLE t ADD FOREIGN KEY (self) REFERENCES t, ADD FOREIGN KEY (self) REFERENCES t (id)",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r NOT VALID, ADD CHECK (a > 500) NOT VALID",
    "ALTER TABLE t ADD COLUMN n int CHECK (n > 0) REFERENCES r, ADD m int CONSTRAINT here REFERENCES r (id) DEFERRABLE",
    "ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 1 CONSTRAINT positive CHECK (n > 0) REFERENCES r ON DELETE RESTRICT INITIALLY DEFERRED, ADD CHECK (n < a + 2)",
    "ALTER TABLE t ADD COLUMN n text COLLATE \"C\" DEFAULT 'c1' CHECK (n < 'd') NOT NULL CHECK (n IS DISTINCT FROM 'x'), ALTER a SET NOT NULL",
    "ALTER TABLE t ADD COLUMN IF NOT EXISTS a int CHECK (a > 5), ADD COLUMN IF NOT EXISTS n int DEFAULT 3 CHECK (n > 2)",
    "ALTER TABLE IF EXISTS t ADD CHECK (a > 0), ALTER b SET DEFAULT 7, ADD COLUMN n int",
    "ALTER TABLE t DROP CONSTRAINT t_proved_check, ADD CONSTRAINT t_proved_check CHECK (proved >= 0)",
    "ALTER TABLE t ADD CONSTRAINT later CHECK (a > 0) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT later",
    "ALTER TABLE t ADD CHECK (a > 0); ALTER TABLE t ADD CHECK (a < 5000); ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES r; ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES r",
    "ALTER TABLE t ADD CHECK (a > 0) -- a comment, with a comma\n, /* , */ ADD CHECK (code IN ('c1', $$, it's$$, E'\\', ') OR true)",
    "ALTER TABLE t ADD CONSTRAINT a_name_that_is_longer_than_sixty_three_bytes_and_so_is_cut_off_somewhere CHECK (a > 0)",
    "ALTER TABLE t ALTER COLUMN a SET NOT NULL; ALTER TABLE t ADD CHECK (a > 0); ALTER TABLE t ALTER COLUMN b SET NOT NULL",
    "ALTER TABLE t ADD CHECK (a + b > 0 AND (SELECT true)::boolean IS NULL OR true) NOT VALID",
];

#[test]
fn what_comes_out_is_what_the_plain_statement_makes() {
    let database = Database::shared();
    let mut session = database.connect();
    for (i, ddl) in CASES.iter().enumerate() {
        let id: &'static str = Box::leak(format!("m{i}").into_boxed_str());
        tables(&mut session);
        let before = fingerprint(&mut session, "t");
        if let Err(error) = session.try_exec(&format!("BEGIN; {ddl}; ROLLBACK")) {
            session.exec("ROLLBACK");
            let refused = session.error(&format!(
                "SELECT transmute.register('{id}', $ddl${ddl}$ddl$)"
            ));
            assert_eq!(
                (refused.sqlstate, refused.message),
                (error.sqlstate, error.message),
                "{ddl}"
            );
            continue;
        }
        let mut migration = Migration::start(&database, id, &format!("{ddl}{LAST}"), SOAK);
        migration.wait("AWAITING_FINALIZATION");
        migration.roll_back();
        let after = fingerprint(&mut session, "t");
        assert_eq!(without_places(&after), without_places(&before), "{ddl}");

        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        migration.call("skip_soak", "'good'");
        migration.finish();
        let online = fingerprint(&mut session, "t");

        tables(&mut session);
        session.exec(&format!("{ddl}{LAST}"));
        let plain = fingerprint(&mut session, "t");
        assert_eq!(without_places(&online), without_places(&plain), "{ddl}");
    }
}

/// A column that was dropped keeps its number: the one that is made anew has another.
fn without_places(fingerprint: &str) -> Vec<String> {
    let mut lines: Vec<String> = fingerprint
        .lines()
        .map(|line| match line.split_once(" column ") {
            Some((table, rest)) => format!("{table} column {}", &rest[4..]),
            None => line.to_string(),
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn nobody_waits_for_a_scan() {
    let database = Database::shared();
    let mut session = database.connect();
    tables(&mut session);
    Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER a SET NOT NULL, ADD CHECK (b > 0), ADD FOREIGN KEY (r) REFERENCES r",
        "{}",
    );
    // The steps under a strong lock, one by one: none of them reads the table.
    let strong = session.lines(
        "SELECT sql FROM transmute.plan('m') WHERE lock_mode IN ('ACCESS EXCLUSIVE', 'SHARE ROW EXCLUSIVE') ORDER BY step",
    );
    let validations = session.lines(
        "SELECT sql FROM transmute.plan('m') WHERE lock_mode = 'SHARE UPDATE EXCLUSIVE' ORDER BY step",
    );
    assert_eq!(
        validations.len(),
        2,
        "one pass for CHECK and NOT NULL, one for the foreign key: {validations:?}"
    );
    let reads = "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot(), seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 't'";
    for sql in strong
        .iter()
        .filter(|sql| !sql.contains("SET NOT NULL"))
        .chain(&validations)
        .chain(strong.iter().filter(|sql| sql.contains("SET NOT NULL")))
    {
        session.exec("SELECT pg_stat_force_next_flush()");
        let before = session.lines(reads);
        session.exec(sql);
        session.exec("SELECT pg_stat_force_next_flush()");
        let after = session.lines(reads);
        assert_eq!(
            before == after,
            !sql.contains("VALIDATE"),
            "{sql}: {before:?} {after:?}"
        );
    }
}

#[test]
fn rows_that_violate_wait_for_a_person_and_are_tried_again() {
    let database = Database::shared();
    let mut session = database.connect();
    for (id, ddl, spoil, mend, code, name) in [
        (
            "null",
            "ALTER TABLE t ALTER a SET NOT NULL",
            "UPDATE t SET a = NULL WHERE id = 7",
            "UPDATE t SET a = 7 WHERE id = 7",
            "23502 23514",
            "a",
        ),
        (
            "check",
            "ALTER TABLE t ADD CONSTRAINT small CHECK (a < 500)",
            "SELECT 1",
            "DELETE FROM t WHERE a >= 500",
            "23514",
            "small",
        ),
        (
            "key",
            "ALTER TABLE t ADD CONSTRAINT to_r FOREIGN KEY (r) REFERENCES r",
            "UPDATE t SET r = 77 WHERE id = 7",
            "UPDATE t SET r = 1 WHERE id = 7",
            "23503",
            "to_r",
        ),
        (
            "column",
            "ALTER TABLE t ADD COLUMN n int DEFAULT 77 CONSTRAINT to_r REFERENCES r",
            "SELECT 1",
            "UPDATE t SET n = 1",
            "23503",
            "to_r",
        ),
    ] {
        for resume in [false, true] {
            let id: &'static str = Box::leak(format!("{id} {resume}").into_boxed_str());
            tables(&mut session);
            session.exec(spoil);
            let before = fingerprint(&mut session, "t");
            let mut migration = Migration::start(&database, id, ddl, "{}");
            migration.wait_in("AWAITING_ACTION");
            let sqlstate = migration.status("last_error_sqlstate");
            assert!(code.contains(&sqlstate), "{id}: {sqlstate}");
            let message = migration.status("last_error");
            assert!(message.contains(name), "{id}: {message}");
            // Rows that come now obey already.
            let error = session.error(
                "INSERT INTO t (id, a, r, proved) VALUES (5000, NULL, 78, 1), (5001, 600, 79, 1)",
            );
            assert!(error.sqlstate.starts_with("23"), "{error}");
            if resume {
                session.exec(mend);
                migration.call("resume", "'mended'");
                migration.finish();
            } else {
                migration.roll_back();
                let after = fingerprint(&mut session, "t");
                assert_eq!(without_places(&after), without_places(&before), "{id}");
            }
        }
    }
}

#[test]
fn the_application_works_through_it_and_back() {
    let database = Database::shared();
    let load = Workload::on("t").seed(21);
    let mut session = hot_table(&database, &load);
    session.exec(
        "CREATE TABLE r (a int PRIMARY KEY); INSERT INTO r SELECT generate_series(-2000, 100000); GRANT ALL ON r TO PUBLIC",
    );
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);
    let ddl = format!(
        "ALTER TABLE t ADD CHECK (length(note) < 1000000), ALTER a SET NOT NULL, ADD CONSTRAINT to_r FOREIGN KEY (a) REFERENCES r{LAST}"
    );
    let mut migration = Migration::start(&database, "m", &ddl, SOAK);
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.roll_back();
    writers.wait_for_more(100, PATIENCE);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.call("rollback", "'once more'");
    migration.wait("UNINITIALIZED");
    let tally = writers.stop();
    assert!(tally.unexpected.is_empty(), "{tally:?}");
    let held = watch.stop();
    assert!(held.longest_hold_ms() < 1_000.0, "{held:?}");
    assert_equals_mirror(&mut session);
    assert_eq!(
        without_places(&fingerprint(&mut session, "t")),
        without_places(&before)
    );
}

#[test]
fn a_foreign_key_waits_for_both_tables_outside_of_the_queue() {
    let database = Database::shared();
    let mut session = database.connect();
    tables(&mut session);
    let mut writer = database.connect();
    writer.exec("BEGIN; UPDATE r SET x = x WHERE id = 1");
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES r",
        "{}",
    );
    migration.wait_for("waiting_for LIKE '%Held by pid%'", "t");
    session.exec(
        "SET lock_timeout = 150; UPDATE r SET x = x WHERE id = 2; UPDATE t SET a = a WHERE id = 1",
    );
    writer.exec("COMMIT");
    migration.finish();
}

#[test]
fn partitions_follow_their_table() {
    let database = Database::shared();
    let mut session = database.connect();
    let make = [
        "DROP TABLE IF EXISTS p",
        "CREATE TABLE p (id int, a int, b int) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (500) TO (5000)",
        "INSERT INTO p SELECT i, i, i FROM generate_series(1, 1000) i",
    ];
    for (i, ddl) in [
        "ALTER TABLE p ALTER a SET NOT NULL, ADD CHECK (b > 0)",
        "ALTER TABLE p1 ALTER a SET NOT NULL, ADD CONSTRAINT one CHECK (b > 0)",
        "ALTER TABLE p ADD CHECK (a > 0) NOT VALID; ALTER TABLE p VALIDATE CONSTRAINT p_a_check",
    ]
    .into_iter()
    .enumerate()
    {
        let id: &'static str = Box::leak(format!("p{i}").into_boxed_str());
        session.batch(&make);
        let print =
            |session: &mut Session| ["p", "p1", "p2"].map(|table| fingerprint(session, table));
        let before = print(&mut session);
        let mut migration = Migration::start(&database, id, &format!("{ddl}; SELECT 1"), SOAK);
        migration.wait("AWAITING_FINALIZATION");
        migration.roll_back();
        assert_eq!(print(&mut session), before, "{ddl}");
        migration.apply();
        migration.wait("AWAITING_FINALIZATION");
        migration.call("skip_soak", "'good'");
        migration.finish();
        let online = print(&mut session);
        session.batch(&make);
        session.exec(&format!("{ddl}; SELECT 1"));
        assert_eq!(online, print(&mut session), "{ddl}");
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = database.connect();
    tables(&mut session);
    for (ddl, sqlstate) in [
        ("ALTER TABLE t ALTER nobody SET NOT NULL", "42703"),
        ("ALTER TABLE t ADD CHECK (nobody > 0)", "42703"),
        ("ALTER TABLE t ADD CHECK (a)", "42804"),
        ("ALTER TABLE t ADD CHECK (a > (SELECT 1))", "0A000"),
        (
            "ALTER TABLE t ADD CONSTRAINT t_proved_check CHECK (a > 0)",
            "42710",
        ),
        (
            "ALTER TABLE t ADD FOREIGN KEY (nobody) REFERENCES r",
            "42703",
        ),
        (
            "ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES nowhere",
            "42P01",
        ),
        (
            "ALTER TABLE t ADD FOREIGN KEY (r) REFERENCES r (x)",
            "42830",
        ),
        (
            "ALTER TABLE t ADD FOREIGN KEY (code) REFERENCES r (id)",
            "42804",
        ),
        (
            "ALTER TABLE t ADD COLUMN n int DEFAULT 1 REFERENCES nowhere",
            "42P01",
        ),
        ("ALTER TABLE t VALIDATE CONSTRAINT nobody", "42704"),
        ("ALTER TABLE nowhere ALTER a SET NOT NULL", "42P01"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $ddl${ddl}$ddl$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{ddl}: {error}"
        );
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["0"]
    );
}
