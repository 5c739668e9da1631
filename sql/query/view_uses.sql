-- Does this view read one of these relations, directly or through other views?
WITH RECURSIVE used (oid) AS (
  SELECT $1::oid
  UNION
  SELECT d.refobjid
  FROM used
  JOIN pg_rewrite AS r ON r.ev_class = used.oid AND r.rulename = '_RETURN'
  JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT EXISTS (SELECT FROM used WHERE used.oid = ANY ($2) AND used.oid <> $1)
