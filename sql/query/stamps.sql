-- Who wrote the catalog rows of these objects last? Another text: one of them was changed meanwhile.
SELECT coalesce(string_agg(stamp, ' ' ORDER BY stamp COLLATE "C"), '')
FROM (
  SELECT 'relation ' || oid || '=' || xmin::text FROM pg_class WHERE oid = ANY ($1)
  UNION ALL SELECT 'rule ' || oid || '=' || xmin::text FROM pg_rewrite WHERE ev_class = ANY ($1)
  UNION ALL SELECT 'rule ' || oid || '=' || xmin::text FROM pg_rewrite WHERE oid = ANY ($1)
  UNION ALL SELECT 'policy ' || oid || '=' || xmin::text FROM pg_policy WHERE oid = ANY ($1)
  UNION ALL SELECT 'trigger ' || oid || '=' || xmin::text FROM pg_trigger WHERE oid = ANY ($1)
  UNION ALL SELECT 'constraint ' || oid || '=' || xmin::text FROM pg_constraint WHERE oid = ANY ($1)
  UNION ALL SELECT 'member ' || oid || '=' || xmin::text FROM pg_publication_rel WHERE oid = ANY ($1)
  UNION ALL SELECT 'function ' || oid || '=' || xmin::text FROM pg_proc WHERE oid = ANY ($1)
) AS stamps (stamp)
