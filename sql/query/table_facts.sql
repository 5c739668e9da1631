-- What of a table ($1) decides how much a statement on it hurts?
SELECT n.nspname::text, c.relname::text, c.relkind::text, greatest(c.reltuples, 0)::bigint,
  CASE WHEN c.relkind IN ('r', 'm', 't') THEN coalesce(pg_total_relation_size(c.oid), 0) ELSE 0 END,
  coalesce((SELECT s.n_tup_ins + s.n_tup_upd + s.n_tup_del FROM pg_stat_user_tables s WHERE s.relid = c.oid), 0)::float8
    / greatest(extract(epoch FROM clock_timestamp() - coalesce((SELECT d.stats_reset FROM pg_stat_database d
      WHERE d.datname = current_database()), to_timestamp((SELECT system_identifier >> 32 FROM pg_control_system())))), 1)::float8,
  EXISTS (SELECT FROM pg_publication_rel r WHERE r.prrelid = c.oid)
    OR EXISTS (SELECT FROM pg_publication p WHERE p.puballtables)
    OR EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnnspid = c.relnamespace),
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1
