//! Every call in every state: what docs/calls.md says is what happens.

use transmute_tests::tools::project_root;
use transmute_tests::{Cluster, Database, Session};

/// Columns of `_transmute.migrations` of a migration that is there.
fn columns(place: &str) -> String {
    let (state, more) = place.split_once(", ").unwrap_or((place, ""));
    let queued = more == "applied" || !["UNINITIALIZED", "FINISHED"].contains(&state);
    let mut columns = format!("state = '{state}', queued = {queued}");
    match more {
        "paused" => columns += ", paused_reason = 'x'",
        "failed" => {
            columns +=
                ", last_error = 'x', last_error_sqlstate = '22012', next_attempt_at = 'infinity'"
        }
        "" | "applied" => {}
        other => panic!("{other}?"),
    }
    if state == "AWAITING_ACTION" {
        columns +=
            ", last_error = 'x', last_error_sqlstate = '22012', next_attempt_at = 'infinity'";
    }
    if state == "ROLLING_BACK" {
        columns += ", rollback_reason = 'x'";
    }
    columns
}

/// Tells how a call ended without keeping what it did.
#[track_caller]
fn answer(session: &mut Session, place: &str, call: &str) -> String {
    session.exec(&format!(
        "BEGIN; UPDATE _transmute.migrations SET {}",
        columns(place)
    ));
    let arguments = match call {
        "apply" => "",
        "discard_dead_letters" => ", NULL, 'because'",
        _ => ", 'because'",
    };
    let result = session.try_exec(&format!("SELECT transmute.{call}('m'{arguments})"));
    session.exec("ROLLBACK");
    match result {
        Ok(()) => "yes".into(),
        Err(error) => {
            let state = place.split(',').next().unwrap_or_default();
            assert_eq!(error.sqlstate, "55000", "{place}, {call}: {error}");
            assert_eq!(
                error.message,
                format!("the state of the migration does not allow {call}"),
                "{place}"
            );
            assert_eq!(
                error.detail,
                Some(format!("Migration \"m\" is in state {state}.")),
                "{place}, {call}"
            );
            assert!(error.hint.is_some_and(|h| !h.is_empty()), "{place}, {call}");
            "no".into()
        }
    }
}

#[test]
fn every_call_in_every_state_answers_as_documented() {
    // Nothing drives here, so that a migration stays where it is put.
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint');
         -- Places that it cannot be brought to from here at once.
         ALTER TABLE _transmute.migrations DISABLE TRIGGER guard_state, DISABLE TRIGGER signal_change, DISABLE TRIGGER ask_hooks",
    );
    let document =
        std::fs::read_to_string(project_root().join("docs/calls.md")).expect("docs/calls.md");
    let mut rows = document
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|cell| cell.trim().to_string())
                .collect::<Vec<_>>()
        });
    let calls = rows.next().expect("the header")[1..].to_vec();
    let mut tried = 0;
    let mut states = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for row in rows.skip(1) {
        let place = &row[0];
        states.insert(place.split(',').next().unwrap_or_default().to_string());
        assert_eq!(row.len(), calls.len() + 1, "{place}");
        for (call, documented) in calls.iter().zip(&row[1..]) {
            tried += 1;
            let answered = answer(&mut session, place, call);
            if answered != *documented {
                wrong.push(format!("{place}, {call}: {answered}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not as documented: {wrong:#?}");
    assert_eq!(states.len(), 8, "{states:?}");
    assert!(tried >= 8 * 8, "{tried} cells");
}

#[test]
fn every_call_that_takes_a_reason_is_in_the_table() {
    let database = Database::shared();
    let mut session = database.connect();
    let document =
        std::fs::read_to_string(project_root().join("docs/calls.md")).expect("docs/calls.md");
    let functions = session.lines(
        "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'transmute'::regnamespace AND 'reason' = ANY (p.proargnames)
           AND p.proargtypes[0] = 'text'::regtype ORDER BY 1",
    );
    assert!(functions.len() >= 7, "{functions:?}");
    let missing: Vec<_> = functions
        .iter()
        .filter(|f| !document.contains(f.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in docs/calls.md: {missing:?}");
}
