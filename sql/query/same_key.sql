-- Does the key log ($2) still have the types of the table's ($1) key columns ($3), and nothing else?
SELECT count(*) = cardinality($3::int2[])
  AND (SELECT relnatts FROM pg_class WHERE oid = $2) = cardinality($3::int2[])
FROM unnest($3::int2[]) WITH ORDINALITY k(n, i)
JOIN pg_attribute t ON t.attrelid = $1 AND t.attnum = k.n AND NOT t.attisdropped
JOIN pg_attribute l ON l.attrelid = $2 AND l.attnum = k.i AND l.atttypid = t.atttypid AND NOT l.attisdropped
