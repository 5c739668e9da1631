CREATE VIEW transmute.progress AS
SELECT r.migration_id AS id, c.oid::regclass AS relation,
  coalesce(p.next_blocks, 0) AS blocks_done, r.end_block AS blocks_total,
  CASE WHEN r.end_block = 0 THEN 1 ELSE coalesce(p.next_blocks::float8 / r.end_block, 1) END AS copied,
  coalesce(p.rows_done, 0)::bigint AS rows_done, greatest(r.rows_estimate, p.rows_done)::bigint AS rows_total,
  CASE WHEN p.seconds > 0 THEN p.rows_done / p.seconds END AS rows_per_second,
  CASE WHEN p.rows_done > 0 AND p.next_blocks < r.end_block
    THEN make_interval(secs => (p.seconds / greatest(p.next_blocks, 1) * (r.end_block - p.next_blocks))::float8) END AS eta,
  r.next_definition AS indexes_built, jsonb_array_length(r.deferred_definitions) AS indexes_total,
  r.lag, r.drained_keys, r.last_drain_at, r.last_drain_ms,
  r.check_rounds, coalesce(r.checked_rows, r.check_rows) AS rows_checked, r.repaired_rows AS rows_repaired, r.checked_at,
  r.swapped_at, r.lock_held_ms, r.statement, p.step
FROM _transmute.rewrites r
LEFT JOIN pg_class c ON c.oid = r.relation
LEFT JOIN LATERAL (
  SELECT sum(l.next_block - l.first_block)::bigint AS next_blocks, sum(l.rows_done)::bigint AS rows_done,
    extract(epoch FROM max(l.updated_at) - min(s.started_at))::float8 AS seconds, min(s.step) AS step
  FROM _transmute.progress l
  LEFT JOIN _transmute.steps s ON s.migration_id = r.migration_id AND s.statement = r.statement AND s.kind = 'rewrite_copy'
  WHERE l.rewrite_id = r.id) p ON true
UNION ALL
SELECT b.migration_id, c.oid::regclass, coalesce(p.next_blocks, 0), b.end_block,
  CASE WHEN b.end_block = 0 THEN 1 ELSE coalesce(p.next_blocks::float8 / b.end_block, 1) END,
  coalesce(p.rows_done, 0)::bigint, greatest(b.rows_listed, p.rows_done),
  CASE WHEN p.seconds > 0 THEN p.rows_done / p.seconds END,
  CASE WHEN p.rows_done > 0 AND p.next_blocks < b.end_block
    THEN make_interval(secs => (p.seconds / greatest(p.next_blocks, 1) * (b.end_block - p.next_blocks))::float8) END,
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, p.statement, b.step
FROM _transmute.backfills b
LEFT JOIN pg_class c ON c.oid = b.target
LEFT JOIN LATERAL (
  SELECT sum(l.next_block - l.first_block)::bigint AS next_blocks, sum(l.rows_done)::bigint AS rows_done,
    extract(epoch FROM max(l.updated_at) - min(s.started_at))::float8 AS seconds, min(s.statement) AS statement
  FROM _transmute.batches l
  JOIN _transmute.steps s ON s.migration_id = b.migration_id AND s.step = b.step
  WHERE l.backfill_id = b.id) p ON true
UNION ALL
SELECT b.migration_id, NULL, NULL, NULL, CASE WHEN b.finished_at IS NOT NULL THEN 1 END, b.rows_done, NULL,
  CASE WHEN b.busy_ms > 0 THEN b.rows_done / b.busy_ms * 1000 END,
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, s.statement, b.step
FROM _transmute.hand_batches b
JOIN _transmute.steps s ON s.migration_id = b.migration_id AND s.step = b.step
UNION ALL
SELECT r.migration_id, c.oid::regclass, coalesce(p.next_blocks, 0), r.end_block,
  CASE WHEN r.end_block = 0 THEN 1 ELSE coalesce(p.next_blocks::float8 / r.end_block, 1) END,
  coalesce(p.rows_done, 0)::bigint, greatest(r.rows_estimate, p.rows_done)::bigint,
  CASE WHEN p.seconds > 0 THEN p.rows_done / p.seconds END,
  CASE WHEN p.rows_done > 0 AND p.next_blocks < r.end_block
    THEN make_interval(secs => (p.seconds / greatest(p.next_blocks, 1) * (r.end_block - p.next_blocks))::float8) END,
  NULL, NULL, NULL, NULL, NULL, NULL, r.checks, r.rows_checked, r.rows_repaired, r.checked_at, NULL, NULL, p.statement, p.step
FROM _transmute.rules r
LEFT JOIN pg_class c ON c.oid = r.relation
LEFT JOIN LATERAL (
  SELECT sum(l.next_block - l.first_block)::bigint AS next_blocks, sum(l.rows_done)::bigint AS rows_done,
    extract(epoch FROM max(l.updated_at) - min(s.started_at))::float8 AS seconds, min(s.statement) AS statement, min(s.step) AS step
  FROM _transmute.fills l
  JOIN _transmute.steps s ON s.migration_id = r.migration_id AND s.target = r.target AND s.kind = 'rule_fill'
  WHERE l.rule_id = r.id) p ON true
WHERE r.reverses IS NULL;
COMMENT ON VIEW transmute.progress IS 'One row a table being rewritten (copy, index builds, drain, check), one a table whose new columns are filled by a rule, one a data statement that runs in batches (blocks of its list of keys), and one the batches that a person has written, or a copy (rows as they say). Times in milliseconds where the name says _ms.';

CREATE VIEW transmute.status AS
SELECT m.id, m.state,
  CASE WHEN m.undone_at IS NOT NULL OR m.taken_back THEN 'UNDONE'
    WHEN m.state = 'FINISHED' AND m.undo_reason IS NULL THEN 'COMPLETED'
    WHEN m.rollback_reason IS NULL
      AND (m.state = 'AWAITING_ACTION'
          AND NOT (m.meta @> '{"requires_external_action": true}' AND m.acknowledged_at IS NULL AND m.last_error IS NULL) OR m.last_error IS NOT NULL AND m.next_attempt_at = 'infinity') THEN 'FAILED'
    WHEN m.state = 'UNINITIALIZED' AND m.was_rolled_back THEN 'ROLLED_BACK'
    WHEN m.state = 'UNINITIALIZED' THEN 'PENDING'
    ELSE 'RUNNING' END AS outcome,
  (SELECT s.kind FROM _transmute.steps s WHERE s.migration_id = m.id AND s.step = m.current_step) AS step,
  CASE m.state WHEN 'UNINITIALIZED' THEN 0 WHEN 'FINISHED' THEN 1
    ELSE coalesce((SELECT avg(CASE s.status WHEN 'done' THEN 1
        WHEN 'running' THEN CASE WHEN s.kind IN ('rewrite_copy', 'batch', 'rule_fill')
          THEN coalesce((SELECT x.copied FROM transmute.progress x WHERE x.id = m.id AND x.step = s.step), 0) ELSE 0 END ELSE 0 END)
      FROM _transmute.steps s WHERE s.migration_id = m.id), 0) END::float8 AS progress,
  p.rows_done, p.rows_total, p.rows_per_second, p.eta, p.lag,
  CASE WHEN m.state = 'UNINITIALIZED' THEN CASE WHEN m.queued THEN m.pre_execution_until END ELSE m.soak_until END AS soak_until,
  (SELECT count(*) FROM _transmute.approvals a WHERE a.migration_id = m.id AND a.revoked_at IS NULL
    AND a.expires_at > clock_timestamp() AND a.plan_checksum = m.plan_checksum) AS approvals,
  m.required_approvals, m.waiting_for, m.paused_reason, m.last_error, m.last_error_sqlstate, m.last_error_hint,
  (SELECT count(*) FROM _transmute.dead_letters d WHERE d.migration_id = m.id AND d.status = 'open') AS dead_letters,
  m.queued, nullif(m.tuned, '{}') AS tuned, m.owner_name, m.meta, m.registered_at, m.applied_at, m.started_at, m.finished_at,
  m.finished_at - m.started_at AS duration,
  k.undo_until, CASE WHEN k.undo_until > clock_timestamp() THEN k.undo_until - clock_timestamp() END AS undo_left, m.undo_reason, m.undone_at,
  d.pid AS driver_pid, d.role AS driver_role, d.since AS driven_since,
  (SELECT max(u.last_used) FROM _transmute.watches w JOIN _transmute.uses u ON u.watch_id = w.id WHERE w.migration_id = m.id) AS old_shape_used_at,
  ARRAY(SELECT format('%s (%s)', u.role_name, u.application_name) FROM _transmute.watches w JOIN _transmute.uses u ON u.watch_id = w.id
    WHERE w.migration_id = m.id GROUP BY u.role_name, u.application_name ORDER BY max(u.last_used) DESC LIMIT 3) AS old_shape_users,
  (SELECT round(max(g.bytes::numeric / greatest(g.bytes_before, 1) - 1), 3) FROM _transmute.growth g WHERE g.migration_id = m.id) AS growth,
  (SELECT sum(g.vacuums) FROM _transmute.growth g WHERE g.migration_id = m.id) AS vacuums
FROM _transmute.migrations m
LEFT JOIN LATERAL (
  SELECT least(m.kept_until, min(r.kept_until)) AS undo_until FROM _transmute.rewrites r
  WHERE r.migration_id = m.id AND r.reverses IS NOT NULL AND r.swapped_at IS NULL) k ON true
LEFT JOIN LATERAL (
  SELECT x.pid, CASE a.backend_type WHEN 'transmute conductor' THEN 'conductor' ELSE 'session' END AS role, x.since
  FROM _transmute.drivers x
  JOIN LATERAL pg_stat_get_activity(x.pid) a ON a.backend_start = x.backend_start
  WHERE x.migration_id = m.id AND m.queued) d ON true
LEFT JOIN LATERAL (
  SELECT sum(x.rows_done)::bigint AS rows_done, sum(x.rows_total)::bigint AS rows_total, sum(x.rows_per_second) AS rows_per_second,
    max(x.eta) AS eta, sum(x.lag)::bigint AS lag
  FROM transmute.progress x WHERE x.id = m.id) p ON true
ORDER BY m.seq;
COMMENT ON VIEW transmute.status IS 'One row a migration. progress 0..1; rows_per_second since the copy began; lag in keys; waiting_for NULL: nothing; soak_until: of the soak before the start while it is UNINITIALIZED; driver_pid: the process that drives it, NULL: none is there. undo_until: transmute.undo is possible until then; NULL: it is not. growth: of the table whose rows are changed in place, as a share of its size before, and vacuums that were run between the batches; NULL: no rows are.';

-- PUBLIC may select from it: a reader sees all, anybody else what is theirs (current_user in a view is whoever asks), as if the others were not there.
CREATE VIEW transmute.routing WITH (security_barrier) AS
SELECT m.id, m.state,
  CASE WHEN m.state IN ('FINISHING', 'FINISHED') AND NOT m.is_back THEN 'new' ELSE 'old' END AS read_from,
  CASE WHEN m.state IN ('FINISHING', 'FINISHED') AND NOT m.is_back THEN 'new'
    WHEN m.state NOT IN ('RUNNING', 'AWAITING_ACTION', 'AWAITING_FINALIZATION') THEN 'old'
    ELSE CASE coalesce(m.meta ->> 'write_strategy', 'BOTH') WHEN 'BOTH' THEN 'both' WHEN 'OLD_ONLY' THEN 'old' WHEN 'NEW_ONLY' THEN 'new'
      ELSE 'custom' END END AS write_to,
  coalesce(m.meta ->> 'write_strategy', 'BOTH') AS write_strategy, m.meta ->> 'write_rule' AS write_rule
FROM _transmute.migrations m
WHERE has_table_privilege('transmute.status'::regclass, 'SELECT')
  OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = m.owner_name AND pg_has_role(r.oid, 'USAGE'))
  OR EXISTS (
    SELECT FROM _transmute.objects o
    -- By its name where the oid is that of another database, or of nothing yet; a name that no quoting has made is none.
    JOIN pg_class c ON c.oid = coalesce((SELECT k.oid FROM pg_class k WHERE k.oid = o.object),
      CASE WHEN o.name ~ '^("([^"]|"")+"|[a-z_][a-z0-9_]*)[.]("([^"]|"")+"|[a-z_][a-z0-9_]*)$' THEN to_regclass(o.name)::oid END)
    WHERE o.migration_id = m.id AND o.class = 'relation' AND c.relpersistence <> 't'
      AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      -- What the script makes is the migration's owner's: a look-alike that is there before shows nothing.
      AND (o.object IS NOT NULL OR c.relowner = (SELECT r.oid FROM pg_roles r WHERE r.rolname = m.owner_name))
      AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE')));
COMMENT ON VIEW transmute.routing IS 'What an application that knows both shapes reads and writes now, by the state of each migration: old, new, both, or custom, which write_rule explains. Readers see all migrations; others those of their roles, and those of tables on which they have a privilege.';

CREATE VIEW transmute.versions AS
SELECT v.version, w.relation::regclass AS relation, format('%I.%I', w.version, w.view_name) AS view, w.migration_id AS id,
  w.read_script IS NOT NULL OR w.write_script IS NOT NULL AS converts, v.owner_name, v.created_at
FROM _transmute.versions v
JOIN _transmute.version_views w ON w.version = v.version
ORDER BY v.created_at, w.id;
COMMENT ON VIEW transmute.versions IS 'Versioned schemas: a view a table and release. converts: its types are not those of the table now.';

CREATE VIEW transmute.steps AS
SELECT s.migration_id AS id, s.step, s.phase, s.kind, s.target, s.status, s.started_at, s.finished_at,
  s.finished_at - s.started_at AS duration, s.sql, s.revert_sql
FROM _transmute.steps s
JOIN _transmute.migrations m ON m.id = s.migration_id
ORDER BY m.seq, s.step;
COMMENT ON VIEW transmute.steps IS 'Steps of every migration with their progress.';

CREATE VIEW transmute.dead_letters AS
SELECT d.migration_id AS id, d.id AS dead_letter, d.key_text AS key, d.row_values AS "row", d.expression, d.sqlstate, d.message,
  d.detail, d.attempts, d.status, d.reason, d.first_seen, d.last_seen, d.resolved_at
FROM _transmute.dead_letters d
ORDER BY d.id;
COMMENT ON VIEW transmute.dead_letters IS 'Rows that the new shape, a data statement, a copy or a dual-write rule refuses: key, the row as it was, the statement, the error. Mend the row, it is tried again by itself; or mend the statement (transmute.amend); or go on without it (transmute.discard_dead_letters).';

CREATE VIEW transmute.approvals AS
SELECT a.migration_id AS id, a.id AS approval, a.actor, a.reason, a.plan_checksum, a.approved_at, a.expires_at,
  a.waived, a.revoked_at, a.revoked_by, a.revoke_reason
FROM _transmute.approvals a
ORDER BY a.id;
COMMENT ON VIEW transmute.approvals IS 'Approvals of finalization.';

CREATE VIEW transmute.artifacts AS
SELECT a.id AS artifact, a.migration_id AS id, a.kind, a.source,
  format('%I.%I', a.physical_schema, a.physical_name) || coalesce('.' || quote_ident(a.physical_column), '') AS physical, a.row_estimate, a.bytes, a.created_at, a.expires_at, a.dropped_at,
  b.kept_until AS undo_until, b.lag, b.last_drain_at,
  CASE WHEN b.id IS NOT NULL THEN (SELECT count(*) FROM _transmute.dead_letters d WHERE d.rewrite_id = b.id AND d.resolved_at IS NULL) END
    AS dead_letters
FROM _transmute.artifacts a
LEFT JOIN _transmute.rewrites f ON f.migration_id = a.migration_id AND f.old_schema = a.physical_schema AND a.physical_column IS NULL
LEFT JOIN _transmute.rewrites b ON b.reverses = f.id AND b.swapped_at IS NULL
ORDER BY a.id;
COMMENT ON VIEW transmute.artifacts IS 'What migrations left behind on purpose; bytes with indexes and TOAST. Where undo_until is not NULL the rows are kept current, lag keys behind; dead_letters do not convert back.';

CREATE VIEW transmute.audit_events AS
SELECT e.seq, e.at, e.session_user_name AS actor, e.current_user_name, e.application_name, e.client_addr, e.migration_id AS id,
  e.event, e.from_state, e.to_state, e.detail, encode(e.hash, 'hex') AS hash
FROM _transmute.audit_events e
ORDER BY e.seq;
COMMENT ON VIEW transmute.audit_events IS 'The hash-chained audit trail, oldest first. transmute.audit_verify() checks it.';

CREATE VIEW transmute.history AS
SELECT e.seq, e.at, e.migration_id AS id, e.event, e.from_state, e.to_state, e.session_user_name AS actor, e.detail
FROM _transmute.audit_events e
WHERE e.migration_id IS NOT NULL
ORDER BY e.seq;
COMMENT ON VIEW transmute.history IS 'What happened to each migration, oldest first.';

CREATE VIEW transmute.emergency_stops AS
SELECT s.id AS stop, s.reason, s.stopped_by, s.stopped_at, s.resumed_by, s.resumed_at, s.resume_reason
FROM _transmute.stops s
ORDER BY s.id;
COMMENT ON VIEW transmute.emergency_stops IS 'Emergency stops of this database; resumed_at NULL: everything is stopped now.';
CREATE VIEW transmute.invariants AS
SELECT i.migration_id AS id, i.name, i.phase, i.sql, i.timeout, false AS built_in, i.holds, i.checked_at, i.took_ms, i.checks,
  i.failures, i.problem, i.counter_examples
FROM _transmute.invariants i
UNION ALL
SELECT s.migration_id, 'every row of ' || s.target || ' equals its new shape', 'PRE_FINALIZATION', 'new = expr(old)', NULL, true,
  CASE WHEN d.keys <> '{}' THEN false WHEN r.checked_at IS NOT NULL THEN true END,
  r.checked_at, NULL, coalesce(r.check_rounds, 0), coalesce(r.repaired_rows, 0),
  CASE WHEN d.keys <> '{}' THEN 'the new shape refuses rows: see transmute.dead_letters' END, d.keys
FROM _transmute.steps s
LEFT JOIN _transmute.rewrites r ON r.migration_id = s.migration_id AND r.statement = s.statement AND r.reverses IS NULL
CROSS JOIN LATERAL (SELECT ARRAY(SELECT l.key_text FROM _transmute.dead_letters l
  WHERE l.rewrite_id = r.id AND l.status = 'open' LIMIT 5) AS keys) d
WHERE s.kind = 'rewrite_check';
COMMENT ON VIEW transmute.invariants IS 'What must hold while a migration goes on (meta.invariants, and what is built in: every row compared with its new shape), and what was found. holds NULL: not looked at in this run; of what is built in, failures are rows that were found different and brought over again.';

CREATE VIEW transmute.usage AS
SELECT w.migration_id AS id, w.object, u.role_name, u.application_name, u.reads, u.writes, u.first_used, u.last_used, w.since
FROM _transmute.watches w
LEFT JOIN _transmute.uses u ON u.watch_id = w.id
ORDER BY w.migration_id, u.last_used DESC NULLS LAST;
COMMENT ON VIEW transmute.usage IS 'Statements that used the old shape while a migration soaked, by who ran them: names that go at the end, columns that change their type, or the view of the older version. No role: not used since.';

CREATE VIEW transmute.hooks AS
SELECT h.event, h.function, h.owner_name, h.registered_by, h.registered_at
FROM _transmute.hooks h
ORDER BY h.event, h.id;
COMMENT ON VIEW transmute.hooks IS 'Functions that are called at events of every migration, in the order of their calls.';

CREATE VIEW transmute.hook_runs AS
SELECT r.migration_id AS id, r.event, r.function, r.asked_at, r.ended_at, r.took_ms, r.sqlstate, r.error
FROM _transmute.hook_runs r
ORDER BY r.id;
COMMENT ON VIEW transmute.hook_runs IS 'Calls of hooks after an event, and before finalization. ended_at NULL: not called yet; error NULL: none.';

CREATE VIEW transmute.nodes AS
SELECT n.pid, n.role, n.started_at, n.migration_id AS id, n.since, a.state_change AS heartbeat, a.state = 'active' AS working
FROM _transmute.nodes n
-- Of sessions of others most people see the pid only.
JOIN pg_stat_activity a ON a.pid = n.pid AND coalesce(a.backend_start, n.backend_start) = n.backend_start
UNION ALL
SELECT a.pid, 'launcher', a.backend_start, NULL, NULL, coalesce(a.state_change, a.backend_start), a.state = 'active'
FROM pg_stat_activity a
WHERE a.backend_type = 'transmute launcher'
ORDER BY 3;
COMMENT ON VIEW transmute.nodes IS 'Processes that are there for migrations of this database now, and the launcher of the server. heartbeat: when it last began or ended a piece of work; written nowhere, and gone with the process. id: what it works on, NULL: nothing. The launcher, heartbeat and working (else NULL) are seen by members of pg_read_all_stats, as pg_monitor is.';

CREATE VIEW transmute.checkpoints AS
SELECT c.id AS checkpoint, c.version, c.description, c.actor, c.finished, c.created_at
FROM _transmute.checkpoints c
ORDER BY c.id;
COMMENT ON VIEW transmute.checkpoints IS 'Releases in the order in which they were recorded: the last one is where the database is. finished: migrations that hold there.';
