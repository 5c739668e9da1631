//! The way back of hand-written phases that have finished.

use transmute_tests::{Database, Session};

use super::history::dump;
use crate::phases::{call, people, start, wait, BATCH, DROPS};

/// Takes m back when it has finished, and waits for that.
fn take_back(session: &mut Session) {
    session.exec("SELECT transmute.down('m', 'not so')");
    session.exec("CALL transmute.wait('m:down', timeout => '60 s')");
}

#[test]
fn what_has_finished_goes_back_and_forward_again_with_its_batches() {
    let database = Database::shared();
    let mut session = people(&database, 2500);
    session.exec("CREATE INDEX people_name ON people (name)");
    let before = dump(&database);
    // What the batches write is in a table that the migration has made.
    let additions = "CREATE TABLE person (id int PRIMARY KEY, first text, last text); CREATE INDEX person_last ON person (last)";
    start(
        &mut session,
        &call(
            additions,
            BATCH,
            DROPS,
            "NULL",
            r#"{"idempotency_mode": "manual_exception"}"#,
        ),
    );
    wait(&mut session, "FINISHED");
    let after = dump(&database);
    take_back(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.lines("SELECT count(*), min(name) FROM people"),
        ["2500|Ann1 Doe1"]
    );
    let error = session.error("SELECT transmute.down('m', 'twice')");
    assert_eq!(
        error.hint.as_deref(),
        Some("SELECT transmute.apply('m') makes it so again."),
        "{error:?}"
    );
    // Nobody but apply knows of the batches.
    let error = session.error("SELECT transmute.down('m:down', 'back')");
    assert_eq!(error.sqlstate, "55000", "{error}");
    session.exec("SELECT transmute.apply('m')");
    session.exec("CALL transmute.wait('m:up2', timeout => '60 s')");
    assert_eq!(dump(&database), after);
    assert_eq!(
        session.lines("SELECT count(*), min(first), max(last) FROM person"),
        ["2500|Ann1|Doe999"]
    );
    session.exec("SELECT transmute.down('m', 'once more')");
    session.exec("CALL transmute.wait('m:down2', timeout => '60 s')");
    assert_eq!(dump(&database), before);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn rows_that_batches_have_written_to_what_was_there_go_back_by_what_was_given_for_it() {
    let database = Database::shared();
    let mut session = people(&database, 100);
    session.exec(
        "ALTER TABLE people ADD done boolean; CREATE SCHEMA apart; SET search_path = apart, public",
    );
    let before = dump(&database);
    let additions = "ALTER TABLE people ADD first text";
    let batch = "UPDATE people SET first = split_part(name, ' ', 1), done = true WHERE id IN (SELECT id FROM people WHERE done IS NULL LIMIT $1)";
    let drops = "ALTER TABLE people DROP COLUMN name";
    // Before the columns that it needs go, and behind those that come back; names are those of register.
    let rollback = "'UPDATE people SET done = NULL, name = name || ''!'' WHERE first IS NOT NULL'";
    start(
        &mut session,
        &call(additions, batch, drops, rollback, r#"{"batch_size": 30}"#),
    );
    wait(&mut session, "FINISHED");
    session.exec("RESET search_path");
    take_back(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.lines("SELECT count(*), count(done), min(name) FROM people"),
        ["100|0|Ann1 Doe1!"]
    );
}

#[test]
fn what_batches_have_written_and_nothing_takes_back_is_named_and_stays_where_that_is_allowed() {
    let database = Database::shared();
    let mut session = people(&database, 100);
    session.exec("CREATE TABLE person (id int PRIMARY KEY, first text, last text); ALTER TABLE people ADD done boolean");
    session.exec(
        "CREATE FUNCTION copied(int) RETURNS bigint LANGUAGE sql AS $$
         WITH n AS (INSERT INTO person SELECT id, name, name FROM people p WHERE NOT EXISTS (SELECT FROM person WHERE person.id = p.id) LIMIT $1 RETURNING 1) SELECT count(*) FROM n $$",
    );
    let before = dump(&database);
    let made = "CREATE TABLE kept (id int PRIMARY KEY)";
    let column = "ALTER TABLE people ADD first text";
    let filled = "UPDATE people SET first = split_part(name, ' ', 1) WHERE id IN (SELECT id FROM people WHERE first IS NULL LIMIT $1)";
    for (i, (additions, batch, whole)) in [
        ("", BATCH, false),
        ("", "copied", false),
        (made, "WITH gone AS (UPDATE people SET done = true WHERE done IS NULL RETURNING id) INSERT INTO kept SELECT id FROM gone", false),
        (made, "INSERT INTO kept SELECT id FROM people p WHERE NOT EXISTS (SELECT FROM kept WHERE kept.id = p.id) LIMIT $1 FOR UPDATE", true),
        (column, filled, true),
        (column, &filled.replace("SET first", "SET done = true, first"), false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("'m{i}'");
        let register = call(additions, batch, "", "NULL", r#"{"idempotency_mode": "manual_exception"}"#);
        session.exec(&register.replacen("'m'", &id, 1));
        session.exec(&format!("SELECT transmute.apply({id})"));
        session.exec(&format!("CALL transmute.wait({id}, timeout => '60 s')"));
        if !whole {
            let error = session.error(&format!("SELECT transmute.down({id}, 'not so')"));
            assert_eq!(
                (error.sqlstate.as_str(), error.message.as_str()),
                ("55000", "not all of the migration can be taken back"),
                "{batch}"
            );
            assert!(
                error.detail.as_deref().unwrap_or_default().contains(": rows that its batches have written, for which no rollback was given."),
                "{error:?}"
            );
            assert!(
                error.hint.as_deref().unwrap_or_default().contains("allow_missing_down => true"),
                "{error:?}"
            );
        }
        session.exec(&format!("SELECT transmute.down({id}, 'they may stay', allow_missing_down => {})", !whole));
        session.exec(&format!("CALL transmute.wait('m{i}:down', timeout => '60 s')"));
        assert_eq!(dump(&database), before, "{batch}");
        session.exec("TRUNCATE person; UPDATE people SET done = NULL");
    }
}
