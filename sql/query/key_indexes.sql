-- Which unique indexes identify a row (every column NOT NULL, no predicate, no expression)? Best first: key columns
-- that the ALTER leaves alone ($2 are the ones it touches), then immediate, primary, fewest columns.
SELECT i.indexrelid, c.relname::text, ARRAY(SELECT k.attnum FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
    WHERE k.n <= i.indnkeyatts ORDER BY k.n)::int2[],
  EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) WHERE k.n <= i.indnkeyatts AND k.attnum = ANY ($2))
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indisready AND i.indpred IS NULL AND i.indexprs IS NULL
  AND am.amname = 'btree'
  AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE k.n <= i.indnkeyatts AND (NOT a.attnotnull OR a.attgenerated <> ''))
ORDER BY 4, NOT i.indimmediate, NOT i.indisprimary, i.indnkeyatts, c.relname
