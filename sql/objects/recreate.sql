-- The SQL that makes an object again as it is. The server deparses everything itself; what it prints is to be parsed
-- again under the same search_path (pg_catalog, pg_temp), where every other name comes out qualified, and under the same
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
