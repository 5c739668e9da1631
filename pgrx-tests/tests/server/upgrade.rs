//! Newer servers and newer versions of the extension under migrations in every state.

use std::path::PathBuf;

use transmute_tests::tools::output_of;
use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session, StopMode, Tree};

use super::scene::{assert_log_is_clean, assert_sound, reconnect, wait_state, ID};
use super::stage::Held;

/// The oldest server that is supported.
const OLDEST: u32 = 15;

#[test]
fn pg_upgrade_keeps_every_stage_and_goes_on_when_it_is_asked_to() {
    let new = Tree::under_test(Default::default());
    let old = Tree::of_version(OLDEST)
        .filter(|old| old.version() < new.version() && script(old) == script(&new));
    let Some(old) = old else {
        eprintln!("no {OLDEST} with the same extension: nothing to upgrade from");
        return;
    };
    let cluster = Cluster::builder().tree(&old).start();
    let stages = Held::all(&cluster, 300, |stage| {
        [
            "queued",
            "copying",
            "soaking",
            "two columns",
            "changing rows",
            "finished",
            "kept",
        ]
        .contains(&stage.name)
    });
    let names: Vec<_> = stages
        .iter()
        .map(|held| (held.stage, held.database.name().to_string()))
        .collect();
    let by_address = Database::create(&cluster);
    let mut session = by_address.connect();
    session.exec("CREATE TABLE bare (a int, note text); INSERT INTO bare SELECT g, 'x' FROM generate_series(1, 500) g");
    rewrite_bare(&mut session, "before", "bigint");
    let by_address = by_address.name().to_string();
    drop(session);
    cluster.stop(StopMode::Fast);
    drop(stages);
    let upgraded = Cluster::builder().start_upgraded_from(&cluster);
    // A table without a key is read by column numbers that the rewrite has left a gap in.
    let database = Database::existing(&upgraded, &by_address);
    let mut session = reconnect(&database);
    session.exec("INSERT INTO bare VALUES (501, 'y'); UPDATE bare SET note = 'z' WHERE a = 1");
    rewrite_bare(&mut session, "after", "numeric");
    assert_eq!(
        session.lines("SELECT count(*), sum(a), count(DISTINCT a), string_agg(DISTINCT note, '' ORDER BY note) FROM bare"),
        ["501|125751|501|xyz"]
    );
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'bare'::regclass AND attisdropped"
        ),
        ["2"]
    );
    for (stage, name) in names {
        let database = Database::existing(&upgraded, &name);
        let mut session = reconnect(&database);
        let state: String = session.scalar("SELECT state FROM transmute.status");
        // A conductor may have been there already, and have asked for a person.
        let is_asked = stage.is_under_way() && state == "AWAITING_ACTION";
        assert!(state == stage.state || is_asked, "{}: {state}", stage.name);
        assert_eq!(
            session.lines(
                "SELECT ok, detail LIKE '%this is a copy of it' FROM transmute.audit_verify()"
            ),
            ["t|t"],
            "{}",
            stage.name
        );
        session.exec("INSERT INTO t VALUES (-1, 1, 'x')");
        if stage.state == "FINISHED" {
            continue;
        }
        if stage.is_under_way() {
            session.wait_for(
                "SELECT last_error LIKE 'this database is a copy%' FROM transmute.status",
                "t",
                PATIENCE,
            );
        }
        session.exec(&format!("SELECT transmute.resume('{ID}', 'upgraded')"));
        match stage.state {
            "UNINITIALIZED" => {
                session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'upgraded')"))
            }
            "FINISHING" => {}
            // pg_upgrade makes triggers anew: whether they saw every change nobody knows.
            _ if ["copying", "soaking"].contains(&stage.name) => {
                session.wait_for(
                    "SELECT last_error LIKE 'the capture of changes was interrupted%' FROM transmute.status",
                    "t",
                    PATIENCE,
                );
                session.exec(&format!("SELECT transmute.rollback('{ID}', 'upgraded')"));
                wait_state(&mut session, "UNINITIALIZED");
                assert_eq!(session.lines("SELECT count(*) FROM t"), ["301"]);
                continue;
            }
            _ => {
                session.wait_for(
                    "SELECT state FROM transmute.status",
                    "AWAITING_FINALIZATION",
                    PATIENCE,
                );
                session.exec(&format!("SELECT transmute.approve('{ID}', 'upgraded')"));
            }
        }
        wait_state(&mut session, "FINISHED");
        assert_eq!(
            session.lines("SELECT count(*) FROM t"),
            ["301"],
            "{}",
            stage.name
        );
        assert_sound(&mut session, "t");
    }
    assert_log_is_clean(&upgraded);
}

/// Finds each row by its address; leaves a dropped column.
fn rewrite_bare(session: &mut Session, id: &str, of: &str) {
    session.exec(&format!(
        "SELECT transmute.register('{id}', 'ALTER TABLE bare ALTER COLUMN a TYPE {of}'); SELECT transmute.apply('{id}')"
    ));
    session.wait_for(
        &format!("SELECT transmute.state('{id}')"),
        "FINISHED",
        PATIENCE,
    );
}

/// The install script of the version that an old and a new server must have alike.
fn script(tree: &Tree) -> Option<String> {
    let version = env!("CARGO_PKG_VERSION");
    std::fs::read_to_string(extension_folder(tree).join(format!("transmute--{version}.sql"))).ok()
}

fn extension_folder(tree: &Tree) -> PathBuf {
    let share = output_of(tree.command("pg_config").arg("--sharedir"));
    PathBuf::from(share.trim()).join("extension")
}

/// An update script in the server's folder, for the life of this.
struct Script(PathBuf);

impl Script {
    fn write(tree: &Tree, from: &str, to: &str, sql: &str) -> Script {
        let path = extension_folder(tree).join(format!("transmute--{from}--{to}.sql"));
        std::fs::write(&path, sql).expect("the update script");
        Script(path)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn alter_extension_update_keeps_every_stage_and_there_is_no_way_down() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let now = env!("CARGO_PKG_VERSION");
    let next = format!("0.1.1-test{}", std::process::id());
    // What an update does: a column and a table more, functions and views replaced, what is new granted and described.
    let _script = Script::write(
        cluster.tree(),
        now,
        &next,
        "ALTER TABLE _transmute.migrations ADD COLUMN ticket text;
         COMMENT ON COLUMN _transmute.migrations.ticket IS 'Number of a ticket.';
         CREATE TABLE _transmute.tickets (id text PRIMARY KEY);
         SELECT pg_catalog.pg_extension_config_dump('_transmute.tickets', '');
         CREATE OR REPLACE VIEW transmute.approvals AS
           SELECT a.*, NULL::text AS ticket FROM (SELECT * FROM transmute.approvals LIMIT 0) a;
         CREATE OR REPLACE FUNCTION _transmute.guard_audit() RETURNS trigger
           LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RAISE EXCEPTION 'the audit trail cannot be changed'; END $$;
         CREATE FUNCTION transmute.ticket(id text) RETURNS text
           LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT ticket FROM _transmute.migrations m WHERE m.id = $1';
         REVOKE ALL ON FUNCTION transmute.ticket(text) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION transmute.ticket(text) TO transmute_reader",
    );
    for mut held in Held::all(&cluster, 300, |_| true) {
        let stage = held.stage;
        let mut session = held.connect();
        // What stands at a waitpoint holds our tables: the update waits for the end of that transaction, and no longer.
        let update = held
            .connect()
            .in_background(&format!("ALTER EXTENSION transmute UPDATE TO '{next}'"));
        held.let_go();
        let (_, updated) = update.join();
        updated.unwrap_or_else(|error| panic!("{}: {error}", stage.name));
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"],
            "{}",
            stage.name
        );
        assert_eq!(
            session.lines(&format!("SELECT transmute.ticket('{ID}')")),
            ["∅"]
        );
        let error = session.error(&format!("ALTER EXTENSION transmute UPDATE TO '{now}'"));
        assert_eq!(error.sqlstate, "22023", "{}: {error}", stage.name);
        held.end(&mut session);
        assert_eq!(
            session.lines("SELECT count(*) FROM t"),
            ["300"],
            "{}",
            stage.name
        );
        assert_eq!(
            session.lines("SELECT tgname FROM pg_trigger WHERE tgname ~ '^_transmute'"),
            [""; 0],
            "{}",
            stage.name
        );
    }
    assert_log_is_clean(&cluster);
}
