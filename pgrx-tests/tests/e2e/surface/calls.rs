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
        "apply" | "preflight" | "replay_dead_letters" => "",
        "discard_dead_letters" => ", NULL, 'because'",
        "purge_dead_letters" => ", 'discarded'",
        "amend" => {
            ", 'ALTER TABLE t ALTER COLUMN a TYPE numeric; COMMENT ON TABLE t IS NULL', 'because'"
        }
        _ => ", 'because'",
    };
    let id = match call {
        "acknowledge" | "down" => "external",
        _ => "m",
    };
    let result = session.try_exec(&format!("SELECT transmute.{call}('{id}'{arguments})"));
    session.exec("ROLLBACK");
    match result {
        Ok(()) => "yes".into(),
        // The state allows it, but not a script of more statements.
        Err(error) if call == "amend" && error.sqlstate != "55000" => {
            let known = ["0A000", "22023"].contains(&error.sqlstate.as_str());
            assert!(known, "{place}: {error}");
            "in part".into()
        }
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
                Some(format!("Migration \"{id}\" is in state {state}.")),
                "{place}, {call}"
            );
            assert!(error.hint.is_some_and(|h| !h.is_empty()), "{place}, {call}");
            "no".into()
        }
    }
}

fn document() -> String {
    std::fs::read_to_string(project_root().join("docs/calls.md")).expect("docs/calls.md")
}

/// What stands in backquotes in the paragraph that begins with a word.
fn listed(document: &str, word: &str) -> Vec<String> {
    let start = document.find(&format!("**{word}**")).expect(word);
    let paragraph = document[start..].split("\n\n").next().unwrap_or_default();
    let names = paragraph.split('`').skip(1).step_by(2);
    names.map(str::to_string).collect()
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
         SELECT transmute.register('external', 'COMMENT ON TABLE t IS NULL', 'COMMENT ON TABLE t IS NULL', '{\"requires_external_action\": true}');
         SELECT transmute.load('-- migration: loaded' || chr(10) || '-- migrate: up' || chr(10) || 'COMMENT ON TABLE t IS NULL;');
         -- Places that it cannot be brought to from here at once.
         ALTER TABLE _transmute.migrations DISABLE TRIGGER guard_state, DISABLE TRIGGER signal_change, DISABLE TRIGGER ask_hooks",
    );
    let document = document();
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
        session.exec(&format!(
            "BEGIN; UPDATE _transmute.migrations SET {}",
            columns(place)
        ));
        for call in listed(&document, "Looking") {
            tried += 1;
            // Only what was loaded has a text.
            let id = if call == "export_sql" {
                "(SELECT migration_id FROM _transmute.sources)"
            } else {
                "'m'"
            };
            session.exec(&format!("SELECT transmute.{call}({id})"));
        }
        for call in listed(&document, "Registering") {
            let arguments = match call.as_str() {
                "register" => "'m', 'COMMENT ON TABLE t IS NULL'",
                "migrate" => "'COMMENT ON TABLE t IS NULL', 'm'",
                "register_phases" => "'m', NULL, 'SELECT 0', NULL",
                "register_copy" => "'m', 't', 't', '{id}'",
                "import" => "transmute.export('m')",
                "add_column" => "'m', 't', 'c', 'int'",
                "add_table" => "'m', 'made', '[{\"name\": \"id\", \"type\": \"int\"}]'",
                "drop_column" => "'m', 't', 'a'",
                "rename_column" => "'m', 't', 'a', 'z'",
                "transform_column" => "'m', 't', 'a', 'bigint'",
                other => panic!("say how {other} is called"),
            };
            tried += 1;
            session.exec("SAVEPOINT s");
            let error = session.error(&format!("SELECT transmute.{call}({arguments})"));
            assert_eq!(error.sqlstate, "42710", "{place}, {call}: {error}");
            session.exec("ROLLBACK TO s");
        }
        session.exec("ROLLBACK");
    }
    assert!(wrong.is_empty(), "not as documented: {wrong:#?}");
    assert_eq!(states.len(), 8, "{states:?}");
    assert!(tried >= 13 * 30, "{tried} cells");
}

#[test]
fn every_function_is_on_the_page() {
    let database = Database::shared();
    let document = document();
    let header = document
        .lines()
        .find(|line| line.starts_with('|'))
        .unwrap_or_default();
    let cells = header.trim_matches('|').split('|').skip(1);
    let mut page: Vec<String> = cells.map(|cell| cell.trim().to_string()).collect();
    for word in [
        "Looking",
        "Registering",
        "Driving",
        "Not about one migration",
    ] {
        page.extend(listed(&document, word));
    }
    page.sort();
    let functions = database.connect().lines(
        "SELECT DISTINCT proname::text COLLATE \"C\" FROM pg_proc WHERE pronamespace = 'transmute'::regnamespace
           AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 1",
    );
    // Each once, and none that is not there.
    assert_eq!(page, functions);
}
