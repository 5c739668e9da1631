-- How does a value of type $1 (typmod $2) become one of type $3 (typmod $4), and can that fail or lose something?
SELECT CASE
    WHEN $1::oid = $3::oid THEN 'same'
    WHEN c.castmethod = 'b' THEN 'binary'
    WHEN c.castmethod = 'f' THEN 'function'
    ELSE 'io' END,
  CASE
    WHEN $1::oid = $3::oid THEN $4::int <> -1 AND ($2::int = -1 OR $4::int < $2::int)
    ELSE coalesce(c.castcontext <> 'i', true) AND NOT t.typcategory = 'S' OR $4::int <> -1 AND t.typcategory = 'S' END
FROM pg_type t
LEFT JOIN pg_cast c ON c.castsource = $1::oid AND c.casttarget = t.oid
WHERE t.oid = $3::oid
