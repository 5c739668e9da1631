//! The library of the extension is another one, or is not there, when the server comes back.

use std::path::Path;

use transmute_tests::tools::{self, Build, Tree};
use transmute_tests::{Cluster, Session, StopMode};

use super::scene::{assert_log_is_clean, wait_state, ID};
use super::stage::Held;

#[test]
fn without_its_library_nothing_goes_on_or_is_written_past_it_and_with_it_everything_does() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let mut all = Held::all(&cluster, 300, |stage| {
        ["copying", "soaking", "two columns", "finished"].contains(&stage.name)
    });
    for held in &mut all {
        held.let_go();
    }
    cluster.stop(StopMode::Fast);
    cluster.append_conf("dynamic_library_path = '/nowhere'");
    // A server that is to preload it does not start, and says why.
    let start = tools::run(
        cluster
            .tree()
            .command("postgres")
            .arg("-D")
            .arg(cluster.data()),
    );
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(
        !start.status.success() && said.contains("could not access file \"transmute\""),
        "{said}"
    );
    cluster.append_conf("shared_preload_libraries = ''");
    cluster.start();
    for held in &all {
        let name = held.stage.name;
        let mut session = held.connect();
        // Nothing is hidden, and nothing is written that the capture would not see.
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["300"], "{name}");
        let written = session.try_exec("UPDATE t SET note = 'changed' WHERE id = 1");
        match held.stage.name {
            "finished" => assert_eq!(written, Ok(())),
            _ => assert_is_missing(written, name),
        }
        assert_is_missing(
            session.try_exec(&format!("SELECT transmute.rollback('{ID}', 'a test')")),
            name,
        );
        assert_is_missing(session.try_exec("CREATE TABLE u (i int)"), name);
        // The way out that docs/operations.md tells.
        session.exec(
            "ALTER EVENT TRIGGER transmute_ddl_end DISABLE; ALTER EVENT TRIGGER transmute_ddl_start DISABLE",
        );
        session.exec("CREATE TABLE u (i int)");
        session.exec(
            "ALTER EVENT TRIGGER transmute_ddl_end ENABLE; ALTER EVENT TRIGGER transmute_ddl_start ENABLE",
        );
    }
    // Another build of it, at another place.
    let other = Tree::under_test(Build::Shipped).bin().join("../lib");
    assert!(Path::new(&other).join("transmute.so").exists());
    cluster.append_conf(&format!(
        "dynamic_library_path = '{}'\nshared_preload_libraries = 'transmute'",
        other.canonicalize().expect("a folder").display()
    ));
    cluster.restart(StopMode::Fast);
    for held in &all {
        let mut session = held.connect();
        if held.stage.name != "finished" {
            wait_state(&mut session, "AWAITING_FINALIZATION");
            write(&mut session);
            session.exec(&format!("SELECT transmute.approve('{ID}', 'a test')"));
        }
        wait_state(&mut session, "FINISHED");
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["300"]);
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"]
        );
    }
    assert_log_is_clean(&cluster);
}

fn write(session: &mut Session) {
    session.exec("UPDATE t SET note = 'changed' WHERE id = 1");
}

#[track_caller]
fn assert_is_missing(result: Result<(), transmute_tests::DbError>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.sqlstate, "58P01", "{what}: {error}");
    assert!(error.message.contains("transmute"), "{what}: {error}");
}
