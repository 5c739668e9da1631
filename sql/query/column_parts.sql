-- What plain DROP COLUMN drops along with column $2 of table $1, as the SQL that drops it by itself, and the other table
-- that this locks: constraints, indexes, statistics. A NOT NULL of the column itself stays.
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', _transmute.relation_name($1), c.conname),
  CASE WHEN c.contype = 'f' AND c.confrelid <> $1 THEN c.confrelid END
FROM pg_depend AS d
-- Of a foreign key to a partitioned table there is one more for each of its partitions, which goes with it.
JOIN pg_constraint AS c ON c.oid = d.objid AND c.conrelid = $1 AND c.contype <> 'n' AND (c.contype <> 'f' OR c.conparentid = 0)
WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
  AND d.refobjsubid = $2 AND d.deptype = 'a'
UNION
SELECT format('DROP INDEX %s', _transmute.relation_name(i.indexrelid)), NULL
FROM pg_depend AS d
JOIN pg_index AS i ON i.indexrelid = d.objid AND i.indrelid = $1
WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
  AND d.refobjsubid = $2 AND d.deptype = 'a'
  AND NOT EXISTS (SELECT FROM pg_depend AS o WHERE o.classid = 'pg_class'::regclass AND o.objid = i.indexrelid
    AND o.refclassid = 'pg_constraint'::regclass AND o.deptype = 'i')
UNION
SELECT format('DROP STATISTICS %I.%I', n.nspname, s.stxname), NULL
FROM pg_depend AS d
JOIN pg_statistic_ext AS s ON s.oid = d.objid
JOIN pg_namespace AS n ON n.oid = s.stxnamespace
WHERE d.classid = 'pg_statistic_ext'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
  AND d.refobjsubid = $2 AND d.deptype = 'a'
ORDER BY 1
