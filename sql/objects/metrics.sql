-- What there is to measure, as OpenMetrics text: https://github.com/prometheus/OpenMetrics, version 1.0.0.

CREATE FUNCTION _transmute.metric_labels(VARIADIC pairs text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '{' || string_agg(format('%s="%s"', pairs[i], replace(replace(replace(pairs[i + 1], '\', '\\'), '"', '\"'), E'\n', '\n')), ',' ORDER BY i) || '}'
  FROM generate_series(1, cardinality(pairs), 2) AS i
$$;
COMMENT ON FUNCTION _transmute.metric_labels(text[]) IS 'Names and values in turn, as the labels of a sample.';

CREATE FUNCTION _transmute.metric_samples()
RETURNS TABLE (family text, suffix text, labels text, value double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH unfinished AS MATERIALIZED (
    SELECT s.*, _transmute.metric_labels('id', s.id) AS label FROM transmute.status s WHERE s.queued
  ),
  holds AS MATERIALIZED (SELECT r.lock_held_ms / 1000 AS seconds FROM _transmute.rewrites r WHERE r.lock_held_ms IS NOT NULL)
  SELECT 'transmute_build', '_info', _transmute.metric_labels('version', e.extversion, 'database', current_database()::text), 1
  FROM pg_extension e WHERE e.extname = 'transmute'
  UNION ALL
  SELECT 'transmute_migrations', '', _transmute.metric_labels('state', states.state), coalesce(m.n, 0)
  FROM unnest(ARRAY['UNINITIALIZED', 'INITIALIZING', 'RUNNING', 'AWAITING_ACTION', 'AWAITING_FINALIZATION', 'FINISHING',
    'FINISHED', 'ROLLING_BACK']) AS states (state)
  LEFT JOIN (SELECT c.state, count(*) AS n FROM _transmute.migrations c GROUP BY c.state) AS m ON m.state = states.state
  UNION ALL
  SELECT 'transmute_migration_state', '', _transmute.metric_labels('id', m.id, 'state', m.state), 1 FROM _transmute.migrations m
  UNION ALL
  SELECT 'transmute_migration_retries', '_total', _transmute.metric_labels('id', m.id), m.retries FROM _transmute.migrations m WHERE m.retries > 0
  UNION ALL
  SELECT f.family, '', u.label, f.value
  FROM unfinished u
  CROSS JOIN LATERAL (VALUES
    ('transmute_migration_progress_ratio', u.progress),
    ('transmute_migration_rows', u.rows_done),
    ('transmute_migration_expected_rows', u.rows_total),
    ('transmute_migration_rows_per_second', u.rows_per_second),
    ('transmute_migration_lag_keys', u.lag),
    ('transmute_migration_waiting', (u.waiting_for IS NOT NULL)::integer),
    ('transmute_migration_needs_person', (u.outcome = 'FAILED' OR u.paused_reason IS NOT NULL)::integer),
    ('transmute_migration_missing_approvals', greatest(u.required_approvals - u.approvals, 0)),
    ('transmute_migration_age_seconds', extract(epoch FROM clock_timestamp() - u.started_at))) AS f (family, value)
  WHERE f.value IS NOT NULL
  UNION ALL
  SELECT 'transmute_dead_letters', '', _transmute.metric_labels('id', d.migration_id), count(*)
  FROM _transmute.dead_letters d WHERE d.status = 'open' GROUP BY d.migration_id
  UNION ALL
  SELECT 'transmute_lock_hold_seconds', '_bucket', _transmute.metric_labels('le', b.le::text),
    (SELECT count(*) FROM holds WHERE holds.seconds <= b.le)
  FROM unnest(ARRAY[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]) AS b (le)
  UNION ALL
  SELECT 'transmute_lock_hold_seconds', '_bucket', _transmute.metric_labels('le', '+Inf'), count(*) FROM holds
  UNION ALL
  SELECT 'transmute_lock_hold_seconds', '_count', '', count(*) FROM holds
  UNION ALL
  SELECT 'transmute_lock_hold_seconds', '_sum', '', coalesce(sum(holds.seconds), 0) FROM holds
  UNION ALL
  SELECT 'transmute_invariant_failures', '_total', _transmute.metric_labels('id', i.migration_id, 'invariant', i.name), i.failures
  FROM _transmute.invariants i WHERE i.checks > 0
  UNION ALL
  SELECT 'transmute_hook_failures', '_total', _transmute.metric_labels('event', r.event, 'function', r.function), count(r.error)
  FROM _transmute.hook_runs r WHERE r.ended_at IS NOT NULL GROUP BY r.event, r.function
  UNION ALL
  SELECT 'transmute_workers', '', _transmute.metric_labels('role', roles.role), coalesce(n.n, 0)
  FROM unnest(ARRAY['launcher', 'conductor', 'hand', 'runner', 'session']) AS roles (role)
  LEFT JOIN (SELECT x.role, count(*) AS n FROM transmute.nodes x GROUP BY x.role) AS n ON n.role = roles.role
  UNION ALL
  SELECT 'transmute_artifact_bytes', '', '', coalesce(sum(a.bytes), 0) FROM _transmute.artifacts a WHERE a.dropped_at IS NULL
  UNION ALL
  SELECT 'transmute_signals_pending', '', '', count(*) FROM _transmute.signals
  UNION ALL
  SELECT 'transmute_audit_head_seq', '', '', coalesce((SELECT e.seq FROM _transmute.audit_events e ORDER BY e.seq DESC LIMIT 1), 0)
$$;
COMMENT ON FUNCTION _transmute.metric_samples() IS 'Every sample, by the family it belongs to.';

CREATE FUNCTION transmute.metrics() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 AS $$
  WITH families (place, name, type, unit, help) AS (VALUES
    (1, 'transmute_build', 'info', '', 'Version of the extension and name of the database.'),
    (2, 'transmute_migrations', 'gauge', '', 'Migrations in each state.'),
    (3, 'transmute_migration_state', 'gauge', '', '1 for the state that a migration is in.'),
    (4, 'transmute_migration_progress_ratio', 'gauge', 'ratio', 'How far a migration is that goes on, 0 to 1.'),
    (5, 'transmute_migration_rows', 'gauge', '', 'Rows that it has copied or worked on.'),
    (6, 'transmute_migration_expected_rows', 'gauge', '', 'Rows that there are to copy or work on.'),
    (7, 'transmute_migration_rows_per_second', 'gauge', '', 'Rows a second since the copy began.'),
    (8, 'transmute_migration_lag_keys', 'gauge', 'keys', 'Changed rows that the last drain found: what the new shape was behind.'),
    (9, 'transmute_migration_waiting', 'gauge', '', '1 while it waits for something.'),
    (10, 'transmute_migration_needs_person', 'gauge', '', '1 while it goes on only after somebody has acted.'),
    (11, 'transmute_migration_missing_approvals', 'gauge', '', 'Approvals that are still needed.'),
    (12, 'transmute_migration_age_seconds', 'gauge', 'seconds', 'Time since it left UNINITIALIZED.'),
    (13, 'transmute_migration_retries', 'counter', '', 'Tries after an error that passes, and after a lock that was not to be had.'),
    (14, 'transmute_dead_letters', 'gauge', '', 'Rows that the new shape, or a data statement, refuses.'),
    (15, 'transmute_lock_hold_seconds', 'histogram', 'seconds', 'How long ACCESS EXCLUSIVE was held by a swap.'),
    (16, 'transmute_invariant_failures', 'counter', '', 'How often an invariant was found not to hold in the run of its migration.'),
    (17, 'transmute_hook_failures', 'counter', '', 'Calls of hooks that ended in an error.'),
    (18, 'transmute_workers', 'gauge', '', 'Processes at work by role.'),
    (19, 'transmute_artifact_bytes', 'gauge', 'bytes', 'What migrations keep on purpose.'),
    (20, 'transmute_signals_pending', 'gauge', '', 'Signals that are committed and not sent yet.'),
    (21, 'transmute_audit_head_seq', 'gauge', '', 'Number of the newest event of the audit trail.')
  ),
  samples AS MATERIALIZED (
    SELECT s.family, string_agg(s.family || s.suffix || s.labels || ' ' || CASE s.value
      WHEN 'Infinity' THEN '+Inf' WHEN '-Infinity' THEN '-Inf' ELSE s.value::text END, E'\n' ORDER BY s.n) AS lines
    FROM _transmute.metric_samples() WITH ORDINALITY AS s (family, suffix, labels, value, n)
    GROUP BY s.family
  )
  SELECT string_agg(concat('# TYPE ', f.name, ' ', f.type, E'\n', '# UNIT ' || f.name || ' ' || nullif(f.unit, '') || E'\n',
    '# HELP ', f.name, ' ', f.help, E'\n', s.lines || E'\n'), '' ORDER BY f.place) || E'# EOF\n'
  FROM families f LEFT JOIN samples s ON s.family = f.name
$$;
COMMENT ON FUNCTION transmute.metrics() IS 'Counters, gauges and histograms of this database as OpenMetrics text; docs/metrics.md lists them.';
