-- Which relations has this session locked, in which mode? TOAST, catalogs, and indexes that are covered by their table's lock
-- are left out, as in reached_locks.sql.
WITH held AS (
  SELECT l.relation AS oid, max(array_position(ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock',
    'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'], l.mode)) AS mode
  FROM pg_locks l
  WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  GROUP BY l.relation)
SELECT n.nspname::text, c.relname::text, h.mode
FROM held h
JOIN pg_class c ON c.oid = h.oid AND c.relkind NOT IN ('t', 'c') AND c.oid >= 16384
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> '_transmute'
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN held t ON t.oid = i.indrelid
WHERE t.mode IS NULL OR t.mode < h.mode
ORDER BY h.mode DESC, n.nspname, c.relname
