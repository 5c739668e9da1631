//! The roles of the extension, what nobody but they may do, and what the install script takes for its own.

use std::process::Command;

use transmute_tests::{tools, Cluster, Database};

/// Functions that PUBLIC may call, and why.
const FOR_EVERYBODY: [&str; 4] = [
    // An application asks whether it may use the new shape: one index look-up, nothing secret.
    "is_finished",
    "route",
    "state",
    // Does nothing that its caller could not.
    "transform",
];

#[test]
fn every_function_is_executable_by_its_role_and_by_nobody_else() {
    let database = Database::shared();
    let mut session = database.connect();
    let public = session.lines(
        "SELECT proname FROM pg_proc WHERE pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
          AND has_function_privilege('public', oid, 'EXECUTE') ORDER BY 1",
    );
    assert_eq!(public, FOR_EVERYBODY);
    let unreachable = session.lines(
        "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'transmute'::regnamespace
          AND NOT has_function_privilege('transmute_admin', oid, 'EXECUTE')",
    );
    assert_eq!(unreachable, [] as [&str; 0], "an admin may call everything");
    let internal = session.lines(
        "SELECT r.rolname, p.oid::regprocedure FROM pg_proc p, pg_roles r WHERE p.pronamespace = '_transmute'::regnamespace
          AND (r.rolname ~ '^transmute_' OR r.rolname = 'pg_monitor') AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
    );
    assert_eq!(internal, [] as [&str; 0], "nobody calls what is internal");
    // Readers call nothing that writes: they are refused, or it is no volatile function.
    let written = session.lines(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'transmute'::regnamespace AND provolatile = 'v'
          AND has_function_privilege('transmute_reader', oid, 'EXECUTE') ORDER BY 1",
    );
    for name in &written {
        assert!(
            [
                "audit_export",
                "audit_head",
                "audit_verify",
                "can_downgrade_to",
                "can_upgrade_to",
                "current_version",
                "dependencies",
                "dependents",
                "execution_order",
                "explain",
                "graph",
                "parallel_groups",
                "plain_locks"
            ]
            .contains(&name.as_str())
                || name.starts_with("render")
                || name.starts_with("export"),
            "a reader may call {name}"
        );
    }
    for (role, may, may_not) in [
        ("transmute_operator", "register", "approve"),
        ("transmute_operator", "pause", "emergency_stop"),
        ("transmute_operator", "tune", "resume_all"),
        ("transmute_approver", "approve", "rollback"),
        ("transmute_reader", "audit_verify", "pause"),
    ] {
        let rights = session.lines(&format!(
            "SELECT has_function_privilege('{role}', oid, 'EXECUTE') FROM pg_proc
              WHERE pronamespace = 'transmute'::regnamespace AND proname IN ('{may}', '{may_not}') ORDER BY proname <> '{may}'"
        ));
        let (allowed, refused) = rights.split_first().expect("the function it may call");
        assert_eq!(allowed, "t", "{role}: {may}");
        assert!(
            !refused.is_empty() && refused.iter().all(|right| right == "f"),
            "{role}: {may_not}"
        );
    }
    let tables = session.lines(
        "SELECT r.rolname, c.oid::regclass FROM pg_class c, pg_roles r
          WHERE c.relnamespace = '_transmute'::regnamespace AND c.relkind IN ('r', 'S') AND (r.rolname ~ '^transmute_' OR r.rolname = 'pg_monitor')
            AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, SELECT, UPDATE')
              ELSE has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES') END",
    );
    assert_eq!(tables, [] as [&str; 0], "our tables are nobody's");
}

#[test]
fn every_definer_function_is_pinned_and_every_setting_that_matters_is_a_superusers() {
    let database = Database::shared();
    let mut session = database.connect();
    assert_eq!(
        session.lines(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
              AND prosecdef AND NOT coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}'"
        ),
        [] as [&str; 0]
    );
    assert_eq!(
        session.lines("SELECT name FROM pg_settings WHERE name LIKE 'transmute.%' AND context NOT IN ('superuser', 'postmaster', 'sighup')"),
        ["transmute.allow_ddl"],
        "it lets through only the owner of a migration"
    );
}

#[test]
fn members_of_a_role_do_with_it_what_it_is_for() {
    let database = Database::shared();
    let mut session =
        crate::privileges::world(&database, &["role_op", "role_app", "role_see", "role_adm"]);
    session.exec(
        "GRANT transmute_operator TO role_op; GRANT transmute_approver TO role_app; GRANT transmute_reader TO role_see; GRANT transmute_admin TO role_adm;
         CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1); ALTER TABLE t OWNER TO role_op",
    );
    let mut operator = database.connect_as("role_op");
    operator.batch(&[
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{\"required_approvals\": 1}')",
        "SELECT transmute.apply('m')",
        "CALL transmute.wait('m', 'AWAITING_FINALIZATION')",
    ]);
    for (role, refused) in [
        ("role_op", "SELECT transmute.approve('m', 'x')"),
        ("role_app", "SELECT transmute.rollback('m', 'x')"),
        ("role_see", "SELECT transmute.pause('m', 'x')"),
        ("role_op", "SELECT transmute.emergency_stop('x')"),
        ("role_adm", "SELECT transmute.rollback('m', 'not mine')"),
        (
            "role_adm",
            "UPDATE _transmute.migrations SET required_approvals = 0",
        ),
        (
            "role_adm",
            "INSERT INTO _transmute.approvals DEFAULT VALUES",
        ),
    ] {
        let error = database.connect_as(role).error(refused);
        assert_eq!(error.sqlstate, "42501", "{role}: {refused}: {error}");
    }
    let mut reader = database.connect_as("role_see");
    assert_eq!(
        reader.lines("SELECT state FROM transmute.status"),
        ["AWAITING_FINALIZATION"]
    );
    database
        .connect_as("role_app")
        .exec("SELECT transmute.approve('m', 'looks right')");
    operator.exec("CALL transmute.wait('m')");
    for role in ["op", "app", "see", "adm"] {
        session.exec(&format!("DROP OWNED BY role_{role}; DROP ROLE role_{role}"));
    }
}

#[test]
fn nothing_that_somebody_made_before_is_adopted() {
    let cluster = Cluster::builder().start();
    let database = Database::bare(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE ROLE install_eve LOGIN CREATEROLE; GRANT CREATE ON SCHEMA public TO install_eve",
    );
    session.exec(&format!(
        "GRANT CREATE ON DATABASE {} TO install_eve",
        database.name()
    ));
    for (plant, clear, sqlstate) in [
        ("CREATE SCHEMA transmute", "DROP SCHEMA transmute", "42P06"),
        ("CREATE SCHEMA transmute; CREATE FUNCTION transmute.state(text) RETURNS text LANGUAGE sql AS 'SELECT 1'", "DROP SCHEMA transmute CASCADE", "42P06"),
        ("CREATE SCHEMA _transmute", "DROP SCHEMA _transmute", "42P06"),
        ("CREATE ROLE transmute_admin LOGIN", "DROP ROLE transmute_admin", "42710"),
    ] {
        database.connect_as("install_eve").exec(plant);
        let error = session.error("CREATE EXTENSION transmute");
        assert_eq!(error.sqlstate, sqlstate, "{plant}: {error}");
        session.exec(clear);
    }
    session.exec("CREATE EXTENSION transmute; DROP EXTENSION transmute; DROP SCHEMA IF EXISTS transmute; CREATE EXTENSION transmute");
}

#[test]
fn pgspot_finds_nothing_in_the_install_script() {
    let tool = tools::project_root().join("target/tools/pgspot");
    let database = Database::shared();
    let mut session = database.connect();
    let version: String =
        session.scalar("SELECT extversion FROM pg_extension WHERE extname = 'transmute'");
    let tree = tools::Tree::under_test(tools::Build::Waitpoints);
    let share = tools::output_of(tree.command("pg_config").arg("--sharedir"));
    let path = format!("{}/extension/transmute--{version}.sql", share.trim());
    let script = std::fs::read_to_string(path).expect("the install script");
    // The script runs with schema transmute in search_path, and refuses to run unless that is empty and no role but superusers
    // can write into it (`nothing_that_somebody_made_before_is_adopted`): names resolve as they would with this.
    let checked = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        checked.path(),
        format!("SET search_path TO pg_catalog, pg_temp;\n{script}"),
    )
    .expect("written");
    let output = Command::new("python3")
        .arg(tool.join("bin/pgspot"))
        // A procedure that commits cannot have a SET clause: it sets search_path itself, and qualifies what comes before.
        .args([
            "--proc-without-search-path",
            "transmute.wait(id text,state text,timeout interval)",
        ])
        .arg(checked.path())
        .env("PYTHONPATH", &tool)
        .output()
        .expect("pgspot");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("Errors: 0 Warnings: 0 Unknown: 0"), "{said}");
}

/// The hook that refuses outdated snapshots runs in every session of every database, and looks at a table of ours as a superuser.
#[test]
fn look_alikes_of_our_tables_are_not_read_by_what_looks_at_every_statement() {
    let database = Database::bare(Cluster::shared());
    let mut session = database.connect();
    let eve = format!("{}_eve", database.name());
    session.batch(&[
        &format!("CREATE ROLE {eve} LOGIN"),
        &format!("ALTER DATABASE {} OWNER TO {eve}", database.name()),
        &format!("CREATE SCHEMA work AUTHORIZATION {eve} CREATE TABLE mine (i int)"),
    ]);
    let is_read_on = || {
        let (mut reader, mut other) = (database.connect_as(&eve), database.connect_as(&eve));
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            reader.exec(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1"));
            other.exec(
                "ALTER TABLE work.mine RENAME TO other; ALTER TABLE work.other RENAME TO mine",
            );
            assert_eq!(reader.lines("SELECT count(*) FROM work.mine"), ["0"]);
            reader.exec("SAVEPOINT s");
            assert_eq!(reader.error("SELECT 1 / 0").sqlstate, "22012");
            reader.exec("ROLLBACK TO s; SELECT FROM work.mine; COMMIT");
        }
    };
    for plant in [
        "CREATE FUNCTION work.evil() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called by %', current_user; END $$; \
         CREATE VIEW _transmute.rewrites AS SELECT work.evil() AS migration_id, '{}'::xid8[] AS brought_over, \
           'work.mine'::regclass::oid AS relation, now() AS swapped_at",
        "CREATE TABLE _transmute.rewrites (i int)",
        "CREATE TYPE _transmute.rewrites AS (brought_over xid8[])",
        "CREATE SEQUENCE _transmute.rewrites",
        "",
    ] {
        database.connect_as(&eve).exec("CREATE SCHEMA _transmute");
        database.connect_as(&eve).exec(plant);
        is_read_on();
        database.connect_as(&eve).exec("DROP SCHEMA _transmute CASCADE");
    }
    // While the extension comes, goes, and is of another version than the library.
    let mut strict = database.connect();
    strict
        .exec("SET default_transaction_isolation = 'repeatable read'; CREATE EXTENSION transmute");
    is_read_on();
    strict.exec("BEGIN; DROP EXTENSION transmute; ALTER TABLE work.mine ADD j int; SELECT FROM work.mine; ROLLBACK");
    strict.exec("ALTER TABLE _transmute.rewrites RENAME brought_over TO later");
    is_read_on();
    strict.exec(
        "ALTER TABLE _transmute.rewrites RENAME later TO brought_over; DROP EXTENSION transmute",
    );
    is_read_on();
}
