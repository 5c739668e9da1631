//! What must hold of a database with the extension whenever nothing in it is under way: the invariants of the fault matrix, by script.
//! docs/faults.md says which is which; those that need what a test knows (rows, catalogs before) are in tests/faults.

use crate::{tools, Cluster, Session};

/// Transitions that are legal, as `from>to`.
const LEGAL: &str = "'UNINITIALIZED>INITIALIZING', 'INITIALIZING>RUNNING', 'INITIALIZING>ROLLING_BACK', 'RUNNING>AWAITING_ACTION',
    'RUNNING>AWAITING_FINALIZATION', 'RUNNING>ROLLING_BACK', 'AWAITING_ACTION>RUNNING', 'AWAITING_ACTION>ROLLING_BACK',
    'AWAITING_FINALIZATION>RUNNING', 'AWAITING_FINALIZATION>AWAITING_ACTION', 'AWAITING_FINALIZATION>FINISHING', 'AWAITING_FINALIZATION>ROLLING_BACK', 'FINISHING>FINISHED',
    'ROLLING_BACK>UNINITIALIZED'";

/// Number, what must not be, and a query that shows it. `LIVE`: whether a migration is under way.
const QUERIES: [(&str, &str, &str); 15] = [
    (
        "I3",
        "a change of state that is not in the table",
        "SELECT migration_id, from_state, to_state FROM _transmute.audit_events
          WHERE from_state <> to_state AND from_state || '>' || to_state NOT IN (LEGAL)",
    ),
    (
        "I3",
        "a state that the trail does not lead to",
        "SELECT m.id, m.state, last.to_state FROM _transmute.migrations m
           JOIN LATERAL (SELECT e.to_state FROM _transmute.audit_events e
             WHERE e.migration_id = m.id AND e.to_state IS NOT NULL ORDER BY e.seq DESC LIMIT 1) last ON true
          WHERE m.state <> last.to_state",
    ),
    (
        "I3",
        "a change of state that does not begin where the one before it ended",
        "SELECT * FROM (SELECT migration_id, seq, from_state, to_state, lag(to_state) OVER (PARTITION BY migration_id ORDER BY seq) AS before
             FROM _transmute.audit_events WHERE to_state IS NOT NULL) AS e WHERE before <> from_state",
    ),
    (
        "I3",
        "a migration that needs a person and does not say what for",
        "SELECT id, state FROM transmute.status WHERE outcome = 'FAILED' AND waiting_for IS NULL",
    ),
    (
        "I5",
        "an index that is not whole",
        "SELECT indexrelid::regclass FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)",
    ),
    (
        "I5",
        "a constraint that is not proved",
        "SELECT conrelid::regclass, conname FROM pg_constraint WHERE NOT convalidated",
    ),
    (
        "I8",
        "a trigger of ours without a migration",
        "SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname ~ '^_?transmute' AND NOT LIVE
            AND tgrelid NOT IN (SELECT oid FROM pg_class WHERE relkind = 'v')",
    ),
    (
        "I8",
        "a schema of ours without a migration or an artifact",
        "SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_' AND NOT LIVE
            AND nspname NOT IN (SELECT physical_schema FROM _transmute.artifacts WHERE dropped_at IS NULL)",
    ),
    (
        "I8",
        "a relation of ours without a migration or an artifact",
        "SELECT oid::regclass FROM pg_class WHERE relnamespace <> '_transmute'::regnamespace AND NOT LIVE
            AND (relrewrite <> 0 OR relname ~ '^_transmute_' AND relname NOT IN
                  (SELECT physical_name FROM _transmute.artifacts WHERE dropped_at IS NULL))
            AND oid NOT IN (SELECT rows_view FROM _transmute.version_views)",
    ),
    (
        "I8",
        "a function or type of ours without a migration",
        "SELECT proname FROM pg_proc WHERE proname ~ '^_transmute' AND pronamespace <> '_transmute'::regnamespace AND NOT LIVE
            AND pronamespace::regnamespace::text NOT IN (SELECT quote_ident(version) FROM _transmute.versions)
         UNION ALL SELECT typname FROM pg_type WHERE typname ~ '^_transmute' AND typrelid = 0 AND typelem = 0
            AND typnamespace <> '_transmute'::regnamespace AND NOT LIVE",
    ),
    (
        "I8",
        "a prepared transaction, slot or publication",
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()
         UNION ALL SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ 'transmute'
         UNION ALL SELECT pubname FROM pg_publication WHERE pubname ~ 'transmute'",
    ),
    (
        "I8",
        "a lock of ours on a table without a migration",
        "SELECT l.relation::regclass, l.mode FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
          WHERE a.backend_type ~ '^transmute' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.mode ~ 'Exclusive' AND l.relation >= 16384 AND NOT LIVE
            AND l.relation NOT IN (SELECT c.oid FROM pg_class c WHERE c.relnamespace = '_transmute'::regnamespace)",
    ),
    (
        "I11",
        "a trail that does not verify",
        "SELECT fault, fault_seq FROM transmute.audit_verify() WHERE NOT ok",
    ),
    (
        "I13",
        "a process of ours that sits in a transaction",
        "SELECT pid, state, xact_start FROM pg_stat_activity WHERE backend_type ~ '^transmute' AND datname = current_database()
            AND (state = 'idle in transaction' OR xact_start < clock_timestamp() - interval '20 s')",
    ),
    (
        "I15",
        "an error without a code, or without a way out",
        "SELECT id, last_error, last_error_sqlstate FROM transmute.status WHERE last_error IS NOT NULL
            AND (last_error_sqlstate IS NULL OR last_error_sqlstate LIKE 'XX%' OR coalesce(last_error_hint, '') = '')",
    ),
];

const LIVE: &str = "EXISTS (SELECT FROM _transmute.migrations WHERE queued OR state NOT IN ('UNINITIALIZED', 'FINISHED'))";

/// What does not hold, a line each; none is what one wants.
#[track_caller]
pub fn faults(session: &mut Session) -> Vec<String> {
    let mut found = Vec::new();
    for (number, what, sql) in QUERIES {
        let sql = sql.replace("LIVE", LIVE).replace("LEGAL", LEGAL);
        let lines = session.lines(&sql);
        found.extend(
            lines
                .into_iter()
                .map(|line| format!("{number}, {what}: {line}")),
        );
    }
    found.extend(unsound(session));
    found
}

/// The same, for tests that have nothing else to say.
#[track_caller]
pub fn check(session: &mut Session) {
    let found = faults(session);
    assert!(found.is_empty(), "{found:#?}");
}

/// I6: heaps, TOAST and B-trees of all tables of users, artifacts too, agree with each other.
fn unsound(session: &mut Session) -> Vec<String> {
    session.exec("CREATE EXTENSION IF NOT EXISTS amcheck");
    const OURS: &str = "c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
        AND c.relpersistence <> 't'";
    let mut found = Vec::new();
    let heaps = format!("SELECT c.oid::regclass, v.* FROM pg_class c, verify_heapam(c.oid, check_toast => true) AS v
        WHERE c.relkind IN ('r', 'm') AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'heap') AND {OURS}");
    let indexes = format!("SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
        WHERE c.relkind = 'i' AND i.indisvalid AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree') AND {OURS}");
    match session.try_rows(&heaps) {
        Ok(rows) => found.extend(rows.iter().map(|row| format!("I6, {row:?}"))),
        Err(error) => found.push(format!("I6, {error}")),
    }
    if let Err(error) = session.try_rows(&indexes) {
        found.push(format!("I6, {error}"));
    }
    found
}

/// I11 by the verifier that was written from the documentation: for each trail, as exported, how many events it has, or what is wrong.
#[track_caller]
pub fn verify_independently(trails: &[String]) -> Vec<Result<usize, String>> {
    const PROGRAM: &str = "import sys, verify\nfor file in sys.argv[1:]: verify.main([file])";
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", PROGRAM])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", tools::project_root().join("pgrx-tests/audit"));
    for (i, trail) in trails.iter().enumerate() {
        let file = folder.path().join(i.to_string());
        std::fs::write(&file, trail).expect("a file");
        command.arg(file);
    }
    let verdicts = tools::output_of(&mut command);
    let verdicts: Vec<_> = verdicts
        .lines()
        .map(|line| {
            let count = line
                .strip_prefix("ok: ")
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            count.ok_or_else(|| line.to_string())
        })
        .collect();
    assert_eq!(verdicts.len(), trails.len(), "verdicts");
    verdicts
}

/// I14: what a server says only when its code is wrong.
#[track_caller]
pub fn check_log(cluster: &Cluster) {
    const BAD: [&str; 9] = [
        "PANIC",
        "TRAP:",
        "leak",
        "not closed",
        "transmute bug",
        "XX000",
        "signal 11",
        "signal 6",
        "lock file",
    ];
    let log = std::fs::read(cluster.log_path()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let bad: Vec<&str> = log
        .lines()
        .filter(|line| BAD.iter().any(|word| line.contains(word)))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
