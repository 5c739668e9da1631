-- The unique index of a table ($1) on these columns ($2), in this order; REINDEX CONCURRENTLY gives it another oid.
SELECT i.indexrelid
FROM pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indisready AND i.indpred IS NULL
  AND ARRAY(SELECT k.attnum FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) WHERE k.n <= i.indnkeyatts ORDER BY k.n)::int2[] = $2
ORDER BY i.indexrelid <> $3, i.indexrelid
LIMIT 1
