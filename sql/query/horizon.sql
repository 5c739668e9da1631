-- Who keeps vacuum from removing dead rows of this database, the one with the oldest snapshot first; not this process.
SELECT w.what FROM (
  SELECT format('pid %s (%s)', a.pid, coalesce(nullif(a.application_name, ''), a.backend_type)), age(a.backend_xmin)
  FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL AND a.backend_type <> 'autovacuum worker'
  UNION ALL
  SELECT format('the prepared transaction %L', p.gid), age(p.transaction) FROM pg_prepared_xacts p WHERE p.database = current_database()
  UNION ALL
  SELECT format('the replication slot %s', s.slot_name), age(s.xmin) FROM pg_replication_slots s WHERE s.xmin IS NOT NULL
  UNION ALL
  SELECT format('the replica %s', coalesce(nullif(r.application_name, ''), r.pid::text)), age(r.backend_xmin)
  FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL) w (what, age)
ORDER BY w.age DESC LIMIT 1
