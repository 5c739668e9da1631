-- What stands in the way of ALTER TABLE … ALTER COLUMN … TYPE, and the SQL that takes it away and puts it back.
-- The server deparses everything itself; what it prints is to be parsed again under the same search_path
-- (pg_catalog, pg_temp), where every other name comes out qualified, and under the same
-- standard_conforming_strings, which is the caller's.

CREATE FUNCTION _transmute.relation_name(relation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.oid = relation_name.relation
$$;
COMMENT ON FUNCTION _transmute.relation_name(oid) IS 'Name of a relation, always qualified, quoted where it must be.';

CREATE FUNCTION _transmute.role_name(role oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN role_name.role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role_name.role)) END
$$;
COMMENT ON FUNCTION _transmute.role_name(oid) IS 'Name of a role as SQL; 0 is PUBLIC.';

CREATE FUNCTION _transmute.identity_text(class oid, object oid, column_number integer) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  -- Says what pg_describe_object says, but with every name qualified and whatever lc_messages is.
  SELECT format('%s %s', i.type, i.identity)
  FROM pg_identify_object(identity_text.class, identity_text.object, identity_text.column_number) AS i
$$;
COMMENT ON FUNCTION _transmute.identity_text(oid, oid, integer) IS 'Kind and name of an object, for people.';

CREATE FUNCTION _transmute.grant_sql(relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH rel AS (
    -- ALTER DEFAULT PRIVILEGES of whoever runs the CREATE would show on the new relation.
    SELECT c.oid, c.relowner, c.relacl, _transmute.relation_name(c.oid) AS name, presets.grantees
    FROM pg_class AS c
    CROSS JOIN LATERAL (
      SELECT array_agg(DISTINCT e.grantee) AS grantees, count(d.oid) > 0 AS some
      FROM pg_default_acl AS d LEFT JOIN LATERAL aclexplode(d.defaclacl) AS e ON e.grantee <> c.relowner
      WHERE d.defaclobjtype = 'r' AND d.defaclnamespace IN (0, c.relnamespace)
    ) AS presets
    WHERE c.oid = grant_sql.relation AND (
      c.relacl IS NOT NULL OR presets.some
      OR EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL))
  ),
  acls (attnum, place, item, target) AS (
    -- In the order of each list: nobody passes on what was not granted to him before.
    SELECT 0::smallint, i.place, i.item, ''
    FROM rel, unnest(coalesce(rel.relacl, acldefault('r', rel.relowner))) WITH ORDINALITY AS i (item, place)
    UNION ALL
    SELECT a.attnum, i.place, i.item, format(' (%I)', a.attname)
    FROM rel JOIN pg_attribute AS a ON a.attrelid = rel.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped,
      unnest(a.attacl) WITH ORDINALITY AS i (item, place)
  ),
  grants AS (
    SELECT acls.attnum, acls.place, e.grantor, e.grantee, e.is_grantable,
      string_agg(e.privilege_type || acls.target, ', ' ORDER BY e.privilege_type COLLATE "C") AS privileges
    FROM acls, aclexplode(ARRAY[acls.item]) AS e
    GROUP BY acls.attnum, acls.place, e.grantor, e.grantee, e.is_grantable
  ),
  statements (attnum, place, step, sql) AS (
    SELECT 0, 0, 0, format('REVOKE ALL ON TABLE %s FROM %s', rel.name, (
      SELECT string_agg(_transmute.role_name(o), ', ' ORDER BY o)
      FROM unnest(rel.relowner || rel.grantees) AS o WHERE o IS NOT NULL))
    FROM rel
    UNION
    -- Nobody but the grantor himself can make a privilege that he granted.
    SELECT g.attnum, g.place, 1, 'SET LOCAL ROLE ' || _transmute.role_name(g.grantor)
    FROM rel, grants AS g WHERE g.grantor <> rel.relowner
    UNION
    SELECT g.attnum, g.place, 2, format('GRANT %s ON TABLE %s TO %s%s', g.privileges, rel.name, _transmute.role_name(g.grantee),
      CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM rel, grants AS g
    UNION
    SELECT g.attnum, g.place, 3, format('SET LOCAL ROLE %I', current_setting('role'))
    FROM rel, grants AS g WHERE g.grantor <> rel.relowner
  )
  SELECT coalesce(array_agg(s.sql ORDER BY s.attnum, s.place, s.step, s.sql COLLATE "C"), '{}') FROM statements AS s
$$;
COMMENT ON FUNCTION _transmute.grant_sql(oid) IS 'Statements that give a relation made anew the privileges, also on columns, that it has now. SET LOCAL ROLE is among them only where somebody other than the owner granted something.';

CREATE FUNCTION _transmute.trigger_state_sql(trigger oid, alone boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('ALTER TABLE %s%s %s TRIGGER %I', CASE WHEN alone THEN 'ONLY ' ELSE '' END, _transmute.relation_name(t.tgrelid),
    CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, t.tgname)
  FROM pg_trigger AS t
  WHERE t.oid = trigger_state_sql.trigger
$$;
COMMENT ON FUNCTION _transmute.trigger_state_sql(oid, boolean) IS 'Statement that sets when a trigger made anew fires; alone: not its copies on partitions.';

CREATE FUNCTION _transmute.trigger_sql(trigger oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(
    ARRAY[
      pg_get_triggerdef(t.oid),
      CASE WHEN t.tgenabled <> 'O' THEN _transmute.trigger_state_sql(t.oid, false) END
    ] || ARRAY(
      -- The copies on partitions, where somebody switched one by itself.
      SELECT _transmute.trigger_state_sql(copy.oid, true)
      FROM pg_partition_tree(t.tgrelid) AS p
      JOIN pg_trigger AS copy ON copy.tgrelid = p.relid AND copy.tgname = t.tgname AND copy.tgparentid <> 0
      WHERE copy.tgenabled <> t.tgenabled
      ORDER BY p.level, p.relid
    ) || ARRAY(
      SELECT format('ALTER TRIGGER %I ON %s DEPENDS ON EXTENSION %I', t.tgname, _transmute.relation_name(t.tgrelid), e.extname)
      FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
      WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'
      ORDER BY e.extname
    ) || ARRAY[
      format('COMMENT ON TRIGGER %I ON %s IS ', t.tgname, _transmute.relation_name(t.tgrelid))
        || quote_literal(obj_description(t.oid, 'pg_trigger')),
      format('COMMENT ON CONSTRAINT %I ON %s IS ', t.tgname, _transmute.relation_name(t.tgrelid))
        || quote_literal(obj_description(nullif(t.tgconstraint, 0), 'pg_constraint'))
    ], NULL)
  FROM pg_trigger AS t
  WHERE t.oid = trigger_sql.trigger
$$;
COMMENT ON FUNCTION _transmute.trigger_sql(oid) IS 'Statements that make a trigger again.';

CREATE FUNCTION _transmute.rule_sql(rule oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(ARRAY[
    pg_get_ruledef(r.oid),
    CASE WHEN r.ev_enabled <> 'O' THEN format('ALTER TABLE %s %s RULE %I', _transmute.relation_name(r.ev_class),
      CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' END, r.rulename) END,
    format('COMMENT ON RULE %I ON %s IS ', r.rulename, _transmute.relation_name(r.ev_class))
      || quote_literal(obj_description(r.oid, 'pg_rewrite'))
  ], NULL)
  FROM pg_rewrite AS r
  WHERE r.oid = rule_sql.rule
$$;
COMMENT ON FUNCTION _transmute.rule_sql(oid) IS 'Statements that make a rule again.';

CREATE FUNCTION _transmute.policy_sql(policy oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(ARRAY[
    concat(
      format('CREATE POLICY %I ON %s AS %s FOR %s TO ', p.polname, _transmute.relation_name(p.polrelid),
        CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END),
      (SELECT string_agg(_transmute.role_name(o), ', ' ORDER BY place) FROM unnest(p.polroles) WITH ORDINALITY AS r (o, place)),
      ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
      ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'),
    format('COMMENT ON POLICY %I ON %s IS ', p.polname, _transmute.relation_name(p.polrelid))
      || quote_literal(obj_description(p.oid, 'pg_policy'))
  ], NULL)
  FROM pg_policy AS p
  WHERE p.oid = policy_sql.policy
$$;
COMMENT ON FUNCTION _transmute.policy_sql(oid) IS 'Statements that make a row security policy again.';

CREATE FUNCTION _transmute.view_sql(view oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(
    ARRAY[
      concat(
        'CREATE VIEW ' || v.name,
        (
          SELECT ' WITH (' || string_agg(
            format('%I = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ' ORDER BY place) || ')'
          FROM unnest(v.reloptions) WITH ORDINALITY AS u (o, place)),
        E' AS\n' || pg_get_viewdef(v.oid)),
      format('ALTER VIEW %s OWNER TO %s', v.name, _transmute.role_name(v.relowner))
    ] || ARRAY(
      SELECT format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', v.name, a.attname, pg_get_expr(def.adbin, def.adrelid))
      FROM pg_attrdef AS def JOIN pg_attribute AS a ON a.attrelid = def.adrelid AND a.attnum = def.adnum
      WHERE def.adrelid = v.oid
      ORDER BY def.adnum
    ) || ARRAY(
      SELECT statement
      FROM pg_trigger AS t, unnest(_transmute.trigger_sql(t.oid)) WITH ORDINALITY AS s (statement, place)
      WHERE t.tgrelid = v.oid AND NOT t.tgisinternal
      ORDER BY t.tgname, s.place
    ) || ARRAY[
      'COMMENT ON VIEW ' || v.name || ' IS ' || quote_literal(obj_description(v.oid, 'pg_class'))
    ] || ARRAY(
      SELECT format('COMMENT ON COLUMN %s.%I IS %L', v.name, a.attname, d.description)
      FROM pg_description AS d JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
      WHERE d.objoid = v.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0
      ORDER BY a.attnum
    ) || ARRAY(
      SELECT format('SECURITY LABEL FOR %I ON %s IS %L', l.provider,
        coalesce('COLUMN ' || v.name || '.' || quote_ident(a.attname), 'VIEW ' || v.name), l.label)
      FROM pg_seclabel AS l LEFT JOIN pg_attribute AS a ON l.objsubid > 0 AND a.attrelid = l.objoid AND a.attnum = l.objsubid
      WHERE l.objoid = v.oid AND l.classoid = 'pg_class'::regclass
      ORDER BY l.objsubid, l.provider
    ) || _transmute.grant_sql(v.oid), NULL)
  FROM (SELECT c.oid, c.relowner, c.reloptions, _transmute.relation_name(c.oid) AS name FROM pg_class AS c) AS v
  WHERE v.oid = view_sql.view
$$;
COMMENT ON FUNCTION _transmute.view_sql(oid) IS 'Statements that make a view again, all but its rules.';

CREATE FUNCTION _transmute.publication_sql(member oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT ARRAY[concat(
    format('ALTER PUBLICATION %I ADD TABLE ONLY %s', p.pubname, _transmute.relation_name(m.prrelid)),
    (
      SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')'
      FROM pg_attribute AS a WHERE a.attrelid = m.prrelid AND a.attnum = ANY (m.prattrs::smallint[])),
    ' WHERE (' || pg_get_expr(m.prqual, m.prrelid) || ')')]
  FROM pg_publication_rel AS m JOIN pg_publication AS p ON p.oid = m.prpubid
  WHERE m.oid = publication_sql.member
$$;
COMMENT ON FUNCTION _transmute.publication_sql(oid) IS 'Statement that puts a table back into a publication.';

CREATE FUNCTION _transmute.foreign_key_sql(foreign_key oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(ARRAY[
    format('ALTER TABLE %s%s ADD CONSTRAINT %I %s%s', CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END,
      _transmute.relation_name(c.oid), con.conname, pg_get_constraintdef(con.oid),
      -- The server prints NOT VALID or NOT ENFORCED itself where it is so.
      CASE WHEN con.convalidated THEN ' NOT VALID' ELSE '' END),
    format('COMMENT ON CONSTRAINT %I ON %s IS ', con.conname, _transmute.relation_name(c.oid))
      || quote_literal(obj_description(con.oid, 'pg_constraint'))
  ], NULL)
  FROM pg_constraint AS con JOIN pg_class AS c ON c.oid = con.conrelid
  WHERE con.oid = foreign_key_sql.foreign_key
$$;
COMMENT ON FUNCTION _transmute.foreign_key_sql(oid) IS 'Statements that make a foreign key again, not validated.';

CREATE FUNCTION _transmute.dependents(relation oid, columns smallint[])
RETURNS TABLE (
  depth integer,
  kind text,
  identity text,
  relation_oid oid,
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
    JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind = 'v'
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
      -- A column of a view that has the row type: the rule of that view hangs on it as well.
      AND NOT EXISTS (
        SELECT FROM pg_class AS other WHERE d.classid = 'pg_class'::regclass AND other.oid = d.objid AND other.relkind = 'v')
  ),
  deepest AS MATERIALIZED (
    SELECT nodes.classid, nodes.objid, max(nodes.depth) AS depth FROM nodes GROUP BY nodes.classid, nodes.objid
  ),
  found (depth, kind, classid, objid, objsubid, relation_oid) AS (
    SELECT n.depth,
      -- Temporary objects are other sessions' and cannot be made again from here; an extension holds on to its views.
      CASE WHEN c.relpersistence = 't' OR n.depth >= 200 THEN 'unsupported'
        WHEN r.rulename <> '_RETURN' THEN 'rule'
        WHEN c.relkind = 'v' AND NOT EXISTS (
          SELECT FROM pg_depend AS d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
        THEN 'view'
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
    SELECT n.depth, 'unsupported', n.classid, n.objid, 0, NULL
    FROM deepest AS n
    WHERE n.classid NOT IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_publication_rel'::regclass,
        'pg_constraint'::regclass, 'pg_statistic_ext'::regclass)
      -- Expressions of generated columns: taken away and given back with the ALTER itself.
      AND NOT (n.classid = 'pg_attrdef'::regclass AND n.depth = 1)
      -- Indexes and sequences of the table itself; deeper down it is a column of some other relation.
      AND NOT (n.classid = 'pg_class'::regclass AND n.depth = 1)
    UNION ALL
    SELECT DISTINCT 1, 'unsupported', 'pg_class'::regclass::oid, t.stored_in, t.attnum, t.stored_in
    FROM row_types AS t WHERE t.stored_in IS NOT NULL
  )
  SELECT f.depth, f.kind, i.identity, f.relation_oid,
    CASE f.kind
      WHEN 'view' THEN ARRAY['DROP VIEW ' || _transmute.relation_name(f.objid)]
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
