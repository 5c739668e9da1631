-- Who holds a lock on these relations ($1) in one of these modes ($2), which conflict with the wanted one, and has been in its transaction for
-- longer than $3 ms? Prepared transactions always count; an autovacuum gives way by itself when we queue behind it.
SELECT coalesce('pid ' || l.pid, 'prepared transaction') || coalesce(' (' || nullif(a.application_name, '') || ')', '')
  || coalesce(', ' || a.state, '') || coalesce(', for ' || extract(epoch FROM clock_timestamp() - a.xact_start)::int || ' s', '')
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.mode = ANY ($2)
  AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - $3 * interval '1 millisecond')
  AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
ORDER BY a.xact_start
LIMIT 3
