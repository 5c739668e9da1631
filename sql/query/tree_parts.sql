-- Indexes and foreign keys of the table $1 and its partitions: the one of the table $1 to which each belongs, and, for that one itself,
-- what drops it. NULL: it belongs to none.
WITH RECURSIVE tree (oid) AS (
  SELECT $1::oid
  UNION ALL
  SELECT h.inhrelid FROM tree JOIN pg_inherits AS h ON h.inhparent = tree.oid
),
own (oid, root) AS (
  SELECT x.indexrelid, x.indexrelid FROM pg_index AS x WHERE x.indrelid = $1
  UNION ALL
  SELECT h.inhrelid, own.root FROM own JOIN pg_inherits AS h ON h.inhparent = own.oid
),
keys (oid, root) AS (
  -- Not those that a key has for each partition of the table it points at.
  SELECT k.oid, k.oid FROM pg_constraint AS k
  WHERE k.conrelid = $1 AND k.contype = 'f' AND NOT EXISTS (SELECT FROM pg_constraint AS p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
  UNION ALL
  SELECT k.oid, keys.root FROM keys JOIN pg_constraint AS k ON k.conparentid = keys.oid AND k.conrelid IN (SELECT oid FROM tree)
)
SELECT x.indexrelid, own.root, CASE WHEN own.root = own.oid THEN coalesce(
  (SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', _transmute.relation_name(k.conrelid), k.conname) FROM pg_constraint AS k
    WHERE k.conindid = own.oid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')),
  'DROP INDEX ' || _transmute.relation_name(own.oid)) END
FROM tree JOIN pg_index AS x ON x.indrelid = tree.oid LEFT JOIN own ON own.oid = x.indexrelid
UNION ALL
SELECT k.oid, keys.root, CASE WHEN keys.root = keys.oid THEN format('ALTER TABLE %s DROP CONSTRAINT %I', _transmute.relation_name(k.conrelid), k.conname) END
FROM tree JOIN pg_constraint AS k ON k.conrelid = tree.oid AND k.contype = 'f' LEFT JOIN keys ON keys.oid = k.oid
