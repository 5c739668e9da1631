-- An invalid index that REINDEX CONCURRENTLY has left: of table $1 with its partitions and their TOAST tables, or, where $1 is
-- NULL, of any table in schema $2.
WITH tables AS (
  SELECT c.oid, c.reltoastrelid FROM pg_class c
  WHERE c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1))
    OR $1 IS NULL AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2::name)
)
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND i.indrelid IN (SELECT t.oid FROM tables t UNION ALL SELECT t.reltoastrelid FROM tables t)
ORDER BY 1
LIMIT 1
