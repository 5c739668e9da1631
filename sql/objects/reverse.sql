-- What a statement that runs as it stands changed, as SQL that takes it back. An object is a list of facts; a fact knows how
-- to make itself and how to go. Facts from before the statement that are not there afterwards are made again, new ones go.
-- All texts are deparsed, and run again, under this search_path.

CREATE FUNCTION _transmute.address_sql(class oid, object oid, part integer) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE
    WHEN i.type LIKE '% column' THEN 'COLUMN ' || i.identity
    WHEN i.type = 'table constraint' THEN 'CONSTRAINT ' || i.identity
    WHEN i.type = 'domain constraint' THEN (
      SELECT format('CONSTRAINT %I ON DOMAIN %s', con.conname, format_type(con.contypid, NULL))
      FROM pg_constraint AS con WHERE con.oid = address_sql.object)
    WHEN i.type = 'composite type' THEN 'TYPE ' || i.identity
    WHEN i.type = 'statistics object' THEN 'STATISTICS ' || i.identity
    WHEN i.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER ' || i.identity
    ELSE upper(i.type) || ' ' || i.identity
  END
  FROM pg_identify_object(address_sql.class, address_sql.object, address_sql.part) AS i
  WHERE i.identity IS NOT NULL
$$;
COMMENT ON FUNCTION _transmute.address_sql(oid, oid, integer) IS 'An object as COMMENT ON, ALTER and DROP name it.';

CREATE FUNCTION _transmute.owner_of(class oid, object oid) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE owner_of.class
    WHEN 'pg_class'::regclass THEN (SELECT relowner FROM pg_class WHERE oid = owner_of.object AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
    WHEN 'pg_proc'::regclass THEN (SELECT proowner FROM pg_proc WHERE oid = owner_of.object)
    WHEN 'pg_type'::regclass THEN (SELECT typowner FROM pg_type WHERE oid = owner_of.object)
    WHEN 'pg_namespace'::regclass THEN (SELECT nspowner FROM pg_namespace WHERE oid = owner_of.object)
    WHEN 'pg_operator'::regclass THEN (SELECT oprowner FROM pg_operator WHERE oid = owner_of.object)
    WHEN 'pg_collation'::regclass THEN (SELECT collowner FROM pg_collation WHERE oid = owner_of.object)
    WHEN 'pg_conversion'::regclass THEN (SELECT conowner FROM pg_conversion WHERE oid = owner_of.object)
    WHEN 'pg_statistic_ext'::regclass THEN (SELECT stxowner FROM pg_statistic_ext WHERE oid = owner_of.object)
    WHEN 'pg_opclass'::regclass THEN (SELECT opcowner FROM pg_opclass WHERE oid = owner_of.object)
    WHEN 'pg_opfamily'::regclass THEN (SELECT opfowner FROM pg_opfamily WHERE oid = owner_of.object)
    WHEN 'pg_language'::regclass THEN (SELECT lanowner FROM pg_language WHERE oid = owner_of.object)
    WHEN 'pg_ts_dict'::regclass THEN (SELECT dictowner FROM pg_ts_dict WHERE oid = owner_of.object)
    WHEN 'pg_ts_config'::regclass THEN (SELECT cfgowner FROM pg_ts_config WHERE oid = owner_of.object)
    WHEN 'pg_foreign_data_wrapper'::regclass THEN (SELECT fdwowner FROM pg_foreign_data_wrapper WHERE oid = owner_of.object)
    WHEN 'pg_foreign_server'::regclass THEN (SELECT srvowner FROM pg_foreign_server WHERE oid = owner_of.object)
    WHEN 'pg_publication'::regclass THEN (SELECT pubowner FROM pg_publication WHERE oid = owner_of.object)
    WHEN 'pg_event_trigger'::regclass THEN (SELECT evtowner FROM pg_event_trigger WHERE oid = owner_of.object)
  END
$$;
COMMENT ON FUNCTION _transmute.owner_of(oid, oid) IS 'Who owns an object; NULL: it is gone, or has no owner of its own.';

CREATE FUNCTION _transmute.privileges_of(class oid, object oid)
RETURNS TABLE (part integer, place bigint, item aclitem, target text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH lists (part, list, word) AS (
    SELECT 0, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)),
      CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
    FROM pg_class AS c
    WHERE privileges_of.class = 'pg_class'::regclass AND c.oid = privileges_of.object AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT a.attnum, a.attacl, 'TABLE'
    FROM pg_attribute AS a
    WHERE privileges_of.class = 'pg_class'::regclass AND a.attrelid = privileges_of.object AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 0, coalesce(p.proacl, acldefault('f', p.proowner)), CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END
    FROM pg_proc AS p WHERE privileges_of.class = 'pg_proc'::regclass AND p.oid = privileges_of.object
    UNION ALL
    SELECT 0, coalesce(t.typacl, acldefault('T', t.typowner)), 'TYPE'
    FROM pg_type AS t WHERE privileges_of.class = 'pg_type'::regclass AND t.oid = privileges_of.object
    UNION ALL
    SELECT 0, coalesce(n.nspacl, acldefault('n', n.nspowner)), 'SCHEMA'
    FROM pg_namespace AS n WHERE privileges_of.class = 'pg_namespace'::regclass AND n.oid = privileges_of.object
    UNION ALL
    SELECT 0, coalesce(l.lanacl, acldefault('l', l.lanowner)), 'LANGUAGE'
    FROM pg_language AS l WHERE privileges_of.class = 'pg_language'::regclass AND l.oid = privileges_of.object
    UNION ALL
    SELECT 0, coalesce(w.fdwacl, acldefault('F', w.fdwowner)), 'FOREIGN DATA WRAPPER'
    FROM pg_foreign_data_wrapper AS w WHERE privileges_of.class = 'pg_foreign_data_wrapper'::regclass AND w.oid = privileges_of.object
    UNION ALL
    SELECT 0, coalesce(s.srvacl, acldefault('S', s.srvowner)), 'FOREIGN SERVER'
    FROM pg_foreign_server AS s WHERE privileges_of.class = 'pg_foreign_server'::regclass AND s.oid = privileges_of.object
  )
  SELECT l.part, i.place, i.item, l.word || ' ' || (SELECT identity FROM pg_identify_object(privileges_of.class, privileges_of.object, 0))
  FROM lists AS l, unnest(l.list) WITH ORDINALITY AS i (item, place)
$$;
COMMENT ON FUNCTION _transmute.privileges_of(oid, oid) IS 'The entries of the access control lists of an object and its columns, defaults spelled out, with the object as GRANT names it.';

CREATE FUNCTION _transmute.sequence_sql(relation oid, verb text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('%s SEQUENCE %s AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %sCYCLE', verb,
    _transmute.relation_name(s.seqrelid), format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache,
    CASE WHEN s.seqcycle THEN '' ELSE 'NO ' END)
  FROM pg_sequence AS s WHERE s.seqrelid = sequence_sql.relation
$$;
COMMENT ON FUNCTION _transmute.sequence_sql(oid, text) IS 'CREATE or ALTER SEQUENCE with all parameters of a sequence.';

CREATE FUNCTION _transmute.type_sql(type oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE
    WHEN t.typtype = 'e' THEN format('CREATE TYPE %s AS ENUM (%s)', format_type(t.oid, NULL),
      (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid))
    WHEN t.typtype = 'c' THEN format('CREATE TYPE %s AS (%s)', format_type(t.oid, NULL), (
      SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        || CASE WHEN a.attcollation <> y.typcollation THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END, ', ' ORDER BY a.attnum)
      FROM pg_attribute AS a JOIN pg_type AS y ON y.oid = a.atttypid
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
    WHEN t.typtype = 'd' THEN format('CREATE DOMAIN %s AS %s', format_type(t.oid, NULL), format_type(t.typbasetype, t.typtypmod))
      || CASE WHEN t.typcollation <> b.typcollation THEN ' COLLATE ' || t.typcollation::regcollation::text ELSE '' END
  END
  FROM pg_type AS t LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
  WHERE t.oid = type_sql.type
    -- The row type of a table goes with the table.
    AND (t.typtype <> 'c' OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
$$;
COMMENT ON FUNCTION _transmute.type_sql(oid) IS 'Makes an enum, a composite type or a domain (without its constraints) again; NULL: nothing can.';

CREATE FUNCTION _transmute.enum_without(type oid, label text, owner oid, as_written boolean) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH me AS (
    SELECT t.oid, t.typname, t.typowner, t.typacl, t.typarray, n.nspname, format_type(t.oid, NULL) AS name,
      format('%I.%I', n.nspname, 'enum_' || t.oid) AS new
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace WHERE t.oid = enum_without.type AND t.typtype = 'e'
  ),
  col AS (
    SELECT a.attrelid, a.attnum, a.attname, a.attinhcount, a.attgenerated, d.oid AS default_oid,
      CASE WHEN a.atttypid = me.oid THEN '' ELSE '[]' END AS many, pg_get_expr(d.adbin, d.adrelid) AS value
    FROM me JOIN pg_attribute AS a ON a.atttypid IN (me.oid, me.typarray) AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  ),
  -- A default that is a value, and nothing else.
  known AS (
    SELECT col.*, CASE WHEN col.value LIKE '''%' AND right(col.value, length(e.ends)) = e.ends THEN left(col.value, -length(e.ends)) END AS literal
    FROM me, col, LATERAL (SELECT format('::%s%s', me.name, col.many) AS ends) AS e
  ),
  statements (place, sql) AS (
    SELECT 1, format('CREATE TYPE %s AS ENUM (%s)', me.new, (SELECT coalesce(string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '')
      FROM pg_enum AS e WHERE e.enumtypid = me.oid AND e.enumlabel <> enum_without.label)) FROM me
    UNION ALL
    SELECT 2, format('ALTER TABLE %s %s', _transmute.relation_name(k.attrelid), string_agg(concat(
      CASE WHEN k.value IS NOT NULL THEN format('ALTER COLUMN %I DROP DEFAULT, ', k.attname) END,
      format('ALTER COLUMN %1$I TYPE %2$s%3$s USING %1$I::text%3$s::%2$s%3$s', k.attname, me.new, k.many),
      CASE WHEN k.value IS NOT NULL THEN format(', ALTER COLUMN %I SET DEFAULT %s', k.attname, k.literal) END), ', ' ORDER BY k.attnum))
    FROM me, known AS k WHERE k.attinhcount = 0 GROUP BY k.attrelid
    UNION ALL
    SELECT 3, format('DROP TYPE %s', me.name) FROM me
    UNION ALL
    SELECT 4, format('ALTER TYPE %s RENAME TO %I', me.new, me.typname) FROM me
    UNION ALL
    SELECT 4 + f.rank, f.make FROM me, _transmute.facts('pg_type'::regclass, me.oid) AS f
    WHERE f.rank > 10 AND f.make IS NOT NULL AND (f.fact <> 'owner' OR me.typowner <> enum_without.owner)
      AND (NOT starts_with(f.fact, 'privilege') OR me.typacl IS NOT NULL)
  )
  SELECT array_agg(s.sql ORDER BY s.place, s.sql COLLATE "C") FROM statements AS s
  WHERE NOT EXISTS (SELECT FROM known AS k WHERE k.attgenerated <> '' OR k.value IS NOT NULL AND k.literal IS NULL)
    -- Whoever else uses it: functions, domains, composite types, CHECKs and indexes that name a value.
    AND NOT EXISTS (SELECT FROM me JOIN pg_depend AS d ON d.refclassid = 'pg_type'::regclass AND d.refobjid IN (me.oid, me.typarray)
      WHERE NOT (d.classid = 'pg_type'::regclass AND d.objid = me.typarray)
        AND NOT EXISTS (SELECT FROM col WHERE d.classid = 'pg_class'::regclass AND d.objid = col.attrelid AND d.objsubid = col.attnum
          OR d.classid = 'pg_attrdef'::regclass AND d.objid = col.default_oid)
        -- What a view shows has the type of the column.
        AND NOT EXISTS (SELECT FROM pg_class AS c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('v', 'm') AND d.objsubid > 0))
    -- As it is written the server takes no views, policies and the like away from a column.
    AND NOT (enum_without.as_written AND EXISTS (SELECT FROM col JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = col.attrelid
      AND d.refobjsubid = col.attnum WHERE d.classid NOT IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_statistic_ext'::regclass)))
$$;
COMMENT ON FUNCTION _transmute.enum_without(oid, text, oid, boolean) IS 'Statements that take a value away from an enum: another type without it, to which the columns of tables change. owner: who runs them. as_written: without the planner, which also takes care of views and the like. NULL: something else uses the type.';

CREATE FUNCTION _transmute.proved_sql(relation oid, name text, definition text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('ALTER TABLE %1$s ADD CONSTRAINT %2$I %3$s NOT VALID; COMMIT; ALTER TABLE %1$s VALIDATE CONSTRAINT %2$I; COMMIT',
    _transmute.relation_name(relation), name, definition)
$$;
COMMENT ON FUNCTION _transmute.proved_sql(oid, text, text) IS 'Adds a constraint that was valid without a scan under a strong lock: three transactions.';

CREATE FUNCTION _transmute.index_again(index oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
  WITH RECURSIVE tree (oid, parent, level) AS (
    SELECT index_again.index, NULL::oid, 0
    UNION ALL
    SELECT i.inhrelid, i.inhparent, tree.level + 1 FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid
  ),
  named AS (
    SELECT tree.*, c.relkind, c.relname, _transmute.relation_name(c.oid) AS name, _transmute.relation_name(x.indrelid) AS on_table,
      x.indisclustered, x.indisreplident, t.spcname, pg_get_indexdef(c.oid) AS def, ' WHERE ' || pg_get_expr(x.indpred, x.indrelid) AS pred,
      format('CREATE %sINDEX %I ON ', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname) AS head
    FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_index AS x ON x.indexrelid = tree.oid
    LEFT JOIN pg_tablespace AS t ON t.oid = c.reltablespace
  ),
  -- Without the table, and with the tablespace, which the server's text leaves out.
  defined AS (
    SELECT named.*, CASE WHEN spcname IS NULL THEN substr(def, length(head || on_table) + CASE relkind WHEN 'I' THEN 6 ELSE 1 END)
      ELSE concat(substr(left(def, length(def) - coalesce(length(pred), 0)), length(head || on_table) + CASE relkind WHEN 'I' THEN 6 ELSE 1 END),
        format(' TABLESPACE %I', spcname), pred) END AS tail,
      EXISTS (SELECT FROM named AS n WHERE n.relkind = 'I' AND n.level > 0) AS nested
    FROM named
  ),
  statements (place, level, name, sql) AS (
    SELECT CASE relkind WHEN 'i' THEN 1 ELSE 2 END, level, name,
      concat(head, CASE WHEN relkind = 'I' AND nested THEN 'ONLY ' END, on_table, tail)
    FROM defined
    UNION ALL
    -- What has partitions of its own is put together as pg_dump does it.
    SELECT 3, d.level, d.name, format('ALTER INDEX %s ATTACH PARTITION %s', _transmute.relation_name(d.parent), d.name)
    FROM defined AS d WHERE d.nested AND d.level > 0
    UNION ALL
    SELECT 4, d.level, d.name, format('ALTER TABLE %s ADD CONSTRAINT %I %s USING INDEX %I%s', d.on_table, con.conname,
      CASE con.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, d.relname,
      CASE WHEN con.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN con.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END)
    FROM defined AS d JOIN pg_constraint AS con ON con.conindid = d.oid AND con.contype IN ('p', 'u') AND d.relkind = 'i'
    UNION ALL
    SELECT 5, d.level, d.name, format('COMMENT ON INDEX %s IS %L', d.name, o.description)
    FROM defined AS d JOIN pg_description AS o ON o.classoid = 'pg_class'::regclass AND o.objoid = d.oid AND o.objsubid = 0
    UNION ALL
    SELECT 5, d.level, d.name, format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', d.name, a.attnum, a.attstattarget)
    FROM defined AS d JOIN pg_attribute AS a ON a.attrelid = d.oid AND a.attstattarget >= 0
    UNION ALL
    SELECT 6, d.level, d.name, format('ALTER TABLE %s %s %I', d.on_table, w.word, d.relname)
    FROM defined AS d JOIN LATERAL (VALUES (d.indisclustered, 'CLUSTER ON'), (d.indisreplident, 'REPLICA IDENTITY USING INDEX')) AS w (holds, word) ON w.holds
  )
  SELECT array_agg(s.sql ORDER BY s.place, s.level DESC, s.name COLLATE "C", s.sql COLLATE "C") FROM statements AS s
$$;
COMMENT ON FUNCTION _transmute.index_again(oid) IS 'Statements that make an index again, with those of its partitions under their names, the constraint on it, its comment, statistics targets and marks.';

CREATE FUNCTION _transmute.foreign_key_again(key oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE own (oid, conrelid, conname, confrelid) AS (
    SELECT con.oid, con.conrelid, con.conname, con.confrelid FROM pg_constraint AS con WHERE con.oid = foreign_key_again.key
    UNION ALL
    -- Not those of the referred table's partitions, which are of the same table.
    SELECT con.oid, con.conrelid, con.conname, con.confrelid
    FROM own JOIN pg_constraint AS con ON con.conparentid = own.oid AND con.confrelid = own.confrelid AND con.conrelid <> own.conrelid
  )
  SELECT concat_ws('; ',
    (SELECT string_agg(_transmute.proved_sql(own.conrelid, own.conname, pg_get_constraintdef(own.oid)), '; ' ORDER BY c.relname COLLATE "C", own.conrelid)
      FROM own JOIN pg_class AS c ON c.oid = own.conrelid WHERE c.relkind = 'r'),
    (SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', _transmute.relation_name(own.conrelid), own.conname, pg_get_constraintdef(own.oid))
      FROM own WHERE own.oid = foreign_key_again.key))
$$;
COMMENT ON FUNCTION _transmute.foreign_key_again(oid) IS 'Makes a foreign key of a partitioned table again before 18, which has none NOT VALID: each partition gets its own, without a scan under a strong lock, and the table takes them over.';

CREATE FUNCTION _transmute.key_again(key oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
  WITH RECURSIVE tree (oid, level) AS (
    SELECT con.conindid, 0 FROM pg_constraint AS con WHERE con.oid = key_again.key
    UNION ALL
    SELECT i.inhrelid, tree.level + 1 FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid
  ),
  named AS (
    SELECT tree.oid, tree.level, c.relkind, c.relname, c.relnamespace, c.reloptions, c.reltablespace, x.indisclustered, x.indisreplident,
      _transmute.relation_name(c.oid) AS name, _transmute.relation_name(t.oid) AS on_table,
      -- As the server will name it.
      concat_ws('_', t.relname, CASE con.contype WHEN 'p' THEN 'pkey'
        ELSE (SELECT string_agg(a.attname, '_' ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = c.oid) || '_key' END) AS chosen
    FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_index AS x ON x.indexrelid = c.oid JOIN pg_class AS t ON t.oid = x.indrelid
    JOIN pg_constraint AS con ON con.oid = key_again.key
  ),
  options (oid, level, place, name, value) AS (
    SELECT n.oid, n.level, u.place, split_part(o, '=', 1), substr(o, strpos(o, '=') + 1) FROM named AS n, unnest(n.reloptions) WITH ORDINALITY AS u (o, place)
  ),
  statements (place, level, name, sql) AS (
    -- The storage parameters, which the server's text leaves out, before what ends it.
    SELECT 1, 0, n.name, concat(format('ALTER TABLE %s ADD CONSTRAINT %I ', n.on_table, con.conname),
      left(d.def, length(d.def) - length(d.ends)), ' WITH (' || (SELECT string_agg(format('%I = %L', o.name, o.value), ', ' ORDER BY o.place) FROM options AS o WHERE o.level = 0) || ')', d.ends)
    FROM named AS n JOIN pg_constraint AS con ON con.oid = key_again.key,
      LATERAL (SELECT pg_get_constraintdef(con.oid) AS def) AS t,
      LATERAL (SELECT t.def, substring(t.def FROM '(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?$') AS ends) AS d
    WHERE n.level = 0
    UNION ALL
    -- Those of each partition, whether its index gets them from the table or not.
    SELECT 3, n.level, n.name, format('ALTER INDEX %s SET (%s)', n.name, string_agg(format('%I = %L', o.name, o.value), ', ' ORDER BY o.place))
    FROM named AS n JOIN options AS o ON o.oid = n.oid WHERE n.level > 0 AND n.relkind = 'i' GROUP BY n.level, n.name
    UNION ALL
    SELECT 3, n.level, n.name, format('ALTER INDEX %s RESET (%s)', n.name, string_agg(format('%I', o.name), ', ' ORDER BY o.place))
    FROM named AS n JOIN options AS o ON o.level = 0 WHERE n.level > 0 AND n.relkind = 'i'
      AND NOT EXISTS (SELECT FROM options AS own WHERE own.oid = n.oid AND own.name = o.name) GROUP BY n.level, n.name
    UNION ALL
    SELECT 2, n.level, n.name, format('ALTER INDEX %I.%I RENAME TO %I', s.nspname, n.chosen, n.relname)
    FROM named AS n JOIN pg_namespace AS s ON s.oid = n.relnamespace WHERE n.level > 0 AND n.relname <> n.chosen
    UNION ALL
    SELECT 3, n.level, n.name, format('COMMENT ON INDEX %s IS %L', n.name, o.description)
    FROM named AS n JOIN pg_description AS o ON o.classoid = 'pg_class'::regclass AND o.objoid = n.oid AND o.objsubid = 0
    UNION ALL
    SELECT 4, n.level, n.name, format('ALTER TABLE %s %s %I', n.on_table, w.word, n.relname)
    FROM named AS n JOIN LATERAL (VALUES (n.indisclustered, 'CLUSTER ON'), (n.indisreplident, 'REPLICA IDENTITY USING INDEX')) AS w (holds, word) ON w.holds
  )
  SELECT array_agg(s.sql ORDER BY s.place, s.level, s.name COLLATE "C", s.sql COLLATE "C") FROM statements AS s
  -- Another tablespace, parameters of a partitioned table between, which it has of its table only, or names that the server would choose otherwise.
  WHERE NOT EXISTS (SELECT FROM named AS n JOIN named AS top ON top.level = 0
    WHERE n.reltablespace <> 0 OR n.relkind = 'I' AND n.reloptions IS DISTINCT FROM top.reloptions OR n.level > 0 AND (octet_length(n.chosen) > 63
    OR EXISTS (SELECT FROM pg_class AS o WHERE o.relname = n.chosen AND o.relnamespace = n.relnamespace AND o.oid <> n.oid)))
$$;
COMMENT ON FUNCTION _transmute.key_again(oid) IS 'Statements that make a primary or unique key of a partitioned table again, its indexes under their names, with comments and marks; NULL: they would not all be as they were.';

CREATE FUNCTION _transmute.parts(relation oid)
RETURNS TABLE (rank integer, fact text, value text, make text, unmake text, replaces boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 52, 'index ' || c.relname, '', array_to_string(_transmute.index_again(c.oid), '; '), 'DROP INDEX ' || _transmute.relation_name(c.oid), false
  FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid AND NOT c.relispartition
  WHERE x.indrelid = parts.relation AND NOT EXISTS (SELECT FROM pg_constraint AS con
    WHERE con.conindid = c.oid AND con.conrelid = x.indrelid AND con.contype IN ('p', 'u', 'x'))
  UNION ALL
  SELECT 53, format('statistics %s', s.stxname), '',
    concat_ws('; ', pg_get_statisticsobjdef(s.oid),
      CASE WHEN s.stxstattarget >= 0 THEN format('ALTER STATISTICS %I.%I SET STATISTICS %s', n.nspname, s.stxname, s.stxstattarget) END,
      (SELECT format('COMMENT ON STATISTICS %I.%I IS %L', n.nspname, s.stxname, d) FROM obj_description(s.oid, 'pg_statistic_ext') AS d WHERE d IS NOT NULL)),
    format('DROP STATISTICS %I.%I', n.nspname, s.stxname), false
  FROM pg_statistic_ext AS s JOIN pg_namespace AS n ON n.oid = s.stxnamespace
  WHERE s.stxrelid = parts.relation
$$;
COMMENT ON FUNCTION _transmute.parts(oid) IS 'Indexes and extended statistics of a table, in the form of facts: objects of their own that go with it.';

CREATE FUNCTION _transmute.facts(class oid, object oid)
RETURNS TABLE (rank integer, fact text, value text, make text, unmake text, replaces boolean)
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
  WITH me AS MATERIALIZED (
    SELECT facts.class, facts.object, _transmute.address_sql(facts.class, facts.object, 0) AS address,
      _transmute.owner_of(facts.class, facts.object) AS owner
  ),
  rel AS MATERIALIZED (
    SELECT c.*, _transmute.relation_name(c.oid) AS name,
      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE'
        WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS word
    FROM pg_class AS c WHERE facts.class = 'pg_class'::regclass AND c.oid = facts.object
  ),
  col AS MATERIALIZED (
    SELECT a.*, rel.name, rel.word, rel.relkind, format('ALTER %s %s ALTER COLUMN %I ', rel.word, rel.name, a.attname) AS alter
    FROM rel JOIN pg_attribute AS a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
  )
  -- The object itself.
  SELECT 10, 'it', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE 'aggregate' END,
    CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END, 'DROP ' || me.address, false
  FROM me JOIN pg_proc AS p ON p.oid = me.object WHERE me.class = 'pg_proc'::regclass
  UNION ALL
  SELECT 10, 'it', concat((SELECT count(*) FROM col), pg_get_viewdef(rel.oid), rel.reloptions::text),
    concat('CREATE OR REPLACE VIEW ' || rel.name, (
      SELECT ' WITH (' || string_agg(format('%I = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ' ORDER BY place) || ')'
      FROM unnest(rel.reloptions) WITH ORDINALITY AS u (o, place)), E' AS\n' || pg_get_viewdef(rel.oid)),
    'DROP VIEW ' || rel.name, false
  FROM rel WHERE rel.relkind = 'v'
  UNION ALL
  SELECT 10, 'it', 'sequence', _transmute.sequence_sql(rel.oid, 'CREATE') || format('; SELECT setval(%L, %s, %L)', rel.name, v.last, v.called),
    'DROP SEQUENCE ' || rel.name, false
  FROM rel
  CROSS JOIN LATERAL (SELECT coalesce(pg_sequence_last_value(rel.oid), s.seqstart) AS last,
    pg_sequence_last_value(rel.oid) IS NOT NULL AS called FROM pg_sequence AS s WHERE s.seqrelid = rel.oid) AS v
  WHERE rel.relkind = 'S'
  UNION ALL
  SELECT 10, 'it', rel.word, CASE WHEN rel.relkind IN ('i', 'I') THEN array_to_string(_transmute.index_again(rel.oid), '; ') END,
    CASE WHEN rel.relkind <> 'c' THEN format('DROP %s %s', rel.word, rel.name) END, false
  FROM rel WHERE rel.relkind NOT IN ('v', 'S')
  UNION ALL
  SELECT 10, 'it', t.typtype::text, _transmute.type_sql(t.oid), 'DROP ' || me.address, false
  FROM me JOIN pg_type AS t ON t.oid = me.object WHERE me.class = 'pg_type'::regclass
  UNION ALL
  SELECT 10, 'it', 'schema', format('CREATE SCHEMA %I', n.nspname), format('DROP SCHEMA %I', n.nspname), false
  FROM me JOIN pg_namespace AS n ON n.oid = me.object WHERE me.class = 'pg_namespace'::regclass
  UNION ALL
  SELECT 10, 'it', pg_get_statisticsobjdef(s.oid), pg_get_statisticsobjdef(s.oid), 'DROP ' || me.address, false
  FROM me JOIN pg_statistic_ext AS s ON s.oid = me.object WHERE me.class = 'pg_statistic_ext'::regclass
  UNION ALL
  SELECT 10, 'it', 'constraint', NULL,
    CASE WHEN con.conrelid <> 0 THEN format('ALTER TABLE %s DROP CONSTRAINT %I', _transmute.relation_name(con.conrelid), con.conname)
      ELSE format('ALTER DOMAIN %s DROP CONSTRAINT %I', format_type(con.contypid, NULL), con.conname) END, false
  FROM me JOIN pg_constraint AS con ON con.oid = me.object WHERE me.class = 'pg_constraint'::regclass
  UNION ALL
  SELECT 10, 'it', 'cast', concat('CREATE CAST (' || format_type(c.castsource, NULL) || ' AS ' || format_type(c.casttarget, NULL) || ') ',
      CASE c.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || c.castfunc::regprocedure::text WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END,
      CASE c.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' END),
    'DROP ' || me.address, false
  FROM me JOIN pg_cast AS c ON c.oid = me.object WHERE me.class = 'pg_cast'::regclass
  UNION ALL
  SELECT 10, 'it', 'object', NULL, 'DROP ' || me.address, false
  FROM me
  WHERE me.address IS NOT NULL AND me.class NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass,
    'pg_statistic_ext'::regclass, 'pg_constraint'::regclass, 'pg_cast'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
    'pg_rewrite'::regclass)

  -- What every object may have. The owner comes before what only he may do, and before privileges, which change with him.
  UNION ALL
  SELECT 20, 'owner', me.owner::text, format('ALTER %s OWNER TO %s', me.address, _transmute.role_name(me.owner)), NULL, false
  FROM me WHERE me.owner IS NOT NULL
  UNION ALL
  -- Only where the object is made anew: what it would have by default.
  SELECT 59, 'privileges', '', format('REVOKE ALL ON %s FROM %s', p.target, (
      SELECT string_agg(_transmute.role_name(o), ', ' ORDER BY o)
      FROM (SELECT me.owner AS o UNION SELECT 0 UNION SELECT e.grantee FROM pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS e) AS all_of_them)),
    NULL, false
  FROM me CROSS JOIN LATERAL (SELECT DISTINCT v.target FROM _transmute.privileges_of(me.class, me.object) AS v WHERE v.part = 0) AS p
  UNION ALL
  SELECT 60, format('privilege %s %s %s %s', p.part, e.grantor, e.grantee, e.privilege_type), e.is_grantable::text,
    format('SET LOCAL ROLE %s; GRANT %s%s ON %s TO %s%s; SET LOCAL ROLE NONE', _transmute.role_name(e.grantor), e.privilege_type, c.names,
      p.target, _transmute.role_name(e.grantee), CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
    format('SET LOCAL ROLE %s; REVOKE %s%s ON %s FROM %s; SET LOCAL ROLE NONE', _transmute.role_name(e.grantor), e.privilege_type, c.names,
      p.target, _transmute.role_name(e.grantee)), true
  FROM me
  CROSS JOIN LATERAL _transmute.privileges_of(me.class, me.object) AS p
  CROSS JOIN LATERAL aclexplode(ARRAY[p.item]) AS e
  CROSS JOIN LATERAL (SELECT coalesce((SELECT format(' (%I)', col.attname) FROM col WHERE col.attnum = p.part), '') AS names) AS c
  UNION ALL
  SELECT 70, 'comment', d.description, format('COMMENT ON %s IS %L', me.address, d.description),
    format('COMMENT ON %s IS NULL', me.address), false
  FROM me JOIN pg_description AS d ON d.classoid = me.class AND d.objoid = me.object AND d.objsubid = 0
  UNION ALL
  SELECT 70, format('comment %s', col.attnum), d.description, format('COMMENT ON COLUMN %s.%I IS %L', col.name, col.attname, d.description),
    format('COMMENT ON COLUMN %s.%I IS NULL', col.name, col.attname), false
  FROM col JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = col.attrelid AND d.objsubid = col.attnum
  UNION ALL
  SELECT 80, format('extension %s', e.extname), '', format('ALTER %s DEPENDS ON EXTENSION %I', me.address, e.extname),
    format('ALTER %s NO DEPENDS ON EXTENSION %I', me.address, e.extname), false
  FROM me JOIN pg_depend AS d ON d.classid = me.class AND d.objid = me.object AND d.deptype = 'x' AND d.refclassid = 'pg_extension'::regclass
  JOIN pg_extension AS e ON e.oid = d.refobjid

  -- Columns.
  UNION ALL
  SELECT 15, format('column %s', col.attnum), '', NULL,
    CASE WHEN col.word = 'TYPE' THEN format('ALTER TYPE %s DROP ATTRIBUTE %I', col.name, col.attname)
      WHEN col.word IN ('TABLE', 'FOREIGN TABLE') THEN format('ALTER %s %s DROP COLUMN %I', col.word, col.name, col.attname) END, false
  FROM col WHERE col.relkind NOT IN ('i', 'I', 'S')
  UNION ALL
  SELECT 30, format('type %s', col.attnum), format('%s %s', format_type(col.atttypid, col.atttypmod), col.attcollation),
    CASE WHEN col.word = 'TYPE' THEN format('ALTER TYPE %s ALTER ATTRIBUTE %I TYPE %s', col.name, col.attname, format_type(col.atttypid, col.atttypmod))
      ELSE format('%sTYPE %s', col.alter, format_type(col.atttypid, col.atttypmod)) END
      || CASE WHEN col.attcollation <> y.typcollation THEN ' COLLATE ' || col.attcollation::regcollation::text ELSE '' END, NULL, false
  FROM col JOIN pg_type AS y ON y.oid = col.atttypid WHERE col.word IN ('TABLE', 'TYPE')
  UNION ALL
  SELECT 40, format('default %s', col.attnum), pg_get_expr(def.adbin, def.adrelid),
    format('%sSET DEFAULT %s', col.alter, pg_get_expr(def.adbin, def.adrelid)), col.alter || 'DROP DEFAULT', false
  FROM col JOIN pg_attrdef AS def ON def.adrelid = col.attrelid AND def.adnum = col.attnum WHERE col.attgenerated = ''
  UNION ALL
  SELECT 45, format('not null %s', col.attnum), '',
    _transmute.proved_sql(col.attrelid, '_transmute_not_null', format('CHECK (%I IS NOT NULL)', col.attname))
      || format('; %sSET NOT NULL; ALTER TABLE %s DROP CONSTRAINT _transmute_not_null', col.alter, col.name),
    col.alter || 'DROP NOT NULL', false
  FROM col
  WHERE col.attnotnull AND col.relkind IN ('r', 'p') AND NOT EXISTS (
    SELECT FROM pg_constraint AS con WHERE con.conrelid = col.attrelid AND con.contype = 'n' AND con.conkey = ARRAY[col.attnum])
  UNION ALL
  SELECT 41, format('storage %s', col.attnum), col.attstorage::text,
    format('%sSET STORAGE %s', col.alter, CASE col.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END),
    NULL, false
  FROM col WHERE col.relkind IN ('r', 'p', 'm', 'f')
  UNION ALL
  SELECT 42, format('compression %s', col.attnum), col.attcompression::text,
    format('%sSET COMPRESSION %s', col.alter, CASE col.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'DEFAULT' END), NULL, false
  FROM col WHERE col.relkind IN ('r', 'p', 'm')
  UNION ALL
  SELECT 43, format('statistics %s', col.attnum), coalesce(col.attstattarget, -1)::text,
    format('ALTER %s %s ALTER COLUMN %s SET STATISTICS %s', col.word, col.name,
      CASE WHEN col.relkind IN ('i', 'I') THEN col.attnum::text ELSE quote_ident(col.attname) END, coalesce(col.attstattarget, -1)),
    CASE WHEN col.relkind IN ('i', 'I') THEN format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS -1', col.name, col.attnum) END, false
  FROM col WHERE col.relkind IN ('r', 'p', 'm', 'f') OR col.relkind IN ('i', 'I') AND col.attstattarget >= 0
  UNION ALL
  SELECT 44, format('option %s %s', col.attnum, split_part(o, '=', 1)), o,
    format('%sSET (%I = %L)', col.alter, split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)),
    format('%sRESET (%I)', col.alter, split_part(o, '=', 1)), false
  FROM col, unnest(col.attoptions) AS o WHERE NOT starts_with(o, 'pg_')
  UNION ALL
  SELECT 46, format('identity %s', col.attnum), col.attidentity::text,
    CASE WHEN col.attidentity <> '' THEN format('%sSET GENERATED %s', col.alter, CASE col.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END) END,
    CASE WHEN col.attidentity <> '' THEN col.alter || 'DROP IDENTITY' END, false
  FROM col WHERE col.relkind IN ('r', 'p') AND col.attidentity <> ''

  -- Relations.
  UNION ALL
  SELECT 25, 'parameters', _transmute.sequence_sql(rel.oid, 'ALTER'), _transmute.sequence_sql(rel.oid, 'ALTER'), NULL, false
  FROM rel WHERE rel.relkind = 'S'
  UNION ALL
  SELECT 26, 'owned by', d.refobjid::text || ' ' || d.refobjsubid,
    format('ALTER SEQUENCE %s OWNED BY %s.%I', rel.name, _transmute.relation_name(d.refobjid), a.attname),
    format('ALTER SEQUENCE %s OWNED BY NONE', rel.name), false
  FROM rel JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjsubid > 0 AND d.deptype = 'a'
  JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  WHERE rel.relkind = 'S'
  UNION ALL
  SELECT 47, format('option %s', split_part(o, '=', 1)), o,
    format('ALTER %s %s SET (%I = %L)', rel.word, rel.name, split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)),
    format('ALTER %s %s RESET (%I)', rel.word, rel.name, split_part(o, '=', 1)), false
  FROM rel, unnest(rel.reloptions) AS o
  UNION ALL
  SELECT 47, format('toast option %s', split_part(o, '=', 1)), o,
    format('ALTER TABLE %s SET (toast.%I = %L)', rel.name, split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)),
    format('ALTER TABLE %s RESET (toast.%I)', rel.name, split_part(o, '=', 1)), false
  FROM rel JOIN pg_class AS toast ON toast.oid = rel.reltoastrelid, unnest(toast.reloptions) AS o
  UNION ALL
  SELECT 47, 'tablespace', t.spcname, format('ALTER %s %s SET TABLESPACE %I', rel.word, rel.name, t.spcname), NULL, false
  FROM rel JOIN pg_tablespace AS t
    ON t.oid = coalesce(nullif(rel.reltablespace, 0), (SELECT dattablespace FROM pg_database WHERE datname = current_database()))
  WHERE rel.relkind IN ('r', 'm')
  UNION ALL
  SELECT 47, 'persistence', rel.relpersistence::text,
    format('ALTER TABLE %s SET %s', rel.name, CASE rel.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END), NULL, false
  FROM rel WHERE rel.relkind = 'r' AND rel.relpersistence IN ('p', 'u')
  UNION ALL
  SELECT 48, f.fact, f.value::text, format('ALTER TABLE %s %s', rel.name, CASE WHEN f.value THEN f.yes ELSE f.no END), NULL, false
  FROM rel CROSS JOIN LATERAL (VALUES
    ('row security', rel.relrowsecurity, 'ENABLE ROW LEVEL SECURITY', 'DISABLE ROW LEVEL SECURITY'),
    ('force row security', rel.relforcerowsecurity, 'FORCE ROW LEVEL SECURITY', 'NO FORCE ROW LEVEL SECURITY')) AS f (fact, value, yes, no)
  WHERE rel.relkind IN ('r', 'p')
  UNION ALL
  SELECT 49, 'replica identity', concat(rel.relreplident, i.relname),
    format('ALTER TABLE %s REPLICA IDENTITY %s', rel.name, CASE rel.relreplident WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL'
      WHEN 'i' THEN format('USING INDEX %I', i.relname) ELSE 'DEFAULT' END), NULL, false
  FROM rel LEFT JOIN pg_index AS x ON x.indrelid = rel.oid AND x.indisreplident LEFT JOIN pg_class AS i ON i.oid = x.indexrelid
  WHERE rel.relkind IN ('r', 'p')
  UNION ALL
  SELECT 49, 'clustered on', i.relname, format('ALTER TABLE %s CLUSTER ON %I', rel.name, i.relname),
    format('ALTER TABLE %s SET WITHOUT CLUSTER', rel.name), false
  FROM rel JOIN pg_index AS x ON x.indrelid = rel.oid AND x.indisclustered JOIN pg_class AS i ON i.oid = x.indexrelid
  UNION ALL
  SELECT CASE con.contype WHEN 'n' THEN 45 ELSE 50 END, format('constraint %s', con.conname),
    concat(pg_get_constraintdef(con.oid), con.convalidated),
    CASE WHEN con.contype IN ('p', 'u') AND rel.relkind = 'r' THEN array_to_string(_transmute.index_again(con.conindid), '; ')
      WHEN con.contype IN ('p', 'u') AND rel.relkind = 'p' THEN array_to_string(_transmute.key_again(con.oid), '; ')
      WHEN con.contype = 'f' AND rel.relkind = 'p' AND current_setting('server_version_num')::int < 180000 THEN _transmute.foreign_key_again(con.oid)
      WHEN con.contype NOT IN ('c', 'f', 'n') THEN NULL
      WHEN con.convalidated THEN _transmute.proved_sql(rel.oid, con.conname, pg_get_constraintdef(con.oid))
      ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', rel.name, con.conname, pg_get_constraintdef(con.oid)) END,
    format('ALTER TABLE %s DROP CONSTRAINT %I', rel.name, con.conname), true
  FROM rel JOIN pg_constraint AS con ON con.conrelid = rel.oid AND con.contype <> 't' AND con.coninhcount = 0
  UNION ALL
  SELECT 75, format('constraint comment %s', con.conname), d.description,
    format('COMMENT ON CONSTRAINT %I ON %s IS %L', con.conname, rel.name, d.description), NULL, false
  FROM rel JOIN pg_constraint AS con ON con.conrelid = rel.oid AND con.contype <> 't'
  JOIN pg_description AS d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = con.oid
  UNION ALL
  SELECT 55, format('trigger %s', t.tgname), pg_get_triggerdef(t.oid), array_to_string(_transmute.trigger_sql(t.oid), '; '),
    format('DROP TRIGGER %I ON %s', t.tgname, rel.name), true
  FROM rel JOIN pg_trigger AS t ON t.tgrelid = rel.oid AND NOT t.tgisinternal AND t.tgparentid = 0 AND NOT starts_with(t.tgname::text, '_transmute_')
  UNION ALL
  SELECT 56, format('state of trigger %s', t.tgname), t.tgenabled::text, _transmute.trigger_state_sql(t.oid, true), NULL, false
  FROM rel JOIN pg_trigger AS t ON t.tgrelid = rel.oid AND NOT starts_with(t.tgname::text, '_transmute_')
  UNION ALL
  SELECT 55, format('rule %s', r.rulename), pg_get_ruledef(r.oid), array_to_string(_transmute.rule_sql(r.oid), '; '),
    format('DROP RULE %I ON %s', r.rulename, rel.name), true
  FROM rel JOIN pg_rewrite AS r ON r.ev_class = rel.oid AND r.rulename <> '_RETURN'
  UNION ALL
  SELECT 56, format('state of rule %s', r.rulename), r.ev_enabled::text,
    format('ALTER TABLE %s %s RULE %I', rel.name, CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
      WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, r.rulename), NULL, false
  FROM rel JOIN pg_rewrite AS r ON r.ev_class = rel.oid AND r.rulename <> '_RETURN'
  UNION ALL
  SELECT 55, format('policy %s', p.polname), array_to_string((_transmute.policy_sql(p.oid))[1:1], ''), array_to_string(_transmute.policy_sql(p.oid), '; '),
    format('DROP POLICY %I ON %s', p.polname, rel.name), true
  FROM rel JOIN pg_policy AS p ON p.polrelid = rel.oid

  -- Functions, types, statistics.
  UNION ALL
  SELECT 30, 'domain default', t.typdefault, format('ALTER DOMAIN %s SET DEFAULT %s', format_type(t.oid, NULL), coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault)),
    format('ALTER DOMAIN %s DROP DEFAULT', format_type(t.oid, NULL)), false
  FROM me JOIN pg_type AS t ON t.oid = me.object AND t.typtype = 'd' AND t.typdefault IS NOT NULL WHERE me.class = 'pg_type'::regclass
  UNION ALL
  SELECT 31, 'domain not null', '', format('ALTER DOMAIN %s SET NOT NULL', format_type(t.oid, NULL)),
    format('ALTER DOMAIN %s DROP NOT NULL', format_type(t.oid, NULL)), false
  FROM me JOIN pg_type AS t ON t.oid = me.object AND t.typtype = 'd' AND t.typnotnull WHERE me.class = 'pg_type'::regclass
  UNION ALL
  SELECT 32, format('domain constraint %s', con.conname), concat(pg_get_constraintdef(con.oid), con.convalidated),
    format('ALTER DOMAIN %1$s ADD CONSTRAINT %2$I %3$s', format_type(con.contypid, NULL), con.conname, pg_get_constraintdef(con.oid))
      || coalesce(format('; COMMENT ON CONSTRAINT %I ON DOMAIN %s IS %L', con.conname, format_type(con.contypid, NULL),
        obj_description(con.oid, 'pg_constraint')), ''),
    format('ALTER DOMAIN %s DROP CONSTRAINT %I', format_type(con.contypid, NULL), con.conname), true
  FROM me JOIN pg_constraint AS con ON con.contypid = me.object AND con.contype = 'c' WHERE me.class = 'pg_type'::regclass
  UNION ALL
  SELECT 30, 'statistics target', coalesce(s.stxstattarget, -1)::text,
    format('ALTER %s SET STATISTICS %s', me.address, coalesce(s.stxstattarget, -1)), NULL, false
  FROM me JOIN pg_statistic_ext AS s ON s.oid = me.object WHERE me.class = 'pg_statistic_ext'::regclass
$$;
COMMENT ON FUNCTION _transmute.facts(oid, oid) IS 'What the catalogs say of one object, one row a fact, with SQL that makes it so (make) and SQL that takes it away (unmake); replaces: a changed one goes before it is made. In ascending order of rank they make the object again; make is NULL where nothing can.';

CREATE FUNCTION _transmute.default_privileges()
RETURNS TABLE (rank integer, fact text, value text, make text, unmake text, replaces boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH kinds (letter, word) AS (VALUES ('r'::"char", 'TABLES'), ('S', 'SEQUENCES'), ('f', 'ROUTINES'), ('T', 'TYPES'), ('n', 'SCHEMAS')),
  entries AS (
    SELECT d.defaclrole, d.defaclnamespace, d.defaclobjtype, e.*
    FROM pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS e
    UNION ALL
    -- Without a row the built-in privileges hold.
    SELECT r.oid, 0, k.letter, e.*
    FROM pg_roles AS r CROSS JOIN kinds AS k
    CROSS JOIN LATERAL aclexplode(acldefault(CASE k.letter WHEN 'S' THEN 's'::"char" ELSE k.letter END, r.oid)) AS e
    WHERE NOT EXISTS (SELECT FROM pg_default_acl AS d WHERE d.defaclrole = r.oid AND d.defaclnamespace = 0 AND d.defaclobjtype = k.letter)
  )
  SELECT 60, format('default %s %s %s %s %s', e.defaclrole, e.defaclnamespace, e.defaclobjtype, e.grantee, e.privilege_type), e.is_grantable::text,
    format('ALTER DEFAULT PRIVILEGES FOR ROLE %s%s GRANT %s ON %s TO %s%s', _transmute.role_name(e.defaclrole), s.within, e.privilege_type, k.word,
      _transmute.role_name(e.grantee), CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
    format('ALTER DEFAULT PRIVILEGES FOR ROLE %s%s REVOKE %s ON %s FROM %s', _transmute.role_name(e.defaclrole), s.within, e.privilege_type, k.word,
      _transmute.role_name(e.grantee)), true
  FROM entries AS e JOIN kinds AS k ON k.letter = e.defaclobjtype
  CROSS JOIN LATERAL (SELECT coalesce((SELECT format(' IN SCHEMA %I', n.nspname) FROM pg_namespace AS n WHERE n.oid = e.defaclnamespace), '')) AS s (within)
$$;
COMMENT ON FUNCTION _transmute.default_privileges() IS 'The default privileges of the database as facts.';

CREATE FUNCTION _transmute.objects(xid xid)
RETURNS TABLE (class oid, object oid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH made (class, object) AS MATERIALIZED (
    SELECT 'pg_class'::regclass::oid, c.oid FROM pg_class AS c WHERE (c.xmin = objects.xid OR objects.xid IS NULL) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I', 'c') AND c.relnamespace <> 'pg_toast'::regnamespace
    UNION ALL SELECT 'pg_proc'::regclass, p.oid FROM pg_proc AS p WHERE (p.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type AS t WHERE (t.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_namespace'::regclass, n.oid FROM pg_namespace AS n WHERE (n.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_operator'::regclass, o.oid FROM pg_operator AS o WHERE (o.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_cast'::regclass, c.oid FROM pg_cast AS c WHERE (c.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_collation'::regclass, c.oid FROM pg_collation AS c WHERE (c.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_conversion'::regclass, c.oid FROM pg_conversion AS c WHERE (c.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext AS s WHERE (s.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_extension'::regclass, e.oid FROM pg_extension AS e WHERE (e.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_opclass'::regclass, o.oid FROM pg_opclass AS o WHERE (o.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_opfamily'::regclass, o.oid FROM pg_opfamily AS o WHERE (o.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_transform'::regclass, t.oid FROM pg_transform AS t WHERE (t.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_language'::regclass, l.oid FROM pg_language AS l WHERE (l.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_ts_config'::regclass, t.oid FROM pg_ts_config AS t WHERE (t.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_ts_dict'::regclass, t.oid FROM pg_ts_dict AS t WHERE (t.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, f.oid FROM pg_foreign_data_wrapper AS f WHERE (f.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid FROM pg_foreign_server AS s WHERE (s.xmin = objects.xid OR objects.xid IS NULL)
    UNION ALL SELECT 'pg_publication'::regclass, p.oid FROM pg_publication AS p WHERE (p.xmin = objects.xid OR objects.xid IS NULL)
  )
  -- What belongs to something else that was made goes with that.
  SELECT m.class, m.object
  FROM made AS m
  WHERE objects.xid IS NULL OR NOT EXISTS (
    SELECT FROM pg_depend AS d
    -- The key of a partitioned table is a part of it that belongs to it.
    WHERE d.classid = m.class AND d.objid = m.object AND d.objsubid = 0 AND (d.deptype = 'i'
      OR d.deptype IN ('a', 'P', 'S', 'e') AND (d.refclassid, d.refobjid) IN (SELECT o.class, o.object FROM made AS o)))
$$;
COMMENT ON FUNCTION _transmute.objects(xid) IS 'Objects whose rows a transaction wrote last, without those that belong to others of them; NULL: all objects.';

CREATE FUNCTION _transmute.rename_sql(class oid, object oid, part integer, name text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE
    WHEN rename_sql.part > 0 THEN (
      SELECT format('ALTER %s %s RENAME %s %I TO %I', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
          WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, _transmute.relation_name(c.oid), CASE c.relkind WHEN 'c' THEN 'ATTRIBUTE' ELSE 'COLUMN' END, a.attname, rename_sql.name)
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE a.attrelid = rename_sql.object AND a.attnum = rename_sql.part)
    WHEN rename_sql.class = 'pg_constraint'::regclass THEN (
      SELECT format('ALTER %s RENAME CONSTRAINT %I TO %I', CASE WHEN con.conrelid <> 0 THEN 'TABLE ' || _transmute.relation_name(con.conrelid)
          ELSE 'DOMAIN ' || format_type(con.contypid, NULL) END, con.conname, rename_sql.name)
      FROM pg_constraint AS con WHERE con.oid = rename_sql.object)
    ELSE format('ALTER %s RENAME TO %I', _transmute.address_sql(rename_sql.class, rename_sql.object, 0), rename_sql.name)
  END
$$;
COMMENT ON FUNCTION _transmute.rename_sql(oid, oid, integer, text) IS 'Gives an object, or a column of one, this name.';
