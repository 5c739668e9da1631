//! A copy of a database in mid-flight, and what the documentation claims to be tested.

use std::fs;
use std::path::Path;

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{tools, Cluster, Database};

use crate::migration::{assert_sound, Migration};

#[test]
fn a_copy_of_a_database_goes_on_with_nothing_by_itself() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         INSERT INTO t SELECT i, i FROM generate_series(1, 500) AS i",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    drop((session, migration));
    let name = database.name().to_string();
    let mut postgres = cluster.connect();
    postgres.exec(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    // The conductor comes back until it cannot.
    wait_until("the copy to be made", PATIENCE, || {
        postgres.exec(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ));
        postgres
            .try_exec(&format!("CREATE DATABASE copied TEMPLATE {name}"))
            .is_ok()
            .then_some(())
    });
    postgres.exec(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));

    let mut config = database.config();
    config.dbname("copied");
    let mut copy = transmute_tests::Session::open(config);
    // Somebody, or a restart, has it looked at.
    copy.exec("CALL transmute.run('m')");
    assert_eq!(
        copy.lines("SELECT state, outcome, last_error FROM transmute.status"),
        ["AWAITING_FINALIZATION|FAILED|this database is a copy of the one that the migration was applied in"]
    );
    // Nobody's business here: DDL is free.
    copy.exec("COMMENT ON TABLE t IS 'copied'; ALTER TABLE t SET (fillfactor = 90); ALTER TABLE t RESET (fillfactor)");
    copy.exec("INSERT INTO t VALUES (501, 501)");
    copy.exec("SELECT transmute.resume('m', 'it is to be migrated here, too')");
    copy.exec("SELECT transmute.skip_soak('m', 'at once')");
    copy.exec("CALL transmute.wait('m')");
    assert_eq!(
        copy.lines("SELECT count(*), pg_typeof(max(a)) FROM t"),
        ["501|bigint"]
    );
    assert_sound(&mut copy, "t");
    // The original knows nothing of that.
    let mut session = database.connect();
    assert_eq!(
        session.lines("SELECT state, outcome FROM transmute.status"),
        ["AWAITING_FINALIZATION|RUNNING"]
    );
    session.exec("SELECT transmute.skip_soak('m', 'enough')");
    session.exec("CALL transmute.run('m')");
    assert_eq!(
        session.lines("SELECT count(*), pg_typeof(max(a)) FROM t"),
        ["500|bigint"]
    );
}

/// Where the tests of a suite are.
const SUITES: [(&str, &str); 4] = [
    ("e2e", "pgrx-tests/tests/e2e"),
    ("server", "pgrx-tests/tests/server"),
    ("faults", "pgrx-tests/tests/faults"),
    ("unit", "src"),
];

/// What is named in a text as `[suite: name]`.
fn named<'t>(text: &'t str, suite: &str) -> Vec<&'t str> {
    text.split(&format!("[{suite}: "))
        .skip(1)
        .filter_map(|rest| rest.split(']').next())
        .collect()
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let root = tools::project_root();
    let mut documents: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(root.join("docs")).expect("docs") {
        let path = entry.expect("a file").path();
        let text = fs::read_to_string(&path).expect("a document");
        documents.push((path.display().to_string(), text));
    }
    for (suite, folder) in SUITES {
        let mut sources = String::new();
        read_sources(&root.join(folder), &mut sources);
        for (document, text) in &documents {
            for name in named(text, suite) {
                let is_there = [
                    format!("fn {name}()"),
                    format!("fn {name}(\n"),
                    format!("fn {name}(a in"),
                ];
                assert!(
                    is_there.iter().any(|test| sources.contains(test)),
                    "{document} names a test that is not there: {name}"
                );
            }
        }
    }
}

/// Each entry of the catalogue has a line, and each line a test.
#[test]
fn every_case_of_the_catalogue_has_a_test() {
    let text = fs::read_to_string(tools::project_root().join("docs/catalogue.md")).expect("it");
    for (letter, count) in [
        ("S", 12),
        ("A", 15),
        ("W", 9),
        ("L", 10),
        ("F", 23),
        ("I", 15),
    ] {
        for number in 1..=count {
            let begin = format!("| {letter}{number} | ");
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with(&begin))
                .collect();
            let [line] = lines.as_slice() else {
                panic!("{letter}{number} has {} lines", lines.len())
            };
            let tests: usize = SUITES
                .iter()
                .map(|(suite, _)| named(line, suite).len())
                .sum();
            assert!(tests > 0, "{line}");
        }
    }
}

/// A line of a table of operations.md, or of security.md, that claims something and names no test, is not one.
#[test]
fn every_claim_of_a_table_names_its_test() {
    let root = tools::project_root().join("docs");
    for (document, section) in [
        ("operations.md", "## Faults"),
        ("security.md", "## What is claimed, and what shows it"),
        ("security.md", "## The audit trail"),
    ] {
        let text = fs::read_to_string(root.join(document)).expect(document);
        let (_, rest) = text.split_once(section).expect(section);
        let rest = rest.split("\n## ").next().unwrap_or_default();
        let rows = rest.lines().filter(|line| line.starts_with("| ")).skip(2);
        let mut count = 0;
        for row in rows {
            assert!(
                SUITES
                    .iter()
                    .any(|(suite, _)| !named(row, suite).is_empty()),
                "{document}: {row}"
            );
            count += 1;
        }
        assert!(count > 5, "{document}, {section}: {count}");
    }
}

fn read_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("the tests") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else {
            sources.push_str(&fs::read_to_string(path).expect("a source"));
        }
    }
}
