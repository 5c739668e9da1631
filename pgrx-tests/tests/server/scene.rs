//! What the tests of this suite share: a table, its migration, and the proof at the end that nothing is lost or left behind.

use std::time::Duration;

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{Cluster, Database, Session};

/// The migration's id.
pub const ID: &str = "m";

/// Retypes what writers write, and adds a column that shows of every single row whether it was converted.
pub const ALTER: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint,
    ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED";

/// Few rows to a block, so that a small table takes many batches.
pub fn create_table(session: &mut Session, rows: i32) {
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text) WITH (fillfactor = 10)",
        "CREATE INDEX t_a ON t (a)",
        &format!("INSERT INTO t SELECT i, i, repeat('x', 40) FROM generate_series(1, {rows}) AS i"),
        "ANALYZE t",
    ]);
}

/// Registers and applies `alter` under [`ID`].
pub fn apply(session: &mut Session, alter: &str, meta: &str) {
    session.query(
        "SELECT transmute.register($1, $2, meta => $3::text::jsonb)",
        &[&ID, &alter, &meta],
    );
    session.query("SELECT * FROM transmute.apply($1)", &[&ID]);
}

pub fn wait_state(session: &mut Session, state: &str) {
    session.wait_for(&format!("SELECT transmute.state('{ID}')"), state, PATIENCE);
}

/// Waits for the end of a rollback.
pub fn wait_rolled_back(session: &mut Session) {
    session.wait_for(
        &format!("SELECT outcome FROM transmute.status WHERE id = '{ID}'"),
        "ROLLED_BACK",
        PATIENCE,
    );
}

/// Connects as soon as the server takes connections again.
pub fn reconnect(database: &Database<'_>) -> Session {
    wait_until_seen("the server to take connections", PATIENCE, || {
        Session::try_open(database.config())
    })
}

/// Waits until the server has ended `session`: what comes after it happens after the crash.
pub fn wait_lost(mut session: Session) {
    wait_until_seen("the session to be lost", PATIENCE, || {
        match session.try_exec("SELECT 1") {
            Err(_) if session.client().is_closed() => Ok(()),
            other => Err(other),
        }
    });
}

/// Pids of our processes of one kind in this database: `launcher` is in none.
pub fn workers(session: &mut Session, kind: &str) -> Vec<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'transmute {kind}'
            AND (datname = current_database() OR datname IS NULL) ORDER BY pid"
    );
    let rows = session.query(&sql, &[]);
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits for a process of this kind; its pid.
pub fn wait_worker(session: &mut Session, kind: &str) -> i32 {
    wait_until_seen(&format!("a {kind}"), PATIENCE, || {
        let pids = workers(session, kind);
        pids.first().copied().ok_or(pids)
    })
}

/// Rows of the copy that are committed.
pub fn rows_done(session: &mut Session) -> i64 {
    session.scalar(&format!(
        "SELECT coalesce(sum(rows_done), 0)::bigint FROM transmute.progress WHERE id = '{ID}'"
    ))
}

/// Everything that must hold once the migration is FINISHED; the rows are the caller's business.
pub fn assert_finished(session: &mut Session) {
    wait_state(session, "FINISHED");
    assert_eq!(
        session.lines(
            "SELECT attname, atttypid::regtype FROM pg_attribute
              WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ),
        ["id|integer", "a|bigint", "note|text", "twice|bigint"]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE twice <> a * 2 OR twice IS NULL"),
        ["0"]
    );
    assert_nothing_left(session);
    // The only schema of ours is the artifact's, and the old rows can be read there.
    let kept = session.lines("SELECT physical FROM transmute.artifacts WHERE dropped_at IS NULL");
    let [kept] = kept.as_slice() else {
        panic!("one artifact, not {kept:?}")
    };
    assert_eq!(
        session.lines("SELECT nspname || '.t' FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        [kept.as_str()]
    );
    assert!(session.scalar::<i64>(&format!("SELECT count(*) FROM {kept}")) > 0);
}

/// Everything that must hold once the migration is rolled back.
pub fn assert_rolled_back(session: &mut Session) {
    wait_rolled_back(session);
    assert_eq!(
        session.lines(
            "SELECT attname, atttypid::regtype FROM pg_attribute
              WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
        ),
        ["id|integer", "a|integer", "note|text"]
    );
    assert_eq!(
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_'"),
        [""; 0]
    );
    assert_eq!(
        session.lines(
            "SELECT detail::json ->> 'identical' FROM transmute.history WHERE event = 'rewrite undone'"
        ),
        ["true"]
    );
    assert_nothing_left(session);
}

/// No orphans, sound files, an audit trail that verifies.
fn assert_nothing_left(session: &mut Session) {
    assert_eq!(
        session.lines("SELECT tgname FROM pg_trigger WHERE tgname ~ '_transmute'"),
        [""; 0]
    );
    assert_eq!(
        session.lines(
            "SELECT oid::regclass FROM pg_class
              WHERE relnamespace <> '_transmute'::regnamespace AND (relrewrite <> 0 OR relname ~ '^_transmute_')"
        ),
        [""; 0]
    );
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    assert_sound(session, "t");
}

/// Heap, TOAST and indexes of a table agree with each other.
pub fn assert_sound(session: &mut Session, table: &str) {
    session.exec("CREATE EXTENSION IF NOT EXISTS amcheck");
    session.exec(&format!(
        "SELECT bt_index_check(indexrelid, true) FROM pg_index
          WHERE indrelid IN (SELECT unnest(ARRAY[oid, reltoastrelid]) FROM pg_class WHERE oid = '{table}'::regclass)"
    ));
    assert_eq!(
        session.lines(&format!(
            "SELECT * FROM verify_heapam('{table}', check_toast => true)"
        )),
        [""; 0]
    );
}

/// The audit trail is whole, and nothing in the log should not be there.
#[track_caller]
pub fn assert_ends_well(session: &mut Session, cluster: &Cluster) {
    assert_eq!(
        session.lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
    assert_log_is_clean(cluster);
}

/// Nothing that a server says only when its code is wrong.
#[track_caller]
pub fn assert_log_is_clean(cluster: &Cluster) {
    transmute_tests::invariants::check_log(cluster);
}

/// Lines of the log that contain `text`.
pub fn count_in_log(cluster: &Cluster, text: &str) -> usize {
    let log = std::fs::read(cluster.log_path()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.contains(text)).count()
}

/// A time in which something must not happen: the only way to see that is to look at its end.
pub fn watch_for(duration: Duration, mut still: impl FnMut()) {
    let start = std::time::Instant::now();
    while start.elapsed() < duration {
        still();
        std::thread::sleep(Duration::from_millis(50));
    }
}
