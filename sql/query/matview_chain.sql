-- Which of these views and materialized views hold rows, or are read by those that do; what identifies their rows now?
WITH RECURSIVE needed (oid) AS (
  SELECT c.oid FROM pg_class AS c WHERE c.oid = ANY ($1) AND c.relkind = 'm' AND c.relispopulated
  UNION
  SELECT d.refobjid
  FROM needed
  JOIN pg_rewrite AS r ON r.ev_class = needed.oid AND r.rulename = '_RETURN'
  JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = ANY ($1)
)
SELECT c.oid, c.relkind = 'm', c.relispopulated, c.relfilenode, c.relowner, pg_get_userbyid(c.relowner)::text,
  -- REFRESH CONCURRENTLY keeps the file and writes rows.
  pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid)
FROM needed JOIN pg_class AS c ON c.oid = needed.oid
ORDER BY c.oid
