-- Rows, bytes and vacuums of a table, or of each leaf of a partitioned one, as the cumulative statistics know them. Live rows are
-- the lower of two estimates: an ANALYZE in the transaction that has loaded a table makes the statistics count it twice. What has no
-- size is being dropped.
SELECT c.oid, format('%I.%I', n.nspname, c.relname),
  coalesce(least(
    nullif(pg_stat_get_live_tuples(c.oid), 0)::float8,
    CASE WHEN c.reltuples > 0 AND c.relpages > 0
      THEN greatest(c.reltuples::float8 / c.relpages * (s.bytes / current_setting('block_size')::int)
        - pg_stat_get_dead_tuples(c.oid), 0) END), 0),
  pg_stat_get_dead_tuples(c.oid)::float8, s.bytes, pg_stat_get_vacuum_count(c.oid)
FROM (SELECT $1::oid UNION SELECT relid::oid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf) l (relid)
JOIN pg_class c ON c.oid = l.relid AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN pg_relation_size(c.oid) s (bytes)
WHERE s.bytes IS NOT NULL
ORDER BY 4 DESC
