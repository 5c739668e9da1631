//! Statements: what the server refuses, what has no recipe, what is no table.

use transmute_tests::Database;

use super::{refusal, refused, register, tables};

#[test]
fn a_statement_that_the_server_refuses_is_refused_at_once() {
    let database = Database::shared();
    let mut session = tables(&database);
    session.exec("CREATE FUNCTION many(int) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1'");
    for (ddl, expected) in [
        ("ALTER TABLE nope ALTER COLUMN a TYPE bigint", "42P01: relation does not exist"),
        ("ALTER TABLE no.t ALTER COLUMN a TYPE bigint", "42P01: relation does not exist"),
        ("ALTER TABLE t ALTER COLUMN nope TYPE bigint", "42703: column \"nope\" of relation \"t\" does not exist"),
        ("ALTER TABLE t ALTER COLUMN a TYPE nope", "42704: type \"nope\" does not exist"),
        ("ALTER TABLE t ALTER COLUMN b TYPE int", "42804: column \"b\" cannot be cast automatically to type integer"),
        ("ALTER TABLE t ALTER COLUMN a TYPE uuid USING a::uuid", "42846: cannot cast type integer to uuid"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING a +", "42601: syntax error at end of input"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING (b || b)", "42804: result of USING clause for column \"a\" cannot be cast automatically to type bigint"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING nope(a)", "42883: function nope(integer) does not exist"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING nope", "42703: column \"nope\" does not exist"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING (SELECT 1)", "0A000: cannot use subquery in transform expression"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING many(a)", "0A000: set-returning functions are not allowed in transform expressions"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint USING sum(a)", "42803: aggregate functions are not allowed in transform expressions"),
        ("ALTER TABLE t ADD COLUMN a int DEFAULT random()", "42701: column \"a\" of relation \"t\" already exists"),
        ("ALTER TABLE t ADD COLUMN c int DEFAULT 'x'::int", "22P02: invalid input syntax for type integer: \"x\""),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint, DROP CONSTRAINT nope", "42704: constraint \"nope\" of relation \"t\" does not exist"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD CONSTRAINT positive CHECK (a > 1)", "42710: constraint \"positive\" for relation \"t\" already exists"),
        ("ALTER TABEL t", "42601: syntax error at or near \"TABEL\""),
    ] {
        assert_eq!(refused(&mut session, &register(ddl)), expected);
        let explained = refused(&mut session, &format!("SELECT * FROM transmute.explain($ddl${ddl}$ddl$)"));
        assert_eq!(explained, expected, "explain says otherwise");
    }
    let error = refusal(
        &mut session,
        &register("ALTER TABLE Nope ALTER COLUMN a TYPE bigint"),
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("There is no table nope; search_path is \"$user\", public.")
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("Check the spelling, or write the schema in front.")
    );
}

#[test]
fn what_has_no_recipe_is_refused_by_name() {
    let database = Database::shared();
    let mut session = tables(&database);
    for (ddl, expected) in [
        (
            "LOCK TABLE t",
            "there is no online recipe for LOCK TABLE yet",
        ),
        (
            "EXPLAIN SELECT 1",
            "there is no online recipe for EXPLAIN yet",
        ),
        ("COPY t FROM STDIN", "COPY is not run by a migration"),
        (
            "ALTER TABLE t ADD EXCLUDE (a WITH =)",
            "there is no online recipe for ADD EXCLUDE by itself",
        ),
    ] {
        let error = refusal(
            &mut session,
            &register(&format!("\n  -- a comment\n  {ddl};")),
        );
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("0A000", expected)
        );
        let detail = error.detail.unwrap_or_default();
        assert!(detail.contains("line 3"), "{ddl}: {detail}");
    }
    for (ddl, sqlstate, expected) in [
        (
            "BEGIN; ALTER TABLE t ALTER COLUMN a TYPE bigint; COMMIT",
            "22023",
            "the script controls transactions itself",
        ),
        (
            "COMMENT ON TABLE t IS NULL; SAVEPOINT x",
            "22023",
            "the script controls transactions itself",
        ),
        ("", "22023", "the script holds no statement"),
        (
            " /* nothing */ -- at all",
            "22023",
            "the script holds no statement",
        ),
    ] {
        let error = refusal(&mut session, &register(ddl));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            (sqlstate, expected),
            "{ddl}"
        );
    }
}

#[test]
fn relations_that_cannot_be_migrated_are_refused_by_kind() {
    let database = Database::shared();
    let mut session = tables(&database);
    session.exec(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE f (a int) SERVER far;
         CREATE MATERIALIZED VIEW mv AS SELECT 1 AS a; CREATE TEMP TABLE tmp (id int PRIMARY KEY, a int);
         CREATE TABLE typed OF pair (PRIMARY KEY (a));
         CREATE TABLE parent (id int PRIMARY KEY, a int); CREATE TABLE child () INHERITS (parent);
         CREATE TABLE whole (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (10);
         CREATE TABLE broken (id int PRIMARY KEY, a int); INSERT INTO broken VALUES (1, 1), (2, 1)",
    );
    assert_eq!(
        session
            .error("CREATE UNIQUE INDEX CONCURRENTLY ON broken (a)")
            .sqlstate,
        "23505"
    );
    for (table, expected) in [
        ("f", "42809"),
        ("v", "42809"),
        ("mv", "42809"),
        ("s", "42809"),
        ("pair", "42809"),
        ("t_b", "42809"),
        ("tmp", "42809"),
        ("pg_class", "42809"),
        ("information_schema.sql_features", "42809"),
        ("_transmute.migrations", "42809"),
        ("typed", "42809"),
        ("parent", "0A000"),
        ("child", "0A000"),
        ("part", "42809"),
        ("broken", "55000"),
    ] {
        let ddl = format!("ALTER TABLE {table} ALTER COLUMN a TYPE bigint");
        for call in [
            register(&ddl),
            format!("SELECT * FROM transmute.explain('{ddl}')"),
        ] {
            let error = refusal(&mut session, &call);
            assert_eq!(error.sqlstate, expected, "{table}: {error}");
            let (_, name) = table.rsplit_once('.').unwrap_or(("", table));
            assert!(
                error.detail.as_deref().unwrap_or_default().contains(name),
                "which one? {error}"
            );
        }
    }
}
