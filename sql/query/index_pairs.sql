-- Pairs the indexes of two tables by name, and says what about a pair differs in a way that matters for its file.
SELECT x.oid, y.oid, coalesce(x.relname, y.relname)::text,
  coalesce((x.relam, x.indnatts, x.indnkeyatts, x.indisunique, x.indisexclusion, x.indkey::text, x.indcollation::text,
    x.indclass::text, x.indoption::text, x.nulls_not_distinct, x.expressions, x.predicate)
  IS DISTINCT FROM (y.relam, y.indnatts, y.indnkeyatts, y.indisunique, y.indisexclusion, y.indkey::text, y.indcollation::text,
    y.indclass::text, y.indoption::text, y.nulls_not_distinct, y.expressions, y.predicate), true),
  coalesce(x.usable AND y.usable, false)
FROM (SELECT c.oid, c.relname, c.relam, i.*, to_jsonb(i) ->> 'indnullsnotdistinct' AS nulls_not_distinct,
    pg_get_expr(i.indexprs, i.indrelid) AS expressions, pg_get_expr(i.indpred, i.indrelid) AS predicate,
    i.indisvalid AND i.indisready AS usable
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1) x
FULL JOIN (SELECT c.oid, c.relname, c.relam, i.*, to_jsonb(i) ->> 'indnullsnotdistinct' AS nulls_not_distinct,
    pg_get_expr(i.indexprs, i.indrelid) AS expressions, pg_get_expr(i.indpred, i.indrelid) AS predicate,
    i.indisvalid AND i.indisready AS usable
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $2) y ON x.relname = y.relname
ORDER BY 3
