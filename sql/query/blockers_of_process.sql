-- Who keeps process $1 waiting: holders of a lock it wants, or transactions that it lets end. The age is rounded down to ten
-- seconds, then to minutes, so that the text stays the same for a while.
SELECT CASE b.pid WHEN 0 THEN 'prepared transaction' ELSE 'pid ' || b.pid END || coalesce(' (' || nullif(a.application_name, '') || ')', '')
  || coalesce(', ' || a.state, '')
  || coalesce(', for ' || CASE WHEN a.age < 60 THEN a.age / 10 * 10 || ' s' ELSE a.age / 60 || ' min' END, '')
FROM unnest(pg_blocking_pids($1)) WITH ORDINALITY AS b (pid, n)
LEFT JOIN (SELECT s.pid, s.application_name, s.state, s.xact_start,
    greatest(0, extract(epoch FROM clock_timestamp() - s.xact_start))::integer AS age
  FROM pg_stat_activity s) AS a ON a.pid = b.pid
GROUP BY b.pid, a.application_name, a.state, a.xact_start, a.age
ORDER BY a.xact_start NULLS FIRST, b.pid
LIMIT 3
