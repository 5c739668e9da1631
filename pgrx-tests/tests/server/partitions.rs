//! Partitioned tables: whoever dies at whatever commit, every partition gets what it should, once.

use transmute_tests::cluster::StopMode;
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::Workload;
use transmute_tests::{Cluster, Database, Session};

use super::scene::{
    apply, assert_log_is_clean, assert_sound, reconnect, wait_rolled_back, wait_state, ID,
};

fn hold(session: &mut Session, point: &str) {
    session.exec(&format!(
        "BEGIN; SELECT pg_advisory_xact_lock(74616, hashtext('{point}')); PREPARE TRANSACTION '{point}'"
    ));
}

fn make(session: &mut Session) {
    session.exec("DROP TABLE IF EXISTS t CASCADE; DELETE FROM _transmute.migrations");
    Workload::on("t").keys(900).create_partitioned(session);
    session.exec("CREATE INDEX t_a ON t (a); ANALYZE t");
}

/// Every table and index of the tree, and what is left of ours.
fn picture(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT _transmute.fingerprint(relid) FROM pg_partition_tree('t')
         UNION ALL SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_.*new$'
         UNION ALL SELECT leaf FROM _transmute.leaf_indexes
         UNION ALL SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid",
    )
}

/// Stops the server while somebody stands at the point, and lets go when it is back.
fn crash_at(cluster: &Cluster, database: &Database<'_>, session: &mut Session, point: &str) {
    Waitpoints::of(database).wait_reached(point, PATIENCE);
    cluster.restart(StopMode::Immediate);
    *session = reconnect(database);
    session.exec(&format!("ROLLBACK PREPARED '{point}'"));
}

#[test]
fn an_index_or_key_of_a_partitioned_table_survives_a_crash_at_any_commit() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    let ddl = "CREATE INDEX i ON t (u, a); ALTER TABLE t ADD CONSTRAINT k UNIQUE (id, u)";
    make(&mut session);
    let before = picture(&mut session);
    session.exec(ddl);
    let after = picture(&mut session);
    for point in [
        "outside_intent_before_commit",
        "outside_before_statement",
        "outside_done_before_commit",
        "leaf_built_before_commit",
        "leaf_attached_before_commit",
    ] {
        make(&mut session);
        hold(&mut session, point);
        apply(&mut session, ddl, "{}");
        crash_at(&cluster, &database, &mut session, point);
        wait_state(&mut session, "FINISHED");
        assert_eq!(picture(&mut session), after, "after a crash at {point}");
    }
    for point in [
        "outside_intent_before_commit",
        "leaf_dropped_before_commit",
        "rollback_before_commit",
    ] {
        make(&mut session);
        apply(&mut session, ddl, r#"{"pre_finalization_soak": "1 hour"}"#);
        wait_state(&mut session, "AWAITING_FINALIZATION");
        hold(&mut session, point);
        session.exec(&format!("SELECT transmute.rollback('{ID}', 'why not')"));
        crash_at(&cluster, &database, &mut session, point);
        wait_rolled_back(&mut session);
        assert_eq!(picture(&mut session), before, "after a crash at {point}");
    }
    assert_log_is_clean(&cluster);
}

/// The tree once more, and without a key: rows are found by their address.
fn make_keyless(session: &mut Session) {
    make(session);
    session.exec("ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE; ANALYZE t");
}

#[test]
fn the_rewrite_of_a_partitioned_table_survives_a_crash_at_any_commit() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    let ddl = "ALTER TABLE t ALTER a TYPE bigint";
    let rows = "SELECT md5(string_agg(concat_ws('|', id, a, u, note), ',' ORDER BY id)) FROM t";
    make(&mut session);
    let data = session.lines(rows);
    session.exec(ddl);
    let keyed = picture(&mut session);
    make_keyless(&mut session);
    session.exec(ddl);
    let keyless = picture(&mut session);
    for (point, make, after) in [
        ("expand_before_commit", make as fn(&mut Session), &keyed),
        ("copy_before_commit", make, &keyed),
        ("rewrite_check_done_before_commit", make, &keyed),
        ("swap_before_commit", make, &keyed),
        ("copy_before_commit", make_keyless, &keyless),
        ("drain_before_commit", make_keyless, &keyless),
        ("swap_before_commit", make_keyless, &keyless),
    ] {
        make(&mut session);
        hold(&mut session, point);
        apply(&mut session, ddl, "{}");
        crash_at(&cluster, &database, &mut session, point);
        wait_state(&mut session, "FINISHED");
        assert_eq!(picture(&mut session), *after, "after a crash at {point}");
        assert_eq!(session.lines(rows), data);
        for leaf in ["t_low", "t_middle_1", "t_middle_2", "t_rest"] {
            assert_sound(&mut session, leaf);
        }
    }
    assert_log_is_clean(&cluster);
}

#[test]
fn an_undo_of_a_partitioned_table_survives_a_crash_at_any_commit() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    make(&mut session);
    let rows = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t";
    let before = (picture(&mut session), session.lines(rows));
    apply(
        &mut session,
        "ALTER TABLE t ALTER a TYPE bigint, ADD COLUMN extra text DEFAULT clock_timestamp()::text",
        r#"{"keep_old": "1 hour"}"#,
    );
    wait_state(&mut session, "FINISHED");
    session.exec("UPDATE t SET a = a + 1; UPDATE t SET a = a - 1");
    let points = [
        "swap_before_lock",
        "swap_before_commit",
        "undo_before_commit",
        "undo_cleaned_before_commit",
    ];
    for point in points {
        hold(&mut session, point);
    }
    session.exec(&format!("SELECT transmute.undo('{ID}', 'the test')"));
    for (i, point) in points.into_iter().enumerate() {
        crash_at(&cluster, &database, &mut session, point);
        let types = session.lines(
            "SELECT DISTINCT atttypid::regtype FROM pg_attribute JOIN pg_partition_tree('t') ON attrelid = relid WHERE attname = 'a'",
        );
        // The swap back and the end of the undo are one transaction here; the next point is held.
        match i {
            0 | 1 => assert_eq!(types, ["bigint"], "behind {point}"),
            3 => assert_eq!(types, ["integer"], "behind {point}"),
            _ => {}
        }
    }
    session.wait_for(
        "SELECT outcome || queued FROM transmute.status",
        "UNDONEfalse",
        PATIENCE,
    );
    assert_eq!((picture(&mut session), session.lines(rows)), before);
    for leaf in session.lines("SELECT relid::regclass FROM pg_partition_tree('t') WHERE isleaf") {
        assert_sound(&mut session, &leaf);
    }
    assert_log_is_clean(&cluster);
}
