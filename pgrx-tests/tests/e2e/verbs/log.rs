//! The server's log as JSON: one object a line, an event each.

use std::collections::HashSet;
use std::fs;
use transmute_tests::{Cluster, Database};

use super::{direct, settle};

#[test]
fn as_json_each_event_of_a_run_is_one_line_that_a_program_can_read() {
    let database = Database::shared();
    let mut session = database.connect();
    let name = database.name();
    session.exec(&format!(
        "ALTER DATABASE {name} SET transmute.log_format = 'json'"
    ));
    assert_eq!(
        session.error("SET transmute.log_format = 'xml'").sqlstate,
        "22023"
    );
    let mut session = database.connect();
    let id = format!("line\u{2028}\"quoted\" {name}");
    direct(&mut session, &id, "CREATE TABLE a (id int)");
    // Errors with whatever somebody has written into a name.
    direct(
        &mut session,
        &format!("fails {name}"),
        "SELECT\nE'two\\nlines, \\u2028 \"ü\"'::int",
    );
    session.exec("SELECT transmute.apply()");
    session.wait_for(
        "SELECT count(*) FROM transmute.list WHERE status IN ('applied', 'failed')",
        "2",
        transmute_tests::wait::PATIENCE,
    );
    session.exec("SELECT transmute.rollback(2, 'both', current_database())");
    settle(&mut session);
    let log = fs::read_to_string(Cluster::shared().log_path()).expect("the file system");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| {
            line.split_once("LOG:  {")
                .map(|(_, rest)| format!("{{{rest}"))
        })
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .filter(|line: &serde_json::Value| line["id"].as_str().is_some_and(|i| i.contains(name)))
        .collect();
    assert!(lines
        .iter()
        .all(|line| line["source"] == "transmute" && line["event"].is_string()));
    let events = |of: &str| -> Vec<String> {
        let of = lines.iter().filter(|line| line["id"] == of);
        of.map(|line| line["event"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(
        events(&id),
        [
            "registered",
            "applied",
            "started",
            "expanded",
            "ready",
            "finalizing",
            "finished",
            "taken back"
        ]
    );
    let failed = lines
        .iter()
        .find(|line| line["event"] == "needs a person")
        .unwrap();
    assert_eq!(failed["sqlstate"], "22P02");
    assert!(failed["message"]
        .as_str()
        .unwrap()
        .contains("\"two\nlines, \u{2028} \"ü\"\""));
    // Our processes write nothing else.
    let of_ours = |line: &str| {
        Some(
            line.split_once("] transmute ")?
                .0
                .split_once('[')?
                .1
                .to_string(),
        )
    };
    let mentions = log.lines().filter(|line| line.contains(name));
    let processes: HashSet<String> = mentions.filter_map(of_ours).collect();
    let ours: Vec<&str> = log
        .lines()
        .filter(|line| of_ours(line).is_some_and(|pid| processes.contains(&pid)))
        .collect();
    assert!(ours.len() >= 8, "{ours:#?}");
    for line in ours {
        let text = line.split_once("LOG:  ").map(|(_, text)| text);
        let value = text.map(serde_json::from_str::<serde_json::Value>);
        assert!(matches!(value, Some(Ok(v)) if v.is_object()), "{line}");
    }
    // What a caller should know is no line of the log.
    session.notices();
    session.exec(&format!(
        "SELECT transmute.register('waits {name}', 'SELECT 1', NULL, '{{\"mode\": \"direct\", \"depends_on\": [\"zzz\"]}}')"
    ));
    assert_eq!(
        session.notices(),
        [format!(
            "NOTICE: migration \"waits {name}\" depends on \"zzz\", which is not registered yet"
        )]
    );
    let log = fs::read_to_string(Cluster::shared().log_path()).expect("the file system");
    assert!(!log.contains(&format!("WARNING:  migration \"waits {name}")));
    // The trail and the log say the same.
    let trail: Vec<String> = session.lines(&format!(
        "SELECT event FROM transmute.audit_events WHERE id IS NOT NULL AND id <> 'waits {name}' ORDER BY seq"
    ));
    let heads = lines
        .iter()
        .filter(|line| line["audit_head"].is_string())
        .count();
    assert_eq!(heads, trail.len());
}
