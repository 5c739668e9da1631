//! Copies in key order, from and to tables and foreign tables: each row once, through a transform or a pipeline, refused ones aside.

use std::io::Write;

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use crate::migration;

pub fn source(database: &Database<'_>, rows: i32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE old (id int PRIMARY KEY, name text, cents text);
         INSERT INTO old SELECT i, 'name ' || i, (i * 100)::text FROM generate_series(1, {rows}) AS i;
         CREATE TABLE new (id bigint PRIMARY KEY, title text, amount numeric, at timestamptz NOT NULL DEFAULT now())"
    ));
    session
}

/// Registers a copy under the id m and applies it; `arguments` follow the id.
pub fn start(session: &mut Session, arguments: &str) {
    session.exec(&format!("SELECT transmute.register_copy('m', {arguments})"));
    session.exec("SELECT transmute.apply('m', confirm => current_database())");
}

pub fn finish(session: &mut Session) {
    session.exec("CALL transmute.wait('m', timeout => '60 s')");
}

#[test]
fn rows_go_through_a_transform_in_the_order_of_the_key() {
    let database = Database::shared();
    let mut session = source(&database, 2500);
    session.exec("ALTER TABLE new ADD n serial");
    start(
        &mut session,
        "'old', 'new', '{id}', 'id, upper(name) AS title, cents::numeric / 100 AS amount', meta => '{\"batch_size\": 300}'",
    );
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE amount = id AND title = 'NAME ' || id AND n = id), count(at) FROM new"),
        ["2500|2500|2500"]
    );
    assert_eq!(
        session.lines("SELECT rows_done, batches, position FROM _transmute.hand_batches"),
        ["2500|9|{2400}"]
    );
    assert_eq!(
        session.lines("SELECT phase, kind, target, sql FROM transmute.plan('m')"),
        ["backfill|copy_rows|public.new|INSERT INTO public.new (id, title, amount) SELECT made.id, made.title, made.amount FROM public.old AS record CROSS JOIN LATERAL (SELECT id, upper(name) AS title, cents::numeric / 100 AS amount) AS made"]
    );
    assert_eq!(
        session.lines("SELECT rows_done, copied FROM transmute.progress"),
        ["2500|1"]
    );
}

#[test]
fn a_query_is_copied_by_a_key_of_several_columns_that_may_repeat() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE a (x int, y text COLLATE \"C\", n int); INSERT INTO a SELECT i % 7, 'it''s \\ ' || i % 13, i FROM generate_series(1, 1000) AS i;
         CREATE TABLE b (x int, y text, n int)",
    );
    start(
        &mut session,
        "'SELECT x, y, n FROM a WHERE n > 10 -- not all', 'b', '{y,x}', meta => '{\"batch_size\": 17}'",
    );
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT n) FROM b"),
        ["990|990"]
    );
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM (SELECT * FROM a WHERE n > 10 EXCEPT ALL SELECT * FROM b) x"
        ),
        ["0"]
    );
}

#[test]
fn refused_rows_stand_aside_and_come_when_they_are_mended() {
    let database = Database::shared();
    let mut session = source(&database, 1000);
    session.exec("UPDATE old SET cents = 'free' WHERE id IN (3, 500, 501, 1000); UPDATE old SET id = 5000 WHERE id = 42; INSERT INTO new VALUES (43, 'there', 1)");
    start(
        &mut session,
        "'old', 'new', '{id}', 'id, name AS title, cents::numeric / 100 AS amount', meta => '{\"batch_size\": 100}'",
    );
    session.wait_for(
        "SELECT state || ' ' || (waiting_for LIKE '5 rows that the target refuses:%') FROM transmute.status",
        "RUNNING true",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT key, sqlstate, status, d.\"row\" ->> 'cents' FROM transmute.dead_letters d ORDER BY dead_letter"),
        [
            "(id)=(3)|22P02|open|free",
            "(id)=(43)|23505|open|4300",
            "(id)=(500)|22P02|open|free",
            "(id)=(501)|22P02|open|free",
            "(id)=(1000)|22P02|open|free"
        ]
    );
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["996"]);
    session.exec("UPDATE old SET cents = '0' WHERE id IN (3, 500); DELETE FROM old WHERE id = 501; SELECT transmute.replay_dead_letters('m')");
    session.wait_for("SELECT dead_letters FROM transmute.status", "2", PATIENCE);
    session.exec("SELECT transmute.discard_dead_letters('m', (SELECT array_agg(dead_letter) FROM transmute.dead_letters WHERE key = '(id)=(43)'), 'it is there')");
    session.exec("SELECT transmute.approve('m', 'never mind', waive_dead_letters => (SELECT array_agg(dead_letter) FROM transmute.dead_letters WHERE status = 'open'))");
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE amount = 0), count(*) FILTER (WHERE id = 1000), max(id) FROM new"),
        ["998|2|0|5000"]
    );
    assert_eq!(
        session.lines("SELECT rows_done FROM transmute.progress"),
        ["997"]
    );
}

#[test]
fn more_refused_rows_than_allowed_ask_a_person_and_the_way_back_is_the_persons() {
    let database = Database::shared();
    let mut session = source(&database, 1000);
    session.exec("UPDATE old SET cents = 'free' WHERE id % 10 = 0");
    start(
        &mut session,
        "'old', 'new', '{id}', 'id, cents::numeric AS amount', rollback => 'DELETE FROM new', meta => '{\"batch_size\": 50, \"max_dead_letters\": 20}'",
    );
    session.wait_for(
        "SELECT state FROM transmute.status",
        "AWAITING_ACTION",
        PATIENCE,
    );
    assert!(session.scalar::<i64>("SELECT count(*) FROM new") < 900);
    session.exec("SELECT transmute.rollback('m', 'too bad')");
    session.exec("CALL transmute.wait('m', 'UNINITIALIZED', '60 s')");
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["0"]);
    assert_eq!(
        session.lines("SELECT DISTINCT status FROM transmute.dead_letters"),
        ["resolved"]
    );
    session.exec("UPDATE old SET cents = '0' WHERE cents = 'free'; SELECT transmute.apply('m')");
    finish(&mut session);
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["1000"]);
}

#[test]
fn a_copy_that_has_finished_goes_back_by_what_was_given_for_it_or_its_rows_are_named() {
    let database = Database::shared();
    let mut session = source(&database, 100);
    let copy = "'old', 'new', '{id}', 'id, name AS title'";
    start(
        &mut session,
        &format!("{copy}, rollback => 'DELETE FROM new'"),
    );
    finish(&mut session);
    session.exec("SELECT transmute.down('m', 'no')");
    session.exec("CALL transmute.wait('m:down', timeout => '60 s')");
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["0"]);
    session.exec("SELECT transmute.apply('m')");
    session.exec("CALL transmute.wait('m:up2', timeout => '60 s')");
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["100"]);
    session.exec("TRUNCATE new");
    session.exec(&format!("SELECT transmute.register_copy('n', {copy})"));
    session.exec("SELECT transmute.apply('n')");
    session.exec("CALL transmute.wait('n', timeout => '60 s')");
    let error = session.error("SELECT transmute.down('n', 'no')");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        ("55000", Some("Migration \"n\": step 1: rows that were copied to public.new, for which no rollback was given."))
    );
    session.exec("SELECT transmute.down('n', 'they may stay', allow_missing_down => true)");
    session.exec("CALL transmute.wait('n:down', timeout => '60 s')");
    assert_eq!(
        session.lines("SELECT id, status FROM transmute.list"),
        ["m|applied", "n|taken back"]
    );
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["100"]);
}

#[test]
fn a_copy_runs_as_its_owner() {
    let database = Database::shared();
    let mut session = source(&database, 10);
    session.exec(
        "CREATE ROLE who_copies; GRANT SELECT ON old TO who_copies; GRANT EXECUTE ON FUNCTION transmute.register_copy, transmute.apply TO who_copies;
         CREATE TABLE seen (who name); CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER AS $$ BEGIN NEW.title := current_user; RETURN NEW; END $$;
         CREATE TRIGGER trap BEFORE INSERT ON new FOR EACH ROW EXECUTE FUNCTION trap(); SET ROLE who_copies",
    );
    let call = "SELECT transmute.register_copy('m', 'old', 'new', '{id}', 'id, name AS title')";
    assert_eq!(session.error(call).sqlstate, "42501");
    session.exec("RESET ROLE; GRANT INSERT ON new TO who_copies; SET ROLE who_copies");
    session.exec(call);
    session.exec("SELECT transmute.apply('m', confirm => current_database()); RESET ROLE");
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT DISTINCT title, count(*) FROM new GROUP BY 1"),
        ["who_copies|10"]
    );
    session.exec("DROP OWNED BY who_copies; DROP ROLE who_copies");
}

/// A second database of the same server, reached through postgres_fdw.
fn loopback(database: &Database<'_>, session: &mut Session, of: &Database<'_>) {
    session.exec(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'postgres')",
        database.cluster().dir().display(),
        of.name()
    ));
}

#[test]
fn foreign_tables_are_source_and_target() {
    let database = Database::shared();
    let other = Database::shared();
    let mut remote = other.connect();
    remote.exec(
        "CREATE TABLE far (id int PRIMARY KEY, name text CHECK (name <> 'bad')); INSERT INTO far SELECT i, 'n' || i FROM generate_series(1, 1000) AS i;
         CREATE TABLE back (id int PRIMARY KEY, name text CHECK (name <> 'bad'))",
    );
    let mut session = database.connect();
    loopback(&database, &mut session, &other);
    session.exec(
        "IMPORT FOREIGN SCHEMA public LIMIT TO (far, back) FROM SERVER remote INTO public;
         CREATE TABLE near (id int PRIMARY KEY, name text)",
    );
    start(
        &mut session,
        "'far', 'near', '{id}', 'id, upper(name) AS name', meta => '{\"batch_size\": 90}'",
    );
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), max(name) FROM near WHERE name = 'N' || id"),
        ["1000|N999"]
    );

    session.exec(
        "UPDATE near SET name = 'bad' WHERE id IN (1, 77); INSERT INTO back VALUES (5, 'there')",
    );
    session.exec("SELECT transmute.register_copy('n', 'near', 'back', '{id}', meta => '{\"batch_size\": 90}')");
    session.exec("SELECT transmute.apply('n', confirm => current_database())");
    session.wait_for(
        "SELECT dead_letters FROM transmute.status WHERE id = 'n'",
        "2",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT key, sqlstate FROM transmute.dead_letters WHERE id = 'n' ORDER BY 1"),
        ["(id)=(1)|23514", "(id)=(77)|23514"]
    );
    session.exec("UPDATE near SET name = 'good' WHERE name = 'bad'; SELECT transmute.replay_dead_letters('n')");
    session.exec("CALL transmute.wait('n', timeout => '60 s')");
    // What was there is left as it was: a foreign target skips it, see the documentation of what a crash may do.
    assert_eq!(
        remote.lines("SELECT count(*), count(*) FILTER (WHERE name = 'good'), count(*) FILTER (WHERE name = 'there') FROM back"),
        ["1000|2|1"]
    );
}

#[test]
fn a_file_is_a_source() {
    let database = Database::shared();
    let mut session = database.connect();
    let path = database
        .cluster()
        .dir()
        .join(format!("{}.csv", database.name()));
    let mut file = std::fs::File::create(&path).expect("a file for the server");
    for i in 1..=500 {
        writeln!(
            file,
            "{i},\"name, {i}\",{}",
            if i == 250 {
                "x".to_string()
            } else {
                i.to_string()
            }
        )
        .expect("written");
    }
    drop(file);
    session.exec(&format!(
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE csv (id int, name text, n text) SERVER files OPTIONS (filename '{}', format 'csv');
         CREATE TABLE t (id int PRIMARY KEY, name text, n int)",
        path.display()
    ));
    start(
        &mut session,
        "'csv', 't', '{id}', 'id, name, n::int AS n', meta => '{\"batch_size\": 60}'",
    );
    session.wait_for("SELECT dead_letters FROM transmute.status", "1", PATIENCE);
    session.exec("SELECT transmute.discard_dead_letters('m', NULL, 'not a number')");
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), sum(n), max(name) FROM t"),
        ["499|125000|name, 99"]
    );
    // Nothing is written to a wrapper that cannot write.
    let error = session.error("SELECT transmute.register_copy('n', 't', 'csv', '{id}', 'id, name, n::text AS n', meta => '{\"on_conflict\": \"error\"}')");
    assert_eq!(error.sqlstate, "0A000", "{error}");
}

/// A wrapper that the machine may not have: where it has not, that is said on the terminal, captured or not.
fn has_wrapper(session: &mut Session, name: &str) -> bool {
    let there = session.lines(&format!(
        "SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'"
    )) == ["1"];
    if !there {
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: no {name} on this server; a copy from and to it is not tested here\n"
        );
    }
    there
}

#[test]
fn sqlite_is_a_source_where_the_machine_has_its_wrapper() {
    let database = Database::shared();
    let mut session = database.connect();
    if !has_wrapper(&mut session, "sqlite_fdw") {
        return;
    }
    // Options of the server, such as database '/tmp/x.db', and a table numbers (id int, name text) behind it.
    let Ok(options) = std::env::var("TRANSMUTE_SQLITE") else {
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: sqlite_fdw is there, and TRANSMUTE_SQLITE says no server to use it with\n"
        );
        return;
    };
    session.exec(&format!(
        "CREATE EXTENSION sqlite_fdw; CREATE SERVER far FOREIGN DATA WRAPPER sqlite_fdw OPTIONS ({options});
         CREATE FOREIGN TABLE numbers (id int, name text) SERVER far OPTIONS (table 'numbers');
         CREATE TABLE copied (id int PRIMARY KEY, name text);
         SELECT transmute.register_copy('m', 'numbers', 'copied', '{{id}}', meta => '{{\"batch_size\": 10}}');
         SELECT transmute.apply('m')"
    ));
    session.exec("CALL transmute.wait('m', timeout => '60 s')");
    assert_eq!(
        session.lines("SELECT count(*) FROM (TABLE numbers EXCEPT ALL TABLE copied) x"),
        ["0"]
    );
}

#[test]
fn rows_without_a_key_are_not_passed_over() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE a (id int, n int); INSERT INTO a VALUES (1, 1), (NULL, 2); CREATE TABLE b (id int, n int)");
    start(&mut session, "'a', 'b', '{id}'");
    session.wait_for(
        "SELECT last_error FROM transmute.status",
        "rows of the source have no key",
        PATIENCE,
    );
    session.exec("UPDATE a SET id = 2 WHERE id IS NULL; SELECT transmute.resume('m', 'mended')");
    finish(&mut session);
    assert_eq!(session.lines("SELECT count(*) FROM b"), ["2"]);
}

#[test]
fn a_copy_can_be_paused_and_rests() {
    let database = Database::shared();
    migration::set(&database, &[("backfill_duty", "10")]);
    let mut session = source(&database, 1000);
    start(
        &mut session,
        "'old', 'new', '{id}', 'id, name AS title', meta => '{\"batch_size\": 2}'",
    );
    session.wait_for(
        "SELECT rows_done > 5 FROM transmute.progress",
        "t",
        PATIENCE,
    );
    session.exec("SELECT transmute.pause('m', 'lunch')");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status",
        "resume: paused, lunch",
        PATIENCE,
    );
    let done: i64 = session.scalar("SELECT rows_done FROM transmute.progress");
    assert!(done < 1000, "{done}");
    assert_eq!(session.scalar::<i64>("SELECT count(*) FROM new"), done);
    session.exec(&format!(
        "ALTER DATABASE {} SET transmute.backfill_duty = 100",
        database.name()
    ));
    session.exec("SELECT transmute.resume('m', 'eaten')");
    finish(&mut session);
    assert_eq!(session.lines("SELECT count(*) FROM new"), ["1000"]);
}

#[test]
fn bad_copies_are_refused_and_leave_nothing() {
    let database = Database::shared();
    let mut session = source(&database, 10);
    session.exec("CREATE VIEW v AS TABLE new; CREATE SEQUENCE s; CREATE TABLE made (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)");
    let everything = "SELECT (SELECT count(*) FROM _transmute.migrations), (SELECT count(*) FROM _transmute.steps), (SELECT count(*) FROM _transmute.audit_events), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM new)";
    let before = session.lines(everything);
    for (arguments, expected) in [
        ("NULL, 'old', 'new', '{id}'", "22023: id is NULL"),
        ("'', 'old', 'new', '{id}'", "22023: the id is empty"),
        ("'m', NULL, 'new', '{id}'", "22023: source is NULL"),
        ("'m', 'old', NULL, '{id}'", "22023: target is NULL"),
        ("'m', 'old', 'new', NULL", "22023: key is NULL"),
        (
            "'m', 'old', 'new', '{}'",
            "22023: key is not a list of columns of the source",
        ),
        (
            "'m', 'old', 'new', '{NULL}'",
            "22023: a column of key is NULL",
        ),
        (
            "'m', 'old', 'new', '{nobody}'",
            "22023: key is not a list of columns of the source",
        ),
        (
            "'m', 'old', 'new', '{id,id}'",
            "22023: key is not a list of columns of the source",
        ),
        (
            "'m', 'nobody', 'new', '{id}'",
            "42P01: relation does not exist",
        ),
        (
            "'m', '', 'new', '{id}'",
            "22023: source is neither a query nor a table",
        ),
        (
            "'m', 'DELETE FROM old RETURNING id', 'new', '{id}'",
            "22023: source is neither a query nor a table",
        ),
        (
            "'m', 'SELECT 1; SELECT 2', 'new', '{id}'",
            "22023: source is neither a query nor a table",
        ),
        (
            "'m', 'SELECT nobody FROM old', 'new', '{id}'",
            "42703: column \"nobody\" does not exist",
        ),
        (
            "'m', 's', 'new', '{id}'",
            "42809: source is no table that a copy can use",
        ),
        (
            "'m', 'old', 'nobody', '{id}'",
            "42P01: relation does not exist",
        ),
        (
            "'m', 'old', 'v', '{id}'",
            "42809: target is no table that a copy can use",
        ),
        (
            "'m', 'old', 'pg_class', '{id}'",
            "42809: target is no table that a copy can use",
        ),
        (
            "'m', 'old', 'new', '{id}'",
            "22023: the target has not all columns of what is copied",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id, nobody AS title'",
            "42703: column \"nobody\" does not exist",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id, name'",
            "22023: the target has not all columns of what is copied",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id, name AS amount'",
            "42804: column \"amount\" is of type numeric but expression is of type text",
        ),
        (
            "'m', 'old', 'made', '{id}', 'id, id AS twice'",
            "428C9: cannot insert a non-DEFAULT value into column \"twice\"",
        ),
        (
            "'m', 'old', 'new', '{id}', ''",
            "22023: transform is not a select list",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id; DELETE FROM old'",
            "22023: transform is not a select list",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id) AS x, (SELECT 1'",
            "42601: syntax error at or near \")\"",
        ),
        (
            "'m', 'old', 'new', '{id}', pipeline => '{}'",
            "22023: a pipeline is a list of stages",
        ),
        (
            "'m', 'old', 'new', '{id}', pipeline => '[{\"convert\": {\"id\": \"nobody\"}}]'",
            "22023: unknown type in a pipeline",
        ),
        (
            "'m', 'old', 'new', '{id}', pipeline => '[{\"rename\": {\"name\": \"title\"}}]'",
            "22023: the target has not all columns of what is copied",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id', rollback => ''",
            "22023: rollback is not a script that can take the batches back",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id', meta => NULL",
            "22023: meta is NULL",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id', meta => '{\"batch_size\": 0}'",
            "22023: the metadata is not valid",
        ),
        (
            "'m', 'old', 'new', '{id}', 'id', meta => '{\"on_conflict\": \"update\"}'",
            "22023: the metadata is not valid",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.register_copy({arguments})"));
        assert_eq!(
            format!("{}: {}", error.sqlstate, error.message),
            expected,
            "{arguments}"
        );
        assert_eq!(session.lines(everything), before, "{arguments}");
    }
}
