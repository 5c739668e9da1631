-- What means a table ($1) by its oid, and so would go on meaning it when another table takes its name.
SELECT pg_describe_object('pg_constraint'::regclass, k.oid, 0)
FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conrelid <> $1
UNION
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
  AND (d.classid = 'pg_proc'::regclass OR r.ev_class <> $1 OR p.polrelid <> $1)
UNION
SELECT format('publication %I', p.pubname)
FROM pg_publication_tables p JOIN pg_class c ON c.relname = p.tablename JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
WHERE c.oid = $1
ORDER BY 1
