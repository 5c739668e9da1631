-- What stands in the way of ALTER TABLE … ALTER COLUMN … TYPE, and the SQL that takes it away and puts it back.

CREATE FUNCTION _transmute.dependents(relation oid, columns smallint[])
RETURNS TABLE (
  depth integer,
  kind text,
  identity text,
  relation_oid oid,
  object_oid oid,
  drop_sql text[],
  create_sql text[],
  validate_sql text[],
  constraint_name text
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
  WITH RECURSIVE family (oid) AS (
    -- ALTER goes down to partitions and children, whose attribute numbers are their own.
    SELECT dependents.relation
    UNION
    SELECT h.inhrelid FROM family JOIN pg_inherits AS h ON h.inhparent = family.oid
  ),
  targets AS MATERIALIZED (
    SELECT a.attrelid, a.attnum
    FROM pg_attribute AS own
    CROSS JOIN family
    JOIN pg_attribute AS a ON a.attrelid = family.oid AND a.attname = own.attname AND NOT a.attisdropped
    WHERE own.attrelid = dependents.relation AND own.attnum = ANY (dependents.columns) AND NOT own.attisdropped
  ),
  direct (classid, objid) AS MATERIALIZED (
    SELECT DISTINCT d.classid, d.objid
    FROM targets
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = targets.attrelid AND d.refobjsubid = targets.attnum
    -- A default, or the expression of a generated column, hangs on its own column too: that one does not matter.
    WHERE NOT EXISTS (
      SELECT FROM pg_attrdef AS def
      WHERE d.classid = 'pg_attrdef'::regclass AND def.oid = d.objid AND def.adrelid = d.refobjid AND def.adnum = d.refobjsubid)
  ),
  row_types (oid, stored_in, attnum) AS (
    -- Another table that stores whole rows of this one, in whatever wrapping: no ALTER can convert those.
    SELECT c.reltype, NULL::oid, NULL::integer
    FROM targets JOIN pg_class AS c ON c.oid = targets.attrelid AND c.reltype <> 0
    UNION
    SELECT CASE WHEN d.classid = 'pg_type'::regclass THEN d.objid WHEN c.relkind NOT IN ('r', 'm', 'p') THEN c.reltype END,
      CASE WHEN c.relkind IN ('r', 'm', 'p') THEN c.oid END,
      CASE WHEN c.relkind IN ('r', 'm', 'p') THEN d.objsubid END
    FROM row_types AS t
    JOIN pg_depend AS d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = t.oid
      AND (d.classid = 'pg_type'::regclass OR d.classid = 'pg_class'::regclass AND d.objsubid > 0)
    LEFT JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
  ),
  nodes (classid, objid, depth) AS (
    SELECT direct.classid, direct.objid, 1 FROM direct
    UNION
    -- What uses a view that must go. Depth is bounded because OR REPLACE lets people write views that use each other.
    SELECT d.classid, d.objid, nodes.depth + 1
    FROM nodes
    JOIN pg_rewrite AS r ON nodes.classid = 'pg_rewrite'::regclass AND r.oid = nodes.objid AND r.rulename = '_RETURN'
    JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
    JOIN pg_type AS row_type ON row_type.oid = v.reltype
    CROSS JOIN LATERAL (
      VALUES ('pg_class'::regclass, v.oid), ('pg_type'::regclass, row_type.oid), ('pg_type'::regclass, row_type.typarray)
    ) AS part (classid, objid)
    JOIN pg_depend AS d ON d.refclassid = part.classid AND d.refobjid = part.objid
    WHERE nodes.depth < 200
      AND d.deptype <> 'i'
      AND NOT (d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid)
      -- Triggers and defaults of the view come back with it.
      AND NOT (d.refclassid = 'pg_class'::regclass AND d.classid IN ('pg_trigger'::regclass, 'pg_attrdef'::regclass))
      -- A column of a view that has the row type: the rule of that view hangs on it as well. Indexes come back with a
      -- materialized view.
      AND NOT EXISTS (
        SELECT FROM pg_class AS other
        WHERE d.classid = 'pg_class'::regclass AND other.oid = d.objid AND other.relkind IN ('v', 'm', 'i'))
  ),
  deepest AS MATERIALIZED (
    SELECT nodes.classid, nodes.objid, max(nodes.depth) AS depth FROM nodes GROUP BY nodes.classid, nodes.objid
  ),
  found (depth, kind, classid, objid, objsubid, relation_oid) AS (
    SELECT n.depth,
      -- Temporary objects are other sessions' and cannot be made again from here; an extension holds on to its views.
      CASE WHEN c.relpersistence = 't' OR n.depth >= 200 THEN 'unsupported'
        WHEN r.rulename <> '_RETURN' THEN 'rule'
        WHEN c.relkind IN ('v', 'm') AND NOT EXISTS (
          SELECT FROM pg_depend AS d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
        THEN CASE c.relkind WHEN 'v' THEN 'view' ELSE 'matview' END
        ELSE 'unsupported' END,
      CASE WHEN r.rulename = '_RETURN' THEN 'pg_class'::regclass ELSE n.classid END,
      CASE WHEN r.rulename = '_RETURN' THEN c.oid ELSE n.objid END,
      0,
      c.oid
    FROM deepest AS n
    JOIN pg_rewrite AS r ON r.oid = n.objid
    JOIN pg_class AS c ON c.oid = r.ev_class
    WHERE n.classid = 'pg_rewrite'::regclass
    UNION ALL
    SELECT n.depth, CASE WHEN c.relpersistence = 't' OR n.depth >= 200 THEN 'unsupported' ELSE 'policy' END, n.classid, n.objid, 0, c.oid
    FROM deepest AS n JOIN pg_policy AS p ON p.oid = n.objid JOIN pg_class AS c ON c.oid = p.polrelid
    WHERE n.classid = 'pg_policy'::regclass
    UNION ALL
    SELECT n.depth, 'trigger', n.classid, n.objid, 0, t.tgrelid
    FROM deepest AS n
    JOIN pg_trigger AS t ON t.oid = n.objid AND NOT t.tgisinternal AND t.tgparentid = 0 AND NOT starts_with(t.tgname::text, '_transmute_')
    WHERE n.classid = 'pg_trigger'::regclass
    UNION ALL
    SELECT n.depth, 'publication', n.classid, n.objid, 0, m.prrelid
    FROM deepest AS n JOIN pg_publication_rel AS m ON m.oid = n.objid
    WHERE n.classid = 'pg_publication_rel'::regclass
    UNION ALL
    SELECT n.depth,
      CASE WHEN c.relkind = 'p' AND current_setting('server_version_num')::integer < 180000 THEN 'unsupported' ELSE 'foreign_key' END,
      n.classid, n.objid, 0,
      CASE WHEN con.conrelid IN (SELECT family.oid FROM family) THEN con.confrelid ELSE con.conrelid END
    FROM deepest AS n
    JOIN pg_constraint AS con ON con.oid = n.objid AND con.contype = 'f' AND con.conparentid = 0
    JOIN pg_class AS c ON c.oid = con.conrelid
    WHERE n.classid = 'pg_constraint'::regclass
    UNION ALL
    SELECT n.depth,
      -- A signature cannot do without the type of a view that goes.
      CASE WHEN p.prosqlbody IS NULL THEN 'unsupported'
        WHEN _transmute.function_head(p.oid) IS NULL OR EXISTS (
          SELECT FROM deepest AS other
          JOIN pg_rewrite AS r ON r.oid = other.objid
          JOIN pg_class AS c ON c.oid = r.ev_class
          JOIN pg_type AS t ON t.oid = c.reltype
          WHERE other.classid = 'pg_rewrite'::regclass
            AND ARRAY[t.oid, t.typarray] && (p.prorettype || p.proargtypes::oid[] || coalesce(p.proallargtypes, '{}')))
        THEN 'unsupported' ELSE 'function' END,
      n.classid, n.objid, 0, NULL
    FROM deepest AS n JOIN pg_proc AS p ON p.oid = n.objid
    WHERE n.classid = 'pg_proc'::regclass
    UNION ALL
    SELECT n.depth, 'unsupported', n.classid, n.objid, 0, NULL
    FROM deepest AS n
    WHERE n.classid NOT IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_publication_rel'::regclass,
        'pg_constraint'::regclass, 'pg_statistic_ext'::regclass, 'pg_proc'::regclass)
      -- Expressions of generated columns: taken away and given back with the ALTER itself.
      AND NOT (n.classid = 'pg_attrdef'::regclass AND n.depth = 1)
      -- Indexes and sequences of the table itself; deeper down it is a column of some other relation.
      AND NOT (n.classid = 'pg_class'::regclass AND n.depth = 1)
    UNION ALL
    SELECT DISTINCT 1, 'unsupported', 'pg_class'::regclass::oid, t.stored_in, t.attnum, t.stored_in
    FROM row_types AS t WHERE t.stored_in IS NOT NULL
  )
  SELECT f.depth, f.kind, i.identity, f.relation_oid, f.objid,
    CASE f.kind
      WHEN 'view' THEN ARRAY['DROP VIEW ' || _transmute.relation_name(f.objid)]
      WHEN 'matview' THEN ARRAY['DROP MATERIALIZED VIEW ' || _transmute.relation_name(f.objid)]
      WHEN 'function' THEN _transmute.function_stub_sql(f.objid)
      WHEN 'rule' THEN (
        SELECT ARRAY[format('DROP RULE %I ON %s', r.rulename, _transmute.relation_name(r.ev_class))]
        FROM pg_rewrite AS r WHERE r.oid = f.objid)
      WHEN 'policy' THEN (
        SELECT ARRAY[format('DROP POLICY %I ON %s', p.polname, _transmute.relation_name(p.polrelid))]
        FROM pg_policy AS p WHERE p.oid = f.objid)
      WHEN 'trigger' THEN (
        SELECT ARRAY[format('DROP TRIGGER %I ON %s', t.tgname, _transmute.relation_name(t.tgrelid))]
        FROM pg_trigger AS t WHERE t.oid = f.objid)
      WHEN 'publication' THEN (
        SELECT ARRAY[format('ALTER PUBLICATION %I DROP TABLE ONLY %s', p.pubname, _transmute.relation_name(m.prrelid))]
        FROM pg_publication_rel AS m JOIN pg_publication AS p ON p.oid = m.prpubid WHERE m.oid = f.objid)
      WHEN 'foreign_key' THEN (
        SELECT ARRAY[format('ALTER TABLE %s DROP CONSTRAINT %I', _transmute.relation_name(con.conrelid), con.conname)]
        FROM pg_constraint AS con WHERE con.oid = f.objid)
    END,
    CASE f.kind
      WHEN 'view' THEN _transmute.view_sql(f.objid)
      WHEN 'matview' THEN _transmute.matview_sql(f.objid)
      WHEN 'function' THEN _transmute.function_sql(f.objid)
      WHEN 'rule' THEN _transmute.rule_sql(f.objid)
      WHEN 'policy' THEN _transmute.policy_sql(f.objid)
      WHEN 'trigger' THEN _transmute.trigger_sql(f.objid)
      WHEN 'publication' THEN _transmute.publication_sql(f.objid)
      WHEN 'foreign_key' THEN _transmute.foreign_key_sql(f.objid)
    END,
    CASE f.kind
      WHEN 'foreign_key' THEN ARRAY(
        SELECT format('ALTER TABLE %s VALIDATE CONSTRAINT %I', _transmute.relation_name(con.conrelid), con.conname)
        FROM pg_constraint AS con WHERE con.oid = f.objid AND con.convalidated)
    END,
    CASE f.kind WHEN 'foreign_key' THEN (SELECT con.conname::text FROM pg_constraint AS con WHERE con.oid = f.objid) END
  FROM found AS f CROSS JOIN LATERAL _transmute.identity_text(f.classid, f.objid, f.objsubid) AS i (identity)
  ORDER BY f.depth, f.kind COLLATE "C", i.identity COLLATE "C"
$$;
COMMENT ON FUNCTION _transmute.dependents(oid, smallint[]) IS 'Everything that makes ALTER TABLE … ALTER COLUMN … TYPE on these columns fail, or costs it a scan (foreign keys), with SQL to drop it (by descending depth), to make it again (by ascending depth) and, for foreign keys that were valid, to validate it. The kind unsupported has no SQL: the ALTER cannot be done around it.';
