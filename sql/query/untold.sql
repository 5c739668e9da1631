-- Which row of our tables is not what the audit trail tells? Table, row and what is wrong; the first ones first.
WITH told AS MATERIALIZED (
  SELECT e.seq, e.migration_id AS id, e.event, e.at, e.session_user_name AS actor, e.current_user_name, e.to_state, e.detail::jsonb AS detail
  FROM _transmute.audit_events e
  WHERE e.event IN ('registered', 'applied', 'baseline', 'amended', 'planned anew', 'approved', 'approval revoked', 'soak skipped', 'tuned',
      'dead letters discarded', 'dead letters waived', 'emergency stop', 'emergency stop ended', 'hook registered', 'hook removed')
    OR e.to_state IS NOT NULL
), last AS (
  SELECT t.id, max(t.seq) FILTER (WHERE t.to_state IS NOT NULL) AS state,
    max(t.seq) FILTER (WHERE t.event = 'registered') AS registered,
    max(t.seq) FILTER (WHERE t.event = 'applied' OR t.event = 'baseline' AND t.to_state IS NULL) AS applied,
    max(t.seq) FILTER (WHERE t.to_state IN ('UNINITIALIZED', 'FINISHED')) AS ended,
    max(t.seq) FILTER (WHERE t.detail ? 'checksum') AS script,
    max(t.seq) FILTER (WHERE t.event IN ('registered', 'amended', 'planned anew')) AS plan,
    max(t.seq) FILTER (WHERE t.event = 'tuned') AS tuned,
    max(t.seq) FILTER (WHERE t.event = 'soak skipped') AS skipped
  FROM told t WHERE t.id IS NOT NULL GROUP BY t.id
), approval AS (
  SELECT a.*, row_number() OVER (PARTITION BY a.migration_id ORDER BY a.id) AS n FROM _transmute.approvals a
), approved AS (
  SELECT t.*, row_number() OVER (PARTITION BY t.id ORDER BY t.seq) AS n FROM told t WHERE t.event = 'approved'
), revocation AS (
  SELECT a.migration_id AS id, a.revoked_by::text AS actor, a.revoke_reason AS reason, count(*) AS approvals
  FROM _transmute.approvals a WHERE a.revoked_at IS NOT NULL GROUP BY 1, 2, 3
), revoked AS (
  SELECT t.id, t.actor, t.detail ->> 'reason' AS reason, sum((t.detail ->> 'approvals')::bigint) AS approvals
  FROM told t WHERE t.event = 'approval revoked' GROUP BY 1, 2, 3 HAVING sum((t.detail ->> 'approvals')::bigint) > 0
), hook AS (
  SELECT DISTINCT ON (t.detail ->> 'event', t.detail ->> 'function') t.detail ->> 'event' AS event, t.detail ->> 'function' AS function,
    t.event = 'hook registered' AS registered, t.actor
  FROM told t WHERE t.event IN ('hook registered', 'hook removed') ORDER BY 1, 2, t.seq DESC
)
SELECT relation, "row", problem FROM (
  SELECT 1 AS place, 'migrations' AS relation, coalesce(m.id, l.id) AS "row",
    CASE WHEN l.registered IS NULL THEN 'nobody has registered it'
      WHEN m.id IS NULL THEN 'it was registered, and is gone'
      WHEN (m.registered_by::text, m.owner_name::text) <> (r.actor, r.current_user_name) THEN
        format('registered by %s as %s, and the trail says by %s as %s', m.registered_by, m.owner_name, r.actor, r.current_user_name)
      WHEN m.required_approvals <> (r.detail ->> 'required_approvals')::integer THEN format('it asks for %s approvals, and asked for %s', m.required_approvals, r.detail ->> 'required_approvals')
      WHEN m.checksum <> (SELECT t.detail ->> 'checksum' FROM told t WHERE t.seq = l.script) THEN 'its script has another checksum'
      WHEN m.plan_checksum <> (SELECT t.detail ->> 'plan_checksum' FROM told t WHERE t.seq = l.plan) THEN 'its plan has another checksum'
      WHEN m.state <> coalesce((SELECT t.to_state FROM told t WHERE t.seq = l.state), 'UNINITIALIZED') THEN
        format('its state is %s, and the trail leads to %s', m.state, coalesce((SELECT t.to_state FROM told t WHERE t.seq = l.state), 'UNINITIALIZED'))
      WHEN m.queued AND m.state = 'UNINITIALIZED' AND l.applied > coalesce(l.ended, 0) IS NOT TRUE THEN 'it is under way, and nobody has applied it'
      WHEN m.applied_by IS NOT NULL AND m.applied_by::text IS DISTINCT FROM (SELECT t.actor FROM told t WHERE t.seq = l.applied) THEN
        format('applied by %s, and the trail says by %s', m.applied_by, coalesce((SELECT t.actor FROM told t WHERE t.seq = l.applied), 'nobody'))
      WHEN coalesce(m.tuned, '{}') <> coalesce((SELECT t.detail -> 'after' FROM told t WHERE t.seq = l.tuned), '{}') THEN 'it is tuned to what nobody has asked for'
      WHEN m.state = 'AWAITING_FINALIZATION' AND l.skipped > l.applied IS NOT TRUE AND m.soak_until + interval '1 minute' < m.soak
        + (SELECT min(t.at) FROM told t WHERE t.id = l.id AND t.seq > l.applied AND t.to_state = 'AWAITING_FINALIZATION') THEN 'its soak ends too early, and nobody has skipped it'
    END AS problem
  FROM _transmute.migrations m FULL JOIN last l ON l.id = m.id LEFT JOIN told r ON r.seq = l.registered
  WHERE m.id IS NOT NULL OR l.registered IS NOT NULL
  UNION ALL
  SELECT 2, 'steps', format('%s, step %s', s.migration_id, s.step), 'it would run something else than was planned'
  FROM _transmute.steps s
  WHERE (s.phase, s.kind, s.target, s.sql) IS DISTINCT FROM (s.detail ->> 'phase', s.detail ->> 'kind', s.detail ->> 'target',
    -- What is left of a script that commits on its way.
    CASE WHEN right(s.detail ->> 'sql', length(s.sql)) = s.sql AND s.status <> 'pending' THEN s.sql ELSE s.detail ->> 'sql' END)
  UNION ALL
  SELECT 3, 'approvals', coalesce(a.id::text, format('approval %s of %s', t.n, t.id)),
    CASE WHEN t.n IS NULL THEN 'nobody has approved' WHEN a.n IS NULL THEN 'it was given, and is gone'
      WHEN (a.actor::text, a.reason, a.plan_checksum, a.waived) <> (t.actor, t.detail ->> 'reason', t.detail ->> 'plan_checksum',
          ARRAY(SELECT w::bigint FROM jsonb_array_elements_text(coalesce(t.detail -> 'waived_dead_letters', '[]')) AS w)) THEN 'the trail has another one in its place'
      WHEN a.expires_at > t.at + ((t.detail ->> 'ttl_seconds')::numeric + 60) * interval '1 second' THEN 'it holds longer than it was given for' END
  FROM approval a FULL JOIN approved t ON t.id = a.migration_id AND t.n = a.n
  UNION ALL
  SELECT 4, 'approvals', coalesce(a.id, t.id), format('%s are revoked by %s, and the trail says %s', coalesce(a.approvals, 0), coalesce(a.actor, t.actor), coalesce(t.approvals, 0))
  FROM revocation a FULL JOIN revoked t ON (t.id, t.actor, t.reason) = (a.id, a.actor, a.reason) WHERE a.approvals IS DISTINCT FROM t.approvals
  UNION ALL
  SELECT 5, 'dead_letters', d.id::text, 'nobody has discarded it' FROM _transmute.dead_letters d
  WHERE d.status = 'discarded' AND NOT EXISTS (SELECT FROM told t
    WHERE t.id = d.migration_id AND t.event IN ('dead letters discarded', 'dead letters waived') AND t.detail -> 'ids' @> to_jsonb(d.id))
  UNION ALL
  SELECT 6, 'stops', '', format('%s stops, %s of them ended; the trail says %s, %s', s.begun, s.ended, t.begun, t.ended)
  FROM (SELECT count(*) AS begun, count(resumed_at) AS ended FROM _transmute.stops) AS s,
    (SELECT count(*) FILTER (WHERE event = 'emergency stop') AS begun, count(*) FILTER (WHERE event = 'emergency stop ended') AS ended FROM told) AS t
  WHERE (s.begun, s.ended) <> (t.begun, t.ended)
  UNION ALL
  SELECT 7, 'hooks', format('%s at %s', coalesce(h.function, t.function), coalesce(h.event, t.event)),
    CASE WHEN h.id IS NULL THEN 'it was registered, and is gone' ELSE 'nobody has registered it' END
  FROM _transmute.hooks h FULL JOIN (SELECT * FROM hook WHERE registered) AS t ON (t.event, t.function, t.actor) = (h.event, h.function, h.registered_by::text)
  WHERE h.id IS NULL OR t.event IS NULL
) AS found
WHERE problem IS NOT NULL
ORDER BY place, "row" COLLATE "C"
LIMIT 1
