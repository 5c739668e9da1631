//! What a migration declares must hold is looked at in its phase, and stops it where it does not.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL);
         INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i;
         CREATE TABLE allowed (phase text PRIMARY KEY);
         INSERT INTO allowed VALUES ('PRE_RUN'), ('DURING_RUN'), ('PRE_FINALIZATION'), ('POST_FINALIZATION')",
    );
    session
}

/// `meta` with these invariants: name, phase and query.
fn meta(invariants: &[(&str, &str, &str)]) -> String {
    let list: Vec<String> = invariants
        .iter()
        .map(|(name, phase, sql)| {
            format!(r#"{{"name": "{name}", "phase": "{phase}", "sql": "{sql}"}}"#)
        })
        .collect();
    format!(r#"{{"invariants": [{}]}}"#, list.join(", "))
}

fn found(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT name, phase, holds, checks > 0, failures, problem FROM transmute.invariants WHERE NOT built_in ORDER BY name",
    )
}

#[test]
fn each_phase_is_looked_at_and_what_holds_stops_nothing() {
    let database = Database::shared();
    let mut session = table(&database);
    let all = meta(&[
        ("a", "PRE_RUN", "SELECT count(*) = 100 FROM t"),
        ("b", "DURING_RUN", "SELECT id FROM t WHERE a < 0"),
        ("c", "PRE_FINALIZATION", "SELECT a > 0 FROM t"),
        (
            "d",
            "POST_FINALIZATION",
            "SELECT pg_typeof(a)::text = 'bigint' FROM t -- of all rows",
        ),
        ("e", "PRE_FINALIZATION", "TABLE t EXCEPT TABLE t"),
    ]);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &all);
    migration.finish();
    assert_eq!(
        found(&mut session),
        [
            "a|PRE_RUN|t|t|0|∅",
            "b|DURING_RUN|t|t|0|∅",
            "c|PRE_FINALIZATION|t|t|0|∅",
            "d|POST_FINALIZATION|t|t|0|∅",
            "e|PRE_FINALIZATION|t|t|0|∅"
        ]
    );
    assert_eq!(
        session.lines("SELECT phase, holds, checks FROM transmute.invariants WHERE built_in"),
        ["PRE_FINALIZATION|t|1"]
    );
    // In the order of the phases, each before the change of state that it guards.
    let trail = session.lines(
        "SELECT coalesce(detail::json ->> 'name', to_state) FROM transmute.history
          WHERE event = 'invariant held' OR to_state IS NOT NULL ORDER BY seq",
    );
    assert_eq!(
        trail,
        [
            "INITIALIZING",
            "RUNNING",
            "a",
            "b",
            "c",
            "e",
            "AWAITING_FINALIZATION",
            "FINISHING",
            "d",
            "FINISHED"
        ]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn one_that_does_not_hold_stops_and_names_itself_and_its_counter_examples() {
    for phase in ["PRE_RUN", "DURING_RUN", "PRE_FINALIZATION"] {
        let database = Database::shared();
        let mut session = table(&database);
        session.exec("UPDATE t SET a = -a WHERE id IN (7, 8)");
        let mut migration = Migration::start(
            &database,
            "m",
            TO_BIGINT,
            &meta(&[(
                "no negative a",
                phase,
                "SELECT id, a FROM t WHERE a < 0 ORDER BY id",
            )]),
        );
        migration.wait_in("AWAITING_ACTION");
        assert_eq!(migration.status("outcome"), "FAILED");
        assert_eq!(
            migration.status("waiting_for"),
            r#"a person: invariant "no negative a" does not hold: it finds 2 rows: {"id":7,"a":-7}, {"id":8,"a":-8}."#
        );
        assert_eq!(
            migration.status("last_error || ' ' || last_error_sqlstate"),
            r#"invariant "no negative a" does not hold 55000"#
        );
        assert_eq!(
            session.lines("SELECT holds, problem, counter_examples FROM transmute.invariants WHERE NOT built_in"),
            [r#"f|it finds 2 rows|{"{\"id\":7,\"a\":-7}","{\"id\":8,\"a\":-8}"}"#]
        );
        assert_eq!(
            session.lines("SELECT detail::json ->> 'name' FROM transmute.history WHERE event = 'invariant failed'"),
            ["no negative a"]
        );
        // Asked again, it says the same; mended, it lets go on.
        migration.call("resume", "'no reason to'");
        migration.wait_for("state = 'AWAITING_ACTION' AND last_error IS NOT NULL", "t");
        session.wait_for(
            "SELECT failures FROM transmute.invariants WHERE NOT built_in",
            "2",
            PATIENCE,
        );
        session.exec("UPDATE t SET a = -a WHERE a < 0");
        migration.call("resume", "'mended'");
        migration.finish();
        assert_eq!(
            session.lines("SELECT pg_typeof(a) FROM t LIMIT 1"),
            ["bigint"],
            "{phase}"
        );
    }
}

#[test]
fn what_is_mended_while_a_tick_runs_is_seen_by_its_look() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("UPDATE t SET a = -a WHERE id = 7");
    let all = meta(&[(
        "no negative a",
        "PRE_FINALIZATION",
        "SELECT id FROM t WHERE a < 0",
    )]);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &all);
    migration.wait_in("AWAITING_ACTION");
    let failures = "SELECT failures FROM transmute.invariants WHERE NOT built_in";
    let before: i64 = session.scalar(failures);
    // The next tick brings a row over, is held there, and looks afterwards.
    let mut points = Waitpoints::of(&database);
    points.hold("drain_before_commit");
    session.batch(&[
        "BEGIN",
        "UPDATE t SET a = 80 WHERE id = 8",
        "SELECT transmute.resume('m', 'mended in a moment')",
        "COMMIT",
    ]);
    points.wait_reached("drain_before_commit", PATIENCE);
    session.exec("UPDATE t SET a = -a WHERE id = 7");
    points.release("drain_before_commit");
    migration.finish();
    assert_eq!(session.scalar::<i64>(failures), before);
}

/// A migration with a soak, an approval to come and an invariant, which breaks after the soak has begun: it stands in AWAITING_ACTION.
fn broken_at_the_last_look(database: &Database<'_>, more: &str) -> Migration {
    let mut session = database.connect();
    let sql = "SELECT EXISTS (SELECT FROM allowed WHERE phase = 'PRE_FINALIZATION')";
    let all = meta(&[("allowed", "PRE_FINALIZATION", sql)]);
    let with = format!(r#"{{"pre_finalization_soak": "1 hour", "required_approvals": 1{more}, "#);
    let mut migration = Migration::start(database, "m", TO_BIGINT, &all.replacen('{', &with, 1));
    migration.wait_in("AWAITING_FINALIZATION");
    session.exec("DELETE FROM allowed WHERE phase = 'PRE_FINALIZATION'");
    migration.call("approve", "'seen'");
    // Until nothing else holds it back nobody looks.
    migration.wait_for(
        "waiting_for",
        "the soak, until soak_until; skip_soak ends it now",
    );
    migration.call("skip_soak", "'only the invariant counts'");
    migration.wait_in("AWAITING_ACTION");
    migration
}

#[test]
fn one_that_breaks_while_a_migration_soaks_stops_it_and_soak_and_approval_are_kept() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "CREATE FUNCTION note(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT transmute.hook('post_apply', 'note(jsonb)')",
    );
    let mut migration = broken_at_the_last_look(&database, "");
    assert_eq!(migration.status("outcome"), "FAILED");
    assert_eq!(
        migration.status("waiting_for"),
        r#"a person: invariant "allowed" does not hold: it is not true."#
    );
    let ended = migration.status("soak_until");
    assert_eq!(
        session.lines("SELECT pg_typeof(a) FROM t LIMIT 1"),
        ["integer"]
    );
    // What is written meanwhile is brought over meanwhile.
    session.exec("UPDATE t SET a = 7777 WHERE id = 7");
    let shadow: String = session.scalar(
        "SELECT format('%I.t', nspname) FROM pg_namespace WHERE nspname ~ '^_transmute_[0-9]+_new$'",
    );
    session.wait_for(
        &format!("SELECT a FROM {shadow} WHERE id = 7"),
        "7777",
        PATIENCE,
    );
    // Asked again, it says the same.
    migration.call("resume", "'no reason to'");
    session.wait_for(
        "SELECT failures FROM transmute.invariants WHERE NOT built_in",
        "2",
        PATIENCE,
    );
    migration.wait_in("AWAITING_ACTION");
    assert_eq!(migration.status("soak_until"), ended);
    session.exec("INSERT INTO allowed VALUES ('PRE_FINALIZATION')");
    migration.call("resume", "'allowed again'");
    migration.finish(); // without another hour, or another approval
    assert_eq!(migration.status("soak_until"), ended);
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 7"), ["7777"]);
    assert_eq!(
        session.lines("SELECT string_agg(to_state, ' ' ORDER BY seq) FROM transmute.history WHERE to_state IS NOT NULL"),
        ["INITIALIZING RUNNING AWAITING_FINALIZATION AWAITING_ACTION RUNNING AWAITING_ACTION RUNNING AWAITING_FINALIZATION FINISHING FINISHED"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.hook_runs WHERE event = 'post_apply'"),
        ["1"]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn one_that_was_stopped_at_the_last_look_can_be_taken_back() {
    let database = Database::shared();
    let mut session = table(&database);
    let fingerprint = "SELECT _transmute.fingerprint('t'::regclass)";
    let before = session.lines(fingerprint);
    let mut migration = broken_at_the_last_look(&database, "");
    session.exec("UPDATE t SET a = 7777 WHERE id = 7");
    migration.roll_back();
    assert_eq!(session.lines(fingerprint), before);
    assert_eq!(session.lines("SELECT a FROM t WHERE id = 7"), ["7777"]);
    assert_eq!(migration.status("soak_until"), "∅");
}

#[test]
fn what_is_amended_behind_its_soak_soaks_anew() {
    let database = Database::shared();
    let mut session = table(&database);
    let mut migration = broken_at_the_last_look(&database, "");
    migration.call(
        "amend",
        "'ALTER TABLE t ALTER COLUMN a TYPE bigint USING a + 1', 'one more'",
    );
    session.exec("INSERT INTO allowed VALUES ('PRE_FINALIZATION')");
    migration.call("resume", "'amended'");
    migration.wait_in("AWAITING_FINALIZATION");
    assert_eq!(
        migration.status("soak_until > clock_timestamp() + interval '30 minutes'"),
        "true"
    );
    migration.roll_back();
}

#[test]
fn after_finalization_one_that_does_not_hold_is_reported_once() {
    let database = Database::shared();
    let mut session = table(&database);
    let sql = "SELECT pg_typeof(a)::text AS type FROM t WHERE id = 1";
    let mut migration = Migration::start(
        &database,
        "m",
        TO_BIGINT,
        &meta(&[("never", "POST_FINALIZATION", sql)]),
    );
    migration.finish();
    assert_eq!(
        migration.status("state || ' ' || outcome"),
        "FINISHED COMPLETED"
    );
    assert_eq!(
        session.lines(
            "SELECT holds, checks, counter_examples FROM transmute.invariants WHERE NOT built_in"
        ),
        [r#"f|1|{"{\"type\":\"bigint\"}"}"#]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.history WHERE event = 'invariant failed'"),
        ["1"]
    );
}

#[test]
fn a_query_cannot_write_and_ends_at_its_timeout_and_its_errors_are_answers() {
    for (sql, timeout, problem) in [
        (
            "SELECT writes()",
            "10 s",
            "cannot execute INSERT in a read-only transaction (25006)",
        ),
        (
            "SELECT nextval('s') > 0",
            "10 s",
            "cannot execute nextval() in a read-only transaction (25006)",
        ),
        (
            "SELECT pg_sleep(60) IS NOT NULL",
            "200 ms",
            "it took longer than 200 ms",
        ),
        (
            "SELECT 1 / (count(*) - 100) = 0 FROM t",
            "10 s",
            "division by zero (22012)",
        ),
        ("SELECT true FROM t WHERE id < 0", "10 s", "it gives no row"),
        ("SELECT NULL::boolean", "10 s", "it is not true"),
        (
            "SELECT id > 90 FROM t",
            "10 s",
            "it is not true in 90 of 100 rows",
        ),
        ("SELECT FROM t", "10 s", "it finds more than 5 rows"),
        (
            "SELECT set_config('role', 'postgres', false) AS role",
            "10 s",
            "cannot set parameter \"role\" within security-definer function (42501)",
        ),
    ] {
        let database = Database::shared();
        let mut session = table(&database);
        session.exec(
            "CREATE SEQUENCE s; CREATE TABLE written (n int);
             CREATE FUNCTION writes() RETURNS boolean LANGUAGE sql VOLATILE AS 'INSERT INTO written VALUES (1) RETURNING true'",
        );
        let meta = format!(
            r#"{{"invariants": [{{"name": "i", "phase": "PRE_RUN", "sql": "{sql}", "timeout": "{timeout}"}}]}}"#
        );
        let mut migration = Migration::start(&database, "m", TO_BIGINT, &meta);
        migration.wait_in("AWAITING_ACTION");
        assert_eq!(
            session.lines("SELECT problem FROM transmute.invariants WHERE NOT built_in"),
            [problem],
            "{sql}"
        );
        assert_eq!(session.lines("SELECT count(*) FROM written"), ["0"]);
        migration.roll_back();
        assert_eq!(
            session.lines("SELECT DISTINCT state, outcome FROM transmute.status"),
            ["UNINITIALIZED|ROLLED_BACK"]
        );
    }
}

#[test]
fn what_the_script_makes_may_be_asked_for_and_what_nobody_makes_may_not() {
    let database = Database::shared();
    let mut session = table(&database);
    let sql = "SELECT id FROM t WHERE b <> a";
    let all = meta(&[("b follows a", "PRE_FINALIZATION", sql)]);
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ADD COLUMN b int; UPDATE t SET b = a",
        &all,
    );
    migration.finish();
    let register = |sql: &str| {
        format!(
            "SELECT transmute.register('n', 'COMMENT ON TABLE allowed IS NULL', meta => $${}$$)",
            meta(&[("i", "PRE_RUN", sql)])
        )
    };
    for (sql, sqlstate, detail) in [
        (
            "SELECT nobody FROM t",
            "22023",
            "meta.invariants[0].sql: column \\\"nobody\\\" does not exist.",
        ),
        (
            "SELECT 1; SELECT 2",
            "22023",
            "meta.invariants[0].sql: 2 statements were found.",
        ),
        (
            "-- nothing",
            "22023",
            "meta.invariants[0].sql: 0 statements were found.",
        ),
        (
            "DELETE FROM t",
            "22023",
            "meta.invariants[0].sql: DELETE is no query.",
        ),
        ("SELECT 1 INTO x", "22023", "meta.invariants[0].sql: "),
        (
            "SELECT id FROM t FOR UPDATE",
            "22023",
            "meta.invariants[0].sql: SELECT FOR UPDATE is not allowed",
        ),
        (
            "WITH x AS (DELETE FROM t RETURNING id) SELECT id FROM x",
            "22023",
            "meta.invariants[0].sql: ",
        ),
        (
            "SELECT 1) AS x; DROP TABLE t; SELECT (1",
            "22023",
            "meta.invariants[0].sql: syntax error",
        ),
        ("SELEKT 1", "22023", "meta.invariants[0].sql: syntax error"),
    ] {
        let error = crate::surface::refusal(&mut session, &register(sql));
        let said = error.detail.clone().unwrap_or_default();
        assert_eq!(error.sqlstate, sqlstate, "{sql}: {error}");
        assert!(
            said.starts_with(&detail.replace("\\\"", "\"")),
            "{sql}: {error}"
        );
    }
    for (timeout, detail) in [
        ("soon", "meta.invariants[0].timeout is \"soon\""),
        ("-1 s", "meta.invariants[0].timeout is -1 s."),
        ("0", "meta.invariants[0].timeout is 0."),
        ("2 days", "meta.invariants[0].timeout is 2 days."),
    ] {
        let sql = format!(
            r#"SELECT transmute.register('n', 'COMMENT ON TABLE allowed IS NULL', meta =>
               '{{"invariants": [{{"name": "i", "phase": "PRE_RUN", "sql": "SELECT true", "timeout": "{timeout}"}}]}}')"#
        );
        let error = crate::surface::refusal(&mut session, &sql);
        assert_eq!(error.sqlstate, "22023", "{error}");
        let said = error.detail.clone().unwrap_or_default();
        assert!(said.starts_with(detail), "{error}");
    }
}

#[test]
fn a_query_runs_as_the_owner_and_reads_only_what_he_may() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "DROP ROLE IF EXISTS invariant_ann; CREATE ROLE invariant_ann LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA transmute TO invariant_ann;
         GRANT CREATE ON SCHEMA public TO invariant_ann; ALTER TABLE t OWNER TO invariant_ann",
    );
    let register = |sql: &str, phase: &str| {
        format!(
            "SELECT transmute.register('m', '{TO_BIGINT}', meta => $${}$$)",
            meta(&[("i", phase, sql)])
        )
    };
    let mut ann = database.connect_as("invariant_ann");
    let error = ann.error(&register("SELECT * FROM allowed", "PRE_RUN"));
    assert_eq!(error.sqlstate, "42501", "{error}");
    ann.exec(&register(
        "SELECT current_user = 'invariant_ann'",
        "PRE_RUN",
    ));
    ann.exec("SELECT transmute.apply('m')");
    session.exec("CALL transmute.wait('m')");
    session.exec("REASSIGN OWNED BY invariant_ann TO postgres; DROP OWNED BY invariant_ann; DROP ROLE invariant_ann");
}

#[test]
fn a_pause_interrupts_a_query_and_that_is_no_answer() {
    let database = Database::shared();
    let mut session = table(&database);
    let sql = "SELECT pg_sleep(100) IS NOT NULL FROM allowed WHERE phase = 'PRE_RUN'";
    let meta = format!(
        r#"{{"invariants": [{{"name": "slow", "phase": "PRE_RUN", "sql": "{sql}", "timeout": "1 hour"}}]}}"#
    );
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &meta);
    migration.wait_asleep();
    migration.call("pause", "'it takes too long'");
    migration.wait_for("waiting_for", "resume: paused, it takes too long");
    assert_eq!(
        session
            .lines("SELECT holds, checks, failures FROM transmute.invariants WHERE NOT built_in"),
        ["∅|0|0"]
    );
    migration.roll_back();
}

#[test]
fn nothing_is_looked_at_twice_when_its_transaction_has_committed() {
    let database = Database::shared();
    let mut session = table(&database);
    migration::set(&database, &[("batch_target_ms", "1")]);
    let mut points = Waitpoints::of(&database);
    points.hold("invariant_before_commit");
    let all = meta(&[
        ("a", "PRE_RUN", "SELECT true"),
        ("b", "PRE_RUN", "SELECT true"),
    ]);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &all);
    let conductor = points.wait_reached("invariant_before_commit", PATIENCE);
    session.exec(&format!("SELECT pg_terminate_backend({conductor})"));
    points.release("invariant_before_commit");
    migration.finish();
    assert_eq!(
        session
            .lines("SELECT name, checks FROM transmute.invariants WHERE NOT built_in ORDER BY 1"),
        ["a|1", "b|1"]
    );
}
