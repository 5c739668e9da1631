//! Undo of a partitioned table: the old rows of every partition follow, and all go back in one swap with their table.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use super::{assert_all_sound, assert_same, fingerprints, hot_tree, tree};
use crate::load::assert_equals_mirror;
use crate::migration::Migration;
use crate::surface::refusal;
use crate::undo::{assert_nothing_left, undo, KEEP, TO_BIGINT};

const LARGE: &str =
    "SELECT 2000 + i, i, 100000 + i, repeat('x', 1000) FROM generate_series(1, 900) i";

#[test]
fn a_partitioned_table_is_taken_back_after_the_end_under_load() {
    let database = Database::shared();
    let load = Workload::on("t").seed(43);
    let mut session = hot_tree(&database, &load);
    let before = fingerprints(&mut session);
    let watch = Lockwatch::start(&database, "t_low");
    let writers = load.start(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN u TYPE bigint, ADD CONSTRAINT clean CHECK (note <> 'poison')",
        KEEP,
    );
    migration.finish();
    writers.wait_for_more(500, PATIENCE);
    assert_eq!(migration.status("undo_left > '50 minutes'"), "true");
    undo(&mut migration);
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_all_sound(&mut session);
    assert_same("undone", &fingerprints(&mut session), &before);
    assert_eq!(
        session.lines("SELECT DISTINCT detail::json ->> 'identical' FROM transmute.history WHERE event = 'rewrite undone'"),
        ["true"]
    );
    assert_nothing_left(&mut session);
    watch.stop().assert_held_less_than(1_000.0);
}

#[test]
fn partitions_that_come_and_go_after_the_end_are_noticed() {
    let database = Database::shared();
    let mut session = tree(&database, 900);
    session.exec(
        "CREATE TABLE r (id int, t_id int REFERENCES t); INSERT INTO r SELECT id, id FROM t WHERE id > 500;
         CREATE TABLE parked (LIKE t INCLUDING ALL);
         ALTER TABLE t_low ALTER COLUMN note SET DEFAULT 'of its own'",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN extra text DEFAULT clock_timestamp()::text",
        KEEP,
    );
    migration.finish();
    let refused = |session: &mut Session| {
        let error = refusal(session, "SELECT transmute.undo('m', 'x')");
        (error.sqlstate, error.message)
    };
    let prerequisite = |message: &str| ("55000".to_string(), message.to_string());
    // One with rows is in the new shape only.
    session.exec(&format!(
        "CREATE TABLE late PARTITION OF t FOR VALUES FROM (2000) TO (3000); INSERT INTO late {LARGE}"
    ));
    assert_eq!(
        refused(&mut session),
        prerequisite("a partition was added since the migration ended")
    );
    session.exec(
        "ALTER TABLE t DETACH PARTITION late; ALTER TABLE t_middle DETACH PARTITION t_middle_1",
    );
    assert_eq!(
        refused(&mut session),
        prerequisite("a partition was detached since the migration ended")
    );
    // One that is dropped takes its old rows along; what is as good as empty goes back with its table.
    session.exec(
        "DROP TABLE t_middle_1; CREATE TABLE made PARTITION OF t FOR VALUES FROM (3000) TO (4000);
         INSERT INTO made VALUES (3001, 7, 3001, 'made'); UPDATE t SET a = -5 WHERE id = 801",
    );
    session.wait_for(
        "SELECT count(*) FROM transmute.history WHERE event = 'old rows let go'",
        "1",
        PATIENCE,
    );
    let rows = "SELECT count(*), sum(a), sum(u), min(a) FROM t";
    let expected = session.lines(rows);
    undo(&mut migration);
    assert_eq!(session.lines(rows), expected);
    assert_eq!(
        session.lines(
            "SELECT DISTINCT count(*), string_agg(a.attname || ' ' || a.atttypid::regtype, ', ' ORDER BY a.attname)
             FROM pg_partition_tree('t') p JOIN pg_attribute a ON a.attrelid = p.relid
             WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY p.relid"
        ),
        ["4|a integer, id integer, note text, u integer"]
    );
    assert_eq!(
        session.lines(
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't_low'::regclass"
        ),
        ["'of its own'::text"]
    );
    assert_eq!(
        session
            .lines("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"),
        ["0"]
    );
    assert_all_sound(&mut session);
    assert_nothing_left(&mut session);
}

#[test]
fn what_holds_an_undo_of_partitions_back_and_what_ends_it() {
    let database = Database::shared();
    let mut session = tree(&database, 300);
    // What differs between the partitions would not come back.
    session.exec("CREATE TABLE own (k int, a int DEFAULT 1) PARTITION BY LIST (k); CREATE TABLE own_1 PARTITION OF own FOR VALUES IN (1);
         ALTER TABLE own_1 ALTER a SET DEFAULT 2; ALTER TABLE own_1 ADD PRIMARY KEY (k)");
    for (ddl, sqlstate, message) in [
        (
            "ALTER TABLE t ALTER a TYPE bigint; CREATE INDEX more ON t (a, u)",
            "0A000",
            "an index or a key is made by the statement that rewrites a partitioned table, whose old rows are kept, or shown in versions",
        ),
        (
            "ALTER TABLE t ALTER a TYPE bigint, ADD CONSTRAINT one UNIQUE (id, u)",
            "0A000",
            "an index or a key is made by the statement that rewrites a partitioned table, whose old rows are kept, or shown in versions",
        ),
        (
            "ALTER TABLE t ALTER a TYPE text USING a || 'x'",
            "0A000",
            "the way back of a statement cannot be derived",
        ),
        (
            "ALTER TABLE own ALTER a SET DEFAULT 3, ALTER a TYPE bigint",
            "22023",
            "the way back does not lead to the table as it is",
        ),
    ] {
        let error = refusal(
            &mut session,
            &format!("SELECT transmute.register('x', $${ddl}$$, meta => '{KEEP}')"),
        );
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            (sqlstate, message),
            "{ddl}: {error}"
        );
    }
    let before = fingerprints(&mut session);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    // Also of a row that moves to another partition, and after a TRUNCATE.
    session.exec(
        "TRUNCATE t_middle; INSERT INTO t VALUES (5000, 5000000000, 5000, 'too wide'), (150, 5, 7000, 'fits'); UPDATE t SET id = 6000 WHERE id = 150",
    );
    migration.wait_for("dead_letters", "1");
    let error = refusal(&mut session, "SELECT transmute.undo('m', 'x')");
    assert_eq!(error.message, "rows were written that do not convert back");
    session.exec("UPDATE t SET a = 9 WHERE id = 5000");
    migration.wait_for("dead_letters", "0");
    undo(&mut migration);
    assert_same("undone", &fingerprints(&mut session), &before);
    assert_eq!(
        session.lines("SELECT id, a FROM t WHERE id >= 100 ORDER BY id"),
        ["5000|9", "6000|5"]
    );
    assert_nothing_left(&mut session);
    // Given, and let go of before its time.
    session.exec(
        "SELECT transmute.register('n', 'ALTER TABLE t ALTER a TYPE text USING ''x'' || a',
           down => 'ALTER TABLE t ALTER a TYPE int USING substr(a, 2)::int', meta => '{\"keep_old\": \"1 hour\"}');
         SELECT transmute.apply('n')",
    );
    session.exec("CALL transmute.wait('n', timeout => '60 s')");
    assert_eq!(
        session.lines("SELECT id, a FROM t WHERE id >= 100 ORDER BY id"),
        ["5000|x9", "6000|x5"]
    );
    session.exec("SELECT transmute.release_old('n', 'enough')");
    session.wait_for(
        "SELECT queued FROM transmute.status WHERE id = 'n'",
        "f",
        PATIENCE,
    );
    assert_nothing_left(&mut session);
}
