//! Who may do what.

use transmute_tests::{Database, Session};

use crate::migration::{assert_sound, Migration};

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// A superuser's session in a database where `roles` may log in and make things in public.
pub fn world(database: &Database<'_>, roles: &[&str]) -> Session {
    let mut session = database.connect();
    for role in roles {
        session.exec(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}"
        ));
    }
    session
}

fn may_migrate(session: &mut Session, role: &str) {
    session.exec(&format!(
        "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO {role}; GRANT pg_monitor TO {role}"
    ));
}

#[test]
fn a_plain_role_may_ask_for_a_state_and_nothing_else() {
    let database = Database::shared();
    let mut session = world(&database, &["plain_role"]);
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t OWNER TO plain_role");
    Migration::register(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "{}",
    );
    assert_eq!(
        session.lines(
            "SELECT p.oid::regprocedure FROM pg_proc p
              WHERE p.pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
                AND has_function_privilege('plain_role', p.oid, 'EXECUTE') ORDER BY proname"
        ),
        [
            "transmute.is_finished(text)",
            "transmute.route(text)",
            "transmute.state(text)",
            "transmute.transform(jsonb,jsonb)"
        ]
    );
    assert_eq!(
        session.lines(
            "SELECT c.oid::regclass FROM pg_class c
              WHERE c.relnamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
                AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege('plain_role', c.oid, 'USAGE, SELECT, UPDATE')
                  WHEN 'i' THEN false ELSE has_table_privilege('plain_role', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') END"
        ),
        ["transmute.routing"]
    );
    let mut plain = database.connect_as("plain_role");
    assert_eq!(
        plain.lines("SELECT transmute.state('m'), transmute.is_finished('m'), transmute.state('x'), transmute.is_finished('x')"),
        ["UNINITIALIZED|f|∅|f"]
    );
    for statement in [
        "SELECT transmute.register('n', 'COMMENT ON TABLE t IS NULL')",
        "SELECT transmute.migrate('COMMENT ON TABLE t IS NULL')",
        "SELECT * FROM transmute.explain('COMMENT ON TABLE t IS NULL')",
        "SELECT * FROM transmute.apply('m')",
        "SELECT transmute.approve('m', 'x')",
        "SELECT transmute.rollback('m', 'x')",
        "SELECT * FROM transmute.plan('m')",
        "SELECT transmute.audit_head()",
        "SELECT transmute.audit_export()",
        "CALL transmute.wait('m')",
        "CALL transmute.run()",
        "SELECT * FROM transmute.status",
        "SELECT * FROM _transmute.migrations",
        "SELECT _transmute.tick('m')",
        "SELECT _transmute.record_failure('m', 'XX000', 'x', 'x', 'x')",
        "UPDATE _transmute.migrations SET queued = true",
        "CREATE TRIGGER mine AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION _transmute.capture('1', 'x')",
        "SET transmute.batch_target_ms = 1",
        "ALTER ROLE plain_role SET transmute.required_approvals = 0",
    ] {
        let error = plain.error(statement);
        assert_eq!(error.sqlstate, "42501", "{statement}: {error}");
    }
    // A superuser gets an answer, not a crash, from what is no function to call.
    assert_eq!(
        session.error("SELECT _transmute.capture()").sqlstate,
        "39P01"
    );
}

#[test]
fn an_owner_migrates_what_is_his_and_nothing_else() {
    let database = Database::shared();
    let mut session = world(&database, &["owner_ann", "owner_bob"]);
    for role in ["owner_ann", "owner_bob"] {
        may_migrate(&mut session, role);
        session.exec(&format!(
            "CREATE TABLE of_{role} (id int PRIMARY KEY, a int); INSERT INTO of_{role} SELECT i, i FROM generate_series(1, 500) AS i;
             ALTER TABLE of_{role} OWNER TO {role}; CREATE VIEW v_{role} AS SELECT a FROM of_{role}; ALTER VIEW v_{role} OWNER TO {role}"
        ));
    }
    let mut ann = database.connect_as("owner_ann");
    let mut bob = database.connect_as("owner_bob");
    let error = bob.error(
        "SELECT transmute.register('b', 'ALTER TABLE of_owner_ann ALTER COLUMN a TYPE bigint')",
    );
    assert_eq!(
        (error.sqlstate.as_str(), error.message.as_str()),
        ("42501", "must be owner of the table")
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("public.of_owner_ann belongs to \"owner_ann\".")
    );

    ann.exec(&format!(
        "SELECT transmute.register('m', 'ALTER TABLE of_owner_ann ALTER COLUMN a TYPE bigint', meta => '{LONG_SOAK}')"
    ));
    // He reads all migrations, so it is no secret that this one is there.
    for call in [
        "apply('m')",
        "pause('m', 'x')",
        "resume('m', 'x')",
        "rollback('m', 'x')",
        "skip_soak('m', 'x')",
        "acknowledge('m', 'x')",
        "amend('m', 'COMMENT ON SCHEMA public IS NULL', 'x')",
        "discard_dead_letters('m', ARRAY[1], 'x')",
        "purge_dead_letters('m', 'resolved')",
        "replay_dead_letters('m')",
        "release_old('m', 'x')",
        "undo('m', 'x')",
        "tune('m', 'x', backfill_duty => 50)",
    ] {
        let error = bob.error(&format!("SELECT transmute.{call}"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("42501", "must be a member of the migration's owner"),
            "{call}"
        );
        assert_eq!(
            error.detail.as_deref(),
            Some("Migration \"m\" belongs to \"owner_ann\"."),
            "{call}"
        );
    }
    ann.exec("SELECT transmute.apply('m')");
    ann.exec("CALL transmute.wait('m', 'AWAITING_FINALIZATION')");
    // Membership is what counts, at the time of the call.
    session.exec("GRANT owner_ann TO owner_bob");
    bob.exec(
        "SELECT transmute.pause('m', 'bob may now'); SELECT transmute.resume('m', 'and again')",
    );
    session.exec("REVOKE owner_ann FROM owner_bob");
    assert_eq!(
        bob.error("SELECT transmute.skip_soak('m', 'x')").sqlstate,
        "42501"
    );
    ann.exec("SELECT transmute.skip_soak('m', 'x')");
    ann.exec("CALL transmute.wait('m')");
    assert_eq!(
        session.lines(
            "SELECT relname, relkind, pg_get_userbyid(relowner) FROM pg_class
              WHERE relnamespace = 'public'::regnamespace AND relname LIKE '%owner_ann%' ORDER BY 1"
        ),
        ["of_owner_ann|r|owner_ann", "of_owner_ann_pkey|i|owner_ann", "v_owner_ann|v|owner_ann"]
    );
    assert_sound(&mut session, "of_owner_ann");
    // The old rows are hers as well.
    let old: String = session.scalar("SELECT physical FROM transmute.artifacts");
    assert_eq!(ann.lines(&format!("SELECT count(*) FROM {old}")), ["500"]);
    assert_eq!(
        bob.error(&format!("SELECT count(*) FROM {old}")).sqlstate,
        "42501"
    );
}

#[test]
fn a_table_that_changes_hands_stops_the_migration() {
    let database = Database::shared();
    let mut session = world(&database, &["hands_ann", "hands_bob"]);
    may_migrate(&mut session, "hands_ann");
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t OWNER TO hands_ann");
    let mut ann = database.connect_as("hands_ann");
    ann.exec("SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint')");
    session.exec("ALTER TABLE t OWNER TO hands_bob");
    ann.exec("SELECT transmute.apply('m')");
    let error = ann.error("CALL transmute.wait('m')");
    assert!(
        error
            .detail
            .clone()
            .unwrap()
            .contains("the migration's owner does not own the table any more (42501)"),
        "{error}"
    );
    session.exec("SET transmute.allow_ddl = on; ALTER TABLE t OWNER TO hands_ann");
    ann.batch(&[
        "SELECT transmute.resume('m', 'mine again')",
        "CALL transmute.wait('m')",
    ]);
}

/// F18: what a migration needs of an owner is his rights, and of a tablespace that it is there.
#[test]
fn a_login_that_is_revoked_holds_nothing_up_and_a_tablespace_that_is_gone_asks_a_person() {
    let database = Database::shared();
    let mut session = world(&database, &["login_ann"]);
    may_migrate(&mut session, "login_ann");
    session.batch(&[
        "SET allow_in_place_tablespaces = on",
        "CREATE TABLESPACE login_one LOCATION ''",
        "CREATE TABLESPACE login_two LOCATION ''",
        "GRANT CREATE ON TABLESPACE login_one, login_two TO login_ann",
        "CREATE TABLE t (id int PRIMARY KEY, a int) TABLESPACE login_one; INSERT INTO t VALUES (1, 1)",
        "CREATE TABLE u (id int PRIMARY KEY, a int); INSERT INTO u VALUES (1, 1)",
        "ALTER TABLE t OWNER TO login_ann; ALTER TABLE u OWNER TO login_ann",
    ]);
    let mut ann = database.connect_as("login_ann");
    ann.batch(&[
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{\"required_approvals\": 1}')",
        "SELECT transmute.apply('m')",
        "CALL transmute.wait('m', 'AWAITING_FINALIZATION')",
        "SELECT transmute.register('moves', 'ALTER TABLE u SET TABLESPACE login_two')",
    ]);
    session.exec("ALTER ROLE login_ann NOLOGIN; SELECT transmute.approve('m', 'seen')");
    // The shadow lies where the table does.
    assert_eq!(session.error("DROP TABLESPACE login_one").sqlstate, "55000");
    session.exec("DROP TABLESPACE login_two");
    session.batch(&[
        "SELECT transmute.apply('moves')",
        "CALL transmute.wait('m')",
    ]);
    let mut migration = crate::migration::Migration::attach(&database, "moves");
    migration.wait_for("outcome", "FAILED");
    assert_eq!(migration.status("last_error_sqlstate"), "42704");
    session.batch(&[
        "CREATE TABLESPACE login_two LOCATION ''",
        "GRANT CREATE ON TABLESPACE login_two TO login_ann",
        "SELECT transmute.resume('moves', 'it is there again')",
    ]);
    migration.finish();
    assert_eq!(
        session.lines("SELECT c.relname, t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.relname IN ('t', 'u') AND c.relnamespace = 'public'::regnamespace ORDER BY 1"),
        ["t|login_one", "u|login_two"]
    );
    session.exec("DROP TABLE t, u; DROP SCHEMA IF EXISTS _transmute_1_old CASCADE; DROP SCHEMA IF EXISTS _transmute_2_old CASCADE");
    session.batch(&["DROP TABLESPACE login_one", "DROP TABLESPACE login_two"]);
}

#[test]
fn names_mean_what_they_meant_at_register() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA one; CREATE SCHEMA two;
         CREATE TABLE public.t (id int PRIMARY KEY, a int); CREATE TABLE one.t (LIKE public.t INCLUDING ALL); CREATE TABLE two.t (LIKE public.t INCLUDING ALL);
         INSERT INTO public.t VALUES (1, 1); INSERT INTO one.t VALUES (1, 1); INSERT INTO two.t VALUES (1, 1);
         CREATE FUNCTION one.convert(int) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 1000';
         CREATE FUNCTION two.convert(int) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 2000';
         SET search_path = two, one",
    );
    session.exec("SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint USING convert(a)')");
    session.batch(&[
        "SET search_path = one",
        "SELECT transmute.apply('m')",
        "CALL transmute.wait('m')",
    ]);
    assert_eq!(
        session.lines("SELECT a, pg_typeof(a) FROM public.t UNION ALL SELECT a, pg_typeof(a) FROM one.t UNION ALL SELECT a, pg_typeof(a) FROM two.t"),
        ["1|integer", "1|integer", "2000|bigint"]
    );
}

#[test]
fn row_security_that_is_forced_hides_no_row_from_the_copy() {
    let database = Database::shared();
    let mut session = world(&database, &["rls_ann"]);
    may_migrate(&mut session, "rls_ann");
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) AS i;
         CREATE POLICY half ON t USING (a > 500); ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         ALTER TABLE t OWNER TO rls_ann",
    );
    let mut ann = database.connect_as("rls_ann");
    assert_eq!(ann.lines("SELECT count(*) FROM t"), ["500"]);
    ann.exec(&format!("SELECT transmute.migrate('ALTER TABLE t ALTER COLUMN a TYPE bigint', id => 'm', meta => '{LONG_SOAK}')"));
    ann.exec("CALL transmute.wait('m', 'AWAITING_FINALIZATION')");
    session.exec("UPDATE t SET a = -a WHERE id BETWEEN 400 AND 600");
    ann.batch(&[
        "SELECT transmute.skip_soak('m', 'enough')",
        "CALL transmute.wait('m')",
    ]);
    assert_eq!(
        session.lines("SELECT count(*), sum(a), pg_typeof(min(a)) FROM t"),
        ["1000|299500|bigint"]
    );
    assert_eq!(ann.lines("SELECT count(*) FROM t"), ["400"]);
    assert_eq!(
        session.lines(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 't'::regclass"
        ),
        ["t|t"]
    );
}
