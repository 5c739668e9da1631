-- Two schemas of our own: transmute (what people see; made by CREATE EXTENSION from the control file) and
-- _transmute (tables and internal functions). Work schemas _transmute_N_new, _transmute_N_old and _transmute_N_views come and go
-- with the rewrites. No OR REPLACE, no IF NOT EXISTS: an object that is there already is somebody else's.
-- A schema transmute that was there before must be empty, and nobody's but superusers': this script runs with it in search_path.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
      WHERE n.nspname OPERATOR(pg_catalog.=) 'transmute' AND NOT r.rolsuper)
    OR EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
      WHERE n.nspname OPERATOR(pg_catalog.=) 'transmute' AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) a.grantee AND r.rolsuper))
    OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
      WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname OPERATOR(pg_catalog.=) 'transmute'
        AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass) THEN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_schema', MESSAGE = 'schema transmute is somebody else''s',
      DETAIL = 'It is not empty, or belongs to, or can be written by, a role that is no superuser.',
      HINT = 'Drop or rename that schema, then CREATE EXTENSION again.';
  END IF;
END
$$;
CREATE SCHEMA _transmute;
COMMENT ON SCHEMA _transmute IS 'Tables and internal functions of the extension transmute. Not for direct use: see schema transmute.';
COMMENT ON SCHEMA transmute IS 'Online schema changes: SELECT * FROM transmute.explain(ddl), transmute.register(id, ddl), transmute.apply(id), transmute.status.';
