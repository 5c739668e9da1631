-- The columns of a table, dropped ones included, as CREATE TABLE would need them.
SELECT a.attnum, a.attname::text, a.attisdropped, CASE WHEN a.attisdropped THEN '' ELSE format_type(a.atttypid, a.atttypmod) END,
  a.attnotnull, a.attidentity::text, a.attgenerated::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
  CASE WHEN a.attcollation <> t.typcollation THEN coalesce((SELECT format('%I.%I', n.nspname, c.collname)
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation), '') ELSE '' END,
  CASE WHEN NOT a.attisdropped AND a.attstorage <> t.typstorage THEN a.attstorage::text ELSE '' END, a.attcompression::text,
  a.atttypid, a.atttypmod
FROM pg_attribute a
LEFT JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1 AND a.attnum > 0
ORDER BY a.attnum
