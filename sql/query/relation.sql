-- What is this relation, and what stands in the way of rewriting it? One that somebody drops meanwhile has no bytes; who opens it
-- finds that it is gone.
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relowner, pg_get_userbyid(c.relowner)::text,
  c.relispartition, EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid),
  c.reloftype <> 0, c.relfilenode, coalesce(am.amname::text, ''), coalesce(t.spcname::text, ''),
  coalesce(p.rows, greatest(c.reltuples, 0)::float8), coalesce(p.table_bytes, pg_table_size(c.oid), 0),
  coalesce(p.index_bytes, pg_indexes_size(c.oid), 0),
  coalesce(array_to_string(ARRAY(SELECT format('%I=%L', o.option_name, o.option_value)
    FROM pg_options_to_table(c.reloptions) o), ', '), ''),
  coalesce(array_to_string(ARRAY(SELECT format('toast.%I=%L', o.option_name, o.option_value)
    FROM pg_options_to_table(tc.reloptions) o), ', '), ''),
  coalesce((SELECT string_agg(quote_ident(x.relname), ', ') FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = c.oid AND NOT (i.indisvalid AND i.indisready)), ''),
  n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname LIKE 'pg\_%' OR n.nspname LIKE '\_transmute%' OR n.nspname = 'transmute',
  coalesce((SELECT s.n_tup_ins + s.n_tup_upd + s.n_tup_del FROM pg_stat_user_tables s WHERE s.relid = c.oid), 0)::float8
    / greatest(extract(epoch FROM clock_timestamp() - coalesce((SELECT d.stats_reset FROM pg_stat_database d
      WHERE d.datname = current_database()), to_timestamp((SELECT system_identifier >> 32 FROM pg_control_system())))), 1)::float8
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
LEFT JOIN pg_class tc ON tc.oid = c.reltoastrelid
-- A partitioned table is as large as its partitions are together.
LEFT JOIN LATERAL (
  WITH RECURSIVE tree (oid) AS (
    SELECT c.oid UNION ALL SELECT h.inhrelid FROM tree JOIN pg_inherits h ON h.inhparent = tree.oid
  )
  SELECT sum(greatest(l.reltuples, 0))::float8 AS rows, sum(pg_table_size(l.oid))::bigint AS table_bytes,
    sum(pg_indexes_size(l.oid))::bigint AS index_bytes
  FROM tree JOIN pg_class l ON l.oid = tree.oid AND l.relkind = 'r'
) p ON c.relkind = 'p'
WHERE c.oid = $1
