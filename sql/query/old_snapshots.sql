-- Transactions of this database whose snapshot may be older than transaction $1, as pid@start. Asked once, after $1 has
-- committed: a snapshot taken later sees it, whatever its xmin.
SELECT a.pid || '@' || extract(epoch FROM a.xact_start)
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL
  AND age(a.backend_xmin) >= age($1::xid8::xid)
