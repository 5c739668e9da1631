-- What does the swap of a table touch besides the table? $1 tables. Views and materialized views over it, and tables that a
-- foreign key ties to it.
WITH RECURSIVE over (oid) AS (
  SELECT unnest($1::oid[])
  UNION
  SELECT r.ev_class FROM over o
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid)
SELECT DISTINCT c.oid FROM pg_class c
WHERE c.oid IN (SELECT oid FROM over)
  OR c.oid IN (SELECT f.conrelid FROM pg_constraint f WHERE f.contype = 'f' AND f.confrelid = ANY ($1))
  OR c.oid IN (SELECT f.confrelid FROM pg_constraint f WHERE f.contype = 'f' AND f.conrelid = ANY ($1));
