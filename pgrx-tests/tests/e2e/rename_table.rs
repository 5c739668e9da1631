//! A table under its old and its new name at once: both applications do everything they did.

use std::io::Write;

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load;
use crate::migration::{self, assert_sound, fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

#[test]
fn old_and_new_clients_write_through_their_own_name() {
    let database = Database::shared();
    let load = Workload::on("t").seed(5);
    let mut session = load::hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let version: i32 = session.scalar("SELECT current_setting('server_version_num')::int / 10000");
    // MERGE into a view came with 17: docs/operations.md tells the old application.
    let load = match version < 17 {
        true => load.without_merge(),
        false => load,
    };
    let old_clients = load.with_truncate().start(&database);
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t RENAME TO renamed", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    let new_clients = Workload::on("renamed").seed(6).start(&database);
    old_clients.wait_for_more(300, PATIENCE);
    new_clients.wait_for_more(300, PATIENCE);
    new_clients.stop().assert_no_failures();
    migration.roll_back();
    old_clients.wait_for_more(300, PATIENCE);
    assert_eq!(fingerprint(&mut session, "t"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    old_clients.wait_for_more(300, PATIENCE);
    old_clients.stop().assert_no_failures();
    session.exec("SET transmute.allow_ddl = on; ALTER VIEW t RENAME TO moved; ALTER TABLE renamed RENAME TO t");
    load::assert_equals_mirror(&mut session);
    session.exec("ALTER TABLE t RENAME TO renamed; ALTER VIEW moved RENAME TO t");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(session.error("SELECT FROM t").sqlstate, "42P01");
    assert_sound(&mut session, "renamed");
}

/// Rows by COPY into `target`, which has two columns.
fn copy(session: &mut Session, target: &str, rows: &str) -> u64 {
    let mut writer = session
        .client()
        .copy_in(&format!("COPY {target} FROM STDIN"))
        .expect("COPY");
    writer.write_all(rows.as_bytes()).expect("rows");
    writer.finish().expect("the end of COPY")
}

#[test]
fn the_old_name_has_the_same_rights_and_the_same_row_security() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA s;
         CREATE ROLE rt_owner; CREATE ROLE rt_reader; CREATE ROLE rt_writer; CREATE ROLE rt_nobody;
         GRANT USAGE ON SCHEMA s TO PUBLIC; GRANT CREATE ON SCHEMA s, public TO rt_owner;
         CREATE TABLE s.\"Old\" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text DEFAULT current_user, v int);
         ALTER TABLE s.\"Old\" OWNER TO rt_owner;
         GRANT SELECT ON s.\"Old\" TO rt_reader WITH GRANT OPTION;
         GRANT SELECT, INSERT (v), UPDATE (v), DELETE ON s.\"Old\" TO rt_writer;
         ALTER TABLE s.\"Old\" ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON s.\"Old\" USING (who = current_user);
         CREATE VIEW s.on_it AS SELECT v FROM s.\"Old\";
         INSERT INTO s.\"Old\" (who, v) VALUES ('rt_writer', 1), ('rt_reader', 2)",
    );
    let before = fingerprint(&mut session, "s.\"Old\"");
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE s.\"Old\" SET SCHEMA public",
        SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    for name in ["s.\"Old\"", "public.\"Old\""] {
        let as_role =
            |session: &mut Session, role: &str, sql: &str| -> Result<Vec<String>, String> {
                session.exec(&format!("SET ROLE {role}"));
                let result = session.try_rows(&sql.replace("{}", name));
                session.exec("RESET ROLE");
                let text = |rows: Vec<Vec<Option<String>>>| {
                    rows.into_iter().flatten().flatten().collect::<Vec<_>>()
                };
                result.map(text).map_err(|e| e.sqlstate)
            };
        let denied = || Err("42501".to_string());
        let yes = |values: &[&str]| Ok(values.iter().map(ToString::to_string).collect());
        for (role, sql, expected) in [
            ("rt_reader", "SELECT v FROM {}", yes(&["2"])),
            ("rt_reader", "INSERT INTO {} (v) VALUES (5)", denied()),
            ("rt_writer", "SELECT v FROM {}", yes(&["1"])),
            ("rt_writer", "UPDATE {} SET who = 'x'", denied()),
            ("rt_writer", "UPDATE {} SET v = 1 RETURNING v", yes(&["1"])),
            (
                "rt_writer",
                "INSERT INTO {} (v) VALUES (7) RETURNING who",
                yes(&["rt_writer"]),
            ),
            (
                "rt_writer",
                "DELETE FROM {} WHERE v = 7 RETURNING v",
                yes(&["7"]),
            ),
            ("rt_nobody", "SELECT v FROM {}", denied()),
            ("rt_owner", "SELECT count(*) FROM {}", yes(&["2"])),
        ] {
            assert_eq!(
                as_role(&mut session, role, sql),
                expected,
                "{role}: {sql} on {name}"
            );
        }
    }
    assert_eq!(
        session
            .lines(
                "SELECT _transmute.acl_text(relacl) FROM pg_class WHERE relname = 'Old' GROUP BY 1"
            )
            .len(),
        1,
        "the privileges look the same too"
    );
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "s.\"Old\""), before);
    session.exec("DROP SCHEMA s CASCADE; DROP OWNED BY rt_owner, rt_reader, rt_writer");
    session
        .exec("DROP ROLE rt_owner; DROP ROLE rt_reader; DROP ROLE rt_writer; DROP ROLE rt_nobody");
}

#[test]
fn copy_and_truncate_of_the_old_name_reach_the_table() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (a int, b text); CREATE VIEW other AS SELECT * FROM t");
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t RENAME TO u", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(copy(&mut session, "t", "1\tx\n2\ty\n"), 2);
    assert_eq!(copy(&mut session, "t (b, a)", "z\t3\n"), 1);
    assert_eq!(
        session.lines("SELECT a, b FROM u ORDER BY a"),
        ["1|x", "2|y", "3|z"]
    );
    let mut out = String::new();
    std::io::Read::read_to_string(
        &mut session.client().copy_out("COPY t TO STDOUT").expect("COPY"),
        &mut out,
    )
    .expect("rows");
    assert_eq!(out, "1\tx\n2\ty\n3\tz\n");
    session.exec("TRUNCATE t");
    assert_eq!(session.lines("SELECT count(*) FROM u"), ["0"]);
    // Other views are what they always were.
    assert_eq!(session.error("TRUNCATE other").sqlstate, "42809");
    session.exec("BEGIN; LOCK TABLE t IN SHARE MODE; COMMIT");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    migration::assert_no_traces(&mut session, "u");
}

#[test]
fn in_place_is_the_plain_rename_with_a_way_back() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (a int)");
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::register(
        &database,
        "m",
        "ALTER TABLE t RENAME TO u; CREATE TABLE later (i int)",
        r#"{"rename": "in_place"}"#,
    );
    migration.apply();
    migration.finish();
    assert_eq!(session.error("SELECT FROM t").sqlstate, "42P01");
    session.exec("ALTER TABLE u RENAME TO t");
    assert_eq!(fingerprint(&mut session, "t"), before);
}

#[test]
fn a_name_that_is_taken_is_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (a int); CREATE SEQUENCE u; CREATE SCHEMA s; CREATE VIEW s.t AS SELECT 1",
    );
    for (ddl, sqlstate) in [
        ("ALTER TABLE t RENAME TO u", "42P07"),
        ("ALTER TABLE t SET SCHEMA s", "42P07"),
        ("ALTER TABLE t SET SCHEMA nowhere", "3F000"),
        ("ALTER TABLE nowhere RENAME TO v", "42P01"),
        ("ALTER TABLE s.t RENAME TO v", "42809"),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', '{ddl}')"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
    }
    assert!(session.lines("SELECT * FROM transmute.status").is_empty());
}
