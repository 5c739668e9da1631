-- What the catalogs say of a table, as text. Two texts are compared with each other, often from different
-- sessions and days, so everything that changes how the server prints an expression is pinned at the function.
-- Planner settings are pinned as well: catalogs seldom have good statistics, and one scan of pg_depend or
-- pg_attribute costs more than all index look-ups together.

CREATE FUNCTION _transmute.acl_text(acl aclitem[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(string_agg(entry, ' ' ORDER BY entry COLLATE "C"), 'nobody')
  FROM (
    SELECT format('%s=%s/%s',
      CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
      string_agg(e.privilege_type || CASE WHEN e.is_grantable THEN '*' ELSE '' END, ',' ORDER BY e.privilege_type COLLATE "C"),
      quote_ident(pg_get_userbyid(e.grantor))) AS entry
    FROM aclexplode(acl) AS e
    GROUP BY e.grantee, e.grantor
  ) AS entries
$$;
COMMENT ON FUNCTION _transmute.acl_text(aclitem[]) IS 'An access control list as sorted text, grantable privileges starred: the order in which privileges were granted does not show.';

CREATE FUNCTION _transmute.fingerprint(relation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET bytea_output = 'hex'
SET extra_float_digits = 1
SET lc_monetary = 'C'
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
  WITH RECURSIVE tree (oid) AS (
    -- The table, the views and materialized views on it, those on them, and so on. Temporary views come and go
    -- with other people's sessions and are no part of the schema.
    SELECT c.oid FROM pg_class AS c WHERE c.oid = fingerprint.relation
    UNION
    SELECT r.ev_class
    FROM tree
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = tree.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS r ON r.oid = d.objid AND r.rulename = '_RETURN'
    JOIN pg_class AS c ON c.oid = r.ev_class AND c.relpersistence <> 't'
  ),
  rel AS MATERIALIZED (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name
    FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  ),
  users AS MATERIALIZED (
    -- Rules and policies, on these relations or elsewhere, that mention one of them.
    SELECT DISTINCT d.classid, d.objid
    FROM rel
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = rel.oid
      AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)
  ),
  facts (object, fact, value) AS (
    SELECT rel.name, f.fact, f.value
    FROM rel
    CROSS JOIN LATERAL (VALUES
      ('kind', rel.relkind::text),
      ('owner', pg_get_userbyid(rel.relowner)::text),
      ('access method', (SELECT m.amname::text FROM pg_am AS m WHERE m.oid = rel.relam)),
      ('tablespace', (SELECT s.spcname::text FROM pg_tablespace AS s WHERE s.oid = rel.reltablespace)),
      ('persistence', rel.relpersistence::text),
      ('options', (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(rel.reloptions) AS o)),
      ('toast options', (
        SELECT string_agg(o, ', ' ORDER BY o COLLATE "C")
        FROM pg_class AS toast, unnest(toast.reloptions) AS o WHERE toast.oid = rel.reltoastrelid)),
      ('privileges', _transmute.acl_text(coalesce(rel.relacl, acldefault('r', rel.relowner)))),
      ('row security', rel.relrowsecurity::text),
      ('force row security', rel.relforcerowsecurity::text),
      ('replica identity', rel.relreplident::text),
      ('replica identity index', (
        SELECT i.relname::text FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
        WHERE x.indrelid = rel.oid AND x.indisreplident)),
      ('of type', CASE WHEN rel.reloftype <> 0 THEN format_type(rel.reloftype, NULL) END),
      ('partition key', CASE WHEN rel.relkind = 'p' THEN pg_get_partkeydef(rel.oid) END),
      ('partition bound', pg_get_expr(rel.relpartbound, rel.oid)),
      ('definition', CASE WHEN rel.relkind IN ('v', 'm') THEN pg_get_viewdef(rel.oid) END),
      ('populated', CASE WHEN rel.relkind = 'm' THEN rel.relispopulated::text END),
      ('extension', (
        SELECT string_agg(quote_ident(e.extname), ', ' ORDER BY e.extname)
        FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x'))),
      ('comment', obj_description(rel.oid, 'pg_class'))
    ) AS f (fact, value)

    UNION ALL
    SELECT rel.name, format('security label %s %s', l.objsubid, quote_ident(l.provider)), l.label
    FROM rel JOIN pg_seclabel AS l ON l.objoid = rel.oid AND l.classoid = 'pg_class'::regclass

    UNION ALL
    SELECT format('%s column %s %s', rel.name, lpad(a.attnum::text, 4, '0'), quote_ident(a.attname)), f.fact, f.value
    FROM rel
    JOIN pg_attribute AS a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
    CROSS JOIN LATERAL (VALUES
      ('type', format_type(a.atttypid, a.atttypmod)),
      ('collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END),
      ('not null', CASE WHEN a.attnotnull THEN 'true' END),
      ('default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(def.adbin, def.adrelid) END),
      ('identity', nullif(a.attidentity::text, '')),
      ('generated', CASE WHEN a.attgenerated <> '' THEN a.attgenerated::text || ' ' || pg_get_expr(def.adbin, def.adrelid) END),
      ('storage', a.attstorage::text),
      ('compression', nullif(a.attcompression::text, '')),
      -- -1 until 16, NULL from 17: both mean the default.
      ('statistics target', nullif(a.attstattarget, -1)::text),
      -- Options that begin with pg_ are the server's own bookkeeping.
      ('options', (
        SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(a.attoptions) AS o WHERE NOT starts_with(o, 'pg_'))),
      ('privileges', CASE WHEN a.attacl <> '{}' THEN _transmute.acl_text(a.attacl) END),
      ('inherited', CASE WHEN a.attinhcount > 0 THEN format('%s times, local %s', a.attinhcount, a.attislocal) END),
      ('comment', col_description(rel.oid, a.attnum))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%s constraint %s', rel.name, quote_ident(con.conname)), f.fact, f.value
    FROM rel
    JOIN pg_constraint AS con ON con.conrelid = rel.oid AND con.contype <> 't'
      -- A foreign key to a partitioned table has a copy for each partition of it, under a name of the server's choice.
      AND NOT EXISTS (SELECT FROM pg_constraint AS p WHERE p.oid = con.conparentid AND p.conrelid = con.conrelid)
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_constraintdef(con.oid)),
      ('validated', con.convalidated::text),
      ('inherited', CASE WHEN con.coninhcount > 0 THEN format('%s times, local %s', con.coninhcount, con.conislocal) END),
      ('switched triggers', (
        SELECT string_agg(format('%s %s %s', t.tgrelid::regclass, t.tgtype, t.tgenabled), ', '
          ORDER BY format('%s %s %s', t.tgrelid::regclass, t.tgtype, t.tgenabled) COLLATE "C")
        FROM pg_trigger AS t WHERE t.tgconstraint = con.oid AND t.tgisinternal AND t.tgenabled <> 'O')),
      ('comment', obj_description(con.oid, 'pg_constraint'))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%s index %s', rel.name, quote_ident(i.relname)), f.fact, f.value
    FROM rel
    JOIN pg_index AS x ON x.indrelid = rel.oid
    JOIN pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_indexdef(i.oid)),
      ('tablespace', (SELECT s.spcname::text FROM pg_tablespace AS s WHERE s.oid = i.reltablespace)),
      ('flags', format('valid %s, ready %s, clustered %s, replica identity %s, unique %s, immediate %s',
        x.indisvalid, x.indisready, x.indisclustered, x.indisreplident, x.indisunique, x.indimmediate)),
      ('options', (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(i.reloptions) AS o)),
      ('statistics targets', (
        SELECT string_agg(format('%s=%s', a.attnum, a.attstattarget), ', ' ORDER BY a.attnum)
        FROM pg_attribute AS a WHERE a.attrelid = i.oid AND a.attnum > 0 AND a.attstattarget >= 0)),
      ('constraint', (
        SELECT string_agg(quote_ident(con.conname), ', ' ORDER BY con.conname)
        FROM pg_constraint AS con
        WHERE con.conrelid = rel.oid AND con.conindid = i.oid AND con.contype IN ('p', 'u', 'x'))),
      ('parent', (SELECT h.inhparent::regclass::text FROM pg_inherits AS h WHERE h.inhrelid = i.oid)),
      ('extension', (
        SELECT string_agg(quote_ident(e.extname), ', ' ORDER BY e.extname)
        FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x'))),
      ('comment', obj_description(i.oid, 'pg_class'))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%s trigger %s', rel.name, quote_ident(t.tgname)), f.fact, f.value
    FROM rel
    JOIN pg_trigger AS t ON t.tgrelid = rel.oid AND NOT t.tgisinternal AND NOT starts_with(t.tgname::text, '_transmute_')
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_triggerdef(t.oid)),
      ('enabled', t.tgenabled::text),
      ('parent', (SELECT p.tgrelid::regclass::text FROM pg_trigger AS p WHERE p.oid = t.tgparentid)),
      ('extension', (
        SELECT string_agg(quote_ident(e.extname), ', ' ORDER BY e.extname)
        FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x'))),
      ('constraint comment', obj_description(nullif(t.tgconstraint, 0), 'pg_constraint')),
      ('comment', obj_description(t.oid, 'pg_trigger'))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%I.%I rule %I', n.nspname, c.relname, r.rulename), f.fact, f.value
    FROM users
    JOIN pg_rewrite AS r ON r.oid = users.objid AND r.rulename <> '_RETURN'
    JOIN pg_class AS c ON c.oid = r.ev_class AND c.relpersistence <> 't'
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_ruledef(r.oid)),
      ('enabled', r.ev_enabled::text),
      ('comment', obj_description(r.oid, 'pg_rewrite'))
    ) AS f (fact, value)
    WHERE users.classid = 'pg_rewrite'::regclass

    UNION ALL
    SELECT format('%I.%I policy %I', n.nspname, c.relname, p.polname), f.fact, f.value
    FROM users
    JOIN pg_policy AS p ON p.oid = users.objid
    JOIN pg_class AS c ON c.oid = p.polrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (VALUES
      ('command', p.polcmd::text),
      ('permissive', p.polpermissive::text),
      ('roles', (
        SELECT string_agg(role, ', ' ORDER BY role COLLATE "C")
        FROM (SELECT CASE WHEN o = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END AS role FROM unnest(p.polroles) AS o) AS roles)),
      ('using', pg_get_expr(p.polqual, p.polrelid)),
      ('check', pg_get_expr(p.polwithcheck, p.polrelid)),
      ('comment', obj_description(p.oid, 'pg_policy'))
    ) AS f (fact, value)
    WHERE users.classid = 'pg_policy'::regclass

    UNION ALL
    SELECT format('%s statistics %I.%I', rel.name, n.nspname, s.stxname), f.fact, f.value
    FROM rel
    JOIN pg_statistic_ext AS s ON s.stxrelid = rel.oid
    JOIN pg_namespace AS n ON n.oid = s.stxnamespace
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_statisticsobjdef(s.oid)),
      ('target', nullif(s.stxstattarget, -1)::text),
      ('owner', pg_get_userbyid(s.stxowner)::text),
      ('comment', obj_description(s.oid, 'pg_statistic_ext'))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%s publication %I', rel.name, p.pubname), f.fact, f.value
    FROM rel
    JOIN pg_publication_rel AS pr ON pr.prrelid = rel.oid
    JOIN pg_publication AS p ON p.oid = pr.prpubid
    CROSS JOIN LATERAL (VALUES
      ('by', 'table'),
      ('filter', pg_get_expr(pr.prqual, pr.prrelid)),
      ('columns', (
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
        FROM pg_attribute AS a WHERE a.attrelid = rel.oid AND a.attnum = ANY (pr.prattrs::smallint[])))
    ) AS f (fact, value)
    UNION ALL
    SELECT format('%s publication %I', rel.name, p.pubname), 'by', 'schema'
    FROM rel
    JOIN pg_publication_namespace AS pn ON pn.pnnspid = rel.relnamespace
    JOIN pg_publication AS p ON p.oid = pn.pnpubid
    WHERE rel.relkind IN ('r', 'p') AND rel.relpersistence = 'p'
    UNION ALL
    SELECT format('%s publication %I', rel.name, p.pubname), 'by', 'all tables'
    FROM rel
    JOIN pg_publication AS p ON p.puballtables
    WHERE rel.relkind IN ('r', 'p') AND rel.relpersistence = 'p'

    UNION ALL
    SELECT rel.name, format('parent %s', lpad(h.inhseqno::text, 4, '0')),
      h.inhparent::regclass::text || CASE WHEN h.inhdetachpending THEN ' (detach pending)' ELSE '' END
    FROM rel JOIN pg_inherits AS h ON h.inhrelid = rel.oid
    UNION ALL
    SELECT rel.name, 'child', h.inhrelid::regclass::text
    FROM rel JOIN pg_inherits AS h ON h.inhparent = rel.oid

    UNION ALL
    -- pg_constraint has no index on confrelid; the referenced columns lead there.
    SELECT DISTINCT format('%s referenced by %I.%I %s', rel.name, n.nspname, c.relname, quote_ident(con.conname)), f.fact, f.value
    FROM rel
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = rel.oid AND d.classid = 'pg_constraint'::regclass
    JOIN pg_constraint AS con ON con.oid = d.objid AND con.contype = 'f' AND con.confrelid = rel.oid AND con.conrelid <> rel.oid
      AND NOT EXISTS (SELECT FROM pg_constraint AS p WHERE p.oid = con.conparentid AND p.conrelid = con.conrelid)
    JOIN pg_class AS c ON c.oid = con.conrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_constraintdef(con.oid)),
      ('validated', con.convalidated::text),
      ('switched triggers', (
        SELECT string_agg(format('%s %s %s', t.tgrelid::regclass, t.tgtype, t.tgenabled), ', '
          ORDER BY format('%s %s %s', t.tgrelid::regclass, t.tgtype, t.tgenabled) COLLATE "C")
        FROM pg_trigger AS t WHERE t.tgconstraint = con.oid AND t.tgisinternal AND t.tgenabled <> 'O')),
      ('comment', obj_description(con.oid, 'pg_constraint'))
    ) AS f (fact, value)

    UNION ALL
    SELECT format('%s sequence %I.%I', rel.name, n.nspname, c.relname), f.fact, f.value
    FROM rel
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = rel.oid AND d.refobjsubid > 0
      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_sequence AS s ON s.seqrelid = c.oid
    JOIN pg_attribute AS a ON a.attrelid = rel.oid AND a.attnum = d.refobjsubid
    CROSS JOIN LATERAL (VALUES
      ('owned by', format('%s (%s)', quote_ident(a.attname), d.deptype)),
      ('definition', format('%s start %s increment %s min %s max %s cycle %s cache %s', format_type(s.seqtypid, NULL),
        s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, s.seqcache)),
      ('owner', pg_get_userbyid(c.relowner)::text),
      ('privileges', _transmute.acl_text(coalesce(c.relacl, acldefault('s', c.relowner)))),
      ('persistence', c.relpersistence::text),
      ('comment', obj_description(c.oid, 'pg_class'))
    ) AS f (fact, value)
  )
  -- One fact a line, whatever the names and comments contain.
  SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C")
  FROM (
    SELECT replace(replace(format('%s: %s = %s', object, fact, plain), E'\\', E'\\\\'), E'\n', E'\\n') AS line
    FROM facts
    -- x IN (…) on a varchar is printed as a cast of the array and, once that has been parsed again, as an array of
    -- casts. Both mean the same: a view that was made anew must not look changed.
    CROSS JOIN regexp_replace(
      regexp_replace(value, '\((ARRAY\[(?:''(?:[^'']|'''')*''|[^]''])*\])\)::text\[\]', '\1', 'g'),
      '\((''(?:[^'']|'''')*''::character varying)\)::text', '\1', 'g') AS plain
    WHERE value IS NOT NULL
  ) AS lines
$$;
COMMENT ON FUNCTION _transmute.fingerprint(oid) IS 'Everything the catalogs say of a table that a schema change could lose, with the views, rules and policies that use it: sorted text, one fact a line, the same in every session. NULL: there is no such table.';

CREATE FUNCTION _transmute.definition(relation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET bytea_output = 'hex'
SET extra_float_digits = 1
SET lc_monetary = 'C'
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
  WITH rel AS MATERIALIZED (
    SELECT c.* FROM pg_class AS c WHERE c.oid = definition.relation
  ),
  facts (object, fact, value) AS (
    SELECT 'table', f.fact, f.value
    FROM rel
    CROSS JOIN LATERAL (VALUES
      ('kind', rel.relkind::text),
      ('access method', (SELECT m.amname::text FROM pg_am AS m WHERE m.oid = rel.relam)),
      ('tablespace', (SELECT s.spcname::text FROM pg_tablespace AS s WHERE s.oid = rel.reltablespace)),
      ('persistence', rel.relpersistence::text),
      ('options', (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(rel.reloptions) AS o)),
      ('toast options', (
        SELECT string_agg(o, ', ' ORDER BY o COLLATE "C")
        FROM pg_class AS toast, unnest(toast.reloptions) AS o WHERE toast.oid = rel.reltoastrelid)),
      -- Dropped columns count: rows keep their place.
      ('columns', rel.relnatts::text)
    ) AS f (fact, value)

    UNION ALL
    SELECT format('column %s %s', lpad(a.attnum::text, 4, '0'), quote_ident(a.attname)), f.fact, f.value
    FROM rel
    JOIN pg_attribute AS a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
    CROSS JOIN LATERAL (VALUES
      ('type', format_type(a.atttypid, a.atttypmod)),
      ('collation', CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END),
      ('not null', CASE WHEN a.attnotnull THEN 'true' END),
      ('default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(def.adbin, def.adrelid) END),
      ('identity', nullif(a.attidentity::text, '')),
      ('generated', CASE WHEN a.attgenerated <> '' THEN a.attgenerated::text || ' ' || pg_get_expr(def.adbin, def.adrelid) END)
    ) AS f (fact, value)

    UNION ALL
    SELECT format('constraint %s', quote_ident(con.conname)), f.fact, f.value
    FROM rel
    JOIN pg_constraint AS con ON con.conrelid = rel.oid AND con.contype IN ('c', 'n', 'p', 'u', 'x')
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_constraintdef(con.oid)),
      ('validated', con.convalidated::text)
    ) AS f (fact, value)

    UNION ALL
    SELECT format('index %s', quote_ident(i.relname)), f.fact, f.value
    FROM rel
    JOIN pg_index AS x ON x.indrelid = rel.oid
    JOIN pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL (VALUES
      ('definition', pg_get_indexdef(i.oid)),
      ('tablespace', (SELECT s.spcname::text FROM pg_tablespace AS s WHERE s.oid = i.reltablespace)),
      ('flags', format('valid %s, ready %s, unique %s, immediate %s', x.indisvalid, x.indisready, x.indisunique, x.indimmediate))
    ) AS f (fact, value)
  )
  SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C")
  FROM (
    SELECT replace(replace(format('%s: %s = %s', object, fact, value), E'\\', E'\\\\'), E'\n', E'\\n') AS line
    FROM facts
    WHERE value IS NOT NULL
  ) AS lines
$$;
COMMENT ON FUNCTION _transmute.definition(oid) IS 'What a swap of files relies on: columns, constraints that the rows obey, indexes, storage. A table whose text differs from that at expand has changed under the migration. NULL: there is no such table.';
