-- What of others uses the tables $1, or, where $2 names some, these columns of the one table $1: what DROP … RESTRICT
-- refuses to drop. As dependency.c: what goes along (automatic and internal dependencies) is followed, what would only
-- go by CASCADE is the answer.
WITH RECURSIVE gone (classid, objid, objsubid) AS (
  SELECT 'pg_class'::regclass::oid, t, 0 FROM unnest($1::oid[]) AS t WHERE cardinality($2::int2[]) = 0
  UNION
  SELECT 'pg_class'::regclass::oid, ($1::oid[])[1], c::int FROM unnest($2::int2[]) AS c
  UNION
  SELECT d.classid, d.objid, d.objsubid
  FROM gone AS g
  JOIN pg_depend AS d ON d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
  WHERE d.deptype IN ('a', 'i', 'P', 'S')
),
users AS (
  SELECT DISTINCT d.classid, d.objid, d.objsubid
  FROM gone AS g
  JOIN pg_depend AS d ON d.refclassid = g.classid AND d.refobjid = g.objid AND (g.objsubid = 0 OR d.refobjsubid = g.objsubid)
  WHERE d.deptype = 'n'
    AND NOT EXISTS (SELECT FROM gone AS o
      WHERE o.classid = d.classid AND o.objid = d.objid AND o.objsubid IN (0, d.objsubid))
)
SELECT DISTINCT CASE WHEN r.rulename = '_RETURN' THEN _transmute.identity_text('pg_class'::regclass, r.ev_class, 0)
  ELSE _transmute.identity_text(u.classid, u.objid, u.objsubid) END
FROM users AS u
LEFT JOIN pg_rewrite AS r ON u.classid = 'pg_rewrite'::regclass AND r.oid = u.objid
-- A version goes on showing what is hidden, and keeps it from being dropped.
WHERE NOT EXISTS (SELECT FROM _transmute.version_views AS v WHERE r.ev_class IN (v.view, v.rows_view))
ORDER BY 1
