//! Partitioned tables: every recipe reaches all partitions, of every level, while the application works.

mod attach;
mod foreign_key;
mod index;
mod rewrite;
mod undo;
mod versions;

use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load::make_hot;
use crate::migration::{assert_sound, fingerprint};

/// The tables of the tree of `t`, parents first.
pub fn members(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT relid::regclass FROM pg_partition_tree('t') ORDER BY level, relid::regclass::text",
    )
}

/// What the catalogs say of every table of the tree.
#[track_caller]
pub fn fingerprints(session: &mut Session) -> Vec<String> {
    members(session)
        .iter()
        .map(|table| fingerprint(session, table))
        .collect()
}

#[track_caller]
pub fn assert_all_sound(session: &mut Session) {
    let leaves = session.lines("SELECT relid::regclass FROM pg_partition_tree('t') WHERE isleaf");
    for leaf in leaves {
        assert_sound(session, &leaf);
    }
}

/// The tree that the writers work on, with its mirror.
pub fn hot_tree(database: &Database<'_>, load: &Workload) -> Session {
    database.cluster().connect().exec(&format!(
        "ALTER DATABASE {} SET log_min_messages = 'log'",
        database.name()
    ));
    let mut session = database.connect();
    load.create_partitioned(&mut session);
    make_hot(&mut session);
    session
}

/// A small tree without load: two levels, a partition with attribute numbers of its own, a default.
pub fn tree(database: &Database<'_>, rows: i32) -> Session {
    let mut session = database.connect();
    Workload::on("t")
        .keys(rows)
        .create_partitioned(&mut session);
    session.exec("ANALYZE t");
    session
}

/// Says only what differs.
#[track_caller]
pub fn assert_same(what: &str, left: &[String], right: &[String]) {
    let lines = |prints: &[String]| -> Vec<String> {
        prints
            .iter()
            .flat_map(|p| p.lines().map(str::to_string))
            .collect()
    };
    let (left, right) = (lines(left), lines(right));
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let others: std::collections::HashSet<&String> = those.iter().collect();
        let mut only = these.to_vec();
        only.retain(|line| !others.contains(line));
        only
    };
    assert!(
        left == right,
        "{what}: only left {:#?}, only right {:#?}",
        only(&left, &right),
        only(&right, &left)
    );
}
