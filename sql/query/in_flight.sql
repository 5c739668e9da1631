-- Every object that migrations under way rely on, in this very database ($1: not in a copy of it), with what people call it, and
-- whether new partitions of it are taken along.
WITH moving AS (
  SELECT m.id, m.state, m.owner_name FROM _transmute.migrations m
  WHERE m.queued AND m.home = $1 AND m.state <> 'UNINITIALIZED'
    -- What is only kept for an undo may be changed: the undo is refused then.
    AND (m.state <> 'FINISHED' OR m.undo_reason IS NOT NULL AND m.undone_at IS NULL)
),
named (migration_id, name) AS (
  -- What a step is only to make is not ours yet.
  SELECT s.migration_id, s.target FROM _transmute.steps s WHERE s.status = 'done' OR s.revert_sql IS NULL OR s.revert_sql NOT LIKE 'DROP %'
  UNION SELECT s.migration_id, l ->> 'relation' FROM _transmute.steps s, jsonb_array_elements(s.detail -> 'locks') l
  WHERE l ->> 'mode' IN ('SHARE UPDATE EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE')
),
work_schemas (migration_id, oid) AS (
  SELECT s.migration_id, n.oid
  FROM (SELECT migration_id, unnest(ARRAY[new_schema, old_schema, format('_transmute_%s_views', id)]::name[]) AS name
          FROM _transmute.rewrites
        UNION ALL SELECT migration_id, work_schema FROM _transmute.backfills WHERE finished_at IS NULL) s
  JOIN pg_namespace n ON n.nspname = s.name
),
chosen (migration_id, oid) AS (
  SELECT migration_id, relation FROM _transmute.rewrites
  UNION SELECT migration_id, unnest(ARRAY[relation, target]) FROM _transmute.backfills WHERE finished_at IS NULL
  UNION SELECT migration_id, matview FROM _transmute.mirrors
  UNION SELECT n.migration_id, c.oid FROM named n JOIN moving m ON m.id = n.migration_id
  JOIN pg_class c ON c.oid = _transmute.relation_named(n.name)
  -- Views that are only locked are taken away and put back as they are then: people may change them.
  WHERE c.relkind <> 'v' OR EXISTS (SELECT FROM _transmute.steps s WHERE s.migration_id = n.migration_id AND s.target = n.name)
  UNION SELECT w.migration_id, c.oid FROM work_schemas w JOIN pg_class c ON c.relnamespace = w.oid
),
-- The table of an index, the table behind a view that stands in its place.
relations (migration_id, oid) AS (
  SELECT c.migration_id, c.oid FROM chosen c WHERE c.oid IS NOT NULL
  UNION SELECT c.migration_id, i.indrelid FROM chosen c JOIN pg_index i ON i.indexrelid = c.oid
  UNION SELECT c.migration_id, d.refobjid
  FROM chosen c JOIN pg_class v ON v.oid = c.oid AND v.relkind = 'v' AND starts_with(obj_description(v.oid, 'pg_class'), $2)
  JOIN pg_rewrite r ON r.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
),
objects (migration_id, class, oid, relation) AS (
  SELECT migration_id, 'pg_class'::regclass::oid, oid, oid FROM relations
  UNION SELECT r.migration_id, 'pg_class'::regclass, i.indexrelid, r.oid FROM relations r JOIN pg_index i ON i.indrelid = r.oid
  UNION SELECT r.migration_id, 'pg_trigger'::regclass, t.oid, r.oid FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
  UNION SELECT r.migration_id, 'pg_constraint'::regclass, c.oid, r.oid FROM relations r JOIN pg_constraint c ON c.conrelid = r.oid
  UNION SELECT r.migration_id, 'pg_policy'::regclass, p.oid, r.oid FROM relations r JOIN pg_policy p ON p.polrelid = r.oid
  UNION SELECT r.migration_id, 'pg_rewrite'::regclass, w.oid, r.oid FROM relations r JOIN pg_rewrite w ON w.ev_class = r.oid
  UNION SELECT migration_id, 'pg_namespace'::regclass, oid, NULL FROM work_schemas
  UNION SELECT r.migration_id, 'pg_namespace'::regclass, c.relnamespace, r.oid FROM relations r JOIN pg_class c ON c.oid = r.oid
)
SELECT o.class, o.oid, coalesce(quote_ident(n.nspname) || '.' || quote_ident(c.relname), s.nspname::text), m.id, m.state, m.owner_name::text,
  coalesce(c.relkind = 'p' AND NOT EXISTS (SELECT FROM _transmute.rewrites w WHERE w.migration_id = m.id AND w.successor IS NULL), false)
FROM objects o
JOIN moving m ON m.id = o.migration_id
LEFT JOIN pg_class c ON c.oid = o.relation
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_namespace s ON o.class = 'pg_namespace'::regclass AND s.oid = o.oid
WHERE c.oid IS NOT NULL OR s.oid IS NOT NULL
