//! preflight: each question answered with yes and with no, on live data; and the dry run.

use transmute_tests::{Database, Session};

use crate::surface::refusal;

fn register(session: &mut Session, id: &str, ddl: &str) {
    session.exec(&format!(
        "SELECT transmute.register('{id}', $ddl${ddl}$ddl$)"
    ));
}

/// `ok` of one check, and its detail.
fn check(session: &mut Session, id: &str, name: &str) -> (bool, String) {
    let row = session.rows(&format!(
        "SELECT ok::text, detail FROM transmute.preflight('{id}') WHERE \"check\" = '{name}'"
    ));
    assert_eq!(row.len(), 1, "no check {name}");
    let text = |i: usize| row[0][i].clone().unwrap_or_default();
    (text(0).starts_with('t'), text(1))
}

#[track_caller]
fn passes(session: &mut Session, id: &str, name: &str) {
    let (ok, detail) = check(session, id, name);
    assert!(ok, "{name}: {detail}");
}

#[track_caller]
fn fails(session: &mut Session, id: &str, name: &str, wanted: &str) {
    let (ok, detail) = check(session, id, name);
    assert!(!ok, "{name} passed: {detail}");
    assert!(detail.contains(wanted), "{name}: {detail}");
}

#[test]
fn values_that_do_not_convert_are_counted_and_named() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text, n int);
         INSERT INTO t SELECT i, CASE WHEN i % 400 = 0 THEN 'x' || i ELSE i::text END, nullif(i % 300, 0) FROM generate_series(1, 1000) i",
    );
    register(
        &mut session,
        "cast",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int",
    );
    fails(&mut session, "cast", "casts", "2 rows, for example (");
    fails(
        &mut session,
        "cast",
        "casts",
        "invalid input syntax for type integer: \"x400\"",
    );
    session.exec("DELETE FROM t WHERE a LIKE 'x%'");
    passes(&mut session, "cast", "casts");

    // What is to be NOT NULL, unique, checked – together with a change that rewrites – is looked at in full.
    register(
        &mut session,
        "strict",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int, ALTER COLUMN n SET NOT NULL, ADD UNIQUE (n), ADD CHECK (n < 290)",
    );
    fails(&mut session, "strict", "nulls", "public.t.n: 3 rows");
    fails(
        &mut session,
        "strict",
        "duplicates",
        "public.t (n): 299 values more than once, for example (1), (10), (100)",
    );
    fails(&mut session, "strict", "constraints", "t_n_check: 30 rows");
    assert_eq!(
        session.lines("SELECT DISTINCT risk_level FROM transmute.plan('strict') WHERE 'NULLS_FOUND' = ANY (reasons)"),
        ["blocked"]
    );
    // Certain to fail: apply refuses by itself.
    assert!(session
        .error("SELECT transmute.apply('strict')")
        .detail
        .is_some_and(|d| d.starts_with("MAX_RISK: ")));
    session.exec("DELETE FROM t WHERE id > 289 OR n IS NULL");
    for name in ["nulls", "duplicates", "constraints", "casts"] {
        passes(&mut session, "strict", name);
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.plan('strict') WHERE risk_level = 'blocked'"),
        ["0"]
    );
}

#[test]
fn the_state_of_the_server_is_looked_at() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE bare (a int)");
    register(
        &mut session,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
    );
    for name in [
        "privileges",
        "workers",
        "disk_space",
        "long_transactions",
        "prepared_transactions",
        "invalid_indexes",
        "columns",
        "replication_slots",
        "publications",
        "replica_identity",
        "duplicates",
        "orphans",
        "nulls",
        "constraints",
        "casts",
    ] {
        passes(&mut session, "m", name);
    }
    // A column too many.
    session.exec(
        "DO $$ BEGIN FOR i IN 1..1597 LOOP EXECUTE format('ALTER TABLE t ADD COLUMN c%s int', i); END LOOP; END $$",
    );
    passes(&mut session, "m", "columns");
    session.exec("ALTER TABLE t ADD COLUMN c int");
    fails(
        &mut session,
        "m",
        "columns",
        "public.t has used 1600 of 1600 columns",
    );

    session.exec("CREATE PUBLICATION p FOR TABLE t, bare");
    assert!(check(&mut session, "m", "publications")
        .1
        .contains("public.t in p"));
    register(&mut session, "bare", "ALTER TABLE bare ADD COLUMN n int");
    fails(&mut session, "bare", "replica_identity", "public.bare");
    session.exec("DROP PUBLICATION p");
    passes(&mut session, "bare", "replica_identity");

    session.exec("BEGIN; LOCK TABLE bare; PREPARE TRANSACTION 'held'");
    fails(&mut session, "m", "prepared_transactions", "'held'");
    session.exec("ROLLBACK PREPARED 'held'");
    passes(&mut session, "m", "prepared_transactions");

    session.exec(
        "CREATE TABLE twice (id int PRIMARY KEY, a int); INSERT INTO twice VALUES (1, 1), (2, 1)",
    );
    assert_eq!(
        session
            .error("CREATE UNIQUE INDEX CONCURRENTLY broken ON twice (a)")
            .sqlstate,
        "23505"
    );
    register(&mut session, "twice", "ALTER TABLE twice ADD COLUMN n int");
    fails(
        &mut session,
        "twice",
        "invalid_indexes",
        "public.twice: broken",
    );
    session.exec("DROP INDEX broken");
    passes(&mut session, "twice", "invalid_indexes");
}

#[test]
fn a_table_that_changed_hands_is_reported() {
    let database = Database::shared();
    let mut session = crate::privileges::world(&database, &["flight_ann", "flight_bob"]);
    session.exec("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO flight_ann, flight_bob");
    let mut ann = database.connect_as("flight_ann");
    ann.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)");
    register(&mut ann, "m", "ALTER TABLE t ALTER COLUMN a TYPE bigint");
    passes(&mut ann, "m", "privileges");
    let mut bob = database.connect_as("flight_bob");
    assert_eq!(
        bob.error("SELECT * FROM transmute.preflight('m')").sqlstate,
        "42501"
    );
    session.exec("ALTER TABLE t OWNER TO flight_bob");
    fails(
        &mut ann,
        "m",
        "privileges",
        "public.t belongs to \"flight_bob\"",
    );
    // Rows that a policy hides cannot be looked at, and that is said.
    session.exec("ALTER TABLE t OWNER TO flight_ann; ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         SELECT transmute.register('n', 'ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN a SET NOT NULL')");
    fails(&mut session, "n", "rows", "row-level security");
}

#[test]
fn a_preflight_is_for_what_was_not_applied() {
    let database = Database::shared();
    let mut session = database.connect();
    assert_eq!(
        refusal(&mut session, "SELECT transmute.preflight('nothing')").sqlstate,
        "42704"
    );
    assert_eq!(
        refusal(&mut session, "SELECT transmute.preflight(NULL)").sqlstate,
        "22023"
    );
    session.exec("CREATE TABLE t (id int PRIMARY KEY)");
    register(&mut session, "m", "COMMENT ON TABLE t IS 'x'");
    session.exec("SELECT transmute.apply('m')");
    session.exec("CALL transmute.wait('m')");
    assert_eq!(
        session.error("SELECT transmute.preflight('m')").sqlstate,
        "55000"
    );
    assert_eq!(
        session
            .error("SELECT transmute.apply('m', dry_run => true)")
            .sqlstate,
        "55000"
    );
}

#[test]
fn a_dry_run_runs_what_it_can_and_leaves_nothing() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; CREATE TABLE u (x int)");
    register(
        &mut session,
        "m",
        "CREATE TABLE fresh (id int); ALTER TABLE t ADD COLUMN n int; COMMENT ON TABLE t IS 'x'",
    );
    register(
        &mut session,
        "rewrites",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
    );
    let everything = "SELECT _transmute.fingerprint('t'::regclass), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_namespace),
        (SELECT count(*) FROM pg_trigger), (SELECT md5(string_agg(s::text, '' ORDER BY step)) FROM _transmute.steps s),
        (SELECT md5(string_agg(m::text, '' ORDER BY seq)) FROM _transmute.migrations m), (SELECT count(*) FROM _transmute.rewrites),
        (SELECT count(*) FROM _transmute.audit_events), obj_description('t'::regclass)";
    let before = session.lines(everything);
    // A busy machine must not end the rehearsal early: it may hold its locks for ten times that.
    session.exec("SET transmute.lock_timeout = '2s'");
    let report =
        session.lines("SELECT id, state, action FROM transmute.apply('m', dry_run => true)");
    assert_eq!(report, ["m|UNINITIALIZED|would run"; 3]);
    let report = session.lines("SELECT action FROM transmute.apply('rewrites', dry_run => true)");
    assert_eq!(report[..2], ["would run", "not run"]);
    assert_eq!(session.lines(everything), before);
    // What has become impossible since is said, with the server's words.
    session.exec("ALTER TABLE t ADD COLUMN n int");
    let report = session.lines("SELECT action, detail FROM transmute.apply('m', dry_run => true)");
    assert!(
        report
            .iter()
            .any(|r| r.starts_with("would fail|") && r.contains("42701")),
        "{report:?}"
    );
    // A lock that is taken is not waited for.
    session.exec("ALTER TABLE t DROP COLUMN n");
    let mut other = database.connect();
    other.exec("BEGIN; SELECT * FROM t LIMIT 1");
    let report = session.lines("SELECT action, detail FROM transmute.apply('m', dry_run => true)");
    assert!(
        report
            .iter()
            .any(|r| r.starts_with("would fail|") && r.contains("55P03")),
        "{report:?}"
    );
}
