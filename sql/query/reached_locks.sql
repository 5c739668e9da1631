-- Which relations does a statement lock, given what it names? $1 relations, $2 modes (1 ACCESS SHARE … 8 ACCESS EXCLUSIVE),
-- $3 how far each lock reaches, $4 a column or constraint, $5 a second mode, $6 CASCADE. TOAST and indexes that are covered by
-- their table's lock are left out, and composite types.
WITH RECURSIVE named AS (
  SELECT * FROM unnest($1::oid[], $2::int[], $3::text[], $4::text[], $5::int[]) AS m (oid, mode, reach, argument, other)),
tree AS (
  SELECT oid, mode FROM named WHERE reach = 'tree'
  UNION SELECT i.inhrelid, t.mode FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid),
referencing AS (
  SELECT oid, mode FROM named WHERE reach = 'referencing'
  UNION SELECT c.conrelid, r.mode FROM referencing r JOIN pg_constraint c ON c.contype = 'f' AND c.confrelid = r.oid),
dropped (classid, objid, objsubid) AS (
  SELECT 'pg_class'::regclass::oid, m.oid, coalesce(a.attnum, 0)::int
  FROM named m LEFT JOIN pg_attribute a ON m.reach = 'column' AND a.attrelid = m.oid AND a.attname = m.argument
  WHERE m.reach = 'dropped' OR m.reach = 'column' AND a.attnum IS NOT NULL
  UNION
  SELECT 'pg_constraint'::regclass::oid, c.oid, 0
  FROM named m JOIN pg_constraint c ON m.reach = 'constraint' AND c.conrelid = m.oid AND c.conname = m.argument
  UNION
  SELECT next.classid, next.objid, next.objsubid
  FROM dropped o
  CROSS JOIN LATERAL (
    SELECT d.classid, d.objid, d.objsubid FROM pg_depend d
    WHERE d.refclassid = o.classid AND d.refobjid = o.objid AND (o.objsubid = 0 OR d.refobjsubid = o.objsubid)
      AND (d.deptype IN ('a', 'i', 'P', 'S') OR d.deptype = 'n' AND $6)
    UNION ALL
    -- A view goes with its rule.
    SELECT 'pg_class'::regclass::oid, r.ev_class, 0 FROM pg_rewrite r
    WHERE o.classid = 'pg_rewrite'::regclass AND r.oid = o.objid AND r.rulename = '_RETURN'
  ) next),
gone (oid, mode) AS (
  SELECT CASE d.classid
    WHEN 'pg_class'::regclass THEN d.objid
    WHEN 'pg_constraint'::regclass THEN (SELECT c.conrelid FROM pg_constraint c WHERE c.oid = d.objid)
    WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = d.objid)
    WHEN 'pg_rewrite'::regclass THEN (SELECT r.ev_class FROM pg_rewrite r WHERE r.oid = d.objid)
    WHEN 'pg_attrdef'::regclass THEN (SELECT a.adrelid FROM pg_attrdef a WHERE a.oid = d.objid)
    WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = d.objid)
  END, 8
  FROM dropped d),
read (oid) AS (
  SELECT oid FROM named WHERE reach = 'sources'
  UNION SELECT d.refobjid FROM read s JOIN pg_rewrite r ON r.ev_class = s.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid <> s.oid),
-- Rows that are written, and those that foreign keys write in turn.
written (oid, verb, columns) AS (
  SELECT m.oid, m.reach, ARRAY(SELECT a.attnum FROM pg_attribute a
    WHERE a.attrelid = m.oid AND a.attnum > 0 AND (m.reach = 'any' OR jsonb_exists(m.argument::jsonb, a.attname::text)) ORDER BY 1)
  FROM named m WHERE m.reach IN ('insert', 'update', 'delete', 'any')
  UNION
  SELECT k.conrelid, CASE WHEN w.verb <> 'update' AND k.confdeltype = 'c' THEN 'delete' ELSE 'update' END, k.conkey
  FROM written w JOIN pg_constraint k ON k.contype = 'f' AND k.confrelid = w.oid
    AND (w.verb IN ('delete', 'any') AND k.confdeltype IN ('c', 'n', 'd')
      OR w.verb IN ('update', 'any') AND k.confkey && w.columns AND k.confupdtype IN ('c', 'n', 'd'))),
-- A partition that is attached gives up its own foreign keys for those of the table, or gets these.
attached (oid, mode) AS (
  SELECT k.confrelid, CASE WHEN EXISTS (
      SELECT FROM pg_constraint h WHERE h.conrelid = m.oid AND h.contype = 'f' AND h.confrelid = k.confrelid) THEN 8 ELSE 6 END
  FROM named m JOIN named p ON m.reach = 'attached' AND p.reach = 'default'
  JOIN pg_constraint k ON k.conrelid = p.oid AND k.contype = 'f'
  WHERE NOT EXISTS (SELECT FROM pg_constraint same WHERE same.oid = k.conparentid AND same.conrelid = k.conrelid)),
locked (oid, mode) AS (
  SELECT oid, mode FROM attached
  UNION ALL SELECT oid, 3 FROM written
  -- What is referred to is locked row by row, and what refers is looked at.
  UNION ALL SELECT CASE k.conrelid WHEN w.oid THEN k.confrelid ELSE k.conrelid END, 2
  FROM written w JOIN pg_constraint k ON k.contype = 'f' AND coalesce(to_jsonb(k) ->> 'conenforced', 'true')::bool
    AND (k.conrelid = w.oid AND (w.verb IN ('insert', 'any') OR w.verb = 'update' AND k.conkey && w.columns)
      OR k.confrelid = w.oid AND (w.verb IN ('delete', 'any') OR w.verb = 'update' AND k.confkey && w.columns))
  WHERE NOT EXISTS (SELECT FROM pg_constraint same WHERE same.oid = k.conparentid AND same.conrelid = k.conrelid)
  UNION ALL SELECT oid, mode FROM named WHERE reach NOT IN ('tree', 'indexes', 'partners', 'referenced', 'sequence')
  UNION ALL SELECT oid, mode FROM tree
  UNION ALL SELECT oid, mode FROM referencing
  UNION ALL SELECT oid, mode FROM gone
  UNION ALL SELECT r.oid, 1 FROM read r
  UNION ALL SELECT i.indrelid, m.other FROM named m JOIN pg_index i ON m.reach = 'index' AND i.indexrelid = m.oid
  UNION ALL SELECT m.oid, m.other FROM named m WHERE m.reach = 'indexes'
  UNION ALL SELECT i.indexrelid, m.mode FROM named m JOIN pg_index i ON m.reach = 'indexes' AND i.indrelid = m.oid
  UNION ALL SELECT d.objid, m.mode FROM named m
    JOIN pg_depend d ON m.reach = 'owned' AND d.refclassid = 'pg_class'::regclass AND d.refobjid = m.oid AND d.classid = d.refclassid
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' WHERE d.deptype IN ('a', 'i')
  UNION ALL SELECT d.objid, m.mode FROM named m
    JOIN pg_attribute a ON m.reach = 'sequence' AND a.attrelid = m.oid AND a.attname = m.argument
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = m.oid AND d.refobjsubid = a.attnum AND d.classid = d.refclassid
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' WHERE d.deptype IN ('a', 'i')
  -- A partition that is dropped takes the lock on its parent, and on the default partition, whose rows it could now hold.
  UNION ALL SELECT unnest(ARRAY[i.inhparent, p.partdefid]), 8 FROM named m
    JOIN pg_class c ON m.reach = 'dropped' AND c.oid = m.oid AND c.relispartition
    JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
  UNION ALL SELECT p.partdefid, 8 FROM named m JOIN pg_partitioned_table p ON m.reach = 'default' AND p.partrelid = m.oid
  UNION ALL SELECT c.confrelid, m.mode FROM named m
    JOIN pg_constraint c ON m.reach = 'referenced' AND c.conrelid = m.oid AND c.conname = m.argument AND c.contype = 'f'
  UNION ALL SELECT CASE c.conrelid WHEN m.oid THEN c.confrelid ELSE c.conrelid END, 8
  FROM named m JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = m.argument
  JOIN pg_constraint c ON c.contype = 'f'
    AND (c.conrelid = m.oid AND a.attnum = ANY (c.conkey) OR c.confrelid = m.oid AND a.attnum = ANY (c.confkey))
  WHERE m.reach = 'partners'),
strongest AS (SELECT oid, max(mode) AS mode FROM locked WHERE oid > 0 GROUP BY oid)
SELECT n.nspname::text, c.relname::text, s.mode
FROM strongest s
JOIN pg_class c ON c.oid = s.oid AND c.relkind NOT IN ('t', 'c')
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'pg_toast'
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN strongest t ON t.oid = i.indrelid
WHERE t.mode IS NULL OR t.mode < s.mode
ORDER BY s.mode DESC, n.nspname, c.relname
