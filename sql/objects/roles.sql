-- Four roles in the manner of pg_monitor. They belong to the cluster: made by the first database that has the extension, kept by DROP
-- EXTENSION. One that is there already is taken only if nobody but superusers can give it away.
DO $$
DECLARE
  wanted record;
BEGIN
  -- Two databases at once: the second one waits, and finds them.
  LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;
  FOR wanted IN
    SELECT r.name, r.comment FROM (VALUES
      ('transmute_reader', 'looks at migrations'),
      ('transmute_operator', 'registers, applies, pauses, rolls back migrations of tables that it owns'),
      ('transmute_approver', 'approves finalization'),
      ('transmute_admin', 'all of these, and stops everything at once')) AS r (name, comment)
  LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted.name);
      EXECUTE format('COMMENT ON ROLE %I IS %L', wanted.name, 'transmute: ' || wanted.comment);
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name AND (rolcanlogin OR rolcreaterole OR rolsuper))
      OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles r ON r.oid = m.roleid AND r.rolname = wanted.name
        JOIN pg_catalog.pg_roles a ON a.oid = m.member AND NOT a.rolsuper
        WHERE m.admin_option) THEN
      RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = 'a role of the extension''s belongs to somebody else',
        DETAIL = format('Role "%s" can log in, or is given away by roles that are no superusers.', wanted.name),
        HINT = 'Drop or rename that role, then CREATE EXTENSION again.';
    END IF;
  END LOOP;
  IF NOT pg_catalog.pg_has_role('transmute_admin', 'transmute_reader', 'MEMBER') THEN
    GRANT transmute_reader TO transmute_operator, transmute_approver;
    GRANT transmute_operator, transmute_approver TO transmute_admin;
  END IF;
END
$$;
