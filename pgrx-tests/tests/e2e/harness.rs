//! The parts of the harness that need the extension: the shared cluster and its databases, waitpoints.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database};

#[test]
fn a_test_has_a_database_of_its_name_with_the_extension() {
    let database = Database::shared();
    let mut session = database.connect();
    let name: String = session.scalar("SELECT current_database()::text");
    assert!(
        name.starts_with("t_harness__a_test_has_a_database_of_its_name"),
        "{name}"
    );
    assert_eq!(
        session.lines("SELECT extname FROM pg_extension WHERE extname = 'transmute'"),
        ["transmute"]
    );
    assert_eq!(
        session.scalar::<String>("SHOW shared_preload_libraries"),
        "transmute"
    );
    drop(session);
    drop(database);
    let sql = format!("SELECT 1 FROM pg_database WHERE datname = '{name}'");
    assert!(Cluster::shared().connect().rows(&sql).is_empty());
}

#[test]
fn a_held_waitpoint_stops_whoever_comes_until_it_is_released() {
    let database = Database::shared();
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("copy.batch");
    assert!(waitpoints.waiting("copy.batch").is_empty());

    // What the extension does at a waitpoint (src/pg/waitpoint.rs).
    let pass = |name: &str| {
        format!("SELECT pg_advisory_lock_shared(74616, hashtext('{name}')); SELECT pg_advisory_unlock_shared(74616, hashtext('{name}'))")
    };
    let mut code = database.connect();
    let pid = code.pid();
    code.exec(&pass("another"));
    let code = code.in_background(&pass("copy.batch"));
    assert_eq!(waitpoints.wait_reached("copy.batch", PATIENCE), pid);
    assert!(!code.is_finished());
    waitpoints.release("copy.batch");
    let (_, result) = code.join();
    result.unwrap();
}
