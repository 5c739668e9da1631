-- What does a copy ($2) ask of its rows that the table ($1) does not? Unique indexes, NOT NULL, CHECK: kind, name, expressions,
-- predicate, whether NULLs are equal.
SELECT 'unique', x.relname::text, ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnkeyatts) k),
  coalesce(pg_get_expr(i.indpred, i.indrelid), ''), i.indnullsnotdistinct
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = $2 AND i.indisunique AND NOT EXISTS (
  SELECT FROM pg_index o JOIN pg_class y ON y.oid = o.indexrelid WHERE o.indrelid = $1 AND y.relname = x.relname)
UNION ALL
SELECT 'not_null', a.attname::text, ARRAY[quote_ident(a.attname)], '', false
FROM pg_attribute a
JOIN pg_attribute b ON b.attrelid = $1 AND b.attname = a.attname AND NOT b.attnotnull
WHERE a.attrelid = $2 AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped
UNION ALL
SELECT 'check', c.conname::text, ARRAY[pg_get_expr(c.conbin, c.conrelid)], '', false
FROM pg_constraint c
WHERE c.conrelid = $2 AND c.contype = 'c' AND NOT EXISTS (
  SELECT FROM pg_constraint o WHERE o.conrelid = $1 AND o.conname = c.conname)
ORDER BY 1, 2
