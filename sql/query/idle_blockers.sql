-- Ends the sessions that hold a lock on these relations ($1) in one of these modes ($2) and have been idle in their
-- transaction for longer than $3 (an interval, as text). Never a superuser, never replication, never anything but a client.
SELECT b.pid, b.usename::text, b.application_name, b.idle_seconds, pg_terminate_backend(b.pid)
FROM (
  SELECT DISTINCT a.pid, a.usename, a.application_name, extract(epoch FROM clock_timestamp() - a.state_change)::int AS idle_seconds
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
  JOIN pg_roles r ON r.oid = a.usesysid
  WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.pid <> pg_backend_pid()
    AND l.mode = ANY ($2)
    AND a.backend_type = 'client backend' AND a.state LIKE 'idle in transaction%'
    AND a.state_change < clock_timestamp() - $3::interval
    AND NOT r.rolsuper AND NOT r.rolreplication) b
