use super::*;
use crate::model::token;
use proptest::prelude::*;

/// The server's lexer tells the engine where the tokens are; here the small one does.
fn read(text: &str) -> Result<Vec<Piece>, Fault> {
    let words: Vec<Span> = token::tokens(text)
        .into_iter()
        .map(|t| Span {
            start: t.start,
            end: t.end,
        })
        .collect();
    parse(text, &words)
}

const HEAD: &str = "-- migration: m\n-- migrate: up\n";

fn sql(text: &str) -> (String, Option<String>) {
    let mut pieces = read(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    assert_eq!(pieces.len(), 1, "{text}");
    let piece = pieces.remove(0);
    assert_eq!(piece.text, text);
    (piece.up.unwrap().sql, piece.down.map(|d| d.sql))
}

#[test]
fn sections_are_what_lies_between_their_markers() {
    for (body, up, down) in [
        ("SELECT 1;", "SELECT 1;", None),
        ("SELECT 1", "SELECT 1", None),
        ("SELECT 1;\n", "SELECT 1;\n", None),
        ("\n\nSELECT 1;\n", "\n\nSELECT 1;\n", None),
        ("SELECT 1;\n-- migrate: down\nSELECT 2;", "SELECT 1;\n", Some("SELECT 2;")),
        ("SELECT 1\n-- migrate: down\nSELECT 2", "SELECT 1\n", Some("SELECT 2")),
        ("SELECT 1;\n-- migrate: down\n", "SELECT 1;\n", None),
        ("SELECT 1;\n-- migrate: down", "SELECT 1;\n", None),
        ("SELECT 1;\n-- migrate: down\n-- nothing\n;\n", "SELECT 1;\n", None),
        ("SELECT 1;\n  \t-- migrate: down\nSELECT 2;", "SELECT 1;\n", Some("SELECT 2;")),
        ("SELECT 1;\n--migrate:down\nSELECT 2;", "SELECT 1;\n", Some("SELECT 2;")),
        ("SELECT 1;\n--  migrate :  down  \nSELECT 2;", "SELECT 1;\n", Some("SELECT 2;")),
        ("SELECT 1;\r\n-- migrate: down\r\nSELECT 2;\r\n", "SELECT 1;\r\n", Some("SELECT 2;\r\n")),
        ("SELECT 1;\n\x0c-- migrate: down\nSELECT 2;", "SELECT 1;\n", Some("SELECT 2;")),
        ("SELECT '\n-- migrate: down\n';", "SELECT '\n-- migrate: down\n';", None),
        ("SELECT E'\\'\n-- migrate: down\n';", "SELECT E'\\'\n-- migrate: down\n';", None),
        ("SELECT \"\n-- migrate: down\n\";", "SELECT \"\n-- migrate: down\n\";", None),
        ("SELECT $$\n-- migrate: down\n$$;", "SELECT $$\n-- migrate: down\n$$;", None),
        ("SELECT $a$ $$\n-- migrate: down\n$a$;", "SELECT $a$ $$\n-- migrate: down\n$a$;", None),
        ("/*\n-- migrate: down\n*/ SELECT 1;", "/*\n-- migrate: down\n*/ SELECT 1;", None),
        ("/* /* */\n-- migrate: down\n*/ SELECT 1;", "/* /* */\n-- migrate: down\n*/ SELECT 1;", None),
        ("SELECT 1; -- note: down", "SELECT 1; -- note: down", None),
        ("SELECT 1 -- id: it\n;", "SELECT 1 -- id: it\n;", None),
        ("CREATE TABLE t (\n-- id: the key\nid int);", "CREATE TABLE t (\n-- id: the key\nid int);", None),
        ("-- author: somebody\nSELECT 1;", "-- author: somebody\nSELECT 1;", None),
        ("-- a: b: c\nSELECT 1;", "-- a: b: c\nSELECT 1;", None),
        ("-- to migrate: up\nSELECT 1;", "-- to migrate: up\nSELECT 1;", None),
        ("-- migrate everything\nSELECT 1;", "-- migrate everything\nSELECT 1;", None),
        ("-- migrate down below\nSELECT 1;", "-- migrate down below\nSELECT 1;", None),
        ("SELECT 1 -- migrate down\n;", "SELECT 1 -- migrate down\n;", None),
        ("SELECT 1\n-- migrate down\n+ 1;", "SELECT 1\n-- migrate down\n+ 1;", None),
        ("SELECT 1;\n-- idd: x\n", "SELECT 1;\n-- idd: x\n", None),
        ("SELECT '\u{2028}\u{2029}\u{85}\x0c\r';", "SELECT '\u{2028}\u{2029}\u{85}\x0c\r';", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;", None),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 1", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 1", None),
        ("DO $$BEGIN COMMIT; END$$;", "DO $$BEGIN COMMIT; END$$;", None),
        ("SELECT 'BEGIN;'; -- COMMIT;", "SELECT 'BEGIN;'; -- COMMIT;", None),
        ("PREPARE p AS SELECT 1;", "PREPARE p AS SELECT 1;", None),
    ] {
        let text = format!("{HEAD}{body}");
        assert_eq!(sql(&text), (up.to_string(), down.map(str::to_string)), "{body}");
    }
}

#[test]
fn the_head_says_what_is_known_of_a_migration() {
    let pieces = read(
        "-- any words\n-- migration: Add orders\n-- id: 01JDX3\n-- author: x\n-- depends: a, b-1\n-- version: 1.0.0 -> 1.1.0\n\
         -- soak: 2 hours\n-- migrate: no-transaction\n-- migrate: up\nVACUUM;\n",
    )
    .unwrap();
    let piece = &pieces[0];
    assert_eq!(
        (piece.id.as_str(), piece.name.as_deref()),
        ("01JDX3", Some("Add orders"))
    );
    assert_eq!(piece.depends_on, ["a", "b-1"]);
    assert_eq!(piece.version, Some(("1.0.0".into(), "1.1.0".into())));
    let soak = piece.soak.clone().unwrap();
    assert_eq!(
        (soak.0.as_str(), soak.1.to_string().as_str()),
        ("2 hours", "line 7, column 1")
    );
    assert!(piece.no_transaction);
    assert_eq!(piece.up.as_ref().unwrap().line, 10);
    for text in [
        "-- id: a\n-- migrate: up\n-- migrate: no-transaction\nVACUUM",
        "-- migrate: no-transaction\n-- id: a\n-- migrate: up\nVACUUM",
    ] {
        assert!(read(text).unwrap()[0].no_transaction, "{text}");
    }
}

#[test]
fn one_text_holds_several() {
    let text = "-- words\n-- migration: a\n-- migrate: up\nSELECT 1;\n-- migrate: down\nSELECT 2;\n\n  -- migration: b\n-- id: c\n-- migrate: up\nSELECT 3;\n-- migration: d\n\
                -- migrate: expand\nSELECT 4;\n-- migrate: backfill\nSELECT 5;\n-- migrate: contract\nSELECT 6;\n-- migrate: down\nSELECT 7;";
    let pieces = read(text).unwrap();
    let ids: Vec<&str> = pieces.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["a", "c", "d"]);
    assert_eq!(
        pieces.iter().map(|p| p.text.as_str()).collect::<String>(),
        text
    );
    assert_eq!(pieces[0].down.as_ref().unwrap().sql, "SELECT 2;\n\n");
    let part = |p: &Option<Part>| p.as_ref().map(|p| p.sql.clone());
    let last = &pieces[2];
    assert_eq!(
        [
            part(&last.up),
            part(&last.expand),
            part(&last.backfill),
            part(&last.contract),
            part(&last.down)
        ],
        [
            None,
            Some("SELECT 4;\n".into()),
            Some("SELECT 5;\n".into()),
            Some("SELECT 6;\n".into()),
            Some("SELECT 7;".into())
        ]
    );
}

#[test]
fn every_fault_is_told_with_its_place() {
    let long = format!("-- id: {}\n-- migrate: up\nSELECT 1", "x".repeat(251));
    for (text, place, problem) in [
        ("", "line 1, column 1", "the migration has no id"),
        ("-- words", "line 1, column 1", "the migration has no id"),
        ("-- migrate: up\nSELECT 1", "line 1, column 1", "the migration has no id"),
        ("SELECT 1", "line 1, column 1", "a statement stands in no section"),
        ("-- migration: m\n  SELECT 1;", "line 2, column 3", "a statement stands in no section"),
        ("-- migration: m\n", "line 1, column 1", "there is no up section"),
        ("-- migration: m\n-- migrate: down\nSELECT 1", "line 1, column 1", "there is no up section"),
        ("-- migration: a\n-- migrate: up\nSELECT 1;\n-- migration: b\n", "line 4, column 1", "there is no up section"),
        ("-- migration: m\n-- migrate: up\n", "line 2, column 1", "a section holds no statement"),
        ("-- migration: m\n-- migrate: up\n/* x */ ;; -- y", "line 2, column 1", "a section holds no statement"),
        ("-- migration: m\n-- migrate: backfill\n-- x", "line 2, column 1", "a section holds no statement"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate: up\nSELECT 2;", "line 4, column 1", "a section stands there twice"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate: down\n-- migrate: down\n", "line 5, column 1", "a section stands there twice"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate: backfill\nSELECT 2;", "line 4, column 1", "a migration has either up or phases"),
        ("-- migration: m\n-- migrate: expand\nSELECT 1;\n-- migrate: up\nSELECT 2;", "line 4, column 1", "a migration has either up or phases"),
        ("-- migration: m\n-- migrate: expand\nSELECT 1;", "line 1, column 1", "there is no backfill section"),
        ("-- migration: m\n-- migrate: no-transaction\n-- migrate: backfill\nSELECT 1;", "line 1, column 1", "phases run in transactions"),
        ("-- migration: m\n-- id: a b\n-- migrate: up\nSELECT 1", "line 2, column 1", "the id is not one"),
        ("-- id: a'b\n-- migrate: up\nSELECT 1", "line 1, column 1", "the id is not one"),
        ("-- id: a:down\n-- migrate: up\nSELECT 1", "line 1, column 1", "the id is not one"),
        ("-- id:\n-- migrate: up\nSELECT 1", "line 1, column 1", "a directive has no value"),
        ("-- migration:\n-- migrate: up\nSELECT 1", "line 1, column 1", "a directive has no value"),
        ("-- id: a\n-- id: b\n-- migrate: up\nSELECT 1", "line 2, column 1", "a directive stands there twice"),
        ("-- id: a\n-- soak: 1 h\n-- soak: 2 h\n-- migrate: up\nSELECT 1", "line 3, column 1", "a directive stands there twice"),
        ("-- id: a\n-- migrate: no-transaction\n-- migrate: no-transaction\n", "line 3, column 1", "a directive stands there twice"),
        (long.as_str(), "line 1, column 1", "the id is too long"),
        ("-- migration: a\n-- migrate: up\nSELECT 1;\n-- migration: a\n-- migrate: up\nSELECT 1", "line 4, column 1", "two migrations have the same id"),
        ("-- migration: a\n-- migrate: up\nSELECT 1;\n-- migration: b\n  -- id: a\n-- migrate: up\nSELECT 1", "line 5, column 3", "two migrations have the same id"),
        ("-- migration: m\n-- migrate: up\n BEGIN;\nSELECT 1;", "line 3, column 2", "the section begins or ends a transaction"),
        ("-- migration: m\n-- migrate: up\nSELECT 1; commit;", "line 3, column 11", "the section begins or ends a transaction"),
        ("-- migration: m\n-- migrate: up\nSTART TRANSACTION;", "line 3, column 1", "the section begins or ends a transaction"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate: down\nSAVEPOINT s;", "line 5, column 1", "the section begins or ends a transaction"),
        ("-- migration: m\n-- migrate: up\nSELECT 'ü';ROLLBACK", "line 3, column 12", "the section begins or ends a transaction"),
        ("-- migration: m\n-- migrate: upp\nSELECT 1", "line 2, column 1", "unknown section"),
        ("-- migration: m\n-- migrate: sideways\nSELECT 1", "line 2, column 1", "unknown section"),
        ("-- migration: m\n-- migrat: up\nSELECT 1", "line 2, column 1", "unknown directive"),
        ("-- migration: m\n-- Migrate: up\nSELECT 1", "line 2, column 1", "unknown directive"),
        ("-- migration: m\n-- depend: a\n-- migrate: up\nSELECT 1", "line 2, column 1", "unknown directive"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrte: down\nSELECT 2", "line 4, column 1", "unknown directive"),
        ("-- migration: m\n-- migrate: up\nSELECT 1; -- migrate: down\nSELECT 2", "line 3, column 11", "a directive does not stand on a line of its own"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- id: b", "line 4, column 1", "a directive stands behind the first section"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate: no-transaction", "line 4, column 1", "a directive stands in the middle of a section"),
        ("-- migration: m\n-- migrate: up\nSELECT 1\n-- migrate: no-transaction", "line 4, column 1", "a directive stands in the middle of a section"),
        ("-- migration: m\n-- idd: x\n-- migrate: up\nSELECT 1", "line 2, column 1", "unknown directive"),
        ("-- ids: x\n-- migration: m\n-- migrate: up\nSELECT 1", "line 1, column 1", "unknown directive"),
        ("-- migration: m\n-- migrate up\nSELECT 1", "line 2, column 1", "unknown directive"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n-- migrate down\nSELECT 2;", "line 4, column 1", "unknown directive"),
        ("-- migration: m\n-- migrate: up\nSELECT 1;\n--Migrate\tDown \nSELECT 2;", "line 4, column 1", "unknown directive"),
        ("-- migration: m\n-- version: 1.0 -> 2.0.0\n-- migrate: up\nSELECT 1", "line 2, column 1", "the versions cannot be read"),
        ("-- migration: m\n-- depends: a,,b\n-- migrate: up\nSELECT 1", "line 2, column 1", "a name is missing in the list"),
        ("-- migration: m\n-- version: 1.0.0\n-- migrate: up\nSELECT 1", "line 2, column 1", "the versions cannot be read"),
        ("-- migration: m\n-- version: -> 1.0.0\n-- migrate: up\nSELECT 1", "line 2, column 1", "the versions cannot be read"),
        ("-- migration: m\r\n-- version: 1 -> 2 -> 3\r\n", "line 2, column 1", "the versions cannot be read"),
    ] {
        let fault = read(text).expect_err(text);
        assert_eq!((fault.place.to_string().as_str(), fault.problem), (place, problem), "{text}");
        assert!(fault.hint.ends_with('.') && fault.detail.ends_with('.'), "{fault:?}");
    }
}

#[test]
fn what_was_meant_is_said() {
    for (text, meant) in [
        ("-- migration: m\n-- idd: x", "Perhaps you meant \"-- id:\""),
        (
            "-- migration: m\n-- migrate: upp",
            "Perhaps you meant \"-- migrate: up\"",
        ),
        (
            "-- migration: m\n-- migrate: dwon",
            "Perhaps you meant \"-- migrate: down\"",
        ),
        (
            "-- migration: m\n-- migrate Down",
            "Perhaps you meant \"-- migrate: down\"",
        ),
        (
            "-- migration: m\n-- migrat: up",
            "Perhaps you meant \"-- migrate:\"",
        ),
        (
            "-- migration: m\n-- migrate: dowm",
            "Perhaps you meant \"-- migrate: down\"",
        ),
        (
            "-- migration: m\n-- migrate: notransaction",
            "Perhaps you meant \"-- migrate: no-transaction\"",
        ),
    ] {
        let hint = read(text).expect_err(text).hint;
        assert!(hint.starts_with(meant), "{hint}");
    }
}

#[test]
fn line_ends_do_not_change_the_checksum() {
    assert_eq!(
        normalised("\u{feff}a\r\nb\rc\n\u{2028}\x0c"),
        "a\nb\nc\n\u{2028}\x0c"
    );
}

proptest! {
    #[test]
    fn the_parts_are_the_text(bodies in prop::collection::vec("\\PC*", 1..4), end in prop::sample::select(vec!["\n", "\r\n"])) {
        let texts: Vec<String> = bodies.iter().enumerate()
            .map(|(i, body)| format!("-- migration: m{i}{end}-- migrate: up{end}SELECT '{}';{end}", body.replace('\'', "''")))
            .collect();
        let whole = texts.concat();
        let pieces = read(&whole).unwrap();
        prop_assert_eq!(pieces.iter().map(|p| p.text.clone()).collect::<Vec<_>>(), texts);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(-- (migrat(e|ion)|id|soak): ?(up|down|m)?|[\\n;'$]|/\\*|\\*/|begin|ü| ){0,12}") {
        if let Ok(pieces) = read(&text) {
            prop_assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), text);
        }
    }
}
