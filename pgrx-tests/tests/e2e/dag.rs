//! Migrations that depend on each other: order, what holds what, and never two on one object.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const GATED: &str = r#"{"required_approvals": 1}"#;

fn register(session: &mut Session, id: &str, ddl: &str, depends_on: &[&str]) {
    session.exec(&format!(
        "SELECT transmute.register('{id}', $ddl${ddl}$ddl$, meta => jsonb_build_object('depends_on', ARRAY[{}]::text[]))",
        depends_on.iter().map(|d| format!("'{d}'")).collect::<Vec<_>>().join(", ")
    ));
}

fn wait(session: &mut Session, id: &str, state: &str) {
    session.exec(&format!("CALL transmute.wait('{id}', '{state}', '60 s')"));
}

/// `count` tables t1, t2, …
fn tables(database: &Database<'_>, count: i32) -> Session {
    let mut session = database.connect();
    for n in 1..=count {
        session.exec(&format!(
            "CREATE TABLE t{n} (id int PRIMARY KEY, a int); INSERT INTO t{n} SELECT i, i FROM generate_series(1, 100) i"
        ));
    }
    session
}

#[test]
fn order_groups_and_graph_follow_the_dependencies() {
    let database = Database::shared();
    let mut session = tables(&database, 1);
    let comment = "COMMENT ON TABLE t1 IS NULL";
    register(&mut session, "last", comment, &["left", "right"]);
    register(&mut session, "left", comment, &["first"]);
    register(&mut session, "right", comment, &["first"]);
    register(&mut session, "first", comment, &[]);
    register(&mut session, "alone", comment, &["ghost"]);
    assert_eq!(
        session.lines("SELECT position, id FROM transmute.execution_order()"),
        ["1|first", "2|left", "3|right", "4|last", "5|alone"]
    );
    assert_eq!(
        session.lines(
            "SELECT parallel_group, string_agg(id, ' ' ORDER BY ordinality) FROM transmute.parallel_groups() WITH ORDINALITY
              GROUP BY 1 ORDER BY 1"
        ),
        ["1|first alone", "2|left right", "3|last"]
    );
    assert_eq!(
        session.lines("SELECT * FROM transmute.dependencies('last')"),
        [
            "left|1|UNINITIALIZED",
            "right|1|UNINITIALIZED",
            "first|2|UNINITIALIZED"
        ]
    );
    assert_eq!(
        session.lines("SELECT * FROM transmute.dependencies('alone')"),
        ["ghost|1|∅"]
    );
    assert_eq!(
        session.lines("SELECT id, distance FROM transmute.dependents('first')"),
        ["left|1", "right|1", "last|2"]
    );
    let drawn: String = session.scalar("SELECT transmute.graph()");
    assert!(
        drawn.starts_with("flowchart TD\n  n0[\"last<br/>UNINITIALIZED\"]\n"),
        "{drawn}"
    );
    assert!(
        drawn.contains("n5[\"ghost<br/>not registered\"]\n"),
        "{drawn}"
    );
    let drawn: String = session.scalar("SELECT transmute.graph('dot')");
    assert!(
        drawn.starts_with("digraph") && drawn.contains("n3 -> n1;"),
        "{drawn}"
    );
}

#[test]
fn cycles_are_refused_and_printed_and_a_missing_one_is_warned_of() {
    let database = Database::shared();
    let mut session = tables(&database, 1);
    let comment = "COMMENT ON TABLE t1 IS NULL";
    register(&mut session, "a", comment, &["b"]);
    let warned = session.notices().join("\n");
    assert!(
        warned.contains("migration \"a\" depends on \"b\", which is not registered yet"),
        "{warned}"
    );
    register(&mut session, "accounts-bigint", comment, &["c"]);
    register(&mut session, "x", comment, &["account-bigint"]);
    assert!(session
        .notices()
        .join("\n")
        .contains("perhaps you meant \"accounts-bigint\""));
    register(&mut session, "c", comment, &["a"]);
    for (id, depends_on, cycle) in [("self", "self", "self → self"), ("b", "c", "b → c → a → b")]
    {
        let error = session.error(&format!(
            "SELECT transmute.register('{id}', '{comment}', meta => '{{\"depends_on\": [\"{depends_on}\"]}}')"
        ));
        assert_eq!(error.sqlstate, "22023", "{error}");
        assert_eq!(error.message, "the dependencies form a cycle");
        let detail = error.detail.clone().unwrap_or_default();
        assert!(
            detail.starts_with("meta.depends_on: ") && ring(&detail) == ring(cycle),
            "{error}"
        );
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        ["4"]
    );
}

/// The members of a printed cycle, wherever it begins.
fn ring(text: &str) -> Vec<String> {
    let text = text
        .trim_start_matches("meta.depends_on: ")
        .trim_end_matches('.');
    let mut names: Vec<String> = text.split(" → ").map(str::to_string).collect();
    names.pop();
    names.sort();
    names
}

#[test]
fn apply_of_all_pending_goes_in_order_and_a_failed_one_holds_back_only_its_dependents() {
    let database = Database::shared();
    let mut session = tables(&database, 4);
    register(
        &mut session,
        "after bad",
        "COMMENT ON TABLE t1 IS 'x'",
        &["bad"],
    );
    register(
        &mut session,
        "bad",
        "CREATE UNIQUE INDEX t2_a ON t2 (a)",
        &[],
    );
    register(
        &mut session,
        "after good",
        "ALTER TABLE t4 ADD COLUMN b int",
        &["good"],
    );
    register(
        &mut session,
        "good",
        "ALTER TABLE t3 ALTER COLUMN a TYPE bigint",
        &[],
    );
    register(
        &mut session,
        "after all",
        "COMMENT ON TABLE t4 IS 'x'",
        &["after bad", "after good"],
    );
    session.exec("INSERT INTO t2 VALUES (101, 1)");
    let applied = session.lines("SELECT id, action, detail FROM transmute.apply()");
    assert_eq!(
        applied,
        [
            "bad|queued|∅",
            "after bad|queued|dependency \"bad\", which has not started yet",
            "good|queued|∅",
            "after good|queued|dependency \"good\", which has not started yet",
            "after all|queued|dependency \"after bad\", which has not started yet; dependency \"after good\", which has not started yet",
        ]
    );
    wait(&mut session, "after good", "FINISHED");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'after bad'",
        "dependency \"bad\", which is AWAITING_ACTION and needs a person",
        PATIENCE,
    );
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'after all'",
        "dependency \"after bad\", which has not started yet",
        PATIENCE,
    );
    session
        .exec("DELETE FROM t2 WHERE id = 101; SELECT transmute.resume('bad', 'the row is gone')");
    wait(&mut session, "after all", "FINISHED");
    let started = session.lines(
        "SELECT m.id FROM transmute.status m JOIN transmute.dependencies(m.id) d ON true
          JOIN transmute.status n ON n.id = d.id WHERE m.started_at < n.finished_at",
    );
    assert!(
        started.is_empty(),
        "started before what they depend on: {started:?}"
    );
    // Nothing is left to apply; a cycle of the graph it is not.
    assert_eq!(session.lines("SELECT * FROM transmute.apply()").len(), 0);
}

#[test]
fn a_dependency_that_is_not_applied_or_not_there_is_said_by_apply_and_status() {
    let database = Database::shared();
    let mut session = tables(&database, 2);
    register(
        &mut session,
        "m",
        "COMMENT ON TABLE t1 IS 'x'",
        &["ghost", "idle"],
    );
    register(&mut session, "idle", "COMMENT ON TABLE t2 IS 'x'", &[]);
    let text = "dependency \"ghost\", which is not registered; dependency \"idle\", which has not been applied";
    assert_eq!(
        session.lines("SELECT state, action, detail FROM transmute.apply('m')"),
        [format!("UNINITIALIZED|queued|{text}")]
    );
    assert_eq!(
        session.lines("SELECT waiting_for FROM transmute.status WHERE id = 'm'"),
        [text]
    );
    // A session that drives does not wait for what nobody does.
    session.exec("CALL transmute.run('m')");
    session.exec("SELECT transmute.apply('idle')");
    wait(&mut session, "idle", "FINISHED");
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'm'",
        "dependency \"ghost\", which is not registered",
        PATIENCE,
    );
    register(&mut session, "ghost", "COMMENT ON TABLE t2 IS 'y'", &[]);
    session.exec("SELECT transmute.apply('ghost')");
    wait(&mut session, "m", "FINISHED");
}

#[test]
fn independent_ones_run_side_by_side_up_to_the_setting() {
    let database = Database::shared();
    migration::set(&database, &[("max_running", "2")]);
    let mut session = tables(&database, 3);
    let mut waitpoints = Waitpoints::of(&database);
    for n in 1..=3 {
        register(
            &mut session,
            &format!("m{n}"),
            &format!("ALTER TABLE t{n} ALTER COLUMN a TYPE bigint"),
            &[],
        );
    }
    waitpoints.hold("copy_before_commit");
    // The first one copies for as long as we like, so it does not leave its place; the second one is paused under way.
    session.exec("SELECT transmute.apply('m1')");
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    session.exec("SELECT transmute.pause('m1', 'look')");
    session.exec("SELECT transmute.apply('m2'); SELECT transmute.apply('m3')");
    // A paused one leaves its place to others.
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    session.exec("SELECT transmute.resume('m1', 'go')");
    waitpoints.release("copy_before_commit");
    for n in 1..=3 {
        wait(&mut session, &format!("m{n}"), "FINISHED");
    }
    let most: i64 = session.scalar(
        "SELECT max((SELECT count(*) FROM transmute.status b WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at))
           FROM transmute.status a",
    );
    assert!((1..=3).contains(&most), "{most}");
}

#[test]
fn over_the_setting_the_next_one_waits_for_its_turn() {
    let database = Database::shared();
    migration::set(&database, &[("max_running", "1")]);
    let mut session = tables(&database, 2);
    let mut waitpoints = Waitpoints::of(&database);
    for n in 1..=2 {
        register(
            &mut session,
            &format!("m{n}"),
            &format!("ALTER TABLE t{n} ALTER COLUMN a TYPE bigint"),
            &[],
        );
    }
    session.exec("SET transmute.max_running = 1");
    waitpoints.hold("copy_before_commit");
    session.exec("SELECT transmute.apply('m1')");
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    assert_eq!(
        session.lines("SELECT detail FROM transmute.apply('m2')"),
        ["its turn: 1 under way, transmute.max_running is 1"]
    );
    waitpoints.release("copy_before_commit");
    wait(&mut session, "m2", "FINISHED");
    // Who waits at the end leaves the place to others.
    assert_eq!(
        session.lines(
            "SELECT b.started_at >= (SELECT at FROM transmute.history WHERE id = 'm1' AND to_state = 'AWAITING_FINALIZATION')
               FROM transmute.status b WHERE id = 'm2'"
        ),
        ["t"]
    );
}

/// Whether the second one waits for the first, which is under way until it is approved.
fn waits(session: &mut Session, first: &str, second: &str) -> bool {
    let n: i64 = session.scalar("SELECT count(*) FROM transmute.status");
    session.exec(&format!(
        "SELECT transmute.register('b{n}', $ddl${second}$ddl$); SELECT transmute.register('a{n}', $ddl${first}$ddl$, meta => '{GATED}');
         SELECT transmute.apply('a{n}')"
    ));
    wait(session, &format!("a{n}"), "AWAITING_FINALIZATION");
    let detail = session.lines(&format!(
        "SELECT coalesce(detail, 'free') FROM transmute.apply('b{n}')"
    ));
    let held = detail[0].starts_with(&format!(
        "migration \"a{n}\", which is under way and touches "
    ));
    assert!(held || detail == ["free"], "{detail:?}");
    if !held {
        wait(session, &format!("b{n}"), "FINISHED");
    }
    session.exec(&format!("SELECT transmute.rollback('a{n}', 'enough')"));
    wait(session, &format!("a{n}"), "UNINITIALIZED");
    wait(session, &format!("b{n}"), "FINISHED");
    held
}

#[test]
fn two_that_touch_the_same_object_never_run_together_and_others_do() {
    let database = Database::shared();
    let mut session = tables(&database, 3);
    session.exec(
        "CREATE SCHEMA s; CREATE TABLE s.t1 (id int PRIMARY KEY, a int); CREATE VIEW v AS SELECT a FROM t1;
         CREATE TABLE child (id int PRIMARY KEY, t1 int REFERENCES t1); CREATE TYPE mood AS ENUM ('ok');
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         ALTER TABLE t3 SET SCHEMA s; SET search_path = public, s",
    );
    let to_bigint = "ALTER TABLE t1 ALTER COLUMN a TYPE bigint";
    for (first, second, held) in [
        // The same table, however it is written.
        (to_bigint, "ALTER TABLE public.t1 ADD COLUMN c1 int", true),
        (to_bigint, "COMMENT ON TABLE \"t1\" IS 'x'", true),
        // The same name, another table.
        (to_bigint, "ALTER TABLE s.t1 ADD COLUMN c int", false),
        // What the swap touches besides.
        (to_bigint, "ALTER TABLE child ADD COLUMN c int", true),
        (to_bigint, "COMMENT ON VIEW v IS 'x'", true),
        (to_bigint, "ALTER TABLE t2 ADD COLUMN c int", false),
        // Found by the search_path.
        (
            "ALTER TABLE s.t3 ALTER COLUMN a TYPE bigint",
            "ALTER TABLE t3 ADD COLUMN c int",
            true,
        ),
        // A name that both make.
        (
            "ALTER TABLE t2 RENAME TO n1",
            "CREATE TABLE n1 (id int)",
            true,
        ),
        // A type, by its oid: it has another name by then.
        (
            "ALTER TYPE mood RENAME TO feeling; ALTER TABLE t2 ALTER COLUMN a TYPE bigint",
            "ALTER TYPE mood ADD VALUE 'bad'",
            true,
        ),
        // What may do anything, by the names in it.
        (
            to_bigint,
            "DO $$ BEGIN PERFORM count(*) FROM t1; END $$",
            true,
        ),
        (to_bigint, "DO $$ BEGIN PERFORM 1; END $$", false),
    ] {
        assert_eq!(
            waits(&mut session, first, second),
            held,
            "{first} / {second}"
        );
        session.exec("DROP TABLE IF EXISTS public.n1");
    }
}

#[test]
fn two_conductors_cannot_start_two_migrations_of_one_object() {
    let database = Database::shared();
    let mut session = tables(&database, 1);
    session.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'transmute conductor' AND datname = current_database()");
    let mut waitpoints = Waitpoints::of(&database);
    let meta = r#"{"required_approvals": 1}"#;
    let mut first = Migration::register(
        &database,
        "m1",
        "ALTER TABLE t1 ALTER COLUMN a TYPE bigint",
        meta,
    );
    // Both wait for an approval once they have started: one that only adds would be over, and the other one's turn come.
    let mut second = Migration::register(
        &database,
        "m2",
        "ALTER TABLE t1 ALTER COLUMN a TYPE numeric",
        meta,
    );
    // Whoever comes first holds the lock of starts; the others wait for it, and then see that it has started.
    waitpoints.hold("start_locked");
    first.apply();
    second.apply();
    let one = database
        .connect()
        .in_background("CALL transmute.run('m1', 3)");
    let two = database
        .connect()
        .in_background("CALL transmute.run('m2', 3)");
    waitpoints.wait_reached("start_locked", PATIENCE);
    waitpoints.release("start_locked");
    let (_, result) = one.join();
    result.unwrap();
    let (_, result) = two.join();
    result.unwrap();
    let under_way: i64 =
        session.scalar("SELECT count(*) FROM transmute.status WHERE state <> 'UNINITIALIZED'");
    assert_eq!(under_way, 1);
    for migration in [&mut first, &mut second] {
        if migration.status("state") != "UNINITIALIZED" || migration.status("queued") == "true" {
            migration.call("rollback", "'enough'");
        }
    }
    wait(&mut session, "m1", "UNINITIALIZED");
    wait(&mut session, "m2", "UNINITIALIZED");
}

#[test]
fn what_builds_on_something_that_is_not_there_yet_is_planned_when_it_is() {
    let database = Database::shared();
    let mut session = tables(&database, 1);
    register(
        &mut session,
        "make",
        "CREATE TABLE made (id int PRIMARY KEY, a int)",
        &[],
    );
    register(
        &mut session,
        "add",
        "ALTER TABLE made ADD COLUMN b int",
        &["make"],
    );
    let warned = session.notices().join("\n");
    assert!(
        warned.contains("migration \"add\" is planned when what it depends on has finished"),
        "{warned}"
    );
    register(
        &mut session,
        "index",
        "CREATE INDEX made_b ON made (b)",
        &["add"],
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.plan('add')"),
        ["0"]
    );
    for call in ["approve('add', 'x')", "apply('add', dry_run => true)"] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("55000", "the migration is not planned yet"),
            "{call}"
        );
    }
    // What no dependency can mend is refused at once.
    for (ddl, meta, sqlstate) in [
        ("ALTER TABLE made ADD COLUMN c int", "{}", "42P01"),
        ("LOCK TABLE t1", "{\"depends_on\": [\"make\"]}", "0A000"),
        (
            "ALTER TABEL made ADD c int",
            "{\"depends_on\": [\"make\"]}",
            "42601",
        ),
    ] {
        let error = session.error(&format!(
            "SELECT transmute.register('no', '{ddl}', meta => '{meta}')"
        ));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
    }
    session.exec("SELECT transmute.apply()");
    wait(&mut session, "index", "FINISHED");
    assert_eq!(
        session.lines(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'made' AND indexname = 'made_b'"
        ),
        ["CREATE INDEX made_b ON public.made USING btree (b)"]
    );
    assert_eq!(
        session.lines("SELECT id FROM transmute.history WHERE event = 'planned anew' ORDER BY seq"),
        ["add", "index"]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

#[test]
fn a_plan_from_before_its_dependencies_had_finished_is_made_anew() {
    let database = Database::shared();
    let mut session = database.connect();
    session
        .exec("CREATE TABLE t (id int PRIMARY KEY, a varchar(10)); INSERT INTO t VALUES (1, 'x')");
    register(
        &mut session,
        "to text",
        "ALTER TABLE t ALTER COLUMN a TYPE text",
        &[],
    );
    // Now it needs no rewrite; from text it does.
    register(
        &mut session,
        "to varchar",
        "ALTER TABLE t ALTER COLUMN a TYPE varchar(20)",
        &["to text"],
    );
    register(
        &mut session,
        "unchanged",
        "ALTER TABLE t ADD COLUMN n int",
        &["to varchar"],
    );
    let rewrites = "SELECT count(*) FROM transmute.plan('to varchar') WHERE kind = 'rewrite_swap'";
    assert_eq!(session.lines(rewrites), ["0"]);
    session.exec("SELECT transmute.approve('to varchar', 'a harmless one')");
    session.exec("SELECT transmute.apply()");
    wait(&mut session, "unchanged", "FINISHED");
    assert_eq!(session.lines(rewrites), ["1"]);
    assert_eq!(
        session.lines("SELECT id FROM transmute.history WHERE event = 'planned anew'"),
        ["to varchar"]
    );
    // The approval was for the plan before.
    assert_eq!(
        session.lines("SELECT approvals FROM transmute.status WHERE id = 'to varchar'"),
        ["0"]
    );
    assert_eq!(
        session.lines("SELECT pg_typeof(a), n FROM t"),
        ["character varying|∅"]
    );
}

#[test]
fn the_gates_are_asked_again_for_a_late_plan() {
    let database = Database::shared();
    let mut session = database.connect();
    register(
        &mut session,
        "make",
        "CREATE TABLE made (id int PRIMARY KEY, a int)",
        &[],
    );
    session.exec(
        "SELECT transmute.register('drop', 'ALTER TABLE made DROP COLUMN a', meta => '{\"depends_on\": [\"make\"], \"drop_policy\": \"drop\"}')",
    );
    register(
        &mut session,
        "last",
        "ALTER TABLE made ADD COLUMN b int",
        &["drop"],
    );
    session.exec("SELECT transmute.apply('make'); SELECT transmute.apply('last'); SELECT transmute.apply('drop', max_risk => 0)");
    wait(&mut session, "make", "FINISHED");
    session.wait_for(
        "SELECT last_error FROM transmute.status WHERE id = 'drop'",
        "a gate refuses to apply the migration",
        PATIENCE,
    );
    session.wait_for(
        "SELECT waiting_for FROM transmute.status WHERE id = 'last'",
        "dependency \"drop\", which is UNINITIALIZED and needs a person",
        PATIENCE,
    );
    session.exec("SELECT transmute.rollback('drop', 'with another limit')");
    wait(&mut session, "drop", "UNINITIALIZED");
    session.exec("SELECT transmute.apply('drop')");
    wait(&mut session, "last", "FINISHED");
    assert_eq!(
        session.lines("SELECT attname FROM pg_attribute WHERE attrelid = 'made'::regclass AND attnum > 0 AND NOT attisdropped"),
        ["id", "b"]
    );
}
