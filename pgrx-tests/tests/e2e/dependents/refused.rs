//! What is refused by name.

use super::*;

#[test]
fn what_cannot_be_put_back_is_refused_by_name_before_anything_is_written() {
    let cases = [
        ("storing", "CREATE TABLE storing (x t)"),
        (
            "short_lived",
            "CREATE TEMP VIEW short_lived AS SELECT a FROM t",
        ),
    ];
    for (name, sql) in cases {
        let database = Database::shared();
        let mut session = open(&database, &[sql]);
        let before = facts(&mut session, "t");
        for call in [
            format!("SELECT * FROM transmute.explain('{TO_BIGINT}')"),
            format!("SELECT transmute.register('m', '{TO_BIGINT}')"),
            format!("SELECT transmute.migrate('{TO_BIGINT}', 'm')"),
        ] {
            let error = session.error(&call);
            assert_eq!(error.sqlstate, "0A000", "{name}: {error}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert!(error.detail.is_some(), "{name}: {error}");
        }
        assert!(session.rows("SELECT FROM transmute.status").is_empty());
        let events = session.lines("SELECT event, id FROM transmute.audit_events WHERE id = 'm'");
        assert!(events.is_empty(), "{events:?}");
        let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'";
        assert!(session.rows(schemas).is_empty());
        assert_eq!(facts(&mut session, "t"), before);
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["500"]);
    }
}
