//! Data statements in a script: in batches, each row that was meant exactly once, whatever the application does meanwhile.

mod exactly_once;
mod refused_rows;
mod shapes;

use transmute_tests::{Database, Session};

use crate::migration;

/// Small batches with pauses, so that the application is at work in the middle of it.
fn slowly(database: &Database<'_>) {
    migration::set(
        database,
        &[("batch_target_ms", "3"), ("backfill_duty", "10")],
    );
}

/// Kind and phase of each step of a plan.
fn plan(session: &mut Session, ddl: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT kind, phase FROM transmute.explain($ddl${ddl}$ddl$) ORDER BY step"
    ))
}

/// Nothing of ours is left once a migration has ended.
#[track_caller]
fn assert_nothing_left(session: &mut Session) {
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        [""; 0]
    );
}
