//! The way back of a value that an enum of an earlier migration has got.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::history::dump;
use super::{back_and_forth, settle};

fn moods(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA \"Odd one\"; CREATE TYPE \"Odd one\".\"Mood\" AS ENUM ('sad', 'it''s'); CREATE TYPE free AS ENUM ('x'); COMMENT ON TYPE \"Odd one\".\"Mood\" IS 'how it is';
         CREATE TABLE t (id int PRIMARY KEY, m \"Odd one\".\"Mood\" NOT NULL DEFAULT 'it''s', list \"Odd one\".\"Mood\"[] DEFAULT '{sad}', n int, CHECK (m IS NOT NULL));
         CREATE INDEX t_m ON t (m, n); CREATE STATISTICS t_s ON m, n FROM t;
         CREATE TABLE p (k int, m \"Odd one\".\"Mood\") PARTITION BY RANGE (k); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         INSERT INTO t SELECT i, 'sad', '{sad,\"it''s\"}', i FROM generate_series(1, 50) i; INSERT INTO p SELECT i, 'sad' FROM generate_series(1, 9) i",
    );
    session
}

fn migrate(session: &mut Session, id: &str, up: &str, mode: &str) {
    session.query(
        "SELECT transmute.register($2, $1, meta => jsonb_build_object('mode', $3::text))",
        &[&up, &id, &mode],
    );
    session.query(
        "SELECT transmute.apply($1, allow_out_of_order => true)",
        &[&id],
    );
    settle(session);
    session.notices();
}

#[test]
fn a_value_of_an_enum_that_was_there_is_taken_away_again() {
    let database = Database::shared();
    let mut session = moods(&database);
    let before = dump(&database);
    let ups = [
        "ALTER TYPE \"Odd one\".\"Mood\" ADD VALUE 'glad' BEFORE 'it''s'",
        "ALTER TYPE free ADD VALUE IF NOT EXISTS 'y'",
        "ALTER TYPE free ADD VALUE IF NOT EXISTS 'x'; COMMENT ON TYPE free IS 'of its own'",
    ];
    for mode in ["online", "direct"] {
        // What the planner makes so again takes views along.
        if mode == "online" {
            session.exec("CREATE VIEW sad AS SELECT id, m FROM t WHERE m::text = 'sad'");
        }
        let before = match mode {
            "online" => dump(&database),
            _ => before.clone(),
        };
        for (i, up) in ups.iter().enumerate() {
            let id = format!("{mode}{i}");
            migrate(&mut session, &id, up, mode);
            let after = dump(&database);
            back_and_forth(&database, &mut session, &id, &before, &after);
        }
        session.exec("DROP VIEW IF EXISTS sad");
        assert_eq!(
            session.lines("SELECT count(*), sum(n), (SELECT sum(k) FROM p), max(list::text) FROM t WHERE m = 'sad'"),
            ["50|1275|45|{sad,it's}"]
        );
    }
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn a_row_with_the_value_asks_a_person_and_whoever_else_uses_the_enum_is_a_reason_to_refuse() {
    let database = Database::shared();
    let mut session = moods(&database);
    let before = dump(&database);
    let add = "ALTER TYPE \"Odd one\".\"Mood\" ADD VALUE 'glad'";
    migrate(&mut session, "m", add, "direct");
    session.exec("UPDATE t SET m = 'glad' WHERE id = 7; SELECT transmute.down('m', 'too early')");
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status WHERE id = 'm:down'",
        "22P02",
        PATIENCE,
    );
    session.exec(
        "UPDATE t SET m = 'sad' WHERE id = 7; SELECT transmute.resume('m:down', 'it is mended')",
    );
    settle(&mut session);
    assert_eq!(dump(&database), before);

    session.exec("CREATE FUNCTION f(m \"Odd one\".\"Mood\") RETURNS text LANGUAGE sql AS $$ SELECT m::text $$");
    for mode in ["online", "direct"] {
        let add = format!("ALTER TYPE \"Odd one\".\"Mood\" ADD VALUE '{mode}'");
        migrate(&mut session, mode, &add, mode);
        let error = session.error(&format!("SELECT transmute.down('{mode}', 'too early')"));
        assert_eq!(error.sqlstate, "55000", "{error}");
        assert!(
            error.detail.as_deref().unwrap_or_default().contains(
                "more than plain columns of tables uses the enum, of which the server takes no value away"
            ),
            "{error:?}"
        );
        session.exec(&format!(
            "SELECT transmute.down('{mode}', 'it may stay', allow_missing_down => true)"
        ));
        settle(&mut session);
        session.exec(
            "DROP FUNCTION IF EXISTS f; DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT m FROM t",
        );
    }
}
