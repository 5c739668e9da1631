//! A value is taken away from an enum: by the usual scripts of several statements, under load.

use transmute_tests::pgbench::Pgbench;
use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, fingerprint, Migration};

const HELD: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn create(session: &mut Session) {
    session.exec(
        "CREATE TYPE mood AS ENUM ('sad', 'glad', 'meh');
         CREATE TABLE t (id int PRIMARY KEY, m mood NOT NULL DEFAULT 'sad', n int DEFAULT 0);
         CREATE INDEX ON t (m);
         INSERT INTO t SELECT i, CASE i % 2 WHEN 0 THEN 'sad' ELSE 'glad' END::mood FROM generate_series(1, 20000) AS i;
         UPDATE t SET m = 'meh' WHERE id = 777;
         ANALYZE t",
    );
}

/// Rolls back from the soak, then goes through, with a row that still has the value.
fn take_away(script: &str) {
    let database = Database::shared();
    let mut session = database.connect();
    create(&mut session);
    let before = fingerprint(&mut session, "t");
    let mut load = Pgbench::new(&database)
        .clients(2)
        .rate(200)
        .script(
            "\\set id random(1000, 20000)
UPDATE t SET n = n + 1, m = 'glad' WHERE id = :id;
",
        )
        .start();
    load.wait_running();
    let mut migration = Migration::start(&database, "m", script, HELD);
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_eq!(
        session.lines("SELECT typname, enum_range(NULL::mood) FROM pg_type WHERE typname LIKE 'mood%' AND typtype = 'e' AND typnamespace = 'public'::regnamespace"),
        ["mood|{sad,glad,meh}"]
    );
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.wait_for("waiting_for LIKE '1 dead letter open%'", "t");
    session.exec("UPDATE t SET m = 'sad' WHERE id = 777");
    migration.finish();
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{:?}", report.errors);
    assert_eq!(
        session.lines("SELECT typname, enum_range(NULL::mood) FROM pg_type WHERE typname LIKE 'mood%' AND typtype = 'e' AND typnamespace = 'public'::regnamespace"),
        ["mood|{sad,glad}"]
    );
    assert_eq!(
        session.lines("SELECT count(*), pg_typeof(max(m)) FROM t"),
        ["20000|mood"]
    );
    session.exec("INSERT INTO t (id) VALUES (0)");
    assert_eq!(session.lines("SELECT m FROM t WHERE id = 0"), ["sad"]);
    assert_eq!(session.error("UPDATE t SET m = 'meh'").sqlstate, "22P02");
    // The old rows are kept with the type that they are of, and go with it.
    let kept: String =
        session.scalar("SELECT physical FROM transmute.artifacts WHERE dropped_at IS NULL");
    assert_eq!(
        session
            .lines(&format!(
                "SELECT count(*) FROM {kept} WHERE m::text = 'sad'"
            ))
            .len(),
        1
    );
    assert_sound(&mut session, "t");
}

#[test]
fn a_value_goes_with_a_new_type_that_takes_the_name_at_the_end() {
    take_away(
        "CREATE TYPE mood_new AS ENUM ('sad', 'glad');
         ALTER TABLE t ALTER m DROP DEFAULT, ALTER m TYPE mood_new USING m::text::mood_new, ALTER m SET DEFAULT 'sad';
         DROP TYPE mood;
         ALTER TYPE mood_new RENAME TO mood",
    );
}

#[test]
fn a_value_goes_with_a_new_type_under_the_old_name() {
    take_away(
        "ALTER TYPE mood RENAME TO mood_old;
         CREATE TYPE mood AS ENUM ('sad', 'glad');
         ALTER TABLE t ALTER m DROP DEFAULT, ALTER m TYPE mood USING m::text::mood, ALTER m SET DEFAULT 'sad';
         DROP TYPE mood_old",
    );
}

#[test]
fn a_value_gets_another_name_and_its_old_one_back() {
    let database = Database::shared();
    let mut session = database.connect();
    create(&mut session);
    let script =
        "ALTER TYPE mood RENAME VALUE 'meh' TO 'so ''so'''; ALTER TABLE t ALTER n TYPE bigint";
    let mut migration = Migration::start(&database, "m", script, HELD);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(session.lines("SELECT m FROM t WHERE id = 777"), ["so 'so'"]);
    migration.roll_back();
    assert_eq!(session.lines("SELECT m FROM t WHERE id = 777"), ["meh"]);
    let error = session
        .error("SELECT transmute.register('n', $$ALTER TYPE mood RENAME VALUE 'none' TO 'x'$$)");
    assert_eq!(error.sqlstate, "22023");
}
