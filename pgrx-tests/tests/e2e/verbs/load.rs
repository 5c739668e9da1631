//! Texts of files: loaded, shown again, applied.

use super::{settle, statuses};
use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database};

#[test]
fn a_text_is_loaded_shown_and_applied() {
    let cluster = Cluster::shared();
    let database = Database::create(cluster);
    let mut session = database.connect();
    let text = "\u{feff}-- migration: orders\r\n-- id: 01A\r\n-- migrate: up\r\nCREATE TABLE orders (id int PRIMARY KEY, note text DEFAULT 'a\u{2028}\u{c}\r\n-- migrate: down\r\n');\r\n\
                -- migrate: down\r\nDROP TABLE orders;\r\n-- migration: more\n-- id: 01B\n-- migrate: no-transaction\n-- migrate: up\nCREATE INDEX CONCURRENTLY more ON orders (note);\n\
                /*\n-- migrate: down\n*/\n-- migration: body\n-- id: 01C\n-- migrate: up\nCREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\n-- migrate: down\nSELECT 'x' $$";
    let load = |session: &mut transmute_tests::Session, text: &str| {
        let rows = session.query(
            "SELECT id || ' ' || what FROM transmute.load($1, '{\"mode\": \"direct\"}')",
            &[&text],
        );
        rows.iter().map(|r| r.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(load(&mut session, text), ["01A new", "01B new", "01C new"]);
    let whole: String = session.scalar(
        "SELECT string_agg(transmute.export_sql(id), '' ORDER BY seq) FROM _transmute.migrations",
    );
    assert_eq!(whole, text);
    // The checksum is one that any tool computes.
    assert_eq!(
        session.lines(
            "SELECT bool_and(checksum = encode(sha256(convert_to(replace(ltrim(transmute.export_sql(id), E'\\ufeff'), E'\\r\\n', E'\\n'), 'UTF8')), 'hex')) FROM transmute.list"
        ),
        ["t"]
    );
    // Other line ends are the same text; another word is not, and changes nothing.
    let again = text.replace("\r\n", "\n");
    assert_eq!(
        load(&mut session, &again),
        ["01A unchanged", "01B unchanged", "01C unchanged"]
    );
    assert_eq!(
        load(
            &mut session,
            &text.replace("DROP TABLE", "DROP TABLE IF EXISTS")
        ),
        ["01A changed", "01B unchanged", "01C unchanged"]
    );
    assert_eq!(
        session.lines("SELECT down FROM _transmute.migrations WHERE id = '01A'"),
        ["DROP TABLE orders;\r\n"]
    );
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(
        statuses(&mut session),
        ["01A|applied", "01B|applied", "01C|applied"]
    );
    assert_eq!(
        session.lines("SELECT f(), 'more'::regclass, octet_length(pg_get_expr(adbin, adrelid)) > 20 FROM pg_attrdef WHERE adrelid = 'orders'::regclass"),
        ["x|more|t"]
    );
}

#[test]
fn a_text_with_a_fault_loads_nothing() {
    let database = Database::shared();
    let mut session = database.connect();
    for (text, state, message, detail) in [
        ("", "22023", "the migration has no id", "line 1, column 1: There is neither"),
        (
            "-- migration: a\n-- migrate: up\nCREATE TABLE a ();\n-- migration: b\n-- migrate: up\nSELECT 'open",
            "22023",
            "the text cannot be read as SQL",
            "line 6, column 8: unterminated quoted string",
        ),
        (
            "-- migration: a\n-- migrate: up\nCREATE TABLE a ();\n-- migration: b\n-- migrate: up\n  BEGIN; SELECT 1;",
            "22023",
            "the section begins or ends a transaction",
            "line 6, column 3: It has BEGIN.",
        ),
        (
            "-- migration: a\n-- migrate: up\nCREATE TABLE a ();\n-- migration: b\n-- soak: soon\n-- migrate: up\nCREATE TABLE b ();",
            "22023",
            "an interval cannot be read",
            "line 5, column 1: -- soak: is \"soon\": invalid input",
        ),
        (
            "-- migration: a\n-- version: 2.0.0 -> 1.0.0\n-- migrate: up\nCREATE TABLE a ();",
            "22023",
            "the metadata is not valid",
            "Migration \"a\", whose statements begin in line 4 of the text: meta.target_version",
        ),
    ] {
        let literal = format!("$text${text}$text$");
        let error = session.error(&format!("SELECT transmute.load({literal})"));
        assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (state, message), "{text}");
        assert!(error.detail.as_deref().unwrap_or_default().starts_with(detail), "{error:?}");
        assert!(error.hint.is_some_and(|h| !h.is_empty()), "{text}");
    }
    // What is known is read as anything else, and so is what holds for all.
    session.exec(
        "BEGIN; SELECT transmute.load(E'-- id: known\\n-- migrate: up\\nCREATE TABLE known ()')",
    );
    for (text, meta, detail) in [
        (
            "-- id: known\n\n  -- soak: long\n-- migrate: up\nCREATE TABLE known ()",
            "{}",
            "line 3, column 3: -- soak: is \"long\": invalid input",
        ),
        (
            "-- id: known\n-- soak: -1 h\n-- migrate: up\nCREATE TABLE known ()",
            "{}",
            "line 2, column 1: -- soak: is -1 h.",
        ),
        (
            "-- id: known\n-- migrate: up\nCREATE TABLE known ()",
            r#"{"mod": "direct"}"#,
            "meta.mod: is not a known key.",
        ),
    ] {
        session.exec("SAVEPOINT s");
        let error = session.error(&format!("SELECT transmute.load($q${text}$q$, '{meta}')"));
        assert_eq!(error.sqlstate, "22023", "{text}: {error}");
        assert!(
            error
                .detail
                .as_deref()
                .unwrap_or_default()
                .starts_with(detail),
            "{error:?}"
        );
        session.exec("ROLLBACK TO s");
    }
    session.exec("ROLLBACK");
    for call in [
        "load(NULL)",
        "load('-- id: a', NULL)",
        "load('-- id: a', '[]')",
        "export_sql(NULL)",
    ] {
        assert_eq!(
            session.error(&format!("SELECT transmute.{call}")).sqlstate,
            "22023",
            "{call}"
        );
    }
    session.exec("CREATE TABLE t (); SELECT transmute.register('r', 'COMMENT ON TABLE t IS NULL')");
    assert_eq!(
        session.error("SELECT transmute.export_sql('r')").sqlstate,
        "55000"
    );
    assert_eq!(
        session.error("SELECT transmute.export_sql('x')").sqlstate,
        "42704"
    );
    assert_eq!(
        session
            .error("SELECT transmute.load(E'-- id: r\\n-- migrate: up\\nCREATE TABLE a ()')")
            .sqlstate,
        "42710"
    );
    assert_eq!(session.lines("SELECT id FROM _transmute.migrations"), ["r"]);
}

#[test]
fn planned_migrations_of_a_text_build_on_one_another() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "SELECT transmute.load(E'-- migration: one\\n-- migrate: up\\nCREATE TABLE t (id int PRIMARY KEY, n int);\\n\
         -- migration: two\\n-- migrate: up\\nALTER TABLE t ADD COLUMN m int;\\n')",
    );
    assert_eq!(
        session.lines("SELECT id, meta -> 'depends_on' FROM _transmute.migrations ORDER BY seq"),
        ["one|∅", "two|[\"one\"]"]
    );
    // Of two calls the second has to say so, and is told.
    let later = "ALTER TABLE t ADD COLUMN late int";
    let alone = format!("SELECT transmute.load($$-- migration: three\n-- migrate: up\n{later};$$)");
    let error = session.error(&alone);
    assert_eq!(error.sqlstate, "42P01");
    assert!(
        error.hint.as_deref().unwrap_or_default().ends_with("Where a migration that is not applied yet makes it, name that one, for example -- depends: two"),
        "{error}"
    );
    session.exec(&format!(
        "SELECT transmute.load($$-- migration: three\n-- depends: two\n-- migrate: up\n{later};$$); SELECT transmute.apply()"
    ));
    session.wait_for(
        "SELECT count(*) FROM transmute.status WHERE state = 'FINISHED'",
        "3",
        PATIENCE,
    );
    let gone = "SELECT transmute.load($$-- migration: four\n-- migrate: up\nALTER TABLE gone ADD COLUMN n int;$$)";
    let error = session.error(gone);
    assert!(!error.hint.unwrap_or_default().contains("-- depends"));
}
