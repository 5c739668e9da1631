-- What keeps a table of the script ($1) from being filled beside the table ($2) that it takes the place of.
SELECT format('%s refers to another table', pg_describe_object('pg_constraint'::regclass, k.oid, 0))
FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = $1
UNION ALL
SELECT format('%s is deferrable', pg_describe_object('pg_constraint'::regclass, k.oid, 0))
FROM pg_constraint k WHERE k.contype IN ('p', 'u', 'x') AND k.condeferrable AND k.conrelid = $1
UNION ALL
SELECT format('%s has row security that its owner is subject to', c.oid::regclass)
FROM pg_class c WHERE c.oid IN ($1, $2) AND c.relforcerowsecurity
UNION ALL
SELECT format('%s belongs to another role than %s', n.oid::regclass, o.oid::regclass)
FROM pg_class n, pg_class o WHERE n.oid = $1 AND o.oid = $2 AND n.relowner <> o.relowner
UNION ALL
SELECT format('%s is neither a table nor a partitioned table', c.oid::regclass)
FROM pg_class c WHERE c.oid = $1 AND c.relkind NOT IN ('r', 'p')
UNION ALL
SELECT format('%s is a foreign table', c.oid::regclass)
FROM pg_partition_tree($1) t JOIN pg_class c ON c.oid = t.relid WHERE c.relkind = 'f'
UNION ALL
SELECT format('%s is logged and %s is not, or the other way round', c.oid::regclass, o.oid::regclass)
FROM pg_class o, pg_class c
WHERE o.oid = $2 AND c.relpersistence <> o.relpersistence AND c.relkind = 'r'
  AND (c.oid = $1 OR c.oid IN (SELECT t.relid FROM pg_partition_tree($1) t))
UNION ALL
SELECT format('rule %I of %s', r.rulename, r.ev_class::regclass) FROM pg_rewrite r WHERE r.ev_class = $1
