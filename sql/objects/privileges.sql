-- Runs last. Nothing for PUBLIC but the state of migrations of tables that one may use, which applications ask for.
REVOKE ALL ON ALL TABLES IN SCHEMA _transmute FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA transmute FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA _transmute FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA transmute FROM PUBLIC;
GRANT USAGE ON SCHEMA transmute TO PUBLIC;
GRANT EXECUTE ON FUNCTION transmute.state(text), transmute.is_finished(text), transmute.route(text) TO PUBLIC;
GRANT SELECT ON transmute.routing TO PUBLIC;
-- It does nothing that its caller could not; a copy calls it as its owner.
GRANT EXECUTE ON FUNCTION transmute.transform(jsonb, jsonb) TO PUBLIC;
-- Who may look at all of pg_stat_activity may look at migrations.
GRANT SELECT ON ALL TABLES IN SCHEMA transmute TO transmute_reader, pg_monitor;
GRANT EXECUTE ON FUNCTION transmute.plan(text), transmute.rollback_plan(text), transmute.progress_line(text), transmute.metrics(),
  transmute.audit_verify(bigint, text), transmute.audit_head(), transmute.audit_export(text), transmute.explain(text), transmute.explain(text, text), transmute.plain_locks(text),
  transmute.execution_order(), transmute.parallel_groups(), transmute.dependencies(text), transmute.dependents(text), transmute.graph(text),
  transmute.export(text), transmute.export_sql(text), transmute.can_upgrade_to(text), transmute.can_downgrade_to(text), transmute.current_version(),
  transmute.head(), transmute.history(timestamptz, boolean), transmute.verify_checksums(jsonb),
  transmute.verify_dir(text), transmute.verify_files(text, text[], bytea[]) TO transmute_reader, pg_monitor;
-- What a call does to tables it does only for who owns them; these say who may call it at all.
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO transmute_admin, transmute_operator;
REVOKE EXECUTE ON FUNCTION transmute.approve(text, text, interval, bigint[]), transmute.revoke_approval(text, text),
  transmute.emergency_stop(text), transmute.resume_all(text) FROM transmute_operator;
GRANT EXECUTE ON FUNCTION transmute.approve(text, text, interval, bigint[]), transmute.revoke_approval(text, text) TO transmute_approver;
-- DDL of people on what a migration works on. Always: a session that loads data with triggers off must not get past them.
CREATE EVENT TRIGGER transmute_ddl_start ON ddl_command_start EXECUTE FUNCTION _transmute.guard_ddl();
CREATE EVENT TRIGGER transmute_ddl_drop ON sql_drop EXECUTE FUNCTION _transmute.guard_ddl();
CREATE EVENT TRIGGER transmute_ddl_end ON ddl_command_end EXECUTE FUNCTION _transmute.guard_ddl();
ALTER EVENT TRIGGER transmute_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER transmute_ddl_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER transmute_ddl_end ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER transmute_ddl_start IS 'Refuses DDL that names what a migration works on.';
COMMENT ON EVENT TRIGGER transmute_ddl_drop IS 'Refuses DDL that has dropped what a migration works on.';
COMMENT ON EVENT TRIGGER transmute_ddl_end IS 'Refuses DDL that has changed what a migration works on.';
-- Not decoded as anybody's changes: a publication FOR ALL TABLES would send our tables to subscribers.
UPDATE pg_catalog.pg_class SET relrewrite = oid WHERE relnamespace = '_transmute'::pg_catalog.regnamespace AND relkind = 'r';
-- pg_restore -j loads our tables in any order: what a row refers to is not looked for when it is written. Nobody but the extension writes
-- them, and what is referred to is deleted together with what refers to it, or never.
DO $$
DECLARE
  looked_for record;
BEGIN
  FOR looked_for IN
    SELECT t.tgrelid::pg_catalog.regclass AS relation, t.tgname AS name
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
    WHERE c.relnamespace OPERATOR(pg_catalog.=) '_transmute'::pg_catalog.regnamespace AND t.tgisinternal
      AND t.tgfoid IN ('pg_catalog."RI_FKey_check_ins"'::pg_catalog.regproc, 'pg_catalog."RI_FKey_check_upd"'::pg_catalog.regproc)
  LOOP
    EXECUTE pg_catalog.format('ALTER TABLE %s DISABLE TRIGGER %I', looked_for.relation, looked_for.name);
  END LOOP;
END
$$;
