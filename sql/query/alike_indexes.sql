-- What the server compares to find an index of a partition that will do for its parent's (CompareIndexInfo), with names in
-- place of attribute numbers: of the indexes of the tables $1.
SELECT i.indrelid, c.relname::text,
  concat_ws(' | ', c.relam, i.indnatts, i.indnkeyatts, i.indisunique, i.indnullsnotdistinct,
    ARRAY(SELECT coalesce(a.attname, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
      LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0 ORDER BY k.place),
    ARRAY(SELECT o FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS k (o, place) WHERE k.place <= i.indnkeyatts ORDER BY k.place),
    ARRAY(SELECT oc.opcfamily FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k (o, place)
      JOIN pg_opclass AS oc ON oc.oid = k.o ORDER BY k.place),
    'x' || pg_get_expr(i.indexprs, i.indrelid), 'p' || pg_get_expr(i.indpred, i.indrelid)),
  i.indisvalid AND i.indisready AND i.indislive,
  EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhrelid = i.indexrelid),
  (SELECT con.contype::text FROM pg_constraint AS con WHERE con.conindid = i.indexrelid AND con.contype IN ('p', 'u') LIMIT 1)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY ($1) AND NOT i.indisexclusion
ORDER BY i.indrelid, i.indexrelid
