-- As reached_locks.sql, where each lock is on what is named ($1, in mode $2) or on that and all below it ($3): the usual case.
WITH RECURSIVE tree AS (
  SELECT m.oid, m.mode, m.down FROM unnest($1::oid[], $2::int[], $3::bool[]) AS m (oid, mode, down)
  UNION SELECT i.inhrelid, t.mode, true FROM tree t JOIN pg_inherits i ON t.down AND i.inhparent = t.oid),
strongest AS (SELECT oid, max(mode) AS mode FROM tree WHERE oid > 0 GROUP BY oid)
SELECT n.nspname::text, c.relname::text, s.mode
FROM strongest s
JOIN pg_class c ON c.oid = s.oid AND c.relkind NOT IN ('t', 'c')
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'pg_toast'
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN strongest t ON t.oid = i.indrelid
WHERE t.mode IS NULL OR t.mode < s.mode
ORDER BY s.mode DESC, n.nspname, c.relname
