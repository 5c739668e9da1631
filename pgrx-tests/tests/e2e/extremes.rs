//! Expressions that take all of the stack, or of the memory: an error of the row, never a crash of the server.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Database;

use crate::migration::{assert_sound, fingerprint, Migration};

#[test]
fn an_expression_that_takes_all_of_the_stack_or_the_memory_is_an_error_and_no_crash() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 200) AS i;
         CREATE FUNCTION poison(a int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
           RETURN CASE a WHEN 7 THEN poison(a) WHEN 8 THEN repeat('x', a * 134217728) WHEN 9 THEN (1 / (a - 9))::text ELSE a::text END;
         END $$",
    );
    let before = fingerprint(&mut session, "t");
    let started = session.lines("SELECT pg_postmaster_start_time(), min(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    for (id, ddl) in [
        (
            "rewrite",
            "ALTER TABLE t ALTER COLUMN a TYPE text USING poison(a)",
        ),
        ("rows", "UPDATE t SET a = length(poison(a))"),
    ] {
        let mut migration = Migration::start(&database, id, ddl, "{}");
        migration.wait_for("outcome = 'FAILED' OR dead_letters >= 3", "t");
        let letters = session.lines(&format!(
            "SELECT sqlstate FROM transmute.dead_letters WHERE id = '{id}' ORDER BY sqlstate"
        ));
        assert_eq!(
            letters,
            ["22012", "54000", "54001"],
            "{id}: {:?}",
            migration.status("last_error")
        );
        if id == "rewrite" {
            migration.roll_back();
            assert_eq!(fingerprint(&mut session, "t"), before);
        } else {
            // Mended rows are tried again.
            session.exec("UPDATE t SET a = 10 WHERE a IN (7, 8, 9)");
            migration.finish();
        }
    }
    assert_eq!(
        session.lines("SELECT pg_postmaster_start_time(), min(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'"),
        started,
        "the server has not crashed"
    );
    session.wait_for("SELECT count(*) FROM t", "200", PATIENCE);
    assert_sound(&mut session, "t");
}
