-- Do two tables lay their rows out the same way? One line for each attribute number that differs.
SELECT format('column %s: %s against %s', attnum, coalesce(x.attname, '(none)'), coalesce(y.attname, '(none)'))
FROM (SELECT * FROM pg_attribute WHERE attrelid = $1 AND attnum > 0) x
FULL JOIN (SELECT * FROM pg_attribute WHERE attrelid = $2 AND attnum > 0) y USING (attnum)
WHERE (x.attlen, x.attalign, x.attbyval, x.attisdropped) IS DISTINCT FROM (y.attlen, y.attalign, y.attbyval, y.attisdropped)
  OR NOT x.attisdropped AND (x.atttypid, x.atttypmod, x.attcollation, x.attgenerated)
    IS DISTINCT FROM (y.atttypid, y.atttypmod, y.attcollation, y.attgenerated)
ORDER BY attnum
