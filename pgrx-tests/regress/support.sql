-- What the golden files share: made in their database before the first of them runs.
ALTER DATABASE golden SET client_min_messages = warning;
-- Not the defaults: what is printed must not depend on them unnoticed.
ALTER DATABASE golden SET intervalstyle = postgres_verbose;
ALTER DATABASE golden SET datestyle = 'SQL, DMY';
ALTER DATABASE golden SET timezone = 'Asia/Kathmandu';

-- Polls until a condition holds: workers go on by themselves, so nothing here sleeps for a fixed time.
CREATE PROCEDURE public.wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
  give_up timestamptz := clock_timestamp() + interval '1 minute';
  holds boolean;
BEGIN
  LOOP
    EXECUTE 'SELECT ' || condition INTO holds;
    EXIT WHEN holds;
    IF clock_timestamp() > give_up THEN
      RAISE EXCEPTION 'still not true: %', condition;
    END IF;
    COMMIT;
    PERFORM pg_sleep(0.02);
    COMMIT;
  END LOOP;
END
$$;

-- A table's write counters as if nobody had ever written to it, because risk counts writes a second. What this session counted
-- reaches the shared counters when it is idle, after the first of the two.
CREATE PROCEDURE public.flush_counters() LANGUAGE sql AS 'SELECT pg_stat_force_next_flush()';
CREATE PROCEDURE public.forget_writes(relation regclass) LANGUAGE sql AS 'SELECT pg_stat_reset_single_table_counters(relation)';

-- Columns of a table in order, where \d would differ between versions.
CREATE FUNCTION public.columns_of(relation regclass)
RETURNS TABLE (name text, type text, "null" text, value text) LANGUAGE sql AS $$
  SELECT a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' ELSE '' END,
    coalesce(CASE a.attgenerated WHEN 's' THEN 'GENERATED AS ' ELSE 'DEFAULT ' END || pg_get_expr(d.adbin, d.adrelid), '')
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
  ORDER BY a.attnum
$$;

-- Schemas, tables and triggers of ours that exist now, with the number of the rewrite taken out; none that other golden files left
-- behind, whose ids begin otherwise.
CREATE FUNCTION public.work_objects(ids text) RETURNS TABLE (object text) LANGUAGE sql AS $$
  SELECT regexp_replace(o.text, '_transmute_\d+', '_transmute_N', 'g') FROM (
    SELECT nspname, 'schema ' || nspname FROM pg_namespace
    UNION ALL
    SELECT n.nspname, format('table %s.%s', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'
    UNION ALL
    SELECT t.tgname, format('trigger %s on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
  ) o (name, text)
  WHERE o.name ~ '^_transmute_\d' AND NOT EXISTS (
    SELECT FROM _transmute.rewrites r WHERE r.migration_id NOT LIKE ids || '%' AND o.name::text LIKE format('\_transmute\_%s\_%%', r.id))
  ORDER BY 1
$$;
