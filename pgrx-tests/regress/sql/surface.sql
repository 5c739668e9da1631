-- Everything that people can call, look at or set: a change of it shows here and nowhere else first.
\set SHOW_CONTEXT never
\pset null (null)

-- Functions and procedures.
SELECT p.proname AS name, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
  CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
  CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
  p.proisstrict AS strict, p.prosecdef AS definer, has_function_privilege('public', p.oid, 'EXECUTE') AS public,
  has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS monitor
FROM pg_proc p WHERE p.pronamespace = 'transmute'::regnamespace ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- With their arguments and results.
\pset format unaligned
SET intervalstyle = postgres;
SELECT format('%s(%s)%s', p.proname, pg_get_function_arguments(p.oid), E'\n    → ' || pg_get_function_result(p.oid)) AS signature
FROM pg_proc p WHERE p.pronamespace = 'transmute'::regnamespace ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- Views and their columns.
SELECT format(E'%s\n    %s', c.relname, string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), E'\n    ' ORDER BY a.attnum)) AS view
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'transmute'::regnamespace
GROUP BY c.oid, c.relname ORDER BY c.relname COLLATE "C";
\pset format aligned
SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'view' ELSE c.relkind::text END AS kind,
  has_table_privilege('public', c.oid, 'SELECT') AS public, has_table_privilege('pg_monitor', c.oid, 'SELECT') AS monitor
FROM pg_class c WHERE c.relnamespace = 'transmute'::regnamespace ORDER BY c.relname COLLATE "C";

-- Settings.
SELECT name, vartype, unit, boot_val, min_val, max_val, context, pending_restart FROM pg_settings WHERE name LIKE 'transmute.%' ORDER BY name COLLATE "C";

-- Nothing else is in the schema.
SELECT pg_describe_object(classid, objid, objsubid) AS something_else
FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'transmute'::regnamespace AND classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass)
  AND pg_describe_object(classid, objid, objsubid) !~ '^(row )?type |^extension ' ORDER BY 1;

-- What has no comment: schemas, functions, tables, views, and columns of the tables.
SELECT pg_describe_object(o.classid, o.objid, o.objsubid) AS without_comment
FROM (
  SELECT 'pg_namespace'::regclass, n.oid, 0 FROM pg_namespace n WHERE n.nspname IN ('transmute', '_transmute')
  UNION ALL SELECT 'pg_proc'::regclass, p.oid, 0 FROM pg_proc p WHERE p.pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
  UNION ALL SELECT 'pg_class'::regclass, c.oid, 0 FROM pg_class c
    WHERE c.relnamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace) AND c.relkind IN ('r', 'v')
  UNION ALL SELECT 'pg_class'::regclass, a.attrelid, a.attnum FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = '_transmute'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
) AS o (classid, objid, objsubid)
WHERE NOT EXISTS (SELECT FROM pg_description d WHERE (d.classoid, d.objoid, d.objsubid) = (o.classid, o.objid, o.objsubid)) ORDER BY 1;

-- What PUBLIC may do: look into the schema, and ask two questions.
SELECT nspname, has_schema_privilege('public', oid, 'USAGE') AS usage, has_schema_privilege('public', oid, 'CREATE') AS "create"
FROM pg_namespace WHERE nspname IN ('transmute', '_transmute') ORDER BY nspname COLLATE "C";
SELECT p.oid::regprocedure AS public_may_call FROM pg_proc p
WHERE p.pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace) AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
SELECT c.oid::regclass AS public_may_read_or_write FROM pg_class c
WHERE c.relnamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
  AND has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') ORDER BY 1;

-- Every function that runs with our rights, and every internal one in a language that resolves names, fixes its search_path.
SELECT p.oid::regprocedure AS without_search_path FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace IN ('transmute'::regnamespace, '_transmute'::regnamespace)
  AND (p.prosecdef OR p.pronamespace = '_transmute'::regnamespace AND l.lanname IN ('sql', 'plpgsql'))
  AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}' ORDER BY 1;
