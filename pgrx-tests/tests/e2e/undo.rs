//! Undo after the end: the old rows follow the new ones for a time, and are swapped back in with all that was written since.

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::{assert_equals_mirror, hot_table};
use crate::migration::{assert_sound, fingerprint, Migration};
use crate::privileges::world;
use crate::surface::{refusal, refused};

pub const KEEP: &str = r#"{"keep_old": "1 hour"}"#;
pub const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
/// What a test on a loaded two-core machine may see.
const HOLD_BUDGET_MS: f64 = 1_000.0;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, note text);
         CREATE INDEX t_a ON t (a);
         INSERT INTO t SELECT i, i, 'n' || i FROM generate_series(1, 2000) AS i",
    );
    session
}

pub fn undo(migration: &mut Migration) {
    migration.call("undo", "'the test says so'");
    migration.wait_for("outcome", "UNDONE");
    migration.wait_for("queued", "f");
}

/// Nothing of ours is left but what is listed as an artifact.
#[track_caller]
pub fn assert_nothing_left(session: &mut Session) {
    assert_eq!(
        session.lines(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_' AND nspname NOT IN
               (SELECT split_part(physical, '.', 1) FROM transmute.artifacts WHERE dropped_at IS NULL)"
        ),
        [] as [&str; 0]
    );
    assert_eq!(
        session.lines("SELECT tgname FROM pg_trigger WHERE tgname LIKE '\\_transmute%'"),
        [] as [&str; 0]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn undo_after_the_end_loses_no_row_and_fails_no_statement() {
    let database = Database::shared();
    let load = Workload::on("t").seed(41);
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let watch = Lockwatch::start(&database, "t");
    let writers = load.start(&database);
    // The load selects all columns, so that the migration may add none.
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint, ALTER COLUMN u TYPE bigint;
         CREATE INDEX t_more ON t (a, id)",
        KEEP,
    );
    migration.finish();
    writers.wait_for_more(1_000, PATIENCE);
    assert_ne!(fingerprint(&mut session, "t"), before);
    assert_eq!(migration.status("undo_left > '50 minutes'"), "true");
    undo(&mut migration);
    writers.wait_for_more(300, PATIENCE);
    let tally = writers.stop();
    tally.assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_eq!(
        session.lines("SELECT detail::json ->> 'identical' FROM transmute.history WHERE event = 'rewrite undone'"),
        ["true"]
    );
    assert_nothing_left(&mut session);
    let report = watch.stop();
    println!(
        "{} statements; ACCESS EXCLUSIVE at most {:.0} ms, longest wait for it {:.0} ms",
        tally.total(),
        report.longest_hold_ms(),
        report.longest_wait_ms()
    );
    report.assert_held_less_than(HOLD_BUDGET_MS);
}

#[test]
fn truncate_after_the_end_is_followed() {
    let database = Database::shared();
    let load = Workload::on("t").seed(42).keys(500).with_truncate();
    let mut session = hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let writers = load.start(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    writers.wait_for_more(1_000, PATIENCE);
    session.exec("TRUNCATE t");
    writers.wait_for_more(200, PATIENCE);
    undo(&mut migration);
    let tally = writers.stop();
    tally.assert_no_failures();
    assert_equals_mirror(&mut session);
    assert_sound(&mut session, "t");
    assert_eq!(fingerprint(&mut session, "t"), before);
}

#[test]
fn tables_that_refer_to_each_other_go_back_together() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id serial PRIMARY KEY, a int);
         CREATE TABLE child (id int PRIMARY KEY, t int NOT NULL REFERENCES t ON DELETE CASCADE, up int REFERENCES child);
         CREATE VIEW both_sides AS SELECT t.id, child.t FROM t JOIN child ON child.t = t.id;
         CREATE MATERIALIZED VIEW shown AS SELECT id, a FROM t; CREATE UNIQUE INDEX ON shown (id);
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := NEW.a; RETURN NEW; END $$;
         CREATE TRIGGER stamp BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
         COMMENT ON TABLE t IS 'commented'; COMMENT ON COLUMN t.a IS 'too';
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id > 0);
         GRANT SELECT ON t TO PUBLIC;
         INSERT INTO t (a) SELECT i FROM generate_series(1, 1000) AS i;
         INSERT INTO child SELECT i, i, i FROM generate_series(1, 1000) AS i;
         REFRESH MATERIALIZED VIEW shown",
    );
    let before = [
        fingerprint(&mut session, "t"),
        fingerprint(&mut session, "child"),
    ];
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN id TYPE bigint, ADD COLUMN extra text DEFAULT clock_timestamp()::text",
        KEEP,
    );
    migration.finish();
    assert_eq!(
        session.lines("SELECT pg_typeof(child.t), pg_typeof(t.id) FROM child JOIN t ON t.id = child.t LIMIT 1"),
        ["bigint|bigint"]
    );
    session.exec(
        "INSERT INTO t (a) VALUES (-1); INSERT INTO child SELECT 5000, id, 7 FROM t WHERE a = -1;
         DELETE FROM t WHERE id = 500; UPDATE t SET a = 17 WHERE id = 17",
    );
    undo(&mut migration);
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE a = -1), max(pg_typeof(id)::text), sum(a) FILTER (WHERE id = 17) FROM t"),
        ["1000|1|integer|17"]
    );
    assert_eq!(
        session.lines("SELECT count(*), max(pg_typeof(t)::text) FROM child"),
        ["1000|integer"]
    );
    assert_eq!(session.lines("SELECT count(*) > 900 FROM shown"), ["t"]);
    let after = [
        fingerprint(&mut session, "t"),
        fingerprint(&mut session, "child"),
    ];
    assert_eq!(after, before);
    assert_eq!(
        session
            .lines("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"),
        ["0"]
    );
    // The serial counts on, in its old type.
    session.exec("INSERT INTO t (a) VALUES (1)");
    for table in ["t", "child"] {
        assert_sound(&mut session, table);
    }
    assert_nothing_left(&mut session);
    assert_eq!(
        migration.refused("undo", "'again'").hint.as_deref(),
        Some("It was undone.")
    );
}

#[test]
fn rows_that_do_not_convert_back_are_seen_and_hold_it_back() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    session.exec("INSERT INTO t VALUES (5000, 5000000000, 'too wide'), (5001, 1, 'fits')");
    migration.wait_for("dead_letters", "1");
    assert_eq!(
        session.lines("SELECT key, sqlstate, message FROM transmute.dead_letters"),
        ["(id)=(5000)|22003|integer out of range"]
    );
    assert_eq!(
        session.lines("SELECT dead_letters, undo_until > now() FROM transmute.artifacts"),
        ["1|t"]
    );
    let error = refusal(&mut session, "SELECT transmute.undo('m', 'x')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "rows were written that do not convert back")
    );
    session.exec("UPDATE t SET a = 5 WHERE id = 5000");
    migration.wait_for("dead_letters", "0");
    undo(&mut migration);
    assert_eq!(
        session.lines("SELECT id, a FROM t WHERE id >= 5000 ORDER BY id"),
        ["5000|5", "5001|1"]
    );
}

#[test]
fn a_row_that_does_not_fit_while_it_is_asked_for_is_waited_for() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    migration.call("pause", "'hold it'");
    migration.call("resume", "'go'");
    // A reader that keeps the lock away.
    let mut reader = database.connect();
    reader.exec("BEGIN; SELECT count(*) FROM t");
    migration.call("undo", "'back'");
    migration.wait_for("waiting_for IS NOT NULL", "t");
    assert_eq!(migration.status("outcome"), "RUNNING");
    session.exec("INSERT INTO t VALUES (5000, 5000000000, 'too wide')");
    migration.wait_for(
        "waiting_for LIKE 'rows were written that do not convert back%'",
        "t",
    );
    reader.exec("COMMIT");
    migration.call("pause", "'wait'");
    session.exec("DELETE FROM t WHERE id = 5000");
    migration.wait_for("dead_letters", "0");
    assert_eq!(migration.status("waiting_for"), "resume: paused, wait");
    assert_eq!(
        migration.refused("undo", "'again'").hint.as_deref(),
        Some("It is being undone.")
    );
    let error = session.error("ALTER TABLE t ADD COLUMN late int");
    assert_eq!(error.sqlstate, "55006", "{error}");
    assert_eq!(
        error.detail.as_deref(),
        Some("ALTER TABLE was refused; the migration is being undone.")
    );
    migration.call("resume", "'go on'");
    migration.wait_for("outcome", "UNDONE");
    assert_eq!(
        session.lines("SELECT pg_typeof(a), count(*) FROM t GROUP BY 1"),
        ["integer|2000"]
    );
}

#[test]
fn what_a_person_changes_meanwhile_is_noticed() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    session.exec("CREATE INDEX by_hand ON t (note)");
    let error = refusal(&mut session, "SELECT transmute.undo('m', 'x')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "the table was changed since the migration ended")
    );
    session.exec("DROP INDEX by_hand; INSERT INTO t VALUES (-1, -1, 'late')");
    undo(&mut migration);
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_eq!(session.lines("SELECT a FROM t WHERE id = -1"), ["-1"]);
}

#[test]
fn when_the_time_is_over_nothing_is_captured_and_the_rows_are_purged() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, r#"{"keep_old": "1500 ms"}"#);
    migration.finish();
    assert_eq!(migration.status("queued"), "true");
    migration.wait_for("queued", "f");
    session.wait_for(
        "SELECT count(*) FROM transmute.artifacts WHERE dropped_at IS NULL",
        "0",
        PATIENCE,
    );
    assert_nothing_left(&mut session);
    assert_eq!(
        session.lines("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        ["0"]
    );
    assert_eq!(migration.status("outcome"), "COMPLETED");
    assert_eq!(migration.refused("undo", "'late'").sqlstate, "55000");
    assert_eq!(
        session.lines("SELECT event FROM transmute.history ORDER BY seq DESC LIMIT 2"),
        ["artifact dropped", "old rows let go"]
    );
}

#[test]
fn another_migration_of_the_table_waits_until_the_old_rows_are_released() {
    let database = Database::shared();
    let mut session = table(&database);
    Migration::register(&database, "next", "ALTER TABLE t ADD COLUMN more int", "{}");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, KEEP);
    migration.finish();
    let error = session
        .error("SELECT transmute.register('x', 'ALTER TABLE t ALTER COLUMN a TYPE numeric')");
    assert_eq!(error.sqlstate, "55006");
    assert!(error.hint.unwrap_or_default().contains("release_old"));
    session.exec("SELECT transmute.apply('next')");
    session.wait_for(
        "SELECT waiting_for LIKE '%keeps the old rows current%' FROM transmute.status WHERE id = 'next'",
        "t",
        PATIENCE,
    );
    migration.call("release_old", "'enough'");
    session.exec("CALL transmute.wait('next', timeout => '60 s')");
    migration.wait_for("queued", "f");
    assert_eq!(migration.refused("undo", "'late'").sqlstate, "55000");
    assert_eq!(
        migration.refused("release_old", "'again'").sqlstate,
        "55000"
    );
    assert_nothing_left(&mut session);
}

#[test]
fn a_way_back_that_is_given_is_the_one_that_is_gone() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprint(&mut session, "t");
    session.exec(
        "SELECT transmute.register('m',
           $$ALTER TABLE t ALTER COLUMN a TYPE text USING 'no. ' || a, ADD CONSTRAINT form CHECK (a LIKE 'no. %');
             CREATE INDEX t_text ON t (note, a)$$,
           down => $$DROP INDEX t_text;
             ALTER TABLE t DROP CONSTRAINT form, ALTER COLUMN a TYPE int USING substr(a, 5)::int$$,
           meta => '{\"keep_old\": \"1 hour\"}');
         SELECT transmute.apply('m')",
    );
    session.exec("CALL transmute.wait('m', timeout => '60 s')");
    session.exec("INSERT INTO t VALUES (9000, 'no. 9', 'x')");
    session.exec("SELECT transmute.undo('m', 'back')");
    session.wait_for("SELECT outcome FROM transmute.status", "UNDONE", PATIENCE);
    assert_eq!(
        session.lines("SELECT id, a FROM t WHERE id IN (1, 9000) ORDER BY id"),
        ["1|1", "9000|9"]
    );
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_sound(&mut session, "t");
}

#[test]
fn what_could_not_be_undone_is_refused_at_register() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE narrow (a int UNIQUE NOT NULL)",
    );
    let to_text = "ALTER TABLE t ALTER COLUMN a TYPE text";
    for (up, down, keep, expected) in [
        (TO_BIGINT, None, "0", "22023: the metadata is not valid"),
        (
            TO_BIGINT,
            None,
            "-1 day",
            "22023: an interval is negative or infinite",
        ),
        (TO_BIGINT, None, "soon", "22023: an interval cannot be read"),
        (TO_BIGINT, None, " ", "22023: the metadata is not valid"),
        (
            to_text,
            None,
            "1 day",
            "0A000: the way back of a statement cannot be derived",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a * 2",
            None,
            "1 day",
            "0A000: the way back of a statement cannot be derived",
        ),
        (
            to_text,
            Some("ALTER TABLE t ALTER COLUMN a TYPE bigint USING a::bigint"),
            "1 day",
            "22023: the way back does not lead to the table as it is",
        ),
        (
            to_text,
            Some("ALTER TABLE t ALTER COLUMN b TYPE int"),
            "1 day",
            "42703: column \"b\" of relation \"t\" does not exist",
        ),
        (
            to_text,
            Some("ALTER TABEL t"),
            "1 day",
            "42601: syntax error at or near \"TABEL\"",
        ),
        (
            to_text,
            Some("DROP TABLE other"),
            "1 day",
            "0A000: a statement of down is not about a table that the script rewrites",
        ),
        (
            to_text,
            Some("ALTER TABLE nowhere ADD COLUMN x int"),
            "1 day",
            "0A000: a statement of down is not about a table that the script rewrites",
        ),
        (
            TO_BIGINT,
            Some("ALTER TABLE other ADD COLUMN x int"),
            "1 day",
            "0A000: down says of a table that is not copied how it gets back",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE bigint, DROP COLUMN note",
            Some("ALTER TABLE t ALTER COLUMN a TYPE int, ADD COLUMN note text"),
            "1 day",
            "22023: the way back does not lead to the table as it is",
        ),
        (
            "ALTER TABLE t ADD COLUMN c int",
            None,
            "1 day",
            "0A000: nothing is kept: the script copies no table, and takes no column or name away",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE bigint; DROP TABLE other",
            None,
            "1 day",
            "0A000: a table that is dropped has no undo: nothing is in its place that writes could be followed from",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE bigint; UPDATE other SET id = -id",
            None,
            "1 day",
            "0A000: a statement cannot be undone after the end",
        ),
        (
            "ALTER TABLE narrow ALTER COLUMN a TYPE numeric",
            Some("ALTER TABLE narrow ALTER COLUMN a TYPE int"),
            "1 day",
            "0A000: the old rows cannot be kept current: no key of the table survives the way back",
        ),
    ] {
        let down = down.map_or("NULL".to_string(), |d| format!("$d${d}$d$"));
        let sql = format!(
            "SELECT transmute.register('new', $up${up}$up$, {down}, jsonb_build_object('keep_old', '{keep}'))"
        );
        assert_eq!(refused(&mut session, &sql), expected, "{up} / {down}");
    }
    for (value, expected) in [
        ("1", "22023: the metadata is not valid"),
        ("true", "22023: the metadata is not valid"),
    ] {
        let sql = format!(
            "SELECT transmute.register('new', '{TO_BIGINT}', NULL, '{{\"keep_old\": {value}}}')"
        );
        assert_eq!(refused(&mut session, &sql), expected);
    }
}

#[test]
fn undo_and_release_are_refused_in_every_other_state_and_for_strangers() {
    let database = Database::shared();
    let mut session = world(&database, &["undo_owner", "undo_stranger"]);
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t OWNER TO undo_owner;
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO undo_owner, undo_stranger",
    );
    let mut owner = database.connect_as("undo_owner");
    owner.exec(&format!(
        "SELECT transmute.register('m', '{TO_BIGINT}', meta => '{{\"keep_old\": \"1 hour\", \"pre_finalization_soak\": \"1 hour\"}}')"
    ));
    let state = |session: &mut Session, state: &str| {
        for verb in ["undo", "release_old"] {
            let error = refusal(session, &format!("SELECT transmute.{verb}('m', 'x')"));
            assert_eq!(error.sqlstate, "55000", "{verb} in {state}: {error}");
            assert_eq!(
                error.detail,
                Some(format!("Migration \"m\" is in state {state}."))
            );
        }
    };
    state(&mut session, "UNINITIALIZED");
    owner.exec("SELECT transmute.apply('m')");
    session.wait_for(
        "SELECT transmute.state('m')",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    state(&mut session, "AWAITING_FINALIZATION");
    owner.exec("SELECT transmute.skip_soak('m', 'enough')");
    session.wait_for("SELECT transmute.state('m')", "FINISHED", PATIENCE);
    let mut stranger = database.connect_as("undo_stranger");
    for verb in ["undo", "release_old"] {
        let error = stranger.error(&format!("SELECT transmute.{verb}('m', 'x')"));
        assert_eq!(error.sqlstate, "42501", "{error}");
    }
    owner.exec("INSERT INTO t VALUES (1, 1); SELECT transmute.undo('m', 'mine')");
    session.wait_for("SELECT outcome FROM transmute.status", "UNDONE", PATIENCE);
    session.wait_for("SELECT queued FROM transmute.status", "f", PATIENCE);
    state(&mut session, "FINISHED");
    assert_eq!(owner.lines("SELECT pg_typeof(a) FROM t"), ["integer"]);
    assert_eq!(
        session.lines(
            "SELECT c.relowner::regrole FROM pg_class c WHERE relname = 't' AND relkind = 'r'"
        ),
        ["undo_owner"; 2]
    );
}
