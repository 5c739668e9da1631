-- What the statement has made or changed, as the objects themselves and the relations that they belong to. Left out is what
-- changes neither shape nor rows.
WITH done AS (
  SELECT classid, objid FROM pg_event_trigger_ddl_commands()
  WHERE classid IS NOT NULL AND command_tag NOT IN ('COMMENT', 'GRANT', 'REVOKE', 'SECURITY LABEL', 'REFRESH MATERIALIZED VIEW', 'REINDEX',
    'CREATE STATISTICS', 'ALTER STATISTICS', 'CREATE PUBLICATION', 'ALTER PUBLICATION')
)
SELECT classid, objid FROM done
UNION SELECT 'pg_class'::regclass::oid, i.indrelid FROM done JOIN pg_index i ON classid = 'pg_class'::regclass AND i.indexrelid = objid
UNION SELECT 'pg_class'::regclass, i.inhparent FROM done JOIN pg_inherits i ON classid = 'pg_class'::regclass AND i.inhrelid = objid
UNION SELECT 'pg_class'::regclass, t.tgrelid FROM done JOIN pg_trigger t ON classid = 'pg_trigger'::regclass AND t.oid = objid
UNION SELECT 'pg_class'::regclass, r.ev_class FROM done JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
UNION SELECT 'pg_class'::regclass, p.polrelid FROM done JOIN pg_policy p ON classid = 'pg_policy'::regclass AND p.oid = objid
UNION SELECT 'pg_class'::regclass, c.conrelid FROM done JOIN pg_constraint c ON classid = 'pg_constraint'::regclass AND c.oid = objid
