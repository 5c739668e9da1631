//! What somebody learns of migrations that are not theirs: nothing, not even that they are there.

use transmute_tests::{Database, Session};

use crate::migration::Migration;
use crate::privileges::world;
use crate::surface::signature::good;

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;
/// Nobody has registered it; as long as the others, in the same letters.
const NOBODY: &str = "nobody";

/// Every call with an argument `id` that only reads, or acts on, the migration of that name, and what must be asked of it.
fn calls_about_one(session: &mut Session) -> Vec<(String, bool)> {
    let registering = "'register', 'register_phases', 'register_copy', 'migrate', 'add_column', 'add_table', 'drop_column', 'rename_column', 'transform_column'";
    let mut calls = Vec::new();
    let lines = session.lines(&format!(
        "SELECT p.oid, p.proname, p.prokind, has_function_privilege('transmute_reader', p.oid, 'EXECUTE') FROM pg_proc p
           WHERE p.pronamespace = 'transmute'::regnamespace AND p.proargnames @> '{{id}}' AND p.proargtypes[0] = 'text'::regtype
             AND p.proargnames[1] = 'id' AND p.proname NOT IN ({registering}) ORDER BY p.oid::regprocedure::text COLLATE \"C\""
    ));
    for line in lines {
        let parts: Vec<&str> = line.split('|').collect();
        let arguments = session.lines(&format!(
            "SELECT p.proargnames[a.n], format_type(a.of, NULL) FROM pg_proc p, unnest(p.proargtypes) WITH ORDINALITY AS a(of, n)
               WHERE p.oid = {} ORDER BY a.n",
            parts[0]
        ));
        let values: Vec<String> = arguments
            .iter()
            .map(|argument| argument.split_once('|').expect("a name and a type"))
            .map(|(name, of)| match (name, parts[1]) {
                ("id", _) => "'{id}'".to_string(),
                ("ids", "discard_dead_letters") => "'{1}'".to_string(),
                _ => format!("{}::{of}", good(parts[1], name, of)),
            })
            .collect();
        let verb = if parts[2] == "p" {
            "CALL"
        } else {
            "SELECT * FROM"
        };
        let call = format!("{verb} transmute.{}({})", parts[1], values.join(", "));
        calls.push((call, parts[3] == "t"));
    }
    calls
}

/// What the session is told, with the id put aside.
fn answer(session: &mut Session, call: &str, id: &str) -> String {
    match session.try_rows(&call.replace("{id}", id)) {
        Ok(rows) => format!("{rows:?}"),
        Err(error) => format!(
            "{}: {} / {} / {}",
            error.sqlstate,
            error.message,
            error.detail.unwrap_or_default(),
            error.hint.unwrap_or_default()
        ),
    }
    .replace(&format!("\"{id}\""), "\"…\"")
}

#[test]
fn a_migration_of_somebody_elses_and_one_that_is_not_there_are_answered_alike() {
    let database = Database::shared();
    let mut session = world(&database, &["told_ann", "told_eve", "told_plain"]);
    session.batch(&[
        "GRANT transmute_operator TO told_ann",
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (LIKE a INCLUDING ALL); CREATE TABLE c (LIKE a INCLUDING ALL); CREATE TABLE d (LIKE a INCLUDING ALL)",
        "ALTER TABLE a OWNER TO told_ann; ALTER TABLE b OWNER TO told_ann; ALTER TABLE c OWNER TO told_ann; ALTER TABLE d OWNER TO told_ann",
        // She may call what changes migrations, and read nothing.
        "DO $$ DECLARE f regprocedure; BEGIN
           FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'transmute'::regnamespace
             AND has_function_privilege('transmute_operator', p.oid, 'EXECUTE') AND NOT has_function_privilege('transmute_reader', p.oid, 'EXECUTE')
           LOOP EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO told_eve', f); END LOOP; END $$",
    ]);
    let mut ann = database.connect_as("told_ann");
    for (id, table, meta) in [
        ("placed", "a", "{}"),
        ("soaked", "b", LONG_SOAK),
        ("missed", "c", r#"{"keep_old": "1 hour"}"#),
    ] {
        ann.exec(&format!("SELECT transmute.register('{id}', 'ALTER TABLE {table} ALTER COLUMN n TYPE bigint', meta => '{meta}')"));
    }
    ann.batch(&[
        "SELECT transmute.apply('soaked')",
        "SELECT transmute.apply('missed')",
        "CALL transmute.wait('soaked', 'AWAITING_FINALIZATION')",
        "CALL transmute.wait('missed')",
    ]);
    let calls = calls_about_one(&mut session);
    assert!(calls.len() > 25, "{calls:?}");
    let mut eve = database.connect_as("told_eve");
    let mut plain = database.connect_as("told_plain");
    for (call, for_readers) in &calls {
        let shown = ["state(", "is_finished(", "route("]
            .iter()
            .any(|name| call.contains(&format!("transmute.{name}")));
        for (who, stranger) in [("eve", &mut eve), ("plain", &mut plain)] {
            let unknown = answer(stranger, call, NOBODY);
            let refused = unknown.starts_with("42501: ");
            assert_ne!(refused, shown, "{who}: {call}: {unknown}");
            if who == "eve" && !shown && !for_readers && !call.contains("approv") {
                // `wait` asks for the plan first.
                let asked = call.contains(".wait(") && unknown.contains("function plan");
                let hidden = "42501: must be a member of the migration's owner / Migration \"…\" does not exist, or belongs to a role";
                assert!(asked || unknown.starts_with(hidden), "{call}: {unknown}");
            }
            for id in ["placed", "soaked", "missed"] {
                assert_eq!(answer(stranger, call, id), unknown, "{who}: {call}, {id}");
            }
        }
    }
    for stranger in [&mut eve, &mut plain] {
        assert_eq!(
            stranger.lines("SELECT id FROM transmute.routing"),
            [] as [&str; 0]
        );
    }
    // Nor does a dependency tell, or a name much like it.
    for needed in ["placed", "placid"] {
        eve.exec(&format!(
            "BEGIN; CREATE TABLE own (id int); SELECT transmute.register('own', 'COMMENT ON TABLE own IS NULL', meta => '{{\"depends_on\": [\"{needed}\"]}}'); ROLLBACK"
        ));
        let notices = eve.notices();
        assert!(
            !notices.iter().any(|n| n.contains("not registered")),
            "{notices:?}"
        );
    }
    // Who may read is told what is.
    session.exec("GRANT transmute_reader TO told_eve");
    let told = eve.error("SELECT transmute.pause('placed', 'x')");
    assert_eq!(
        (told.sqlstate.as_str(), told.detail.as_deref()),
        (
            "42501",
            Some("Migration \"placed\" belongs to \"told_ann\".")
        )
    );
    assert_eq!(
        eve.error("SELECT transmute.pause('nobody', 'x')").sqlstate,
        "42704"
    );
    assert_eq!(
        eve.lines("SELECT transmute.state('soaked')"),
        ["AWAITING_FINALIZATION"]
    );
    // Nobody is made to wait by who may do nothing.
    session.exec("REVOKE transmute_reader FROM told_eve");
    ann.exec("BEGIN; SELECT transmute.tune('placed', 'x', backfill_duty => 50)");
    eve.exec("SET lock_timeout = '100 ms'");
    assert_eq!(
        answer(&mut eve, "SELECT transmute.pause('{id}', 'x')", "placed"),
        answer(&mut eve, "SELECT transmute.pause('{id}', 'x')", NOBODY)
    );
    ann.exec("ROLLBACK");
}

#[test]
fn an_application_sees_the_state_of_migrations_of_tables_that_it_may_use() {
    let database = Database::shared();
    let mut session = world(
        &database,
        &["seen_ann", "seen_app", "seen_column", "seen_stranger"],
    );
    session.batch(&[
        "GRANT transmute_operator TO seen_ann",
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); ALTER TABLE t OWNER TO seen_ann; CREATE TABLE old (id int PRIMARY KEY); ALTER TABLE old OWNER TO seen_ann",
        "GRANT INSERT ON t TO seen_app; GRANT SELECT (b) ON t TO seen_column; GRANT SELECT ON old TO seen_app",
    ]);
    let mut ann = database.connect_as("seen_ann");
    ann.batch(&[
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint')",
        "SELECT transmute.register('makes', 'CREATE TABLE made (id int PRIMARY KEY); GRANT SELECT ON made TO seen_app')",
        "SELECT transmute.register('renames', 'ALTER TABLE old RENAME TO young')",
    ]);
    let asked = "SELECT transmute.state('m'), (transmute.route('m')).write_to, transmute.is_finished('m'), transmute.state('makes'), transmute.state('renames')";
    let mut all: Vec<Session> = ["seen_ann", "seen_app", "seen_column", "seen_stranger"]
        .iter()
        .map(|role| database.connect_as(role))
        .collect();
    let mut answers = |statement: &str| -> Vec<String> {
        all.iter_mut().flat_map(|s| s.lines(statement)).collect()
    };
    assert_eq!(
        answers(asked),
        [
            "UNINITIALIZED|old|f|UNINITIALIZED|UNINITIALIZED",
            "UNINITIALIZED|old|f|∅|UNINITIALIZED",
            "UNINITIALIZED|old|f|∅|∅",
            "∅|∅|f|∅|∅"
        ]
    );
    // A look-alike of what will be made tells its maker nothing.
    let mut stranger = database.connect_as("seen_stranger");
    stranger.exec("CREATE TABLE made (id int)");
    assert_eq!(stranger.lines("SELECT transmute.state('makes')"), ["∅"]);
    stranger.exec("DROP TABLE made");
    for id in ["m", "makes", "renames"] {
        ann.exec(&format!("SELECT transmute.apply('{id}')"));
        ann.exec(&format!("CALL transmute.wait('{id}')"));
    }
    assert_eq!(
        answers(asked),
        [
            "FINISHED|new|t|FINISHED|FINISHED",
            "FINISHED|new|t|FINISHED|FINISHED",
            "FINISHED|new|t|∅|∅",
            "∅|∅|f|∅|∅"
        ]
    );
    // A function of the owner's asks for its owner.
    ann.exec("CREATE FUNCTION asks() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT transmute.state(''m'')'");
    assert_eq!(stranger.lines("SELECT asks()"), ["FINISHED"]);
    // In a copy the tables have other oids: their names count.
    session.exec("UPDATE _transmute.objects SET object = 4294967295 WHERE name = 'public.t' AND object IS NOT NULL");
    assert_eq!(
        answers("SELECT transmute.state('m')"),
        ["FINISHED", "FINISHED", "FINISHED", "∅"]
    );
    // Whatever a name holds, it is read or passed over.
    session.exec("INSERT INTO _transmute.objects SELECT 'm', 'relation', n, NULL, false FROM unnest(ARRAY['', '.', 'a.', '\"', '\"a\".b.c', 'a b.c', repeat('x', 100) || '.y', 'Ä.ö', '\"\"\".x']) AS n");
    assert_eq!(
        answers("SELECT transmute.state('m')").concat(),
        "FINISHEDFINISHEDFINISHED∅"
    );
}

/// The schema of a version is where applications of its owner look for names first.
#[test]
fn a_version_of_somebody_elses_is_neither_added_to_nor_taken_away() {
    let database = Database::shared();
    let mut session = world(&database, &["release_ann", "release_eve"]);
    session.batch(&[
        "GRANT transmute_operator TO release_ann, release_eve",
        "CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t OWNER TO release_ann",
        "CREATE TABLE u (id int PRIMARY KEY, a int); ALTER TABLE u OWNER TO release_eve",
    ]);
    let mut ann = database.connect_as("release_ann");
    let mut eve = database.connect_as("release_eve");
    // Registered before anybody has made the version.
    eve.exec("SELECT transmute.register('early', 'ALTER TABLE u ALTER COLUMN a TYPE bigint', meta => '{\"versioned_views\": \"v2\"}')");
    ann.batch(&[
        "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{\"versioned_views\": \"v2\", \"versioned_views_before\": \"v1\"}')",
        "SELECT transmute.apply('m')",
        "CALL transmute.wait('m')",
    ]);
    for meta in [
        r#"{"versioned_views": "v2"}"#,
        r#"{"versioned_views_before": "v1"}"#,
        r#"{"drop_versions": ["v1"]}"#,
    ] {
        let error = eve.error(&format!("SELECT transmute.register('e', 'ALTER TABLE u ALTER COLUMN a TYPE bigint', meta => '{meta}')"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("42501", "must be a member of the version's owner"),
            "{meta}"
        );
    }
    let mut early = Migration::attach(&database, "early");
    eve.exec("SELECT transmute.apply('early')");
    early.wait_for("outcome", "FAILED");
    assert_eq!(early.status("last_error_sqlstate"), "42501");
    let may = "SELECT has_schema_privilege('release_eve', n, 'CREATE') FROM unnest('{v1,v2}'::text[]) AS n";
    assert_eq!(session.lines(may), ["f", "f"]);
    early.roll_back();
    // Of a migration that works on tables of others nobody keeps a right to make something there.
    session.batch(&[
        "CREATE TABLE w (id int PRIMARY KEY, a int); ALTER TABLE w OWNER TO release_eve",
        "SELECT transmute.register('s', 'ALTER TABLE w ALTER COLUMN a TYPE bigint', meta => '{\"versioned_views\": \"v2\", \"versioned_views_before\": \"v1\"}')",
        "SELECT transmute.apply('s')",
        "CALL transmute.wait('s')",
    ]);
    assert_eq!(
        session.lines("SELECT n, has_schema_privilege('release_eve', n, 'USAGE'), has_schema_privilege('release_eve', n, 'CREATE') FROM unnest('{v1,v2}'::text[]) AS n"),
        ["v1|t|f", "v2|t|f"]
    );
    assert_eq!(
        session.lines("SELECT relname, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'v1'::regnamespace AND relname !~ '^_transmute' ORDER BY 1"),
        ["t|release_ann", "w|release_eve"]
    );
    eve.exec("INSERT INTO v1.w VALUES (1, 2); INSERT INTO v2.w VALUES (2, 3)");
    assert_eq!(
        eve.error("CREATE FUNCTION v1.now() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            .sqlstate,
        "42501"
    );
    assert_eq!(
        eve.error("SELECT transmute.release_version('v1', 'x')")
            .sqlstate,
        "42501"
    );
    ann.exec("SELECT transmute.release_version('v1', 'gone')");
}

/// A15: nothing is redacted, and docs/security.md says so, and who reads it.
#[test]
fn secrets_of_scripts_and_rows_are_shown_to_readers_and_to_nobody_else() {
    let database = Database::shared();
    let mut session = world(&database, &["secret_reader", "secret_plain", "secret_app"]);
    session.exec(
        "GRANT transmute_reader TO secret_reader; CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, '1'), (2, 'of-a-row'); GRANT SELECT (id) ON t TO secret_app;
         SELECT transmute.register('role', 'ALTER ROLE secret_app PASSWORD ''of-a-script''')",
    );
    let mut letters = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int",
        "{}",
    );
    letters.wait_for("dead_letters", "1");
    let everything = [
        ("SELECT sql FROM transmute.plan('role')", "of-a-script"),
        (
            "SELECT sql FROM transmute.steps WHERE id = 'role'",
            "of-a-script",
        ),
        ("SELECT transmute.export('role')", "of-a-script"),
        (
            "SELECT \"row\", message FROM transmute.dead_letters",
            "of-a-row",
        ),
    ];
    let mut reader = database.connect_as("secret_reader");
    for (query, secret) in everything {
        assert!(reader.lines(query).concat().contains(secret), "{query}");
        for role in ["secret_plain", "secret_app"] {
            let error = database.connect_as(role).error(query);
            assert_eq!(error.sqlstate, "42501", "{role}: {query}");
        }
    }
    // What everybody may look at has neither.
    let mut app = database.connect_as("secret_app");
    let shown = app
        .lines("SELECT r, transmute.state(r.id), transmute.route(r.id) FROM transmute.routing r")
        .concat();
    assert!(
        shown.contains("RUNNING") && !shown.contains("of-a-"),
        "{shown}"
    );
    // The registers of the trail say which script it was, not what it holds.
    let trail = session
        .lines("SELECT detail FROM transmute.audit_events")
        .concat();
    assert!(
        !trail.contains("of-a-script") && !trail.contains("of-a-row"),
        "{trail}"
    );
    letters.call("discard_dead_letters", "NULL, 'no more'");
    letters.finish();
    session.exec("SELECT transmute.purge_dead_letters('m', 'discarded')");
    assert_eq!(
        session.lines("SELECT \"row\" FROM transmute.dead_letters"),
        [] as [&str; 0]
    );
}

#[test]
fn a_text_of_somebody_elses_is_neither_compared_nor_shown() {
    let database = Database::shared();
    let mut session = world(&database, &["text_ann", "text_eve"]);
    session.batch(&[
        "GRANT transmute_operator TO text_ann",
        "GRANT EXECUTE ON FUNCTION transmute.load(text, jsonb), transmute.load_files(text, text[], bytea[], jsonb) TO text_eve",
    ]);
    let text = |name: &str| {
        format!(
            "-- migration: {name}\n-- migrate: up\nCREATE TABLE public.of_{name} (secret int);\n"
        )
    };
    let mut ann = database.connect_as("text_ann");
    ann.lines(&format!(
        "SELECT what FROM transmute.load($t${}$t$)",
        text("hers")
    ));
    let mut eve = database.connect_as("text_eve");
    // The same, or not: her answer is that of any name that is taken.
    for given in [text("hers"), text("hers").replace("secret", "guess")] {
        let as_file = eve.error(&format!(
            "SELECT * FROM transmute.load_files('/x', ARRAY['a.sql'], ARRAY[convert_to($t${given}$t$, 'UTF8')])"
        ));
        assert_eq!(as_file.sqlstate, "42710", "{as_file}");
        let error = eve.error(&format!("SELECT * FROM transmute.load($t${given}$t$)"));
        assert_eq!(
            (error.sqlstate.as_str(), error.detail.as_deref()),
            ("42710", Some("A migration named \"hers\" exists already.")),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let missing = "-- migration: own\n-- migrate: up\nALTER TABLE public.nowhere ADD COLUMN a int;\n-- migrate: down\nSELECT 1;\n";
    let error = eve.error(&format!("SELECT * FROM transmute.load($t${missing}$t$)"));
    assert_eq!(error.sqlstate, "42P01", "{error}");
    assert!(!format!("{error:?}").contains("hers"), "{error:?}");
    // Her own are compared, and whoever may read is told of all.
    eve.exec(&format!(
        "SELECT * FROM transmute.load($t${}$t$)",
        text("mine")
    ));
    let again = format!(
        "SELECT what FROM transmute.load($t${}$t$)",
        text("mine").replace("secret", "other")
    );
    assert_eq!(eve.lines(&again), ["changed"]);
    session.exec("GRANT transmute_reader TO text_eve");
    let told = format!(
        "SELECT detail FROM transmute.load_files('/x', ARRAY['a.sql'], ARRAY[convert_to($t${}$t$, 'UTF8')])",
        text("hers").replace("secret", "guess")
    );
    let told = eve.lines(&told);
    assert!(told[0].contains("secret"), "{told:?}");
    let error = eve.error(&format!("SELECT * FROM transmute.load($t${missing}$t$)"));
    assert!(format!("{error:?}").contains("-- depends:"), "{error:?}");
}
