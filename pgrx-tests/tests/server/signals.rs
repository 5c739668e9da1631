//! Crashes around what is looked at, called and told: each once, and told only when it was committed.

use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::crash::{hold, release, Crash};
use super::scene::{apply, assert_ends_well, assert_log_is_clean, create_table, wait_state, ALTER};

const META: &str = r#"{"invariants": [
    {"name": "before", "phase": "PRE_RUN", "sql": "SELECT count(*) = 500 FROM t"},
    {"name": "ready", "phase": "PRE_FINALIZATION", "sql": "SELECT id FROM t WHERE a < 0"},
    {"name": "after", "phase": "POST_FINALIZATION", "sql": "SELECT twice = a * 2 FROM t"}]}"#;

fn hooks(session: &mut Session) {
    session.exec(
        "CREATE TABLE called (event text);
         CREATE FUNCTION note(facts jsonb) RETURNS void LANGUAGE sql AS
           $$ INSERT INTO public.called VALUES (facts ->> 'event') $$;
         SELECT transmute.hook(event, 'note(jsonb)') FROM unnest(ARRAY['pre_apply', 'post_apply', 'pre_finalize', 'post_finalize']) AS event",
    );
}

/// Events of the signals that come within a moment of silence, with the state where it changed.
fn hear(session: &mut Session) -> Vec<String> {
    let mut notifications = session.client().notifications();
    let iterator = notifications.timeout_iter(Duration::from_secs(3));
    iterator
        .map(|one| {
            let payload: serde_json::Value = serde_json::from_str(one.payload()).expect("JSON");
            let event = payload["event"].as_str().expect("an event").to_string();
            Ok(match payload["to"].as_str() {
                Some(to) => format!("{event} {to}"),
                None => event,
            })
        })
        .filter(|event| Ok(event != "progress" && event != "waiting"))
        .collect()
        .expect("the listener's connection")
}

fn crash_at(point: &'static str, times: usize, crash: Crash) {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    hooks(&mut session);
    hold(&mut session, point);
    apply(&mut session, ALTER, META);
    for _ in 0..times {
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        session = crash.strike(&database, conductor, session);
        let conductor = Waitpoints::of(&database).wait_reached(point, PATIENCE);
        // Let exactly this one go on to its commit.
        hold(&mut session, "after_commit");
        release(&mut session, point);
        hold_again(&mut session, point, conductor);
        release(&mut session, "after_commit");
    }
    release(&mut session, point);
    wait_state(&mut session, "FINISHED");
    session.wait_for("SELECT count(*) FROM called", "4", PATIENCE);
    assert_eq!(
        session.lines(
            "SELECT name, holds, checks FROM transmute.invariants WHERE NOT built_in ORDER BY name"
        ),
        ["after|t|1", "before|t|1", "ready|t|2"]
    );
    assert_eq!(
        session.lines("SELECT event FROM called"),
        ["pre_apply", "post_apply", "pre_finalize", "post_finalize"]
    );
    assert_ends_well(&mut session, &cluster);
}

/// Holds the point anew once who stood there has gone on.
fn hold_again(session: &mut Session, point: &str, conductor: i32) {
    session.wait_for(
        &format!(
            "SELECT count(*) FROM pg_locks WHERE pid = {conductor} AND locktype = 'advisory' AND NOT granted
               AND objid::bigint = hashtext('{point}')::bigint & 4294967295"
        ),
        "0",
        PATIENCE,
    );
    hold(session, point);
}

#[test]
fn a_look_at_an_invariant_that_a_crash_undoes_is_made_again() {
    crash_at("invariant_before_commit", 1, Crash::Conductor);
    crash_at("invariant_before_commit", 2, Crash::Server);
}

#[test]
fn a_hook_whose_call_a_crash_undoes_is_called_again() {
    crash_at("hook_before_commit", 1, Crash::Server);
    crash_at("hook_before_commit", 2, Crash::ImmediateStop);
}

#[test]
fn signals_that_were_committed_are_sent_after_a_crash_and_no_others() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    // The end of expand is undone by the crash, together with its signal.
    hold(&mut session, "expand_before_commit");
    hold(&mut session, "signals_before_commit");
    apply(&mut session, ALTER, "{}");
    let conductor = Waitpoints::of(&database).wait_reached("signals_before_commit", PATIENCE);
    session = Crash::Server.strike(&database, conductor, session);
    Waitpoints::of(&database).wait_reached("signals_before_commit", PATIENCE);
    let mut listener = database.connect();
    listener.exec("LISTEN transmute");
    assert_eq!(
        session.lines("SELECT payload ->> 'event' FROM _transmute.signals ORDER BY seq"),
        ["started", "state_changed"]
    );
    release(&mut session, "signals_before_commit");
    Waitpoints::of(&database).wait_reached("expand_before_commit", PATIENCE);
    assert_eq!(
        hear(&mut listener),
        ["started", "state_changed INITIALIZING"]
    );
    let conductor = Waitpoints::of(&database).wait_reached("expand_before_commit", PATIENCE);
    session = Crash::Conductor.strike(&database, conductor, session);
    let mut listener = database.connect();
    listener.exec("LISTEN transmute");
    Waitpoints::of(&database).wait_reached("expand_before_commit", PATIENCE);
    assert_eq!(hear(&mut listener), [""; 0]);
    release(&mut session, "expand_before_commit");
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        hear(&mut listener),
        [
            "state_changed RUNNING",
            "state_changed AWAITING_FINALIZATION",
            "state_changed FINISHING",
            "state_changed FINISHED",
            "completed"
        ]
    );
    assert_log_is_clean(&cluster);
}
