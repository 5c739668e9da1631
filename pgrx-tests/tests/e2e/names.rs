//! Names and values that somebody has chosen to be run by whoever looks: they stay data, and a line stays a line.

use std::io::Write;

use transmute_tests::{tools, Cluster, Database, DbError, Session};

use crate::migration::Migration;

const ID: &str = "m\"; DROP TABLE victim; --\\! id $$ '";
/// Runs as nobody; a file that is there afterwards was made by one of our texts.
const EVIL_SCHEMA: &str = "s\n\\! touch MARK\n'; DROP TABLE victim; --";
const EVIL_TABLE: &str = "t\"; DROP TABLE victim; --\n\\q $$";
const EVIL_COLUMN: &str = "a$$; DROP TABLE victim; $$\n\\! touch MARK\n%s";
const EVIL_VALUE: &str =
    "x'; DROP TABLE victim; --\n\\! touch MARK\n2026-01-01 00:00:00 UTC [1] LOG:  forged\n$$;";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Runs psql over a script, as superuser, with every command of psql at its service.
fn psql(database: &Database<'_>, script: &str) -> String {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(script.as_bytes()).expect("a file");
    tools::give_to_server_user(file.path());
    let mut command = database.command("psql");
    command
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file.path());
    tools::output_of(&mut command)
}

#[test]
fn what_is_exported_listed_or_reported_runs_nothing_and_a_line_stays_a_line() {
    let cluster = Cluster::shared();
    let (database, other) = (Database::shared(), Database::create(cluster));
    let mark = cluster.dir().join("mark");
    let evil = |text: &str| text.replace("MARK", &mark.display().to_string());
    let table = format!("{}.{}", quoted(&evil(EVIL_SCHEMA)), quoted(EVIL_TABLE));
    let column = quoted(&evil(EVIL_COLUMN));
    let script =
        format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint USING {column}::bigint");
    let scene = format!(
        "CREATE TABLE victim (i int); CREATE SCHEMA {}; CREATE TABLE {table} (id int PRIMARY KEY, {column} text);
         INSERT INTO {table} SELECT i, i FROM generate_series(1, 10) AS i",
        quoted(&evil(EVIL_SCHEMA))
    );
    let (mut session, mut there) = (database.connect(), other.connect());
    session.exec(&scene);
    there.exec(&scene);
    session.exec(&format!(
        "INSERT INTO {table} VALUES (11, {})",
        literal(&evil(EVIL_VALUE))
    ));
    session.query(
        "SELECT transmute.register($1, $2, meta => '{\"required_approvals\": 1}')",
        &[&ID, &script],
    );
    session.query("SELECT transmute.apply($1)", &[&ID]);
    let id: &'static str = Box::leak(ID.replace('\'', "''").into_boxed_str());
    let mut migration = Migration::attach(&database, id);
    migration.wait("AWAITING_FINALIZATION");
    session.wait_for(
        "SELECT count(*) FROM transmute.dead_letters",
        "1",
        transmute_tests::wait::PATIENCE,
    );

    // Documents and scripts, through psql into another database: they register, and do nothing else.
    let document: String = session
        .query_one("SELECT transmute.export($1)::text", &[&ID])
        .get(0);
    psql(
        &other,
        &format!("SELECT transmute.import({});\n", literal(&document)),
    );
    assert_eq!(there.lines("SELECT id FROM transmute.status"), [ID]);
    let text = format!("-- id: loaded\n-- migrate: up\n{script};\n");
    there.query("SELECT transmute.load($1)", &[&text]);
    let again: String = there.scalar("SELECT transmute.export_sql('loaded')");
    assert_eq!(again, text);
    // What we print as the next call is that call, whoever pastes it.
    let hint = session
        .try_rows(&format!("SELECT transmute.export_sql({})", literal(ID)))
        .map(drop)
        .map_err(|error: DbError| error.hint.expect("a HINT"))
        .unwrap_err();
    let call = hint
        .strip_suffix(" gives it as a document.")
        .expect("the call");
    assert_eq!(
        psql(&database, &format!("\\t on\n\\a\n{call};\n"))
            .lines()
            .last(),
        Some(document.as_str())
    );
    // Every statement that a plan, a way back or a preflight shows is one that the server reads as one.
    for query in [
        "SELECT sql FROM transmute.plan($1) WHERE phase = 'contract' AND sql ~ '^ALTER'",
        "SELECT expression FROM transmute.dead_letters WHERE id = $1",
    ] {
        for row in session.query(query, &[&ID]) {
            assert_eq!(row.get::<_, String>(0), script, "{query}");
        }
    }

    // Lists: an event is a line, as JSON and as CSV, whatever is in it.
    let events: i64 = session.scalar("SELECT count(*) FROM transmute.audit_events");
    let lines = session.lines("SELECT transmute.audit_export()");
    assert_eq!(lines.len() as i64, events);
    for line in &lines {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(event["seq"].is_i64() && !line.contains('\n'), "{line}");
    }
    let copy = "\\copy (SELECT * FROM transmute.history) TO STDOUT WITH (FORMAT csv)\n\
                \\copy (SELECT * FROM transmute.dead_letters) TO STDOUT WITH (FORMAT csv)\n\
                \\copy (SELECT * FROM transmute.status) TO STDOUT\n";
    let csv = psql(&database, copy);
    let mut python = std::process::Command::new("python3");
    let rows =
        "import csv, sys\nprint(sum(1 for row in csv.reader(sys.argv[1].splitlines(True)) if row))";
    let read = tools::output_of(python.args(["-c", rows]).arg(&csv));
    let in_view: i64 = session.scalar("SELECT count(*) FROM transmute.history");
    // Both as many rows as there are, and the status, which COPY writes as a line.
    let of_status: i64 = session.scalar("SELECT count(*) FROM transmute.status");
    assert_eq!(read.trim(), (in_view + 1 + of_status).to_string(), "{csv}");

    // Nothing of it begins a line of the server's log.
    let forged: Vec<String> = std::fs::read_to_string(cluster.log_path())
        .expect("the log")
        .lines()
        .filter(|line| line.starts_with("2026-01-01 00:00:00"))
        .map(String::from)
        .collect();
    assert_eq!(forged, [""; 0]);

    session.exec(&format!("DELETE FROM {table} WHERE id = 11"));
    migration.call("approve", "'seen'");
    migration.finish();
    for session in [&mut session, &mut there] {
        assert_untouched(session);
    }
    assert!(!mark.exists(), "a text of ours was run by a shell");
}

fn assert_untouched(session: &mut Session) {
    assert_eq!(session.lines("SELECT to_regclass('victim')"), ["victim"]);
}

/// S3: the schema has one name; where that is taken, or nobody's, there is an error and nothing else.
#[test]
fn the_extension_is_made_in_its_own_schema_and_in_no_other() {
    let database = Database::bare(Cluster::shared());
    let mut session = database.connect();
    session.exec("CREATE TEMP TABLE makes_the_temporary_schema (i int)");
    let long = "n".repeat(63);
    for name in [
        "quo\"te",
        "new\nline; DROP TABLE victim; --",
        "gemütlich 漢字",
        "select",
        "@extschema@",
        "$$",
        long.as_str(),
        "pg_temp",
        "pg_catalog",
    ] {
        let schema = quoted(name);
        if !name.starts_with("pg_") {
            session.exec(&format!("CREATE SCHEMA {schema}"));
        }
        let error = session.error(&format!("CREATE EXTENSION transmute SCHEMA {schema}"));
        assert!(
            ["0A000", "3F000"].contains(&error.sqlstate.as_str()),
            "{name}: {error}"
        );
    }
    // Somebody else's schema of that name, whatever is in it.
    session.exec("CREATE ROLE squatter; CREATE SCHEMA transmute AUTHORIZATION squatter");
    assert_eq!(
        session.error("CREATE EXTENSION transmute").sqlstate,
        "42P06"
    );
    session.exec("DROP SCHEMA transmute; CREATE SCHEMA _transmute AUTHORIZATION squatter");
    assert_eq!(
        session.error("CREATE EXTENSION transmute").sqlstate,
        "42P06"
    );
    session.exec("DROP SCHEMA _transmute; DROP ROLE squatter");
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname ~ 'transmute'"),
        [""; 0]
    );
    session.exec("CREATE EXTENSION transmute");
    // And it stays there.
    assert_eq!(
        session
            .error("ALTER EXTENSION transmute SET SCHEMA public")
            .sqlstate,
        "0A000"
    );
}
