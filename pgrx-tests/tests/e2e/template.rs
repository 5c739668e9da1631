//! Templates register the DDL that one would write, and nothing that was smuggled into it.

use transmute_tests::{Database, Session};

fn world(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA \"My s\"; CREATE TABLE \"My s\".\"T; --\" (id int PRIMARY KEY, \"a\"\"b\" int);
         CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 1, 'x')",
    );
    session
}

fn up(session: &mut Session, id: &str) -> String {
    session.scalar(&format!(
        "SELECT up FROM _transmute.migrations WHERE id = '{id}'"
    ))
}

#[test]
fn each_template_does_what_its_name_says() {
    let database = Database::shared();
    let mut session = world(&database);
    for (id, call, text) in [
        (
            "add",
            "add_column('add', 't', 'Select', 'numeric(10, 2)', '1 + 1', true)",
            "ALTER TABLE t ADD COLUMN \"Select\" numeric(10, 2) DEFAULT (1 + 1) NOT NULL",
        ),
        (
            "quoted",
            "add_column('quoted', '\"My s\".\"T; --\"', 'x\"; DROP TABLE t; --', 'text[]')",
            "ALTER TABLE \"My s\".\"T; --\" ADD COLUMN \"x\"\"; DROP TABLE t; --\" text[]",
        ),
        (
            "table",
            "add_table('table', 'public.u', '[{\"name\": \"id\", \"type\": \"bigint\", \"primary_key\": true},
               {\"name\": \"at\", \"type\": \"timestamp with time zone\", \"default\": \"now()\", \"not_null\": true}]')",
            "CREATE TABLE public.u (id bigint, at timestamp with time zone DEFAULT (now()) NOT NULL, PRIMARY KEY (id))",
        ),
        (
            "transform",
            "transform_column('transform', 't', 'a', 'text', 'a::text || b')",
            "ALTER TABLE t ALTER COLUMN a TYPE text USING (a::text || b)",
        ),
        (
            "rename",
            "rename_column('rename', '\"My s\".\"T; --\"', 'a\"b', 'c')",
            "ALTER TABLE \"My s\".\"T; --\" RENAME COLUMN \"a\"\"b\" TO c",
        ),
        ("drop", "drop_column('drop', 't', 'b', '{\"drop_policy\": \"drop\"}')", "ALTER TABLE t DROP COLUMN b"),
    ] {
        assert_eq!(session.lines(&format!("SELECT transmute.{call}")), [id]);
        assert_eq!(up(&mut session, id), text);
        session.exec(&format!("SELECT transmute.apply('{id}')"));
        session.exec(&format!("CALL transmute.wait('{id}', timeout => '60 s')"));
    }
    assert_eq!(session.lines("SELECT * FROM t"), ["1|1x|2.00"]);
    assert_eq!(
        session.lines("SELECT c, \"x\"\"; DROP TABLE t; --\" FROM \"My s\".\"T; --\""),
        Vec::<String>::new()
    );
    // Those that have a way back were given one.
    assert_eq!(
        session
            .lines("SELECT id, down FROM _transmute.migrations WHERE down IS NOT NULL ORDER BY id"),
        [
            "add|ALTER TABLE t DROP COLUMN \"Select\"",
            "quoted|ALTER TABLE \"My s\".\"T; --\" DROP COLUMN \"x\"\"; DROP TABLE t; --\"",
            "rename|ALTER TABLE \"My s\".\"T; --\" RENAME COLUMN c TO \"a\"\"b\"",
            "table|DROP TABLE public.u",
        ]
    );
}

#[test]
fn nothing_can_be_smuggled_in() {
    let database = Database::shared();
    let mut session = world(&database);
    let evil_types = [
        "int; DROP TABLE t",
        "int, DROP COLUMN b",
        "int NOT NULL",
        "int DEFAULT 1",
        "int REFERENCES t",
        "int --\n, DROP COLUMN b",
        "int /* ",
        "",
        " ",
        "int) ; --",
        "text COLLATE \"C\"",
        "SETOF int",
        "int USING (1)",
        "t.a%TYPE",
    ];
    for evil in evil_types {
        let quoted = evil.replace('\'', "''");
        for call in [
            format!("add_column('m', 't', 'n', '{quoted}')"),
            format!("transform_column('m', 't', 'a', '{quoted}')"),
            format!("add_table('m', 'u', jsonb_build_array(jsonb_build_object('name', 'n', 'type', '{quoted}')))"),
        ] {
            let error = session.error(&format!("SELECT transmute.{call}"));
            assert_eq!(error.sqlstate, "22023", "{call}: {error}");
        }
    }
    let evil_expressions = [
        "1); DROP TABLE t; --",
        "1), DROP COLUMN b, ADD COLUMN z int DEFAULT (1",
        "1) NOT NULL UNIQUE CHECK (true",
        "1 FROM t",
        "1 AS x",
        "1) FROM t WHERE (true",
        "1) UNION SELECT (2",
        "",
        " ",
        "--",
        "1) LIMIT (1",
        "1 /*",
        "*",
        "1) x",
        "DISTINCT 1",
        "1; SELECT 2",
        "1) ORDER BY (1",
    ];
    for evil in evil_expressions {
        for call in [
            format!("add_column('m', 't', 'n', 'int', '{evil}')"),
            format!("transform_column('m', 't', 'a', 'int', '{evil}')"),
        ] {
            let error = session.error(&format!("SELECT transmute.{call}"));
            assert_eq!(error.sqlstate, "22023", "{call}: {error}");
        }
    }
    // A comment at the end of an expression takes nothing with it.
    session.exec("SELECT transmute.add_column('comment', 't', 'n', 'int -- a type', '1 -- one', true); SELECT transmute.apply('comment')");
    session.exec("CALL transmute.wait('comment', timeout => '60 s')");
    assert_eq!(
        session.lines("SELECT attnotnull, atthasdef FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'n'"),
        ["t|t"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["1"]
    );
}

#[test]
fn names_and_arguments_are_checked() {
    let database = Database::shared();
    let mut session = world(&database);
    let long = "x".repeat(64);
    for call in [
        "add_column(NULL, 't', 'n', 'int')".to_string(),
        "add_column('m', NULL, 'n', 'int')".into(),
        "add_column('m', 't', NULL, 'int')".into(),
        "add_column('m', 't', 'n', NULL)".into(),
        "add_column('m', 't', 'n', 'int', not_null => NULL)".into(),
        "add_column('m', 't', 'n', 'int', meta => NULL)".into(),
        "add_column('m', 't', 'n', 'int', meta => '[]')".into(),
        "add_column('m', 't', '', 'int')".into(),
        format!("add_column('m', 't', '{long}', 'int')"),
        format!("add_column('m', '{long}', 'n', 'int')"),
        "add_column('m', '', 'n', 'int')".into(),
        "add_column('m', 't; DROP TABLE t', 'n', 'int')".into(),
        "add_column('m', 't, u', 'n', 'int')".into(),
        "add_column('m', 'a.b.c', 'n', 'int')".into(),
        "add_column('m', '\"t', 'n', 'int')".into(),
        "add_column('m', '1t', 'n', 'int')".into(),
        "add_column('', 't', 'n', 'int')".into(),
        "drop_column('m', 't', NULL)".into(),
        "drop_column('m', 't', '')".into(),
        "rename_column('m', 't', 'a', NULL)".into(),
        "rename_column('m', 't', NULL, 'a')".into(),
        "rename_column('m', 't', 'a', '')".into(),
        "transform_column('m', 't', 'a', NULL)".into(),
        "add_table('m', 'u', NULL)".into(),
        "add_table('m', 'u', '{}')".into(),
        "add_table('m', 'u', '[{\"name\": \"a\"}]')".into(),
        "add_table('m', 'u', '[{\"name\": \"a\", \"type\": \"int\", \"nul\": true}]')".into(),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, "22023", "{call}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{call}: {error}"
        );
    }
    // What only the catalog knows is the server's word, as for any script.
    assert_eq!(
        session
            .error("SELECT transmute.drop_column('m', 't', 'none')")
            .sqlstate,
        "42703"
    );
    assert_eq!(
        session
            .error("SELECT transmute.drop_column('m', 'none', 'a')")
            .sqlstate,
        "42P01"
    );
    assert_eq!(
        session
            .error("SELECT transmute.add_column('m', 't', 'n', 'nosuchtype')")
            .sqlstate,
        "42704"
    );
    assert_eq!(
        session
            .error("SELECT transmute.rename_column('m', 't', 'a', 'b')")
            .sqlstate,
        "42701"
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["0"]
    );
    // Names of 63 bytes and of any letters.
    let most = "ü".repeat(31);
    session.exec(&format!(
        "SELECT transmute.add_column('m', 't', E'{most}\\n', 'int'); SELECT transmute.apply('m')"
    ));
    session.exec("CALL transmute.wait('m', timeout => '60 s')");
}
