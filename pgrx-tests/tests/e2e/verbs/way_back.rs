//! The way back of planned migrations to which none was given: what comes back besides the catalog, and what is refused.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::history::dump;
use super::{load, settle, statuses};

fn migrate(session: &mut Session, id: &str, up: &str, meta: &str) {
    session.query(
        "SELECT transmute.migrate($1, $2, $3::text::jsonb)",
        &[&up, &id, &meta],
    );
    settle(session);
    session.notices();
}

#[test]
fn rows_come_back_with_what_was_written_since() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text NOT NULL, c text UNIQUE); INSERT INTO t SELECT i, i, 'b' || i, i FROM generate_series(1, 100) i;
         CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO child SELECT i, i FROM generate_series(1, 10) i",
    );
    migrate(
        &mut session,
        "wide",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    session.exec("UPDATE t SET a = 5000000000 WHERE id = 7");
    session.exec("SELECT transmute.down('wide', 'too early')");
    // A value that the old type does not hold is a dead letter, not lost.
    session.wait_for(
        "SELECT key FROM transmute.dead_letters WHERE id = 'wide:down' AND status = 'open'",
        "(id)=(7)",
        PATIENCE,
    );
    session.exec("UPDATE t SET a = 70 WHERE id = 7");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT pg_typeof(a), a FROM t WHERE id = 7"),
        ["integer|70"]
    );

    migrate(
        &mut session,
        "less",
        "ALTER TABLE t DROP COLUMN b, DROP COLUMN c; DROP TABLE child",
        "{}",
    );
    assert_eq!(
        session.lines("SELECT source FROM transmute.artifacts WHERE id = 'less' AND dropped_at IS NULL ORDER BY 1"),
        ["public.child", "public.t.b", "public.t.c"]
    );
    session.exec("INSERT INTO t VALUES (101, 101)");
    session.exec("SELECT transmute.down('less', 'both are needed')");
    // NOT NULL is not so again before every row has a value.
    session.wait_for(
        "SELECT last_error FROM transmute.status WHERE id = 'less:down'",
        "a column cannot be made NOT NULL again",
        PATIENCE,
    );
    session.exec("UPDATE t SET b = 'new' WHERE id = 101; SELECT transmute.resume('less:down', 'it has a value')");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT count(*), count(b), count(c), min(b) FROM t"),
        ["101|101|100|b1"]
    );
    assert_eq!(
        session.lines("SELECT conname, convalidated FROM pg_constraint WHERE conrelid IN ('t'::regclass, 'child'::regclass) AND contype IN ('f', 'u') ORDER BY 1"),
        ["child_t_fkey|t", "t_c_key|t"]
    );
    assert_eq!(
        session.lines("SELECT count(*), sum(t) FROM child"),
        ["10|55"]
    );
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM transmute.artifacts WHERE id = 'less' AND dropped_at IS NULL"
        ),
        ["0"]
    );
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace n WHERE nspname LIKE '\\_transmute\\_%' AND NOT EXISTS (SELECT FROM transmute.artifacts a WHERE a.dropped_at IS NULL AND a.physical LIKE n.nspname || '.%')"),
        [""; 0]
    );
    // What was taken back is made so again, by its script.
    session.exec("SELECT count(*) FROM transmute.apply('less')");
    settle(&mut session);
    assert_eq!(statuses(&mut session), ["wide|taken back", "less|applied"]);
    assert_eq!(session.lines("SELECT to_regclass('child')"), ["∅"]);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn what_is_kept_no_longer_is_refused_by_name_and_stays_gone_where_that_is_allowed() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int); CREATE TABLE u (id int)");
    migrate(
        &mut session,
        "gone",
        "ALTER TABLE t DROP COLUMN a; DROP TABLE u; COMMENT ON TABLE t IS 'x'",
        r#"{"keep_artifacts": "0"}"#,
    );
    session.exec("CALL transmute.run()");
    session.wait_for(
        "SELECT count(*) FROM transmute.artifacts WHERE dropped_at IS NULL",
        "0",
        PATIENCE,
    );
    let error = session.error("SELECT transmute.down('gone', 'x')");
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55000", "not all of the migration can be taken back")
    );
    let detail = error.detail.unwrap_or_default();
    for what in [
        "public.u was kept until ",
        "public.t.a was kept until ",
        "(meta.keep_artifacts), and is gone",
    ] {
        assert!(detail.contains(what), "{detail}");
    }
    session.exec("SELECT transmute.down('gone', 'the rest', allow_missing_down => true)");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT obj_description('t'::regclass), to_regclass('u')"),
        ["∅|∅"]
    );
    // Rows that were changed are not derived, either.
    migrate(
        &mut session,
        "rows",
        "ALTER TABLE t ALTER COLUMN b TYPE bigint; UPDATE t SET b = b + 1",
        "{}",
    );
    let error = session.error("SELECT transmute.down('rows', 'x')");
    assert!(
        error.detail.unwrap_or_default().contains("public.t"),
        "the statement is named"
    );
}

#[test]
fn several_copies_of_one_table_go_back_in_one_call() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id serial PRIMARY KEY, a int DEFAULT 1, b text); INSERT INTO t (b) SELECT i FROM generate_series(1, 50) i");
    let shape = "SELECT attname, atttypid::regtype, pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                 WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let before = session.lines(shape);
    load(
        &mut session,
        "-- migration: one\n-- migrate: up\nALTER TABLE t ALTER COLUMN id TYPE bigint;\n\
         -- migration: two\n-- migrate: up\nALTER TABLE t ALTER COLUMN a TYPE numeric; ALTER TABLE t RENAME COLUMN b TO n;\n\
         -- migration: three\n-- migrate: up\nALTER TABLE t ALTER COLUMN n TYPE int USING n::int, ADD COLUMN g int GENERATED ALWAYS AS (id * 2) STORED;\n",
    );
    session.exec("SELECT count(*) FROM transmute.apply()");
    settle(&mut session);
    let after = session.lines(shape);
    assert_eq!(after[0], "id|bigint|nextval('t_id_seq'::regclass)");
    session.exec("SELECT count(*) FROM transmute.rollback(3, confirm => current_database())");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT id, last_error FROM transmute.status WHERE last_error IS NOT NULL"),
        [""; 0]
    );
    assert_eq!(session.lines(shape), before);
    assert_eq!(
        session.lines("SELECT seqtypid::regtype, count(*), sum(b::int) FROM pg_sequence, t WHERE seqrelid = 't_id_seq'::regclass GROUP BY 1"),
        ["integer|50|1275"]
    );
    session.exec("SELECT count(*) FROM transmute.apply()");
    settle(&mut session);
    assert_eq!(session.lines(shape), after);
}

#[test]
fn a_planned_migration_that_comes_late_is_out_of_order() {
    let database = Database::shared();
    let mut session = database.connect();
    let one = "-- migration: one\n-- migrate: up\nCREATE TABLE t (id int PRIMARY KEY);\n";
    let two = "-- migration: two\n-- migrate: up\nCREATE TABLE u (id int PRIMARY KEY);\n";
    let three = "-- migration: three\n-- migrate: up\nALTER TABLE t ADD COLUMN n int;\n";
    load(&mut session, &format!("{one}{three}"));
    session.exec("SELECT count(*) FROM transmute.apply()");
    settle(&mut session);
    load(&mut session, &format!("{one}{two}{three}"));
    for call in ["apply()", "apply('two')", "up()"] {
        let error = session.error(&format!("SELECT * FROM transmute.{call}"));
        assert_eq!(error.sqlstate, "55000", "{call}: {error}");
        assert!(
            error
                .detail
                .as_deref()
                .unwrap_or_default()
                .contains("Migration \"three\", which comes behind it, was applied already"),
            "{call}: {error:?}"
        );
        assert!(
            error
                .hint
                .unwrap_or_default()
                .contains("allow_out_of_order => true"),
            "{call}"
        );
    }
    assert_eq!(
        statuses(&mut session),
        ["one|applied", "two|pending", "three|applied"]
    );
    session.exec("SELECT count(*) FROM transmute.apply(allow_out_of_order => true)");
    settle(&mut session);
    assert_eq!(
        statuses(&mut session),
        ["one|applied", "two|applied", "three|applied"]
    );
    // One that names what it builds on has no other order.
    load(
        &mut session,
        &format!(
            "-- migration: zero\n-- depends: three\n-- migrate: up\nCREATE TABLE z ();\n{one}"
        ),
    );
    session.exec("SELECT count(*) FROM transmute.apply()");
    settle(&mut session);
    assert_eq!(session.lines("SELECT to_regclass('z')"), ["z"]);
}

/// `name` becomes `first` and `last`, and both are written until the end.
const SPLIT: &str = "ALTER TABLE users ADD COLUMN first text, ADD COLUMN last text;
    UPDATE users SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
    ALTER TABLE users DROP COLUMN name";

#[test]
fn columns_that_a_rule_made_go_back_with_what_was_written_to_them() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL DEFAULT 'no body', x int); CREATE UNIQUE INDEX ON users (name);
         INSERT INTO users SELECT i, 'a' || i || ' b' || i, i FROM generate_series(1, 300) i; UPDATE users SET name = 'a  b' WHERE id = 9;
         CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'one')",
    );
    let before = dump(&database);
    session.exec("CREATE TABLE spent ()");
    migrate(
        &mut session,
        "split",
        SPLIT,
        r#"{"reverse": {"name": "first || ' ' || last"}}"#,
    );
    session.exec(
        "UPDATE users SET last = 'new' WHERE id = 7; DELETE FROM users WHERE id = 8;
         INSERT INTO users (id, x, first, last) VALUES (301, 1, 'c', 'd')",
    );
    migrate(&mut session, "spent", "DROP TABLE spent", "{}");
    let split = dump(&database);
    let soaks = r#"SET transmute.pre_finalization_soak = '1 hour'"#;
    session.exec(soaks);
    session.exec("SELECT transmute.down('split', 'the old application is needed')");
    for goes_on in [false, true] {
        session.wait_for(
            "SELECT transmute.state('split:down')",
            "AWAITING_FINALIZATION",
            PATIENCE,
        );
        // Both shapes are there, and whoever writes one writes the other.
        session.exec(
            "UPDATE users SET name = 'old app' WHERE id = 1; UPDATE users SET first = 'new' WHERE id = 2;
             INSERT INTO users (id, first, last) VALUES (302, 'e', 'f'); INSERT INTO users (id, name) VALUES (303, 'g h')",
        );
        assert_eq!(
            session.lines("SELECT id, name, first, last FROM users WHERE id IN (1, 2, 7, 9, 301, 302, 303) ORDER BY 1"),
            [
                "1|old app|old|app", "2|new b2|new|b2", "7|a7 new|a7|new", "9|a  b|a|", "301|c d|c|d", "302|e f|e|f", "303|g h|g|h"
            ]
        );
        if !goes_on {
            // The time of a column that is shown may be over: another artifact goes, which is younger.
            session.exec("UPDATE _transmute.artifacts SET expires_at = now()");
            session.exec("SELECT transmute.register('wakes', 'CREATE TABLE wakes ()', meta => '{\"pre_finalization_soak\": \"0\"}'); SELECT transmute.apply('wakes')");
            session.exec("CALL transmute.wait('wakes')");
            let kept =
                "SELECT string_agg(source, ' ') FROM transmute.artifacts WHERE dropped_at IS NULL";
            session.wait_for(kept, "public.users.name", PATIENCE);
            session.exec("UPDATE _transmute.artifacts SET expires_at = 'infinity' WHERE dropped_at IS NULL; DROP TABLE wakes");
        }
        if goes_on {
            session.exec("SELECT transmute.skip_soak('split:down', 'enough')");
        } else {
            session.exec("SELECT transmute.rollback('split:down', 'not yet')");
            settle(&mut session);
            assert_eq!(dump(&database), split);
            session.exec("DELETE FROM users WHERE id IN (302, 303); UPDATE users SET first = 'a2' WHERE id = 2");
            session.exec("SELECT transmute.apply('split:down')");
        }
    }
    settle(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session
            .lines("SELECT id, name FROM users WHERE id IN (1, 2, 7, 9, 301, 302, 303) ORDER BY 1"),
        [
            "1|old app",
            "2|new b2",
            "7|a7 new",
            "9|a  b",
            "301|c d",
            "302|e f",
            "303|g h"
        ]
    );
    session.exec("SET transmute.pre_finalization_soak = 'default'");

    // One way: what was written since nothing leads back; the old column stays, or has its old values again.
    migrate(
        &mut session,
        "more",
        "ALTER TABLE notes ADD COLUMN size int; UPDATE notes SET size = length(body)",
        "{}",
    );
    session.exec("SELECT transmute.down('more', 'no need')");
    settle(&mut session);
    migrate(
        &mut session,
        "twice",
        "ALTER TABLE notes RENAME COLUMN body TO words",
        r#"{"dual_write": "trigger"}"#,
    );
    session.exec("UPDATE notes SET words = 'two'; SELECT transmute.down('twice', 'no need')");
    settle(&mut session);
    assert_eq!(dump(&database), before);
    migrate(
        &mut session,
        "lossy",
        "ALTER TABLE notes ADD COLUMN size int; UPDATE notes SET size = length(body); ALTER TABLE notes DROP COLUMN body",
        "{}",
    );
    let error = session.error("SELECT transmute.down('lossy', 'no need')");
    assert_eq!(error.sqlstate, "55000");
    assert!(
        error
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("nothing says what public.notes.body is from the new columns (meta.reverse)"),
        "{error:?}"
    );
    session.exec(
        "SELECT transmute.down('lossy', 'the old value will do', allow_missing_down => true)",
    );
    settle(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(session.lines("SELECT body FROM notes"), ["two"]);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn columns_that_a_rule_made_go_back_beside_tables_that_are_copied_back() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL); INSERT INTO users SELECT i, 'a' || i || ' b' || i FROM generate_series(1, 100) i;
         CREATE TABLE orders (id int PRIMARY KEY, users int REFERENCES users, cents int NOT NULL); INSERT INTO orders SELECT i, i, i FROM generate_series(1, 100) i;
         CREATE VIEW both_of_them AS SELECT o.cents, u.id FROM orders o JOIN users u ON u.id = o.users",
    );
    let before = dump(&database);
    let reverse = r#"{"reverse": {"users.name": "first || ' ' || last"}}"#;
    for (i, copy) in [
        format!("{SPLIT}; ALTER TABLE orders ALTER COLUMN cents TYPE bigint; CREATE INDEX orders_cents ON orders (cents); CREATE INDEX users_last ON users (last)"),
        format!("ALTER TABLE orders ALTER COLUMN cents TYPE numeric, ADD CHECK (cents > 0); {SPLIT}"),
    ]
    .iter()
    .enumerate()
    {
        let id = format!("m{i}");
        migrate(&mut session, &id, copy, reverse);
        session.exec("UPDATE users SET last = 'new' WHERE id = 7; UPDATE orders SET cents = 70 WHERE id = 7");
        session.exec(&format!("SET transmute.pre_finalization_soak = '1 hour'; SELECT transmute.down('{id}', 'no need')"));
        session.wait_for(
            &format!("SELECT transmute.state('{id}:down')"),
            "AWAITING_FINALIZATION",
            PATIENCE,
        );
        // Both shapes are written meanwhile.
        session.exec(
            "UPDATE users SET name = 'old app' WHERE id = 1; UPDATE users SET first = 'new' WHERE id = 2; UPDATE orders SET cents = 30 WHERE id = 3",
        );
        session.exec(&format!("SELECT transmute.skip_soak('{id}:down', 'enough'); SET transmute.pre_finalization_soak = 'default'"));
        settle(&mut session);
        assert_eq!(dump(&database), before, "{copy}");
        assert_eq!(
            session.lines("SELECT id, name, pg_typeof(cents), cents FROM users JOIN orders USING (id) WHERE id IN (1, 2, 3, 7) ORDER BY id"),
            [
                "1|old app|integer|1",
                "2|new b2|integer|2",
                "3|a3 b3|integer|30",
                "7|a7 new|integer|70"
            ]
        );
    }
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn a_down_that_is_given_may_stand_beside_what_meta_reverse_says() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a b'), (2, 'c d')");
    let down = "ALTER TABLE users ADD COLUMN name text; UPDATE users SET name = first || '/' || last; ALTER TABLE users DROP COLUMN first, DROP COLUMN last";
    let register = "SELECT transmute.register('m', $1, $2, $3::text::jsonb)";
    let reverse = r#"{"reverse": {"name": "first || ' ' || last"}}"#;
    // What it says of `up` is looked at as ever.
    let wrong = reverse.replace("first", "frist");
    let error = session.error(&format!(
        "SELECT transmute.register('m', $q${SPLIT}$q$, $q${down}$q$, '{}')",
        wrong.replace('\'', "''")
    ));
    assert_eq!(error.sqlstate, "42703", "{error}");
    session.query(register, &[&SPLIT, &down, &reverse]);
    session.exec("SELECT transmute.apply('m')");
    settle(&mut session);
    session
        .exec("UPDATE users SET last = 'new' WHERE id = 2; SELECT transmute.down('m', 'no need')");
    settle(&mut session);
    // The one that is given is gone.
    assert_eq!(
        session.lines("SELECT id, name FROM users ORDER BY id"),
        ["1|a/b", "2|c/new"]
    );
}

#[test]
fn a_column_comes_back_by_the_rule_of_its_own_table_and_not_when_its_time_is_over() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a b');
         CREATE TABLE pets (id int PRIMARY KEY, name text); INSERT INTO pets VALUES (1, 'cat')",
    );
    let before = dump(&database);
    // Of the same name, in a table without a rule.
    migrate(
        &mut session,
        "both",
        &format!("{SPLIT}; ALTER TABLE pets DROP COLUMN name"),
        r#"{"reverse": {"users.name": "first || ' ' || last"}}"#,
    );
    session.exec("UPDATE users SET last = 'c'; SELECT transmute.down('both', 'no need')");
    settle(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.lines("SELECT name FROM users UNION ALL SELECT name FROM pets"),
        ["a c", "cat"]
    );

    migrate(
        &mut session,
        "late",
        SPLIT,
        r#"{"reverse": {"name": "first || ' ' || last"}}"#,
    );
    session.exec(
        "SET transmute.pre_execution_soak = '1 hour'; SELECT transmute.down('late', 'no need')",
    );
    session.exec("UPDATE _transmute.artifacts SET expires_at = now()");
    session.wait_for(
        "SELECT count(*) FROM transmute.artifacts WHERE dropped_at IS NULL",
        "0",
        PATIENCE,
    );
    session.exec("SELECT transmute.skip_soak('late:down', 'now')");
    session.wait_for(
        "SELECT last_error FROM transmute.status WHERE id = 'late:down'",
        "what was dropped is not kept any more",
        PATIENCE,
    );
    session.exec("SELECT transmute.rollback('late:down', 'too late')");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT to_jsonb(users) FROM users"),
        [r#"{"id": 1, "last": "c", "first": "a"}"#]
    );
}
