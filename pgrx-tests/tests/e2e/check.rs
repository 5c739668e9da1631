//! The check is a proof: whatever differs in the shadow is found, and mended where a row of the table says how.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, Migration};

const ROWS: i64 = 20_000;
/// Where the shadow is complete and nothing has been compared yet.
const BEFORE: &str = "rewrite_index_done_before_commit";
const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
const ALTER: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN c TYPE text USING upper(c),
    ADD COLUMN twice bigint GENERATED ALWAYS AS (id * 2) STORED";

/// Values inline, compressed and out of line, NULLs, a column that was added later, and a dropped one.
fn table(session: &mut Session) {
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, gone int, a int, b text, c varchar(20), d numeric, e timestamptz, big text)",
        "ALTER TABLE t ALTER COLUMN big SET STORAGE EXTERNAL",
        &format!(
            "INSERT INTO t SELECT i, i, nullif(i % 7, 0) - 3, 'text ' || i, nullif('c' || i, 'c11'), i / 7.0, now(),
               CASE WHEN i % 1000 = 0 THEN repeat('x', 3000) WHEN i % 100 = 0 THEN repeat('y', 300) END
             FROM generate_series(1, {ROWS}) AS i"
        ),
        "ALTER TABLE t DROP COLUMN gone",
        "ALTER TABLE t ADD COLUMN f int DEFAULT 5",
        "UPDATE t SET b = b || '!' WHERE id % 500 = 1",
        "DELETE FROM t WHERE id % 300 = 2",
        "ANALYZE t",
    ]);
}

/// A migration that stands before its check, after `change` was done to the shadow.
fn with(database: &Database<'_>, change: &str) -> Migration {
    let mut session = database.connect();
    table(&mut session);
    let mut waitpoints = Waitpoints::of(database);
    waitpoints.hold(BEFORE);
    let migration = Migration::start(database, "m", ALTER, LONG_SOAK);
    waitpoints.wait_reached(BEFORE, PATIENCE);
    let shadow: String =
        session.scalar("SELECT quote_ident(new_schema) || '.t' FROM _transmute.rewrites");
    session.exec(&change.replace("{shadow}", &shadow));
    waitpoints.release(BEFORE);
    migration
}

/// Rounds that the check took, and rows that it sent to repair in the last one.
fn rounds(session: &mut Session) -> String {
    session.lines("SELECT check_rounds FROM _transmute.rewrites")[0].clone()
}

/// `change` makes so many rows of the shadow differ.
#[track_caller]
fn assert_found_and_mended(change: &str, rows: i64) {
    let database = Database::shared();
    let mut migration = with(&database, change);
    migration.wait("AWAITING_FINALIZATION");
    let mut session = database.connect();
    assert_eq!(rounds(&mut session), "2", "{change}");
    assert_eq!(
        session.scalar::<i64>("SELECT rows_repaired FROM transmute.progress"),
        rows,
        "{change}"
    );
    let before =
        session.lines("SELECT id, a::bigint, b, upper(c), d, e, big, f, id * 2 FROM t ORDER BY id");
    migration.call("skip_soak", "'proven'");
    migration.wait("FINISHED");
    assert_eq!(
        session.lines("SELECT id, a, b, c, d, e, big, f, twice FROM t ORDER BY id"),
        before
    );
    assert_sound(&mut session, "t");
}

#[test]
fn a_shadow_that_nobody_touched_is_proven_in_one_round() {
    let database = Database::shared();
    let mut migration = with(&database, "SELECT 1");
    migration.wait("AWAITING_FINALIZATION");
    let mut session = database.connect();
    assert_eq!(rounds(&mut session), "1");
    assert_eq!(
        session.lines(
            "SELECT rows_checked - (SELECT count(*) FROM t), rows_repaired FROM transmute.progress"
        ),
        ["0|0"]
    );
}

#[test]
fn single_other_values_are_found_each_and_mended() {
    let changes = [
        "UPDATE {shadow} SET a = 3 WHERE id = 777",
        "UPDATE {shadow} SET a = NULL WHERE id = 778",
        "UPDATE {shadow} SET b = 'text 780' WHERE id = 779",
        "UPDATE {shadow} SET c = lower(c) WHERE id = 780",
        "UPDATE {shadow} SET d = d + 0.0000000000000001 WHERE id = 781",
        "UPDATE {shadow} SET e = e + '1 microsecond' WHERE id = 782",
        "UPDATE {shadow} SET f = NULL WHERE id = 783",
        "UPDATE {shadow} SET big = big || 'x' WHERE id = 3000",
        "UPDATE {shadow} SET big = overlay(big PLACING 'z' FROM 200) WHERE id = 3100",
    ];
    assert_found_and_mended(&changes.join("; "), changes.len() as i64);
}

#[test]
fn rows_that_are_missing_are_found_and_mended() {
    assert_found_and_mended("DELETE FROM {shadow} WHERE id = 19999", 1);
    assert_found_and_mended("DELETE FROM {shadow} WHERE id BETWEEN 5000 AND 6000", 998);
}

#[test]
fn a_row_that_the_table_does_not_have_keeps_the_migration_from_its_swap() {
    let database = Database::shared();
    let mut migration = with(
        &database,
        "INSERT INTO {shadow} (id, a, b) VALUES (1000000, 1, 'nobody')",
    );
    migration.wait_for("last_error_sqlstate", "XX001");
    assert_eq!(migration.status("state"), "AWAITING_ACTION");
    migration.roll_back();
}
