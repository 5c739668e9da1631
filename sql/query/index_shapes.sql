-- What decides the file of each index of a table, as text that can be compared between two tables of the same columns.
SELECT i.indexrelid, c.relname::text,
  concat_ws(' | ', c.relam, i.indnatts, i.indnkeyatts, i.indisunique, i.indisexclusion, i.indkey, i.indcollation, i.indclass,
    i.indoption, to_jsonb(i) ->> 'indnullsnotdistinct', 'x' || pg_get_expr(i.indexprs, i.indrelid),
    'p' || pg_get_expr(i.indpred, i.indrelid)),
  i.indisvalid AND i.indisready
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1
ORDER BY c.relname
