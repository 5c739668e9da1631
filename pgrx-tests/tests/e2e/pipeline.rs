//! Records through a pipeline: renamed, converted, kept where they cannot be converted.

use transmute_tests::Database;

use crate::copying::{finish, source, start};

#[test]
fn a_pipeline_renames_and_converts_and_keeps_what_it_cannot_convert() {
    let database = Database::shared();
    let mut session = source(&database, 100);
    session.exec("UPDATE old SET cents = 'free' WHERE id = 50; CREATE TABLE loose (key int PRIMARY KEY, title text, amount text)");
    let pipeline = r#"[[{"rename": {"name": "title", "id": "key"}}, {"rename": {"cents": "amount"}}], {"convert": {"amount": "numeric", "nobody": "int"}}]"#;
    start(
        &mut session,
        &format!("'old', 'loose', '{{id}}', pipeline => '{pipeline}'"),
    );
    finish(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), max(amount) FILTER (WHERE key = 50), max(amount) FILTER (WHERE key = 51), max(title) FILTER (WHERE key = 7) FROM loose"),
        ["100|free|5100|name 7"]
    );
    session.notices();
    for (record, pipeline, expected) in [
        (
            r#"{"a": "1", "b": 2}"#,
            r#"[{"rename": {"a": "b", "b": "a"}}]"#,
            r#"{"a": 2, "b": "1"}"#,
        ),
        (
            r#"{"a": "12"}"#,
            r#"[{"convert": {"a": "integer"}}]"#,
            r#"{"a": 12}"#,
        ),
        (
            r#"{"a": 12}"#,
            r#"[{"convert": {"a": "text"}}]"#,
            r#"{"a": "12"}"#,
        ),
        (
            r#"{"a": "on", "d": "2026-01-02 "}"#,
            r#"[{"convert": {"a": "boolean", "d": "date"}}]"#,
            r#"{"a": true, "d": "2026-01-02"}"#,
        ),
        (
            r#"{"a": null}"#,
            r#"[{"convert": {"a": "int"}}]"#,
            r#"{"a": null}"#,
        ),
        (
            r#"{"a": "x", "b": "1"}"#,
            r#"[{"convert": {"a": "int", "b": "int"}}]"#,
            r#"{"a": "x", "b": 1}"#,
        ),
        (r#"{}"#, r#"[]"#, r#"{}"#),
        (r#"{"a": 1}"#, r#"[[[]], []]"#, r#"{"a": 1}"#),
        (
            r#"{"é'": "1"}"#,
            r#"[{"rename": {"é'": "\"x\""}}]"#,
            r#"{"\"x\"": "1"}"#,
        ),
    ] {
        assert_eq!(
            session.lines(&format!(
                "SELECT transmute.transform($j${record}$j$, $j${pipeline}$j$)"
            )),
            [expected],
            "{record} {pipeline}"
        );
    }
    let said = session.notices().join("\n");
    assert!(
        said.contains("field \"a\" is kept as it is: invalid input syntax for type integer: \"x\""),
        "{said}"
    );
    for (record, pipeline, expected) in [
        ("{}", "{}", "a pipeline is a list of stages"),
        ("{}", "null", "a pipeline is a list of stages"),
        ("[]", "[]", "a record is an object"),
        ("{}", "[1]", "unknown stage of a pipeline"),
        ("{}", "[{}]", "unknown stage of a pipeline"),
        (
            "{}",
            r#"[{"rename": {"a": "b"}, "convert": {}}]"#,
            "unknown stage of a pipeline",
        ),
        (
            "{}",
            r#"[{"Rename": {"a": "b"}}]"#,
            "unknown stage of a pipeline",
        ),
        (
            "{}",
            r#"[{"rename": ["a"]}]"#,
            "a stage of a pipeline maps names to names",
        ),
        (
            "{}",
            r#"[{"rename": {"a": 1}}]"#,
            "a stage of a pipeline maps names to names",
        ),
        (
            "{}",
            r#"[{"rename": {"a": ""}}]"#,
            "a stage of a pipeline maps names to names",
        ),
        (
            "{}",
            r#"[{"convert": {"a": "nobody"}}]"#,
            "unknown type in a pipeline",
        ),
        (
            r#"{"a": 1, "b": 2}"#,
            r#"[{"rename": {"a": "b"}}]"#,
            "a rename gives two fields one name",
        ),
    ] {
        let error = session.error(&format!(
            "SELECT transmute.transform($j${record}$j$, $j${pipeline}$j$)"
        ));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("22023", expected),
            "{record} {pipeline}"
        );
    }
    assert_eq!(
        session.lines("SELECT transmute.transform(NULL, '[]')"),
        ["∅"]
    );
    assert_eq!(
        session
            .error("SELECT transmute.transform('{}', NULL)")
            .sqlstate,
        "22023"
    );
}
