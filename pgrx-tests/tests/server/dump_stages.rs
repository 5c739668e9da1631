//! pg_dump of a migration in each of its states, restored in every way: a table that takes writes, a migration that waits for
//! a person, and a way out.

use std::path::{Path, PathBuf};

use transmute_tests::tools::{give_to_server_user, output_of, run};
use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::scene::{reconnect, ID};
use super::stage::{Held, Stage};

/// Writes that the application makes; each of them must work.
const WRITES: &str = "INSERT INTO t VALUES (-1, 1, 'x'); UPDATE t SET note = 'y' WHERE id < 10;
    UPDATE t SET id = -2 WHERE id = -1; DELETE FROM t WHERE id = -2";

/// Rows of the application, and how far the migration is.
fn seen(session: &mut Session) -> Vec<String> {
    let mut seen = session.lines("SELECT id, note FROM t ORDER BY id");
    seen.extend(session.lines("SELECT step, status FROM transmute.steps ORDER BY step"));
    seen
}

fn dump(held: &Held<'_>, arguments: &[&str], name: &str) -> PathBuf {
    let path = held.database.cluster().dir().join(name);
    output_of(
        held.database
            .command("pg_dump")
            .args(arguments)
            .arg("-f")
            .arg(&path),
    );
    path
}

fn pg_restore(into: &Database<'_>, arguments: &[&str], file: &Path) {
    output_of(
        into.command("pg_restore")
            .args(["-d", into.name(), "--exit-on-error"])
            .args(arguments)
            .arg(file),
    );
}

struct Copy<'c> {
    stage: &'static Stage,
    database: Database<'c>,
    seen: Vec<String>,
}

#[test]
fn a_dump_of_every_stage_restores_by_every_way_into_a_copy_that_waits_for_a_person() {
    let source = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let target = Cluster::builder().start();
    let mut copies = Vec::new();
    for held in Held::all(&source, 300, |_| true) {
        let before = seen(&mut held.connect());
        let custom = dump(&held, &["-Fc"], "custom");
        let database = Database::bare(&target);
        pg_restore(&database, &["-j4"], &custom);
        // The rarer ways where most of ours is in the dump.
        if matches!(
            held.stage.name,
            "soaking" | "two names" | "two columns" | "changing rows"
        ) {
            let parts = Database::bare(&target);
            pg_restore(&parts, &["--schema-only"], &custom);
            pg_restore(&parts, &["--data-only", "--disable-triggers"], &custom);
            let mut session = parts.connect();
            assert_eq!(seen(&mut session), before, "{}", held.stage.name);
            session.exec(WRITES);
            pg_restore(&parts, &["--clean", "--if-exists"], &custom);
            assert_eq!(seen(&mut parts.connect()), before, "{}", held.stage.name);
            only_the_table(&held, &target);
        }
        copies.push(Copy {
            stage: held.stage,
            database,
            seen: before,
        });
    }
    // A restart has the launcher look into every database.
    target.restart(StopMode::Fast);
    for copy in &mut copies {
        let mut session = reconnect(&copy.database);
        left_alone(copy, &mut session);
        way_out(copy, &mut session);
    }
}

/// `pg_dump -t`: into a database with the extension and into one without.
fn only_the_table(held: &Held<'_>, target: &Cluster) {
    if held.stage.name == "two names" {
        return; // the table has another name, and the view needs it
    }
    let plain = dump(held, &["-t", "t"], "plain");
    give_to_server_user(&plain);
    for database in [Database::create(target), Database::bare(target)] {
        run(database
            .command("psql")
            .args(["-X", "-q", "-f"])
            .arg(&plain));
        let mut session = database.connect();
        assert_eq!(
            session.lines("SELECT count(*) FROM t"),
            ["300"],
            "{}",
            held.stage.name
        );
        session.exec(WRITES);
    }
}

/// Nobody goes on by surprise, and the copy knows that it is one.
fn left_alone(copy: &Copy<'_>, session: &mut Session) {
    let name = copy.stage.name;
    // The way back goes on anywhere, and old rows are only followed when somebody writes.
    if copy.stage.is_under_way() && !matches!(copy.stage.state, "ROLLING_BACK" | "FINISHED") {
        session.wait_for(
            &format!("SELECT last_error LIKE 'this database is a copy%' FROM transmute.status WHERE id = '{ID}'"),
            "t",
            PATIENCE,
        );
    }
    if copy.stage.state == "ROLLING_BACK" {
        return;
    }
    assert_eq!(seen(session), copy.seen, "{name}");
    let state = session.lines("SELECT state FROM transmute.status");
    // An error in RUNNING is a state of its own.
    assert!(
        state == [copy.stage.state]
            || copy.stage.state == "RUNNING" && state == ["AWAITING_ACTION"],
        "{name}: {state:?}"
    );
    let doubled = session.lines("SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname ~ '^_transmute' GROUP BY 1, 2 HAVING count(*) > 1");
    assert!(doubled.is_empty(), "{name}: {doubled:?}");
    assert_eq!(
        session
            .lines("SELECT ok, detail LIKE '%this is a copy of it' FROM transmute.audit_verify()"),
        ["t|t"],
        "{name}"
    );
    session.exec(WRITES);
}

/// By calls, never by editing tables.
fn way_out(copy: &Copy<'_>, session: &mut Session) {
    let name = copy.stage.name;
    match copy.stage.state {
        // Its old rows are old there: what follows them is an ordinary trigger.
        "FINISHED" if name == "kept" => {
            for trigger in session.lines("SELECT format('%I ON %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE tgname ~ '^_transmute'") {
                session.exec(&format!("DROP TRIGGER {trigger}"));
            }
        }
        "UNINITIALIZED" | "FINISHED" => {}
        "FINISHING" => {
            session.exec(&format!(
                "SELECT transmute.resume('{ID}', 'a restored copy')"
            ));
            session.wait_for(
                "SELECT outcome FROM transmute.status",
                "COMPLETED",
                PATIENCE,
            );
        }
        state => {
            if state != "ROLLING_BACK" {
                session.exec(&format!(
                    "SELECT transmute.rollback('{ID}', 'a restored copy')"
                ));
            }
            session.wait_for(
                "SELECT outcome FROM transmute.status",
                "ROLLED_BACK",
                PATIENCE,
            );
        }
    }
    session.exec(WRITES);
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["300"], "{name}");
    let traces = session.lines("SELECT tgname FROM pg_trigger WHERE tgname ~ '^_transmute'");
    assert!(traces.is_empty(), "{name}: {traces:?}");
}
