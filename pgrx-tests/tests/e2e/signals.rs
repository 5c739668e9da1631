//! NOTIFY transmute: what listeners hear, in order, and only of what was committed.

use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

fn listener(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec("LISTEN transmute");
    session
}

fn table(database: &Database<'_>, rows: i32) -> Session {
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL) WITH (fillfactor = 10);
         INSERT INTO t SELECT i, i FROM generate_series(1, {rows}) AS i"
    ));
    session
}

/// Payloads in the order in which they come, until one satisfies `last`.
#[track_caller]
fn hear(
    session: &mut Session,
    last: impl Fn(&serde_json::Value) -> bool,
) -> Vec<serde_json::Value> {
    let mut heard = Vec::new();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut notifications = session.client().notifications();
        let mut iterator = notifications.timeout_iter(Duration::from_millis(200));
        while let Some(one) = iterator.next().expect("the listener's connection") {
            assert_eq!(one.channel(), "transmute");
            assert!(one.payload().len() < 8000);
            let payload: serde_json::Value = serde_json::from_str(one.payload()).expect("JSON");
            let is_last = last(&payload);
            heard.push(payload);
            if is_last {
                return heard;
            }
        }
    }
    panic!("not heard; heard: {heard:#?}");
}

fn is(event: &'static str) -> impl Fn(&serde_json::Value) -> bool {
    move |payload| payload["event"] == event
}

/// Event, and the state where it changed.
fn brief(heard: &[serde_json::Value]) -> Vec<String> {
    let word = |p: &serde_json::Value| match p["to"].as_str() {
        Some(to) => format!("{} {to}", p["event"].as_str().unwrap()),
        None => p["event"].as_str().unwrap().to_string(),
    };
    heard
        .iter()
        .filter(|p| p["event"] != "progress")
        .map(word)
        .collect()
}

#[test]
fn a_listener_hears_every_change_in_its_order() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "1"), ("signal_interval", "1 ms")],
    );
    table(&database, 5_000);
    let mut listener = listener(&database);
    let mut migration = Migration::start(
        &database,
        "a \"quoted\" é",
        TO_BIGINT,
        r#"{"required_approvals": 1}"#,
    );
    let mut heard = hear(&mut listener, is("waiting"));
    assert_eq!(
        brief(&heard),
        [
            "started",
            "state_changed INITIALIZING",
            "state_changed RUNNING",
            "state_changed AWAITING_FINALIZATION",
            "waiting"
        ]
    );
    let waiting = heard.last().unwrap()["waiting_for"].as_str().unwrap();
    assert!(waiting.starts_with("1 approval missing"), "{waiting}");
    let progress: Vec<f64> = heard
        .iter()
        .filter(|p| p["event"] == "progress")
        .map(|p| p["progress"].as_f64().expect("a number"))
        .collect();
    assert!(progress.len() > 2, "{progress:?}");
    assert!(progress.is_sorted(), "{progress:?}");
    // Nothing while it waits.
    let mut notifications = listener.client().notifications();
    let silence = notifications.timeout_iter(Duration::from_secs(2)).next();
    assert!(matches!(silence, Ok(None)), "{silence:?}");
    drop(notifications);

    migration
        .session()
        .exec("SELECT transmute.approve(id, 'reviewed') FROM transmute.status");
    heard.extend(hear(&mut listener, is("completed")));
    assert_eq!(
        brief(&heard)[5..],
        [
            "state_changed FINISHING",
            "state_changed FINISHED",
            "completed"
        ]
    );
    for payload in &heard {
        assert_eq!(payload["version"], 1);
        assert_eq!(payload["id"], "a \"quoted\" é", "{payload}");
        assert!(
            payload["at"].is_string() && payload["state"].is_string(),
            "{payload}"
        );
    }
    // Of one process they come in the order of their numbers.
    let numbers: Vec<i64> = heard.iter().map(|p| p["seq"].as_i64().unwrap()).collect();
    let told: Vec<i64> = heard
        .iter()
        .filter(|p| p["event"] != "progress")
        .map(|p| p["seq"].as_i64().unwrap())
        .collect();
    assert!(told.is_sorted(), "{told:?}");
    let mut unique = numbers.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), numbers.len(), "heard twice: {numbers:?}");
}

#[test]
fn a_failure_is_told_with_its_error_and_a_rollback_with_its_end() {
    let database = Database::shared();
    let mut session = table(&database, 10);
    session.exec("INSERT INTO t VALUES (0, 0)");
    let mut listener = listener(&database);
    let meta = r#"{"invariants": [{"name": "no zero", "phase": "PRE_RUN", "sql": "SELECT id FROM t WHERE a = 0"}]}"#;
    let mut migration = Migration::start(&database, "m", TO_BIGINT, meta);
    let heard = hear(&mut listener, is("failed"));
    let failed = heard.last().unwrap();
    assert_eq!(failed["sqlstate"], "55000");
    assert_eq!(failed["error"], "invariant \"no zero\" does not hold");
    assert_eq!(failed["state"], "AWAITING_ACTION");
    assert!(failed["hint"]
        .as_str()
        .unwrap()
        .contains("transmute.resume"));
    migration.roll_back();
    let heard = hear(&mut listener, |p| p["to"] == "UNINITIALIZED");
    assert_eq!(heard.last().unwrap()["rolled_back"], true);
    assert_eq!(
        brief(&heard),
        ["state_changed ROLLING_BACK", "state_changed UNINITIALIZED"]
    );
}

#[test]
fn what_was_rolled_back_is_told_by_nobody() {
    let database = Database::shared();
    table(&database, 100);
    let mut listener = listener(&database);
    let mut points = Waitpoints::of(&database);
    points.hold("expand_before_commit");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, "{}");
    for _ in 0..3 {
        let conductor = points.wait_reached("expand_before_commit", PATIENCE);
        // The transaction that changes the state to RUNNING is undone.
        migration
            .session()
            .exec(&format!("SELECT pg_terminate_backend({conductor}, 10000)"));
    }
    points.release("expand_before_commit");
    let heard = hear(&mut listener, is("completed"));
    let of = |to: &str| heard.iter().filter(|p| p["to"] == to).count();
    assert_eq!(
        (of("INITIALIZING"), of("RUNNING"), of("FINISHED")),
        (1, 1, 1)
    );
}

#[test]
fn a_payload_fits_whatever_is_to_be_told() {
    let database = Database::shared();
    let mut session = table(&database, 1);
    let id = "\"".repeat(255);
    session.exec(&format!("SELECT transmute.register('{id}', '{TO_BIGINT}')"));
    let facts = "jsonb_build_object('waiting_for', repeat(chr(1), 100000), 'error', repeat('é', 100000), 'hint', repeat(chr(1), 100000), 'x', repeat(chr(1), 500), 'y', repeat(chr(1), 500))";
    let payload: String = session.scalar(&format!(
        "SELECT _transmute.signal_payload('failed', m, {facts})::text FROM _transmute.migrations m"
    ));
    assert!(payload.len() < 7900, "{}", payload.len());
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload["truncated"], true);
    assert_eq!(payload["id"].as_str().unwrap().len(), 255);
    let short: String = session.scalar(
        "SELECT _transmute.signal_payload('waiting', m, jsonb_build_object('waiting_for', repeat('é', 500)))::text FROM _transmute.migrations m",
    );
    let short: serde_json::Value = serde_json::from_str(&short).unwrap();
    assert_eq!(short["waiting_for"].as_str().unwrap().chars().count(), 400);
}

#[test]
fn a_session_that_drives_tells_too() {
    let database = Database::shared();
    let mut session = table(&database, 10);
    let mut listener = listener(&database);
    let mut points = Waitpoints::of(&database);
    // The conductor stands at its first step; nothing but the session sends what is told meanwhile.
    points.hold("expand_before_lock");
    Migration::start(&database, "m", TO_BIGINT, "{}");
    points.wait_reached("expand_before_lock", PATIENCE);
    session.exec(r#"INSERT INTO _transmute.signals (payload) VALUES ('{"event": "waiting", "waiting_for": "somebody"}')"#);
    session.exec("CALL transmute.run(max_steps => 1)");
    let heard = hear(&mut listener, is("waiting"));
    assert_eq!(heard.last().unwrap()["waiting_for"], "somebody");
    points.release("expand_before_lock");
    hear(&mut listener, is("completed"));
}
