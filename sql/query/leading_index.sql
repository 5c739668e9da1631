-- An index of a table ($1) that begins with these columns ($2), in whatever order.
SELECT c.relname::text
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam
WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND am.amname = 'btree'
  AND i.indnkeyatts >= cardinality($2)
  AND ARRAY(SELECT k.attnum FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) WHERE k.n <= cardinality($2)) @> $2
ORDER BY NOT i.indisunique, i.indnkeyatts, c.relname
LIMIT 1
