-- As recreate.sql, for materialized views and for functions whose body is SQL.

CREATE FUNCTION _transmute.tablespace_name(tablespace oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  -- 0 is the database's own, which has to be named: default_tablespace may be another one.
  SELECT quote_ident(s.spcname)
  FROM pg_database AS d
  JOIN pg_tablespace AS s ON s.oid = coalesce(nullif(tablespace_name.tablespace, 0), d.dattablespace)
  WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION _transmute.tablespace_name(oid) IS 'Name of a tablespace as SQL; 0 is the one of the database.';

CREATE FUNCTION _transmute.index_sql(relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH statements (index, place, sql) AS (
    SELECT i.oid, s.place, s.sql
    FROM pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL (VALUES
      -- The server's own text has no tablespace.
      (1, 'SET LOCAL default_tablespace = ' || _transmute.tablespace_name(i.reltablespace)),
      (2, pg_get_indexdef(i.oid)),
      (4, CASE WHEN x.indisclustered THEN format('ALTER TABLE %s CLUSTER ON %I', _transmute.relation_name(x.indrelid), i.relname) END),
      (5, CASE WHEN x.indisreplident THEN
        format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', _transmute.relation_name(x.indrelid), i.relname) END),
      (6, format('COMMENT ON INDEX %s IS ', _transmute.relation_name(i.oid)) || quote_literal(obj_description(i.oid, 'pg_class')))
    ) AS s (place, sql)
    WHERE x.indrelid = index_sql.relation
    UNION ALL
    SELECT a.attrelid, 3, format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s',
      _transmute.relation_name(a.attrelid), a.attnum, a.attstattarget)
    FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indexrelid AND a.attnum > 0 AND a.attstattarget >= 0
    WHERE x.indrelid = index_sql.relation
    UNION ALL
    SELECT d.objid, 7, format('ALTER INDEX %s DEPENDS ON EXTENSION %I', _transmute.relation_name(d.objid), e.extname)
    FROM pg_index AS x
    JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid AND d.deptype = 'x'
    JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
    WHERE x.indrelid = index_sql.relation
    UNION ALL
    SELECT NULL, 0, format('SET LOCAL default_tablespace = %L', current_setting('default_tablespace'))
    WHERE EXISTS (SELECT FROM pg_index AS x WHERE x.indrelid = index_sql.relation)
  )
  SELECT coalesce(array_agg(s.sql ORDER BY s.index, s.place, s.sql COLLATE "C") FILTER (WHERE s.sql IS NOT NULL), '{}')
  FROM statements AS s
$$;
COMMENT ON FUNCTION _transmute.index_sql(oid) IS 'Statements that make the indexes of a relation again that has no constraints.';

CREATE FUNCTION _transmute.statistics_sql(relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(array_agg(u.sql ORDER BY s.oid, u.place) FILTER (WHERE u.sql IS NOT NULL), '{}')
  FROM pg_statistic_ext AS s
  JOIN pg_namespace AS n ON n.oid = s.stxnamespace
  CROSS JOIN LATERAL (VALUES
    (1, pg_get_statisticsobjdef(s.oid)),
    (2, format('ALTER STATISTICS %I.%I OWNER TO %s', n.nspname, s.stxname, _transmute.role_name(s.stxowner))),
    (3, CASE WHEN s.stxstattarget >= 0 THEN
      format('ALTER STATISTICS %I.%I SET STATISTICS %s', n.nspname, s.stxname, s.stxstattarget) END),
    (4, format('COMMENT ON STATISTICS %I.%I IS ', n.nspname, s.stxname) || quote_literal(obj_description(s.oid, 'pg_statistic_ext')))
  ) AS u (place, sql)
  WHERE s.stxrelid = statistics_sql.relation
$$;
COMMENT ON FUNCTION _transmute.statistics_sql(oid) IS 'Statements that make the extended statistics of a relation again.';

CREATE FUNCTION _transmute.matview_sql(matview oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(
    ARRAY[
      concat(
        'CREATE MATERIALIZED VIEW ' || v.name,
        (SELECT format(' USING %I', m.amname) FROM pg_am AS m WHERE m.oid = v.relam),
        (
          SELECT ' WITH (' || string_agg(
            format('%s%I = %L', o.prefix, split_part(o.option, '=', 1), substr(o.option, strpos(o.option, '=') + 1)), ', '
            ORDER BY o.prefix, o.place) || ')'
          FROM (
            SELECT '' AS prefix, own.option, own.place FROM unnest(v.reloptions) WITH ORDINALITY AS own (option, place)
            UNION ALL
            SELECT 'toast.', of_toast.option, of_toast.place
            FROM pg_class AS toast, unnest(toast.reloptions) WITH ORDINALITY AS of_toast (option, place)
            WHERE toast.oid = v.reltoastrelid
          ) AS o),
        ' TABLESPACE ' || _transmute.tablespace_name(v.reltablespace),
        E' AS\n' || rtrim(pg_get_viewdef(v.oid), ';') || E'\nWITH NO DATA'),
      format('ALTER MATERIALIZED VIEW %s OWNER TO %s', v.name, _transmute.role_name(v.relowner))
    ] || ARRAY(
      SELECT format('ALTER MATERIALIZED VIEW %s ALTER COLUMN %I SET %s', v.name, a.attname, c.clause)
      FROM pg_attribute AS a
      JOIN pg_type AS t ON t.oid = a.atttypid
      CROSS JOIN LATERAL (VALUES
        (1, CASE WHEN a.attstorage <> t.typstorage THEN
          'STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
        (2, 'COMPRESSION ' || CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END),
        (3, CASE WHEN a.attstattarget >= 0 THEN 'STATISTICS ' || a.attstattarget END),
        (4, (
          SELECT '(' || string_agg(replace(o, '=', ' = '), ', ' ORDER BY place) || ')'
          FROM unnest(a.attoptions) WITH ORDINALITY AS u (o, place) WHERE NOT starts_with(o, 'pg_')))
      ) AS c (place, clause)
      WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.clause IS NOT NULL
      ORDER BY a.attnum, c.place
    ) || _transmute.index_sql(v.oid) || ARRAY[
      CASE v.relreplident WHEN 'f' THEN format('ALTER MATERIALIZED VIEW %s REPLICA IDENTITY FULL', v.name)
        WHEN 'n' THEN format('ALTER MATERIALIZED VIEW %s REPLICA IDENTITY NOTHING', v.name) END
    ] || _transmute.statistics_sql(v.oid) || ARRAY(
      SELECT format('ALTER MATERIALIZED VIEW %s DEPENDS ON EXTENSION %I', v.name, e.extname)
      FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
      WHERE d.classid = 'pg_class'::regclass AND d.objid = v.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'
      ORDER BY e.extname
    ) || ARRAY[
      'COMMENT ON MATERIALIZED VIEW ' || v.name || ' IS ' || quote_literal(obj_description(v.oid, 'pg_class'))
    ] || ARRAY(
      SELECT format('COMMENT ON COLUMN %s.%I IS %L', v.name, a.attname, d.description)
      FROM pg_description AS d JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
      WHERE d.objoid = v.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0
      ORDER BY a.attnum
    ) || ARRAY(
      SELECT format('SECURITY LABEL FOR %I ON %s IS %L', l.provider,
        coalesce('COLUMN ' || v.name || '.' || quote_ident(a.attname), 'MATERIALIZED VIEW ' || v.name), l.label)
      FROM pg_seclabel AS l LEFT JOIN pg_attribute AS a ON l.objsubid > 0 AND a.attrelid = l.objoid AND a.attnum = l.objsubid
      WHERE l.objoid = v.oid AND l.classoid = 'pg_class'::regclass
      ORDER BY l.objsubid, l.provider
    ) || _transmute.grant_sql(v.oid), NULL)
  FROM (SELECT c.*, _transmute.relation_name(c.oid) AS name FROM pg_class AS c) AS v
  WHERE v.oid = matview_sql.matview
$$;
COMMENT ON FUNCTION _transmute.matview_sql(oid) IS 'Statements that make a materialized view again, with its indexes and statistics, without rows.';

CREATE FUNCTION _transmute.function_head(function oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  -- The definition ends with the body, as the server prints it by itself.
  SELECT left(d.definition, -length(b.body))
  FROM rtrim(pg_get_functiondef(function_head.function), E'\n') AS d (definition),
    rtrim(pg_get_function_sqlbody(function_head.function), E'\n') AS b (body)
  WHERE right(d.definition, length(b.body)) = b.body
$$;
COMMENT ON FUNCTION _transmute.function_head(oid) IS 'CREATE OR REPLACE of a function with a body in SQL, up to the body; NULL for any other function.';

CREATE FUNCTION _transmute.function_sql(function oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT ARRAY[pg_get_functiondef(function_sql.function)] || ARRAY(
    -- OR REPLACE keeps everything but these.
    SELECT format('ALTER ROUTINE %s DEPENDS ON EXTENSION %I', function_sql.function::regprocedure, e.extname)
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = function_sql.function
      AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'
    ORDER BY e.extname)
$$;
COMMENT ON FUNCTION _transmute.function_sql(oid) IS 'Statements that give a function its body in SQL again.';

CREATE FUNCTION _transmute.function_stub_sql(function oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT ARRAY[
    'SET LOCAL check_function_bodies = off',
    _transmute.function_head(function_stub_sql.function) || ' AS $stub$SELECT NULL$stub$',
    'SET LOCAL check_function_bodies = ' || current_setting('check_function_bodies')]
$$;
COMMENT ON FUNCTION _transmute.function_stub_sql(oid) IS 'Statements that take the body in SQL, and with it what that depends on, from a function, which stays what it is to all that use it.';
