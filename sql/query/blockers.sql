-- Who holds a lock on these relations ($1) in one of these modes ($2), which conflict with the wanted one, and has been in its transaction for
-- longer than $3 ms? Prepared transactions always count; an autovacuum gives way by itself when we queue behind it. The query is
-- shown where the owner of the first relation may see it.
SELECT coalesce('pid ' || b.pid, 'prepared transaction ' || coalesce(quote_literal(p.gid), ''))
  || coalesce(' (' || nullif(b.application_name, '') || ')', '')
  || coalesce(', ' || b.state, '') || coalesce(', for ' || extract(epoch FROM clock_timestamp() - b.xact_start)::int || ' s', '')
  || CASE WHEN b.visible AND b.query <> '' THEN ': '
    || left(regexp_replace(b.query, '\s+', ' ', 'g'), 60) || CASE WHEN length(b.query) > 60 THEN '…' ELSE '' END ELSE '' END
FROM (
  SELECT DISTINCT l.pid, l.virtualtransaction, a.application_name, a.state, a.xact_start, a.query,
    coalesce(pg_has_role(o.relowner, a.usesysid, 'USAGE') OR pg_has_role(o.relowner, 'pg_read_all_stats', 'USAGE'), false) AS visible
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_class o ON o.oid = ($1::oid[])[1]
  WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.mode = ANY ($2)
    AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - $3 * interval '1 millisecond')
    AND a.backend_type IS DISTINCT FROM 'autovacuum worker') b
-- A prepared transaction's virtual id is -1/xid from 17 on, 0/xid or -1/xid before.
LEFT JOIN pg_prepared_xacts p ON b.pid IS NULL AND split_part(b.virtualtransaction, '/', 2) = p.transaction::text
ORDER BY b.xact_start
LIMIT 3
