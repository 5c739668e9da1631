//! Export and import.

use transmute_tests::Database;

#[test]
fn a_migration_is_the_same_on_another_database() {
    let here = Database::shared();
    let there = Database::shared();
    let (mut one, mut other) = (here.connect(), there.connect());
    for session in [&mut one, &mut other] {
        session.exec("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, a text)");
    }
    one.exec(
        "SET search_path = s; SET TimeZone = 'America/St_Johns';
         SELECT transmute.register(E'm \"ü\" ''x''', $$ALTER TABLE t ALTER COLUMN a TYPE timestamptz USING a::timestamptz -- ü$$,
           'ALTER TABLE t ALTER COLUMN a TYPE text',
           '{\"depends_on\": [\"x\"], \"name\": \"Zeit\", \"required_approvals\": 2, \"description\": null, \"target_version\": \"1.2.0\"}')",
    );
    let document: String = one.scalar("SELECT transmute.export(E'm \"ü\" ''x''')::text");
    // Nothing of the session that imports decides what the script means.
    other.exec("SET search_path = public; SET TimeZone = 'UTC'");
    assert_eq!(
        other.lines(&format!("SELECT transmute.import($doc${document}$doc$)")),
        ["m \"ü\" 'x'"]
    );
    let stored = "SELECT id, up, down, meta, checksum, plan_checksum, search_path, settings, required_approvals FROM _transmute.migrations";
    assert_eq!(one.lines(stored), other.lines(stored));
    assert_eq!(
        other.lines("SELECT transmute.export(id)::text FROM transmute.status"),
        [document.as_str()]
    );
    assert_eq!(
        other
            .error(&format!("SELECT transmute.import($doc${document}$doc$)"))
            .sqlstate,
        "42710"
    );
}

#[test]
fn phases_and_copies_are_the_same_on_another_database() {
    let here = Database::shared();
    let there = Database::shared();
    let (mut one, mut other) = (here.connect(), there.connect());
    for session in [&mut one, &mut other] {
        session.exec(
            "CREATE SCHEMA s; CREATE TABLE s.old (id int PRIMARY KEY, name text);
             INSERT INTO s.old SELECT i, 'n' || i FROM generate_series(1, 5) AS i;
             CREATE TABLE s.gone (id int); CREATE TABLE s.copied (id int); CREATE TABLE s.new (id int PRIMARY KEY, title text)",
        );
    }
    // Where it was exported, the key had another type: what was asked for is the same.
    one.exec("ALTER TABLE s.old ALTER COLUMN id TYPE bigint; SET search_path = s");
    one.exec(
        r#"SELECT transmute.register_phases('ü', 'CREATE TABLE IF NOT EXISTS made (id int PRIMARY KEY)',
             'INSERT INTO made SELECT id FROM old o WHERE NOT EXISTS (SELECT FROM made WHERE made.id = o.id) LIMIT $1',
             'DROP TABLE gone', 'DELETE FROM made', '{"batch_size": 2, "idempotency_mode": "best_effort"}');
           SELECT transmute.register_phases('bare', NULL, 'SELECT 0', NULL);
           SELECT transmute.register_copy('m', 'SELECT * FROM old WHERE id > 1', 'new', '{id}', 'id, upper(name) AS "Name"',
             '[{"rename": {"Name": "title"}}]', 'DELETE FROM new', '{"batch_size": 2, "on_conflict": "skip"}');
           SELECT transmute.register_copy('plain', 'old', 'copied', '{id}', 'id')"#,
    );
    for (id, key) in [
        ("ü", "phases"),
        ("bare", "phases"),
        ("m", "copy"),
        ("plain", "copy"),
    ] {
        let document: String = one.scalar(&format!("SELECT transmute.export('{id}')::text"));
        assert_eq!(
            other.lines(&format!("SELECT transmute.import($doc${document}$doc$)")),
            [id]
        );
        assert_eq!(
            other.lines(&format!("SELECT transmute.export('{id}')::text")),
            [document.as_str()]
        );
        // Nothing of it may be changed on the way.
        let error = other.error(&format!(
            "SELECT transmute.import(jsonb_set($doc${document}$doc$, '{{{key},rollback}}', '\"DELETE FROM s.old\"'))"
        ));
        assert_eq!(error.sqlstate, "XX001", "{error}");
        assert!(error.hint.is_some(), "{error}");
    }
    let stored = "SELECT id, up, meta, checksum, search_path, settings FROM _transmute.migrations ORDER BY id";
    assert_eq!(one.lines(stored), other.lines(stored));
    other.exec("SELECT transmute.apply(confirm => current_database())");
    for id in ["ü", "bare", "m"] {
        other.exec(&format!("CALL transmute.wait('{id}', timeout => '60 s')"));
    }
    assert_eq!(
        other.lines("SELECT to_regclass('s.gone'), (SELECT count(*) FROM s.made), (SELECT string_agg(title, ',' ORDER BY id) FROM s.new WHERE id > 1)"),
        ["∅|5|N2,N3,N4,N5"]
    );
}

#[test]
fn a_document_that_was_changed_is_refused() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int); SELECT transmute.register('m', 'ALTER TABLE t ADD COLUMN n int', 'ALTER TABLE t DROP COLUMN n');
         CREATE TABLE d AS SELECT transmute.export('m') AS d",
    );
    for changed in [
        "jsonb_set(d, '{id}', '\"n\"')",
        "jsonb_set(d, '{up}', '\"DROP TABLE t\"')",
        "jsonb_set(d, '{down}', 'null')",
        "jsonb_set(d, '{meta}', '{\"required_approvals\": 0}')",
        "jsonb_set(d, '{search_path}', '\"evil\"')",
        "jsonb_set(d, '{settings}', '[]')",
        "jsonb_set(d, '{checksum}', '\"0\"')",
        "jsonb_set(d, '{seal}', '\"0\"')",
    ] {
        let error = session.error(&format!("SELECT transmute.import({changed}) FROM d"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("XX001", "the document was changed after it was exported"),
            "{changed}"
        );
    }
    for (broken, place) in [
        ("'null'::jsonb", "document: null"),
        ("'[]'::jsonb", "document: a list"),
        ("d - 'up'", "document.up: is missing"),
        ("d || '{\"upp\": 1}'", "document.upp: is not a known key"),
        ("d || '{\"up\": 1}'", "document.up: a number"),
        ("d || '{\"format\": \"x\"}'", "document.format: "),
        (
            "d || '{\"settings\": [[\"role\", \"postgres\"]]}'",
            "document.settings[0]: ",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.import({broken}) FROM d"));
        assert_eq!(error.sqlstate, "22023", "{broken}: {error}");
        assert!(
            error.detail.clone().unwrap_or_default().starts_with(place),
            "{broken}: {error}"
        );
    }
    assert_eq!(
        session.error("SELECT transmute.import(NULL)").sqlstate,
        "22023"
    );
    assert_eq!(
        session.error("SELECT transmute.export('nobody')").sqlstate,
        "42704"
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["1"]
    );
}
