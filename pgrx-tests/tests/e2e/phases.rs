//! Hand-written phases: additions and drops through the planner, batches of a person's own between them, and the way back.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, DbError, Session};

use crate::migration::{self, fingerprint, Migration};

const ADDITIONS: &str =
    "CREATE TABLE IF NOT EXISTS person (id int PRIMARY KEY, first text, last text);
    CREATE INDEX IF NOT EXISTS person_last ON person (last)";
pub const BATCH: &str =
    "WITH next AS (SELECT id, name FROM people p WHERE NOT EXISTS (SELECT FROM person WHERE person.id = p.id) ORDER BY id LIMIT $1)
     INSERT INTO person SELECT id, split_part(name, ' ', 1), split_part(name, ' ', 2) FROM next";
pub const DROPS: &str = "DROP TABLE people";
const NO_SOAK: &str = "{}";

pub fn people(database: &Database<'_>, rows: i32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE people (id int PRIMARY KEY, name text);
         INSERT INTO people SELECT i, 'Ann' || i || ' Doe' || i FROM generate_series(1, {rows}) AS i"
    ));
    session
}

pub fn call(additions: &str, batch: &str, drops: &str, rollback: &str, meta: &str) -> String {
    format!("SELECT transmute.register_phases('m', $a${additions}$a$, $a${batch}$a$, $a${drops}$a$, {rollback}, $a${meta}$a$)")
}

/// Registers and applies; the migration has the id m.
pub fn start(session: &mut Session, call: &str) {
    session.exec(call);
    session.exec("SELECT transmute.apply('m', confirm => current_database())");
}

pub fn wait(session: &mut Session, state: &str) {
    session.exec(&format!("CALL transmute.wait('m', '{state}', '60 s')"));
}

#[test]
fn additions_batches_and_drops_run_in_their_phases() {
    let database = Database::shared();
    let mut session = people(&database, 2500);
    start(
        &mut session,
        &call(
            ADDITIONS,
            BATCH,
            DROPS,
            "'DELETE FROM person'",
            r#"{"required_approvals": 1}"#,
        ),
    );
    wait(&mut session, "AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT step, phase, kind, sql FROM transmute.plan('m')"),
        [
            "1|expand|change|CREATE TABLE IF NOT EXISTS person (id int PRIMARY KEY, first text, last text)".to_string(),
            "2|expand|execute|CREATE INDEX IF NOT EXISTS person_last ON person (last)".into(),
            format!("3|backfill|hand_batch|{BATCH}"),
            "4|contract|hide_table|DROP TABLE public.people".into(),
        ]
    );
    assert_eq!(
        session.lines("SELECT rows_done, step, copied FROM transmute.progress"),
        ["2500|3|1"]
    );
    assert_eq!(
        session.lines("SELECT batches FROM _transmute.hand_batches"),
        ["4"]
    );
    assert_eq!(
        session.lines("SELECT count(*), min(first), max(last) FROM person"),
        ["2500|Ann1|Doe999"]
    );
    session.exec("SELECT transmute.approve('m', 'seen')");
    wait(&mut session, "FINISHED");
    assert_eq!(session.lines("SELECT to_regclass('people')"), ["∅"]);
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn the_way_back_is_the_persons_and_then_the_planners() {
    let database = Database::shared();
    let mut session = people(&database, 100);
    session.exec("ALTER TABLE people ADD done boolean");
    let before = fingerprint(&mut session, "people");
    let additions = "ALTER TABLE people ADD first text";
    let batch = "UPDATE people SET first = split_part(name, ' ', 1), done = true WHERE id IN (SELECT id FROM people WHERE done IS NULL LIMIT $1)";
    let register = call(
        additions,
        batch,
        "ALTER TABLE people DROP COLUMN name",
        "'UPDATE people SET done = NULL WHERE first IS NOT NULL'",
        r#"{"required_approvals": 1, "batch_size": 30}"#,
    );
    start(&mut session, &register);
    wait(&mut session, "AWAITING_FINALIZATION");
    assert_eq!(
        session
            .lines("SELECT count(*) FROM people WHERE done AND first = split_part(name, ' ', 1)"),
        ["100"]
    );
    session.exec("SELECT transmute.rollback('m', 'not so')");
    wait(&mut session, "UNINITIALIZED");
    assert_eq!(
        session.lines("SELECT count(*), count(done) FROM people"),
        ["100|0"]
    );
    assert_eq!(fingerprint(&mut session, "people"), before);
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.progress"),
        ["0"]
    );
    // And once more, forward.
    session.exec("SELECT transmute.apply('m')");
    wait(&mut session, "AWAITING_FINALIZATION");
    session.exec("SELECT transmute.approve('m', 'so')");
    wait(&mut session, "FINISHED");
    assert_eq!(session.lines("SELECT count(first) FROM people"), ["100"]);
}

#[test]
fn a_batch_is_a_function_that_says_how_many_or_whether_more() {
    let database = Database::shared();
    let mut session = people(&database, 25);
    session.exec(
        "CREATE TABLE log (n int, who name, path text);
         CREATE FUNCTION some_rows(n int) RETURNS bigint LANGUAGE plpgsql AS $$
         DECLARE done bigint; BEGIN
           WITH gone AS (DELETE FROM people WHERE id IN (SELECT id FROM people ORDER BY id LIMIT n) RETURNING 1) SELECT count(*) INTO done FROM gone;
           IF done > 0 THEN INSERT INTO log VALUES (done, current_user, current_setting('search_path')); END IF;
           RETURN done; END $$;
         CREATE FUNCTION more_rows(n bigint) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN DELETE FROM people WHERE id IN (SELECT id FROM people ORDER BY id LIMIT n); RETURN EXISTS (SELECT FROM people); END $$;
         CREATE SCHEMA \"other one\"; CREATE FUNCTION \"other one\".\"f(x\"(int) RETURNS int LANGUAGE sql AS 'SELECT 0'",
    );
    for (batch, batches) in [
        ("some_rows", "4"),
        ("public.some_rows(integer)", "4"),
        ("more_rows", "3"),
        (" more_rows ( BIGINT ) ", "3"),
        ("\"other one\".\"f(x\"", "1"),
        ("SELECT some_rows($1)", "4"),
        (
            "DELETE FROM people WHERE id IN (SELECT id FROM people LIMIT $1)",
            "4",
        ),
    ] {
        session.exec("TRUNCATE people, log; INSERT INTO people SELECT i, 'x' FROM generate_series(1, 25) AS i");
        session.exec("DELETE FROM _transmute.migrations");
        start(
            &mut session,
            &call(
                "",
                batch,
                "",
                "NULL",
                r#"{"batch_size": 10, "idempotency_mode": "strict"}"#,
            ),
        );
        wait(&mut session, "FINISHED");
        assert_eq!(
            session.lines("SELECT batches, finished_at IS NOT NULL FROM _transmute.hand_batches"),
            [format!("{batches}|t")],
            "{batch}"
        );
    }
}

#[test]
fn a_batch_runs_as_the_owner_restricted_and_in_a_transaction_of_its_own() {
    let database = Database::shared();
    let mut session = people(&database, 10);
    let role = "who_writes_batches";
    session.exec(&format!(
        "CREATE ROLE {0}; GRANT CREATE, USAGE ON SCHEMA public TO {0}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA transmute TO {0};
         CREATE TABLE log (xid xid8, who name); GRANT ALL ON log, people TO {0}",
        role
    ));
    session.exec(&format!("SET ROLE \"{role}\""));
    session.exec(
        "CREATE FUNCTION public.one(n int) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN
           DELETE FROM people WHERE id = (SELECT min(id) FROM people);
           IF NOT FOUND THEN RETURN 0; END IF;
           INSERT INTO log VALUES (pg_current_xact_id(), current_user);
           BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; RAISE 'not restricted'; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
           RETURN 1; END $$",
    );
    session.exec(&call(
        "",
        "one",
        "",
        "NULL",
        r#"{"idempotency_mode": "manual_exception"}"#,
    ));
    session.exec("SELECT transmute.apply('m', confirm => current_database())");
    session.exec("RESET ROLE");
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT xid), min(who) FROM log"),
        [format!("10|10|{role}")]
    );
    session.exec(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""));
}

#[test]
fn a_batch_that_fails_waits_for_a_person_and_goes_on_where_it_was() {
    let database = Database::shared();
    let mut session = people(&database, 100);
    session.exec("UPDATE people SET name = NULL WHERE id = 75; CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL)");
    let batch = "INSERT INTO person SELECT id, name FROM people p WHERE NOT EXISTS (SELECT FROM person WHERE person.id = p.id) ORDER BY id LIMIT $1";
    start(
        &mut session,
        &call(
            "",
            batch,
            "",
            "NULL",
            r#"{"batch_size": 10, "idempotency_mode": "manual_exception"}"#,
        ),
    );
    session.wait_for(
        "SELECT state || last_error_sqlstate FROM transmute.status",
        "AWAITING_ACTION23502",
        PATIENCE,
    );
    assert_eq!(session.lines("SELECT count(*) FROM person"), ["70"]);
    session
        .exec("UPDATE people SET name = 'x' WHERE id = 75; SELECT transmute.resume('m', 'mended')");
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT rows_done, batches FROM _transmute.hand_batches"),
        ["100|11"]
    );
}

#[test]
fn batches_rest_between_each_other_and_can_be_paused() {
    let database = Database::shared();
    migration::set(&database, &[("backfill_duty", "20")]);
    let mut session = people(&database, 400);
    start(
        &mut session,
        &call(
            "CREATE TABLE person (id int PRIMARY KEY, first text, last text)",
            BATCH,
            "",
            "NULL",
            r#"{"batch_size": 1, "idempotency_mode": "manual_exception"}"#,
        ),
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
    assert!(done < 400, "{done}");
    assert_eq!(session.scalar::<i64>("SELECT count(*) FROM person"), done);
    session.exec("SELECT transmute.resume('m', 'eaten')");
    wait(&mut session, "FINISHED");
    let busy: f64 = session.scalar("SELECT busy_ms FROM _transmute.hand_batches");
    let took: f64 = session.scalar(
        "SELECT extract(epoch FROM finished_at - started_at)::float8 * 1000 FROM transmute.status",
    );
    assert!(took > busy * 3.0, "{busy} ms busy in {took} ms");
}

#[test]
fn what_is_not_idempotent_is_refused_or_warned_of_or_left_alone() {
    let database = Database::shared();
    let mut session = people(&database, 10);
    let mut said =
        |additions: &str, batch: &str, drops: &str, mode: &str| -> Result<Vec<String>, DbError> {
            session.notices();
            let sql = call(
                additions,
                batch,
                drops,
                "NULL",
                &format!(r#"{{"idempotency_mode": "{mode}"}}"#),
            );
            session.try_exec("BEGIN")?;
            let done = session.try_exec(&sql);
            session.try_exec("ROLLBACK")?;
            done.map(|()| session.notices())
        };
    let table = "CREATE TABLE person (id int PRIMARY KEY, first text, last text)";
    let twice = "UPDATE people SET name = name || 'x' WHERE id IN (SELECT id FROM people LIMIT $1) RETURNING false";
    let select = "SELECT 0 FROM (SELECT count(*) FROM people) x";
    for (additions, batch, drops, fault) in [
        (table, BATCH, "", "the second time CREATE TABLE person"),
        ("COMMENT ON TABLE people IS 'same'; CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", select, "", ""),
        (ADDITIONS, BATCH, "", ""),
        ("", "WITH u AS (UPDATE people SET name = name RETURNING 1) SELECT false", "", "behind the last batch another one changes rows"),
        ("", select, "CREATE SEQUENCE s", "the second time CREATE SEQUENCE s"),
        ("", select, "CREATE SEQUENCE IF NOT EXISTS s", ""),
    ] {
        let strict = said(additions, batch, drops, "strict");
        let warned = said(additions, batch, drops, "best_effort").expect("only warned of").join(" ");
        assert_eq!(said(additions, batch, drops, "manual_exception").expect("not tried"), [""; 0]);
        match fault {
            "" => {
                strict.unwrap_or_else(|e| panic!("{additions} {batch} {drops}: {e}"));
                assert_eq!(warned, "", "{additions} {batch} {drops}");
            }
            fault => {
                let error = strict.expect_err(fault);
                assert_eq!((error.sqlstate.as_str(), error.message.as_str()), ("55000", "a phase is not the same when it is run twice"));
                assert!(error.detail.clone().unwrap_or_default().contains(fault), "{error}");
                assert!(warned.contains(fault), "{warned}");
            }
        }
    }
    // What cannot run even once is wrong in any mode that tries it.
    assert_eq!(
        said("", "SELECT nobody($1)", "", "best_effort")
            .unwrap_err()
            .sqlstate,
        "42883"
    );
    assert_eq!(
        said("", twice, "", "best_effort")
            .map(|n| n.len())
            .unwrap_or(0),
        0
    );
    assert_eq!(
        session.lines("SELECT count(*), max(name) FROM people"),
        ["10|Ann9 Doe9"]
    );
}

#[test]
fn a_syntax_error_names_the_argument_and_the_place_in_it() {
    let database = Database::shared();
    let mut session = people(&database, 10);
    for (call, place) in [
        (
            call("COMMENT\nON x", "SELECT 0", "", "NULL", "{}"),
            "In line 2, column 4 of schema_additions.",
        ),
        (
            call("", "DELETE people {n}", "", "NULL", "{}"),
            "In line 1, column 8 of migrate_batch.",
        ),
        (
            call("", "SELECT 0", "DROP people", "NULL", "{}"),
            "In line 1, column 6 of schema_drops.",
        ),
        (
            call("", "SELECT 0", "", "'SELECT 1; SELEKT'", "{}"),
            "In line 1, column 11 of rollback.",
        ),
        (
            "SELECT transmute.register_copy('m', 'people', 'people', '{id}', 'id) AS x')".into(),
            "In line 1, column 3 of transform.",
        ),
    ] {
        let error = session.error(&call);
        assert_eq!(error.sqlstate, "42601", "{call}: {error}");
        assert_eq!(error.detail.as_deref(), Some(place), "{call}");
    }
}

#[test]
fn bad_phases_are_refused_and_leave_nothing() {
    let database = Database::shared();
    let mut session = people(&database, 10);
    session.exec("CREATE TABLE big (id int PRIMARY KEY, a int); INSERT INTO big VALUES (1, 1)");
    let register = |additions: &str, batch: &str, drops: &str, rollback: &str, meta: &str| {
        call(additions, batch, drops, rollback, meta)
    };
    let cases: Vec<(String, &str)> = vec![
        (
            "SELECT transmute.register_phases(NULL, '', 'SELECT 0', '')".into(),
            "22023: id is NULL",
        ),
        (
            "SELECT transmute.register_phases('', '', 'SELECT 0', '')".into(),
            "22023: the id is empty",
        ),
        (
            "SELECT transmute.register_phases('m', '', NULL, '')".into(),
            "22023: migrate_batch is NULL",
        ),
        (
            "SELECT transmute.register_phases('m', '', 'SELECT 0', '', NULL, NULL)".into(),
            "22023: meta is NULL",
        ),
        (
            register("", "", "", "NULL", "{}"),
            "22023: migrate_batch is not one batch",
        ),
        (
            register("", "SELECT 0; SELECT 1", "", "NULL", "{}"),
            "22023: migrate_batch is not one batch",
        ),
        (
            register("", "CREATE TABLE x ()", "", "NULL", "{}"),
            "22023: migrate_batch is not one batch",
        ),
        (
            register("", "TRUNCATE people", "", "NULL", "{}"),
            "22023: migrate_batch is not one batch",
        ),
        (
            register("", "COMMIT", "", "NULL", "{}"),
            "22023: migrate_batch is not one batch",
        ),
        (
            register("", "SELEKT", "", "NULL", "{}"),
            "42883: function selekt(integer) does not exist",
        ),
        (
            register("", "f(text)", "", "NULL", "{}"),
            "42601: syntax error at or near \"f\"",
        ),
        (
            register("", "SELECT 'x'::text", "", "NULL", "{}"),
            "22023: a batch does not say how many rows it has done, or whether more remain",
        ),
        (
            register("", "SELECT -1", "", "NULL", "{}"),
            "22023: a batch does not say how many rows it has done, or whether more remain",
        ),
        (
            register("", "SELECT 0, 1", "", "NULL", "{}"),
            "22023: a batch does not say how many rows it has done, or whether more remain",
        ),
        (
            register("", "SELECT generate_series(1, 2)", "", "NULL", "{}"),
            "22023: a batch does not say how many rows it has done, or whether more remain",
        ),
        (
            register("", "SELECT $2", "", "NULL", "{}"),
            "42P02: there is no parameter $2",
        ),
        (
            register("", "SELECT 0", "", "''", "{}"),
            "22023: rollback is not a script that can take the batches back",
        ),
        (
            register("", "SELECT 0", "", "'SELECT 1; COMMIT'", "{}"),
            "22023: rollback is not a script that can take the batches back",
        ),
        (
            register("", "SELECT 0", "", "'SELEKT'", "{}"),
            "42601: syntax error at or near \"SELEKT\"",
        ),
        (
            register("DROP TABLE people", "SELECT 0", "", "NULL", "{}"),
            "22023: schema_additions may only add",
        ),
        (
            register(
                "ALTER TABLE big ALTER a TYPE bigint",
                "SELECT 0",
                "",
                "NULL",
                "{}",
            ),
            "22023: schema_additions may only add",
        ),
        (
            register(
                "",
                "SELECT 0",
                "ALTER TABLE big ALTER a TYPE bigint",
                "NULL",
                "{}",
            ),
            "0A000: a rewrite, or a rename, has work at the start, and is no drop",
        ),
        (
            register(
                "",
                "SELECT 0",
                "ALTER TABLE big RENAME TO small",
                "NULL",
                "{}",
            ),
            "0A000: a rewrite, or a rename, has work at the start, and is no drop",
        ),
        (
            register("ALTER TABLE nobody ADD a int", "SELECT 0", "", "NULL", "{}"),
            "42P01: relation does not exist",
        ),
        (
            register("", "SELECT 0", "DROP TABLE nobody", "NULL", "{}"),
            "42P01: relation does not exist",
        ),
        (
            register("", "SELECT 0", "", "NULL", r#"{"batch_size": 0}"#),
            "22023: the metadata is not valid",
        ),
        (
            register("", "SELECT 0", "", "NULL", r#"{"batch_size": 1000001}"#),
            "22023: the metadata is not valid",
        ),
        (
            register("", "SELECT 0", "", "NULL", r#"{"batch_size": "1"}"#),
            "22023: the metadata is not valid",
        ),
        (
            register("", "SELECT 0", "", "NULL", r#"{"idempotency_mode": "lax"}"#),
            "22023: the metadata is not valid",
        ),
        (
            register("", "SELECT 0", "", "NULL", r#"{"keep_old": "1 day"}"#),
            "0A000: rows that a person's own batches have written are not kept the other way round",
        ),
    ];
    let everything = "SELECT (SELECT count(*) FROM _transmute.migrations), (SELECT count(*) FROM _transmute.steps), (SELECT count(*) FROM _transmute.audit_events), (SELECT count(*) FROM pg_class)";
    let before = session.lines(everything);
    for (sql, expected) in cases {
        let error = session.error(&sql);
        assert_eq!(
            format!("{}: {}", error.sqlstate, error.message),
            expected,
            "{sql}"
        );
        assert_eq!(session.lines(everything), before, "{sql}");
    }
    session.exec(&call("", "SELECT 0", "", "NULL", NO_SOAK));
    assert_eq!(
        session
            .error(&call("", "SELECT 0", "", "NULL", NO_SOAK))
            .sqlstate,
        "42710"
    );
    let mut registered =
        Migration::register(&database, "other", "COMMENT ON TABLE big IS NULL", "{}");
    registered.apply();
    assert_eq!(
        session
            .error("SELECT transmute.amend('m', 'SELECT 1', 'x')")
            .sqlstate,
        "0A000"
    );
}
