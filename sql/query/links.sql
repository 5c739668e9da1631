-- What the tables $1 are partitions of, inherit from or have their type from, as facts: what makes each so, and what takes it
-- away. make NULL: it would not be exactly as it is.
SELECT 10, format('%s of %s', CASE WHEN c.relispartition THEN 'partition' ELSE 'heir' END, h.inhparent::regclass), coalesce(b.bound, ''),
  CASE
    -- The triggers that a partition has of its table are made anew by ATTACH, and would not be disabled, or have comments.
    WHEN c.relispartition THEN CASE WHEN NOT h.inhdetachpending AND NOT EXISTS (
        SELECT FROM pg_partition_tree(c.oid) AS m JOIN pg_trigger AS t ON t.tgrelid = m.relid JOIN pg_trigger AS p ON p.oid = t.tgparentid
        WHERE NOT t.tgisinternal AND (t.tgenabled <> p.tgenabled OR obj_description(t.oid, 'pg_trigger') IS NOT NULL))
      THEN format('ALTER TABLE %s ATTACH PARTITION %s %s', n.parent, n.child, b.bound) END
    -- INHERIT leaves what the heir has as its own, and comes last.
    WHEN NOT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_attribute AS p ON p.attrelid = h.inhparent AND p.attname = a.attname
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attislocal)
      AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.coninhcount > 0 AND NOT k.conislocal)
      AND NOT EXISTS (SELECT FROM pg_inherits AS later WHERE later.inhrelid = c.oid AND later.inhseqno > h.inhseqno)
    THEN format('ALTER TABLE %s INHERIT %s', n.child, n.parent)
  END,
  CASE WHEN c.relispartition THEN format('ALTER TABLE %s DETACH PARTITION %s', n.parent, n.child) ELSE format('ALTER TABLE %s NO INHERIT %s', n.child, n.parent) END,
  false
FROM pg_inherits AS h
JOIN pg_class AS c ON c.oid = h.inhrelid,
  LATERAL (SELECT _transmute.relation_name(h.inhparent) AS parent, _transmute.relation_name(c.oid) AS child) AS n,
  LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
WHERE c.oid = ANY ($1::oid[])
UNION ALL
SELECT 11, 'type', c.reloftype::regtype::text, format('ALTER TABLE %s OF %s', n.name, c.reloftype::regtype), format('ALTER TABLE %s NOT OF', n.name), false
FROM pg_class AS c, LATERAL (SELECT _transmute.relation_name(c.oid) AS name) AS n
WHERE c.oid = ANY ($1::oid[]) AND c.reloftype <> 0
