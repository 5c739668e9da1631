-- Sequences owned by columns that the ALTER added: of the table ($1), and of its shadow ($2), by column; $3 is the twin.
SELECT t.objid, s.objid::regclass::text
FROM pg_depend t
JOIN pg_depend s ON s.refobjsubid = t.refobjsubid
JOIN pg_class tc ON tc.oid = t.objid AND tc.relkind = 'S'
JOIN pg_class sc ON sc.oid = s.objid AND sc.relkind = 'S'
WHERE t.classid = 'pg_class'::regclass AND s.classid = 'pg_class'::regclass
  AND t.refclassid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass
  AND t.refobjid = $1 AND s.refobjid = $2 AND t.deptype IN ('a', 'i') AND s.deptype IN ('a', 'i')
  AND t.refobjsubid > (SELECT relnatts FROM pg_class WHERE oid = $3)
