//! Whatever a text is made of, what comes out is what went in.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};
use transmute_tests::Database;

/// Between statements: whatever the server's lexer takes for blanks and comments; the vertical tab only from 16 on.
fn blanks() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ \t\n\x0c]{1,3}",
        Just("\r\n".to_string()),
        Just("\r".to_string()),
        "-- [^\r\n\0:]{0,6}\r?\n",
        Just("/* -- migrate: down\n/* */ \u{2028}*/".to_string()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Any text, as a literal, a quoted name, a dollar-quoted body or a comment.
fn statement() -> impl Strategy<Value = String> {
    let anything = prop_oneof![
        "[^\0]{0,12}",
        Just("\r\n-- migrate: down\r\n".to_string()),
        Just("\n-- migration: x\n\u{feff}\u{2028}\u{2029}\u{85}\x0c\r".to_string()),
    ];
    (0..4, anything).prop_map(|(kind, text)| match kind {
        0 => format!("SELECT '{}';", text.replace('\'', "''")),
        1 => format!("SELECT 1 AS \"_{}\";", text.replace('"', "\"\"")),
        2 => format!("SELECT $t${}$t$;", text.replace('$', "")),
        _ => format!(
            "SELECT E'{}';",
            text.replace('\\', "\\\\").replace('\'', "\\'")
        ),
    })
}

fn section() -> impl Strategy<Value = String> {
    prop::collection::vec((blanks(), statement()), 1..3)
        .prop_map(|parts| parts.into_iter().map(|(b, s)| b + &s).collect())
}

#[test]
fn any_text_that_is_loaded_comes_out_byte_for_byte() {
    let database = Database::shared();
    let mut session = database.connect();
    // A query of a literal is one that runs at the end; nothing is planned of it.
    let ending = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    let text = (
        any::<bool>(),
        ending,
        prop::collection::vec((blanks(), section(), prop::option::of(section())), 1..3),
    )
        .prop_map(|(mark, end, migrations)| {
            let mut text = if mark { "\u{feff}" } else { "" }.to_string();
            for (i, (blanks, up, down)) in migrations.into_iter().enumerate() {
                text +=
                    &format!("-- migration: m{i}{end}{blanks}{end}-- migrate: up{end}{up}{end}");
                if let Some(down) = down {
                    text += &format!("-- migrate: down{end}{down}{end}");
                }
            }
            text
        });
    let config = Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let session = std::cell::RefCell::new(&mut session);
    TestRunner::new_with_rng(config, rng)
        .run(&text, |text| {
            let mut session = session.borrow_mut();
            session.exec("BEGIN");
            let loaded = session.query("SELECT what FROM transmute.load($1, '{\"mode\": \"direct\"}')", &[&text]);
            prop_assert!(loaded.iter().all(|row| row.get::<_, String>(0) == "new"));
            let out: String = session.scalar("SELECT string_agg(transmute.export_sql(id), '' ORDER BY seq) FROM _transmute.migrations");
            // The same from a file.
            session.exec("ROLLBACK; BEGIN");
            session.query(
                "SELECT transmute.load_files('d', '{a.sql}', ARRAY[$1::bytea], '{\"mode\": \"direct\"}')",
                &[&text.as_bytes()],
            );
            let of_file: String = session.scalar("SELECT string_agg(transmute.export_sql(id), '' ORDER BY seq) FROM _transmute.migrations");
            session.exec("ROLLBACK");
            prop_assert_eq!(&out, &text);
            prop_assert_eq!(of_file, text);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
