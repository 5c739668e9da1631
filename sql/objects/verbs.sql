-- What a runner of migration files shows: it reads, and writes nothing.

CREATE VIEW transmute.list AS
SELECT m.id, coalesce(m.meta ->> 'name', m.id) AS name,
  CASE WHEN m.squashed_into IS NOT NULL THEN 'squashed'
    WHEN (m.taken_back OR m.undone_at IS NOT NULL) AND r.under_way IS NOT TRUE THEN 'taken back'
    WHEN m.baseline AND r.under_way IS NOT TRUE THEN 'baseline'
    WHEN w.state = 'FINISHED' THEN 'applied'
    WHEN w.queued AND w.last_error IS NOT NULL AND w.next_attempt_at = 'infinity'
      THEN CASE WHEN w.meta ->> 'transaction' = 'none' AND w.state <> 'ROLLING_BACK' THEN 'dirty' ELSE 'failed' END
    WHEN w.queued AND w.state = 'UNINITIALIZED' THEN 'queued'
    WHEN w.queued THEN 'running'
    ELSE 'pending' END AS status,
  CASE WHEN m.meta ->> 'transaction' = 'none' THEN 'one by one' ELSE coalesce(m.meta ->> 'mode', 'online') END AS mode,
  coalesce(r.run, m.id) AS run,
  CASE WHEN (m.state = 'FINISHED' OR m.baseline) AND NOT m.taken_back AND m.undone_at IS NULL THEN coalesce(r.finished_at, m.finished_at)
    END AS applied_at,
  m.applied_by, coalesce(t.checksum, m.checksum) AS checksum, m.squashed_into, m.place
FROM _transmute.migrations m
LEFT JOIN _transmute.sources t ON t.migration_id = m.id
LEFT JOIN LATERAL (
  SELECT u.id AS run, u.finished_at, u.queued AND u.state <> 'FINISHED' AS under_way
  FROM _transmute.migrations d JOIN _transmute.migrations u ON u.down_of = d.id
  WHERE d.down_of = m.id ORDER BY u.seq DESC LIMIT 1) r ON true
-- What was taken back and is made so again shows how far that is.
JOIN _transmute.migrations w ON w.id = CASE WHEN r.under_way THEN r.run ELSE m.id END
WHERE m.down_of IS NULL
ORDER BY coalesce(m.place, m.seq), m.seq;
COMMENT ON VIEW transmute.list IS 'Every migration in the order in which it runs: pending, queued, running, failed, dirty (a script whose statements run one by one has failed in the midst of them), applied, baseline, taken back or squashed. run: the migration that did it last. checksum: SHA-256, hex, over the text of its file with LF at the end of each line and without a byte order mark; of what no file gave over up, down and meta.';

CREATE FUNCTION transmute.head() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT l.id FROM transmute.list AS l WHERE l.status IN ('applied', 'baseline') ORDER BY l.applied_at DESC, l.place DESC NULLS LAST LIMIT 1 $$;
COMMENT ON FUNCTION transmute.head() IS 'The migration that was applied last and is in force; NULL: none.';

CREATE FUNCTION transmute.history(since timestamptz DEFAULT NULL, verbose boolean DEFAULT false)
RETURNS TABLE (at timestamptz, id text, event text, actor name, reason text, detail jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT e.at, e.migration_id, e.event, e.session_user_name, e.detail::jsonb ->> 'reason',
    CASE WHEN coalesce(history.verbose, false) THEN nullif(jsonb_strip_nulls(coalesce(e.detail::jsonb, '{}')
      || jsonb_build_object('from_state', e.from_state, 'to_state', e.to_state, 'application_name', nullif(e.application_name, ''))), '{}') END
  FROM _transmute.audit_events AS e
  WHERE e.migration_id IS NOT NULL AND (history.since IS NULL OR e.at >= history.since)
    AND (coalesce(history.verbose, false) OR e.event IN ('registered', 'applied', 'finished', 'failed', 'rolled back', 'taken back',
      'undone', 'fixed', 'squashed', 'taken out of the queue') OR e.event = 'baseline' AND e.to_state IS NULL)
  ORDER BY e.seq
$$;
COMMENT ON FUNCTION transmute.history(timestamptz, boolean) IS 'What happened to each migration since a time (NULL: ever), oldest first: registered, applied, finished, failed, taken back … verbose: every event, with its details.';

CREATE VIEW transmute.seeds AS
SELECT s.name, CASE WHEN s.ran_checksum IS NULL THEN 'pending' WHEN s.ran_checksum = s.checksum THEN 'run' ELSE 'changed' END AS status,
  s.checksum, s.owner_name, s.loaded_at, s.ran_at, s.ran_by
FROM _transmute.seeds s
ORDER BY s.seq;
COMMENT ON VIEW transmute.seeds IS 'Scripts that fill tables: pending, run, or changed since they ran.';
