-- Generated columns of a table whose expression uses one of these columns.
SELECT DISTINCT a.attnum, a.attname::text, a.attgenerated::text, pg_get_expr(def.adbin, def.adrelid)
FROM pg_attribute AS used
JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = used.attrelid AND d.refobjsubid = used.attnum
  AND d.classid = 'pg_attrdef'::regclass
JOIN pg_attrdef AS def ON def.oid = d.objid AND def.adrelid = used.attrelid AND def.adnum <> used.attnum
JOIN pg_attribute AS a ON a.attrelid = def.adrelid AND a.attnum = def.adnum AND a.attgenerated <> ''
WHERE used.attrelid = $1 AND used.attname = ANY ($2::text[])
ORDER BY a.attnum
