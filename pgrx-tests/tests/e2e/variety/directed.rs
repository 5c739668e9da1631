//! Tables and statements that were once mistaken for others, each by itself.

use transmute_tests::{Database, Session};

use super::cluster;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b int, at timestamp);
  INSERT INTO t SELECT g, g, nullif(g % 5, 0), timestamp '2024-06-01 12:00' + g * interval '1 hour' FROM generate_series(1, 100) AS g";

fn open<'c>(setup: &[&str]) -> (Database<'c>, Session) {
    let database = Database::create(cluster());
    let mut session = database.connect();
    session.exec(TABLE);
    session.batch(setup);
    (database, session)
}

fn migrate(session: &mut Session, alter: &str) {
    session.exec(&format!("SELECT transmute.migrate($q${alter}$q$, 'm')"));
    session.exec("CALL transmute.wait('m', 'FINISHED', '30 s')");
}

/// `explain` and `register` refuse it alike; the error.
#[track_caller]
fn refused(session: &mut Session, alter: &str, sqlstate: &str) -> String {
    let explained = session.error(&format!("SELECT * FROM transmute.explain($q${alter}$q$)"));
    let registered = session.error(&format!("SELECT transmute.register('m', $q${alter}$q$)"));
    assert_eq!(explained.sqlstate, sqlstate, "{explained}");
    assert_eq!(registered.message, explained.message);
    assert!(session.rows("SELECT FROM transmute.status").is_empty());
    explained.to_string()
}

#[test]
fn a_name_that_the_plain_alter_would_find_taken_is_found_taken() {
    let (_database, mut session) =
        open(&["CREATE TABLE t_token_key ()", "CREATE TABLE t_pkey1 ()"]);
    migrate(
        &mut session,
        "ALTER TABLE t ADD COLUMN token uuid DEFAULT gen_random_uuid() UNIQUE, ADD UNIQUE (a), ADD UNIQUE (b, id)",
    );
    let names = "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'u' ORDER BY 1";
    assert_eq!(
        session.lines(names),
        ["t_a_key", "t_b_id_key", "t_token_key1"]
    );
}

#[test]
fn two_new_indexes_of_one_shape_are_not_mixed_up() {
    let (_database, mut session) = open(&["CREATE TABLE t_a_key ()"]);
    migrate(
        &mut session,
        "ALTER TABLE t ADD CONSTRAINT t_a_key1 UNIQUE (a) DEFERRABLE, ADD UNIQUE (a), ALTER b TYPE bigint",
    );
    session.exec("CREATE EXTENSION amcheck");
    let checked = "SELECT count(bt_index_check(indexrelid, true)::text) FROM pg_index WHERE indrelid = 't'::regclass";
    assert_eq!(session.lines(checked), ["3"]);
}

#[test]
fn a_dropped_column_that_others_need_is_refused_as_by_the_plain_alter() {
    let (_database, mut session) = open(&["CREATE VIEW needs_b AS SELECT b FROM t"]);
    let error = refused(
        &mut session,
        "ALTER TABLE t ALTER a TYPE bigint, DROP COLUMN b",
        "2BP01",
    );
    assert!(error.contains("needs_b"), "{error}");
}

#[test]
fn validating_a_foreign_key_with_the_rewrite_is_refused_by_name() {
    let (_database, mut session) = open(&[
        "CREATE TABLE goal (id int PRIMARY KEY)",
        "ALTER TABLE t ADD CONSTRAINT hope FOREIGN KEY (a) REFERENCES goal NOT VALID",
    ]);
    let error = refused(
        &mut session,
        "ALTER TABLE t ALTER b TYPE bigint, VALIDATE CONSTRAINT hope",
        "0A000",
    );
    assert!(
        error.contains("hope") || error.contains("foreign key"),
        "{error}"
    );
}

#[test]
fn a_row_type_in_an_expression_is_refused_by_name() {
    let (_database, mut session) = open(&[
        "CREATE FUNCTION fine(t) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'",
        "ALTER TABLE t ADD CONSTRAINT whole CHECK (fine(t))",
    ]);
    let error = refused(&mut session, "ALTER TABLE t ALTER a TYPE bigint", "0A000");
    assert!(error.contains("public.t"), "{error}");
}

#[test]
fn an_alter_means_what_it_meant_in_the_session_that_registered_it() {
    let (_database, mut session) = open(&[
        "CREATE TABLE plain AS SELECT * FROM t",
        "ALTER TABLE t ADD day text DEFAULT '01/02/2024'",
        "ALTER TABLE plain ADD day text DEFAULT '01/02/2024'",
        "CREATE SCHEMA near; CREATE FUNCTION near.twice(int) RETURNS bigint LANGUAGE sql AS 'SELECT 2 * $1'",
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET search_path = near, public",
    ]);
    let alter = |table: &str| {
        format!(
            "ALTER TABLE {table} ALTER at TYPE timestamptz, ALTER day DROP DEFAULT, ALTER day TYPE date USING day::date, \
             ALTER a TYPE bigint USING twice(a), ADD made text DEFAULT clock_timestamp()::timestamptz(0)::text"
        )
    };
    session.exec(&alter("plain"));
    session.exec(&format!(
        "SELECT transmute.migrate($q${}$q$, 'm')",
        alter("t")
    ));
    session.exec("CALL transmute.wait('m', 'FINISHED', '30 s')");
    let rows = |table: &str| {
        format!("SELECT id, a, b, at, day, made ~ '^\\d\\d/' FROM {table} ORDER BY id")
    };
    let plain = session.lines(&rows("plain"));
    assert_eq!(session.lines(&rows("t")), plain);
    assert!(plain[0].contains("01/02/2024"), "{}", plain[0]);
}

#[test]
fn a_table_of_many_columns_half_of_them_dropped_is_swapped() {
    let (_database, mut session) = open(&[
        "DO $$ BEGIN
           FOR i IN 1..800 LOOP EXECUTE format('ALTER TABLE t ADD c%s smallint DEFAULT %s', i, i); END LOOP;
           FOR i IN 1..400 LOOP EXECUTE format('ALTER TABLE t DROP c%s', i * 2); END LOOP;
         END $$",
        "INSERT INTO t SELECT g FROM generate_series(200, 220) AS g",
    ]);
    let before = session.lines("SELECT md5(ROW(t.*)::text) FROM t ORDER BY id");
    migrate(&mut session, "ALTER TABLE t ALTER a TYPE bigint");
    assert_eq!(
        session.lines("SELECT md5(ROW(t.*)::text) FROM t ORDER BY id"),
        before
    );
}

#[test]
fn an_empty_table_and_one_of_a_single_row_are_swapped() {
    for rows in ["DELETE FROM t", "DELETE FROM t WHERE id > 1"] {
        let (_database, mut session) = open(&[rows]);
        migrate(
            &mut session,
            "ALTER TABLE t ALTER a TYPE text, ADD made timestamptz DEFAULT clock_timestamp()",
        );
        session.exec("INSERT INTO t (id, a) VALUES (7, 'seven')");
        assert_eq!(
            session.lines("SELECT a FROM t WHERE id = 7 AND made IS NOT NULL"),
            ["seven"]
        );
    }
}
