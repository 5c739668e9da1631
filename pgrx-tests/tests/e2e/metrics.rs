//! `transmute.metrics()`, read by Prometheus' own parser, and what watching costs.

use std::process::Command;

use transmute_tests::tools::{output_of, project_root};
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::migration::{self, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

/// Reads what it is given as OpenMetrics, and prints a line a sample, and one a family.
const PARSE: &str = "
import sys
sys.path.insert(0, sys.argv[1])
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.argv[2]):
    print('family', family.name, family.type, family.unit)
    assert family.documentation
    for s in family.samples:
        labels = ','.join('%s=%s' % (k, ascii(v)) for k, v in sorted(s.labels.items()))
        print('%s{%s} %g' % (s.name, labels, s.value))
";

#[track_caller]
fn parsed(session: &mut Session) -> Vec<String> {
    let text: String = session.scalar("SELECT transmute.metrics()");
    let wheels = project_root().join("target/wheels");
    let wheel = std::fs::read_dir(&wheels)
        .expect("target/wheels")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("/prometheus_client-"))
        .expect("prometheus_client in target/wheels: run `make servers`");
    let output = output_of(
        Command::new("python3")
            .args(["-c", PARSE])
            .arg(wheel)
            .arg(text),
    );
    output.lines().map(str::to_string).collect()
}

#[track_caller]
fn has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|l| l == line), "no {line} in {lines:#?}");
}

#[test]
fn the_real_parser_reads_every_metric() {
    let database = Database::shared();
    let mut session = database.connect();
    let lines = parsed(&mut session);
    has(&lines, "transmute_migrations{state='FINISHED'} 0");
    has(&lines, "transmute_audit_head_seq{} 0");
    has(&lines, "transmute_lock_hold_seconds_bucket{le='+Inf'} 0");

    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL);
         INSERT INTO t SELECT i, i FROM generate_series(1, 1000) AS i;
         CREATE TABLE u (id int PRIMARY KEY, a text);
         INSERT INTO u VALUES (1, 'x'), (2, '2')",
    );
    let mut finished = Migration::start(&database, "done", TO_BIGINT, "{}");
    finished.finish();
    let id = "a \"quoted\" \\ é";
    session.exec(&format!(
        "SELECT transmute.register('{id}', 'ALTER TABLE u ALTER COLUMN a TYPE int USING a::int',
           meta => '{{\"required_approvals\": 2, \"invariants\": [{{\"name\": \"few\", \"phase\": \"PRE_RUN\", \"sql\": \"SELECT count(*) < 5 FROM u\"}}]}}');
         SELECT transmute.apply('{id}')"
    ));
    session.wait_for(
        "SELECT state FROM transmute.status WHERE id LIKE 'a%'",
        "AWAITING_FINALIZATION",
        PATIENCE,
    );
    session.wait_for("SELECT count(*) FROM transmute.dead_letters", "1", PATIENCE);
    session.wait_for(
        "SELECT waiting_for IS NOT NULL FROM transmute.status WHERE id LIKE 'a%'",
        "t",
        PATIENCE,
    );
    let lines = parsed(&mut session);
    let label = "id='a \"quoted\" \\\\ \\xe9'";
    for line in [
        "family transmute_build info ",
        "family transmute_lock_hold_seconds histogram seconds",
        "family transmute_migration_retries counter ",
        "family transmute_invariant_failures counter ",
        "transmute_migrations{state='FINISHED'} 1",
        "transmute_migrations{state='AWAITING_FINALIZATION'} 1",
        "transmute_migration_state{id='done',state='FINISHED'} 1",
        "transmute_lock_hold_seconds_count{} 1",
        "transmute_lock_hold_seconds_bucket{le='+Inf'} 1",
        "transmute_workers{role='launcher'} 1",
        "transmute_workers{role='conductor'} 1",
        &format!("transmute_migration_state{{{label},state='AWAITING_FINALIZATION'}} 1"),
        &format!("transmute_migration_rows{{{label}}} 1"),
        &format!("transmute_migration_waiting{{{label}}} 1"),
        &format!("transmute_migration_needs_person{{{label}}} 0"),
        &format!("transmute_migration_missing_approvals{{{label}}} 2"),
        &format!("transmute_dead_letters{{{label}}} 1"),
        &format!("transmute_invariant_failures_total{{{label},invariant='few'}} 0"),
    ] {
        has(&lines, line);
    }
    let head: i64 = session.scalar("SELECT max(seq) FROM transmute.audit_events");
    has(&lines, &format!("transmute_audit_head_seq{{}} {head}"));
    let families = lines.iter().filter(|l| l.starts_with("family ")).count();
    assert_eq!(families, 21);
    // Who may look at the server may look at this.
    session.exec("SET ROLE pg_monitor; SELECT transmute.metrics(); SELECT * FROM transmute.nodes; SELECT * FROM transmute.status");
}

#[test]
fn a_look_at_a_thousand_migrations_scans_nothing_that_grows() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "INSERT INTO _transmute.migrations (id, up, checksum, plan_checksum, owner_name, search_path, settings, keep_artifacts, state)
           SELECT 'm' || i, 'x', 'x', 'x', 'postgres', '', '[]', '0', CASE WHEN i > 995 THEN 'AWAITING_FINALIZATION' ELSE 'FINISHED' END
           FROM generate_series(1, 1000) AS i;
         INSERT INTO _transmute.drivers (migration_id) SELECT id FROM _transmute.migrations;
         INSERT INTO _transmute.steps (migration_id, step, phase, kind, statement, target, sql, detail, status)
           SELECT id, s, 'backfill', 'rewrite_copy', 1, 't', 'x', '{}', 'done' FROM _transmute.migrations, generate_series(1, 8) AS s;
         INSERT INTO _transmute.dead_letters (migration_id, rewrite_id, key_text, expression, sqlstate, message, status, resolved_at)
           SELECT 'm' || i % 900 + 1, 1, 'k' || i, 'x', '22P02', 'x', 'resolved', now() FROM generate_series(1, 20000) AS i;
         INSERT INTO _transmute.audit_events (seq, encoding_version, at, transaction_at, xid, session_user_name, current_user_name,
             application_name, migration_id, event, prev_hash, hash)
           SELECT i, 1, now(), now(), '1', 'x', 'x', 'x', 'm' || i % 1000, 'x', sha256(i::text::bytea), sha256(i::text::bytea)
           FROM generate_series(1, 50000) AS i;
         ANALYZE _transmute.migrations; ANALYZE _transmute.steps; ANALYZE _transmute.dead_letters; ANALYZE _transmute.audit_events;
         ANALYZE _transmute.drivers",
    );
    for sql in [
        "SELECT * FROM transmute.status",
        "SELECT * FROM transmute.status WHERE id = 'm7'",
        "SELECT * FROM transmute.status WHERE queued",
        "SELECT * FROM _transmute.metric_samples()",
    ] {
        session.exec(&format!("{sql}; SELECT pg_stat_reset()"));
        session.exec("SELECT pg_stat_force_next_flush()");
        session.exec(sql);
        session.exec("SELECT pg_stat_force_next_flush()");
        let scanned = session.lines(
            "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = '_transmute' AND seq_scan > 0
               AND relname IN ('audit_events', 'dead_letters', 'steps', 'progress', 'batches', 'approvals', 'hook_runs')
               AND seq_tup_read > 100",
        );
        assert_eq!(scanned, [""; 0], "{sql}");
    }
    // One that goes on is looked at by its key.
    let plan = session.lines("EXPLAIN (COSTS off) SELECT * FROM transmute.status WHERE id = 'm7'");
    assert!(
        !plan.iter().any(|l| l.contains("Seq Scan on migrations")),
        "{plan:#?}"
    );
}

#[test]
fn nodes_say_who_is_there_and_status_who_drives() {
    let database = Database::shared();
    migration::set(&database, &[("batch_target_ms", "1")]);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i",
    );
    let mut points = Waitpoints::of(&database);
    points.hold("copy_before_commit");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, r#"{"required_approvals": 1}"#);
    let conductor = points.wait_reached("copy_before_commit", PATIENCE);
    assert_eq!(
        session.lines("SELECT role, id, working, heartbeat > now() - interval '1 minute' FROM transmute.nodes ORDER BY role"),
        ["conductor|m|t|t", "launcher|∅|f|t"]
    );
    // Who sees nothing of other people's sessions in pg_stat_activity sees who is at work all the same.
    assert_eq!(
        session.lines(
            "SET ROLE transmute_reader; SELECT role, id, working, heartbeat FROM transmute.nodes"
        ),
        ["conductor|m|∅|∅"]
    );
    session.exec("RESET ROLE");
    assert_eq!(
        migration.status("driver_pid || ' ' || driver_role || ' ' || (driven_since BETWEEN started_at - interval '5 s' AND now())"),
        format!("{conductor} conductor true")
    );
    let since = migration.status("driven_since");
    // Nobody else: a session that wants to drive gets nothing to do.
    session.exec("CALL transmute.run('m', max_steps => 3)");
    assert_eq!(migration.status("driver_pid"), conductor.to_string());
    // It is gone, and the next one has it without waiting for anything.
    session.exec(&format!("SELECT pg_terminate_backend({conductor}, 10000)"));
    let next = points.wait_reached("copy_before_commit", PATIENCE);
    assert_ne!(next, conductor);
    points.release("copy_before_commit");
    migration.wait_in("AWAITING_FINALIZATION");
    assert_eq!(migration.status("driver_pid"), next.to_string());
    assert_ne!(migration.status("driven_since"), since);
    migration.call("approve", "'reviewed'");
    migration.finish();
    assert_eq!(
        migration.status("coalesce(driver_pid::text, 'nobody')"),
        "nobody"
    );
}
