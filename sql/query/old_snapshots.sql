-- Whose snapshot in this database is older than transaction $1? To them the swapped-in file would look empty.
SELECT 'pid ' || a.pid || coalesce(' (' || nullif(a.application_name, '') || ')', '') || coalesce(', ' || a.state, '')
  || coalesce(', for ' || extract(epoch FROM clock_timestamp() - a.xact_start)::int || ' s', '')
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL
  AND a.backend_type IN ('client backend', 'background worker', 'parallel worker')
  AND age(a.backend_xmin) > age($1::xid8::xid)
ORDER BY a.xact_start
LIMIT 3
