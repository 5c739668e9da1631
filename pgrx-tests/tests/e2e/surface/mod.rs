//! Bad input: every refusal has its SQLSTATE, a DETAIL and a HINT, and leaves nothing behind.

use transmute_tests::{Database, DbError, Session};

mod argument;
mod calls;
pub mod signature;
mod state;
mod statement;

/// What there is of ours and of anybody's in the database; a refused call must not change it.
const EVERYTHING: &str = "
    SELECT (SELECT count(*) FROM _transmute.migrations), (SELECT count(*) FROM _transmute.steps),
      (SELECT count(*) FROM _transmute.rewrites), (SELECT count(*) FROM _transmute.progress),
      (SELECT count(*) FROM _transmute.approvals), (SELECT count(*) FROM _transmute.dead_letters),
      (SELECT count(*) FROM _transmute.artifacts), (SELECT count(*) FROM _transmute.audit_events),
      (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_trigger),
      (SELECT md5(string_agg(concat_ws('|', id, state, queued, paused_reason, rollback_reason, soak_until, required_approvals), '' ORDER BY seq))
        FROM _transmute.migrations)";

/// Runs a call that must be refused: the error, once it is sure that nothing was written.
#[track_caller]
pub fn refusal(session: &mut Session, sql: &str) -> DbError {
    let before = session.lines(EVERYTHING);
    let error = session.error(sql);
    assert_eq!(session.lines(EVERYTHING), before, "written by: {sql}");
    for part in [&error.detail, &error.hint] {
        let said = part.as_deref().is_some_and(|text| !text.trim().is_empty());
        assert!(said, "no DETAIL or no HINT: {error}\n  in: {sql}");
    }
    error
}

/// As `refusal`, for a call of which only the audit trail may tell.
#[track_caller]
pub fn refusal_but_audit(session: &mut Session, sql: &str) -> DbError {
    let everything = EVERYTHING.replace("(SELECT count(*) FROM _transmute.audit_events)", "0");
    let before = session.lines(&everything);
    let error = session.error(sql);
    assert_eq!(session.lines(&everything), before, "written by: {sql}");
    error
}

/// `sqlstate: message` of a refusal.
#[track_caller]
pub fn refused(session: &mut Session, sql: &str) -> String {
    let error = refusal(session, sql);
    format!("{}: {}", error.sqlstate, error.message)
}

pub fn register(ddl: &str) -> String {
    format!("SELECT transmute.register('new', $ddl${ddl}$ddl$)")
}

pub fn tables(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text, CONSTRAINT positive CHECK (a > 0));
         INSERT INTO t VALUES (1, 1, 'x');
         CREATE INDEX t_b ON t (b); CREATE VIEW v AS SELECT id FROM t; CREATE SEQUENCE s; CREATE TYPE pair AS (a int)",
    );
    session
}
