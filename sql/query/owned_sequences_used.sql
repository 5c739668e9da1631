-- Which default of another table counts with a sequence that a column of this table ($1) owns, and that is none of these ($2)?
SELECT format('%s uses %s', pg_describe_object(u.classid, u.objid, 0), s.oid::regclass)
FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid
JOIN pg_attrdef f ON f.oid = u.objid AND f.adrelid <> $1
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype IN ('a', 'i')
  AND s.oid <> ALL ($2::oid[])
ORDER BY 1
LIMIT 1
