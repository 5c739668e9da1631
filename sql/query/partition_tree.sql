-- A table and its partitions of all levels, parents first. Read from the catalog: pg_partition_tree() would lock them.
WITH RECURSIVE tree (oid, parent, level) AS (
  SELECT $1::oid, NULL::oid, 0
  UNION ALL
  SELECT h.inhrelid, h.inhparent, tree.level + 1
  FROM tree JOIN pg_inherits AS h ON h.inhparent = tree.oid
)
SELECT c.oid, tree.parent, format('%I.%I', n.nspname, c.relname), c.relkind::text, d.inhdetachpending IS TRUE
FROM tree
JOIN pg_class AS c ON c.oid = tree.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits AS d ON d.inhrelid = tree.oid AND d.inhparent = tree.parent
WHERE c.relkind IN ('r', 'p', 'f')
ORDER BY tree.level, c.oid
