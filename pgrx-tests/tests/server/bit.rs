//! A bit of the shadow that flips on the disk: the row stays where it is, its header and its neighbours are as they were, and
//! the check finds it.

use std::fs;

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, StopMode};

use super::scene::{apply, reconnect, wait_state, ID};

const BEFORE: &str = "rewrite_index_done_before_commit";

#[test]
fn a_bit_that_flips_in_the_shadows_file_is_found_and_mended() {
    let cluster = Cluster::builder()
        // The server would find it, if it may: the check must find it by itself.
        .conf("ignore_checksum_failure = on")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int, note text, b int)",
        "INSERT INTO t SELECT i, i, 'note-' || lpad(i::text, 6, '0'), i FROM generate_series(1, 20000) AS i",
    ]);
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold(BEFORE);
    apply(
        &mut session,
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    waitpoints.wait_reached(BEFORE, PATIENCE);
    let file: String = session.scalar("SELECT pg_relation_filepath('_transmute_1_new.t')");
    // The checkpoint at the stop is the last to write the file.
    cluster.stop(StopMode::Fast);
    let path = cluster.data().join(file);
    let mut bytes = fs::read(&path).expect("the shadow's file");
    let wanted = b"note-012345";
    let found: Vec<usize> = (0..bytes.len() - wanted.len())
        .filter(|at| bytes[*at..].starts_with(wanted))
        .collect();
    let [at] = found.as_slice() else {
        panic!("the row is in the file once, not {found:?}")
    };
    bytes[at + wanted.len() - 1] ^= 1;
    fs::write(&path, bytes).expect("the shadow's file");

    cluster.start();
    let mut session = reconnect(&database);
    assert_eq!(
        session.lines("SELECT note FROM _transmute_1_new.t WHERE id = 12345"),
        ["note-012344"]
    );
    wait_state(&mut session, "AWAITING_FINALIZATION");
    assert_eq!(
        session.lines("SELECT check_rounds FROM _transmute.rewrites"),
        ["2"]
    );
    session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'mended')"));
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE note <> 'note-' || lpad(id::text, 6, '0') OR a <> id OR b <> id"),
        ["0"]
    );
}
