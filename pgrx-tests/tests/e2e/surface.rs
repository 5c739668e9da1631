//! Bad input: every refusal has its SQLSTATE, a DETAIL and a HINT, and leaves nothing behind.

use transmute_tests::{Database, DbError, Session};

use crate::migration::Migration;

/// What there is of ours and of anybody's in the database; a refused call must not change it.
const EVERYTHING: &str = "
    SELECT (SELECT count(*) FROM _transmute.migrations), (SELECT count(*) FROM _transmute.steps),
      (SELECT count(*) FROM _transmute.rewrites), (SELECT count(*) FROM _transmute.progress),
      (SELECT count(*) FROM _transmute.approvals), (SELECT count(*) FROM _transmute.dead_letters),
      (SELECT count(*) FROM _transmute.artifacts), (SELECT count(*) FROM _transmute.audit_events),
      (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_trigger),
      (SELECT md5(string_agg(concat_ws('|', id, state, queued, paused_reason, rollback_reason, soak_until, required_approvals), '' ORDER BY seq))
        FROM _transmute.migrations)";

/// Runs a call that must be refused: the error, once it is sure that nothing was written.
#[track_caller]
fn refusal(session: &mut Session, sql: &str) -> DbError {
    let before = session.lines(EVERYTHING);
    let error = session.error(sql);
    assert_eq!(session.lines(EVERYTHING), before, "written by: {sql}");
    for part in [&error.detail, &error.hint] {
        let said = part.as_deref().is_some_and(|text| !text.trim().is_empty());
        assert!(said, "no DETAIL or no HINT: {error}\n  in: {sql}");
    }
    error
}

/// `sqlstate: message` of a refusal.
#[track_caller]
fn refused(session: &mut Session, sql: &str) -> String {
    let error = refusal(session, sql);
    format!("{}: {}", error.sqlstate, error.message)
}

fn register(ddl: &str) -> String {
    format!("SELECT transmute.register('new', $ddl${ddl}$ddl$)")
}

fn tables(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text, CONSTRAINT positive CHECK (a > 0));
         INSERT INTO t VALUES (1, 1, 'x');
         CREATE INDEX t_b ON t (b); CREATE VIEW v AS SELECT id FROM t; CREATE SEQUENCE s; CREATE TYPE pair AS (a int)",
    );
    session
}

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
        ("SELECT 1", "there is no online recipe for SELECT yet"),
        (
            "CREATE INDEX ON t (a)",
            "there is no online recipe for CREATE INDEX yet",
        ),
        (
            "DROP TABLE t",
            "there is no online recipe for DROP TABLE yet",
        ),
        ("VACUUM t", "there is no online recipe for VACUUM yet"),
        (
            "UPDATE t SET a = 2",
            "there is no online recipe for UPDATE yet",
        ),
        (
            "DO $x$ BEGIN END $x$",
            "there is no online recipe for DO yet",
        ),
        (
            "ALTER TYPE pair ADD ATTRIBUTE b int",
            "there is no online recipe for ALTER TYPE yet",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
            "there is no online recipe for SET NOT NULL yet",
        ),
        (
            "ALTER TABLE t ADD CHECK (a > 1)",
            "there is no online recipe for ADD CHECK yet",
        ),
        (
            "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES t",
            "there is no online recipe for ADD FOREIGN KEY yet",
        ),
        (
            "ALTER TABLE t VALIDATE CONSTRAINT positive",
            "there is no online recipe for VALIDATE CONSTRAINT yet",
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
        (
            "ALTER TABLE t ALTER COLUMN a TYPE bigint; ALTER TABLE t ALTER COLUMN id TYPE bigint",
            "0A000",
            "two statements of the script rewrite the same table",
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
         CREATE TABLE no_key (a int); CREATE TABLE null_key (a int UNIQUE); CREATE TABLE typed OF pair (PRIMARY KEY (a));
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
        ("no_key", "0A000"),
        ("null_key", "0A000"),
        ("parent", "0A000"),
        ("child", "0A000"),
        ("whole", "0A000"),
        ("part", "0A000"),
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
    // The key that identifies rows must stay one.
    for using in ["id / 2", "a", "random()::int"] {
        let ddl = format!("ALTER TABLE t ALTER COLUMN id TYPE int USING {using}");
        assert_eq!(
            refusal(&mut session, &register(&ddl)).sqlstate,
            "0A000",
            "{using}"
        );
    }
}

#[test]
fn ids_and_arguments_are_checked() {
    let database = Database::shared();
    let mut session = tables(&database);
    let comment = "'COMMENT ON TABLE t IS NULL'";
    Migration::register(&database, "taken", "COMMENT ON TABLE t IS NULL", "{}");
    for (call, expected) in [
        (
            format!("register('taken', {comment})"),
            "42710: migration is already registered",
        ),
        (
            format!("migrate({comment}, id => 'taken')"),
            "42710: migration is already registered",
        ),
        (format!("register('', {comment})"), "22023: the id is empty"),
        (
            format!("register(E'a\\nb', {comment})"),
            "22023: the id holds a control character",
        ),
        (
            format!("register(E'a\\u0085b', {comment})"),
            "22023: the id holds a control character",
        ),
        (
            format!("register(repeat('x', 1 << 20), {comment})"),
            "22023: the id is too long",
        ),
        (
            format!("register(repeat('é', 128), {comment})"),
            "22023: the id is too long",
        ),
        (format!("register(NULL, {comment})"), "22023: id is NULL"),
        ("register('new', NULL)".into(), "22023: up is NULL"),
        (
            format!("register('new', {comment}, meta => NULL)"),
            "22023: meta is NULL",
        ),
        (
            format!("register('new', {comment}, down => 'COMMENT ON TABLE t IS NULL')"),
            "0A000: a hand-written way back is not supported yet",
        ),
        ("migrate(NULL)".into(), "22023: ddl is NULL"),
        (
            format!("migrate({comment}, meta => NULL)"),
            "22023: meta is NULL",
        ),
        ("explain(NULL)".into(), "22023: ddl is NULL"),
        ("plan(NULL)".into(), "22023: id is NULL"),
        ("rollback_plan(NULL)".into(), "22023: id is NULL"),
        ("audit_export('xml')".into(), "22023: unknown export format"),
        ("audit_export(NULL)".into(), "22023: unknown export format"),
        (
            "audit_verify(expected_head => 'x')".into(),
            "22023: the expected head is not one",
        ),
        (
            "approve('taken', 'x', ttl => '0')".into(),
            "22023: the time to live of an approval must be positive",
        ),
        (
            "approve('taken', 'x', ttl => '-1 day')".into(),
            "22023: the time to live of an approval must be positive",
        ),
        (
            "approve('taken', 'x', ttl => NULL)".into(),
            "22023: ttl is NULL",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &format!("SELECT transmute.{call}")),
            expected,
            "{call}"
        );
    }
    let too_far = refusal(
        &mut session,
        "SELECT transmute.approve('taken', 'x', ttl => '300000 years')",
    );
    assert_eq!(too_far.sqlstate, "22023", "{too_far}");
    for verb in [
        "approve",
        "pause",
        "resume",
        "revoke_approval",
        "skip_soak",
        "rollback",
    ] {
        for (arguments, expected) in [
            ("NULL, 'x'", "22023: id is NULL"),
            ("'taken', NULL", "22023: reason is NULL"),
            ("'taken', ''", "22023: a reason is needed"),
            ("'taken', E' \\t'", "22023: a reason is needed"),
            ("'nobody', 'x'", "42704: migration does not exist"),
        ] {
            let sql = format!("SELECT transmute.{verb}({arguments})");
            assert_eq!(refused(&mut session, &sql), expected, "{sql}");
        }
    }
    for call in [
        "SELECT transmute.apply('nobody')",
        "SELECT transmute.plan('nobody')",
        "SELECT transmute.rollback_plan('nobody')",
        "CALL transmute.wait('nobody')",
        "CALL transmute.run('nobody')",
    ] {
        assert_eq!(
            refused(&mut session, call),
            "42704: migration does not exist",
            "{call}"
        );
    }
    for (call, expected) in [
        ("wait(NULL)", "22023: id is NULL"),
        ("wait('taken', NULL)", "22023: unknown state"),
        ("wait('taken', 'finished')", "22023: unknown state"),
        (
            "wait('taken', timeout => NULL)",
            "22023: timeout must be zero or more",
        ),
        (
            "wait('taken', timeout => '-1 s')",
            "22023: timeout must be zero or more",
        ),
        (
            "run('taken', max_steps => 0)",
            "22023: max_steps must be positive",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &format!("CALL transmute.{call}")),
            expected,
            "{call}"
        );
    }
    assert_eq!(
        session.lines("SELECT transmute.state(NULL), transmute.is_finished(NULL), transmute.progress_line('nobody')"),
        ["∅|f|∅"]
    );
    // The edge of what is allowed.
    session.exec(&format!(
        "SELECT transmute.register(repeat('é', 127) || 'x', {comment})"
    ));
    session.exec(&format!("SELECT transmute.register($$it's \"quoted\"; -- $$, {comment}); SELECT transmute.apply($$it's \"quoted\"; -- $$)"));
    session.exec("CALL transmute.wait($$it's \"quoted\"; -- $$)");
}

#[test]
fn metadata_is_checked_with_its_place_and_the_nearest_key() {
    let database = Database::shared();
    let mut session = tables(&database);
    for (meta, detail, hint) in [
        ("[]", "meta: a list", "Give an object"),
        ("\"x\"", "meta: a text", "Give an object"),
        (
            r#"{"requird_approvals": 1}"#,
            "meta.requird_approvals: is not a known key",
            "Perhaps you meant \"required_approvals\".",
        ),
        (
            r#"{"preFinalizationSoak": "1 h"}"#,
            "meta.preFinalizationSoak: is not a known key",
            "Perhaps you meant \"pre_finalization_soak\".",
        ),
        (
            r#"{"zzz": 1}"#,
            "meta.zzz: is not a known key",
            "Known keys: name, ",
        ),
        (
            r#"{"required_approvals": -1}"#,
            "meta.required_approvals: a number",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": 1.5}"#,
            "meta.required_approvals: a number with a fraction",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": "1"}"#,
            "meta.required_approvals: a text",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": 4000000000}"#,
            "meta.required_approvals",
            ".",
        ),
        (
            r#"{"keep_artifacts": 5}"#,
            "meta.keep_artifacts: a number",
            "Give an interval as a text",
        ),
        (
            r#"{"name": " "}"#,
            "meta.name: must not be empty",
            "Leave the key out",
        ),
        (
            r#"{"pre_finalization_soak": "-1 s"}"#,
            "meta.pre_finalization_soak is -1 s.",
            "Give an interval",
        ),
        (
            r#"{"pre_execution_soak": "soon"}"#,
            "meta.pre_execution_soak is \"soon\"",
            "Give an interval",
        ),
        (
            r#"{"keep_artifacts": "-7 days"}"#,
            "meta.keep_artifacts is -7 days.",
            "Give an interval",
        ),
        (
            r#"{"estimated_duration": "soon"}"#,
            "meta.estimated_duration",
            "Give an interval",
        ),
        (
            r#"{"pre_finalization_soak": "178000000 years"}"#,
            "meta.pre_finalization_soak",
            ".",
        ),
        (
            r#"{"pre_execution_soak": "300000 years"}"#,
            "meta.pre_execution_soak",
            ".",
        ),
        (
            r#"{"keep_artifacts": "300000 years"}"#,
            "meta.keep_artifacts",
            ".",
        ),
        (
            r#"{"pre_finalization_soak": "infinity"}"#,
            "meta.pre_finalization_soak",
            ".",
        ),
    ] {
        let sql = format!(
            "SELECT transmute.register('new', 'COMMENT ON TABLE t IS NULL', meta => '{meta}')"
        );
        let error = refusal(&mut session, &sql);
        assert_eq!(error.sqlstate, "22023", "{meta}: {error}");
        let (said, hinted) = (
            error.detail.clone().unwrap_or_default(),
            error.hint.clone().unwrap_or_default(),
        );
        assert!(
            said.contains(detail) && hinted.contains(hint),
            "{meta}: {error}"
        );
    }
    for meta in [
        r#"{"depends_on": ["other"]}"#,
        r#"{"requires_external_action": true}"#,
    ] {
        let sql = format!(
            "SELECT transmute.register('new', 'COMMENT ON TABLE t IS NULL', meta => '{meta}')"
        );
        assert_eq!(refusal(&mut session, &sql).sqlstate, "0A000", "{meta}");
    }
    // Settings are read when they are needed, and blamed by name.
    session.exec("SET transmute.pre_finalization_soak = 'nonsense'");
    let error = refusal(&mut session, &register("COMMENT ON TABLE t IS NULL"));
    assert!(
        error
            .detail
            .clone()
            .unwrap_or_default()
            .contains("pre_finalization_soak is \"nonsense\""),
        "{error}"
    );
}

#[test]
fn one_table_has_one_migration_at_a_time() {
    let database = Database::shared();
    let mut session = tables(&database);
    let to_bigint = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
    Migration::register(&database, "second", to_bigint, "{}");
    let mut first = Migration::start(
        &database,
        "first",
        to_bigint,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    first.wait("AWAITING_FINALIZATION");
    let error = refusal(&mut session, &register("ALTER TABLE t ADD COLUMN c int"));
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("55006", "another migration is rewriting the table")
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("Migration \"first\" works on public.t.")
    );
    // One that was registered before it waits for it, and says so.
    session.exec("SELECT transmute.apply('second')");
    session.wait_for(
        "SELECT waiting_for LIKE '%\"first\"%' FROM transmute.status WHERE id = 'second'",
        "t",
        transmute_tests::wait::PATIENCE,
    );
    first.call("rollback", "'the other one first'");
    first.wait("UNINITIALIZED");
    session.exec("CALL transmute.wait('second', timeout => '60 s')");
    assert_eq!(session.lines("SELECT pg_typeof(a) FROM t"), ["bigint"]);
}

#[test]
fn calls_that_the_state_does_not_allow_say_so() {
    let database = Database::shared();
    let mut session = tables(&database);
    let mut migration = Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    let mut check = |state: &str, verbs: &[&str]| {
        for verb in verbs {
            let error = refusal(&mut session, &format!("SELECT transmute.{verb}('m', 'x')"));
            assert_eq!(error.sqlstate, "55000", "{verb}: {error}");
            assert_eq!(
                error.message,
                format!("the state of the migration does not allow {verb}")
            );
            assert_eq!(
                error.detail.as_deref(),
                Some(format!("Migration \"m\" is in state {state}.").as_str())
            );
        }
    };
    check(
        "UNINITIALIZED",
        &["pause", "resume", "skip_soak", "rollback"],
    );
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    check("AWAITING_FINALIZATION", &["resume"]);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    check(
        "FINISHED",
        &[
            "pause",
            "resume",
            "skip_soak",
            "rollback",
            "approve",
            "revoke_approval",
        ],
    );
    assert_eq!(migration.refused("apply", "").sqlstate, "55000");
}
