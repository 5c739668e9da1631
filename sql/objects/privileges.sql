-- Runs last. Nothing for PUBLIC but reading the state of a migration, which applications do.
REVOKE ALL ON ALL TABLES IN SCHEMA _transmute FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA transmute FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA _transmute FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA transmute FROM PUBLIC;
GRANT USAGE ON SCHEMA transmute TO PUBLIC;
GRANT EXECUTE ON FUNCTION transmute.state(text), transmute.is_finished(text), transmute.route(text) TO PUBLIC;
-- It does nothing that its caller could not; a copy calls it as its owner.
GRANT EXECUTE ON FUNCTION transmute.transform(jsonb, jsonb) TO PUBLIC;
-- Who may look at all of pg_stat_activity may look at migrations.
GRANT SELECT ON ALL TABLES IN SCHEMA transmute TO pg_monitor;
GRANT EXECUTE ON FUNCTION transmute.plan(text), transmute.rollback_plan(text), transmute.progress_line(text), transmute.metrics(),
  transmute.audit_verify(bigint, text), transmute.audit_head(), transmute.audit_export(text), transmute.explain(text), transmute.explain(text, text), transmute.plain_locks(text),
  transmute.execution_order(), transmute.parallel_groups(), transmute.dependencies(text), transmute.dependents(text), transmute.graph(text),
  transmute.export(text), transmute.can_upgrade_to(text), transmute.can_downgrade_to(text), transmute.current_version() TO pg_monitor;
-- Not decoded as anybody's changes: a publication FOR ALL TABLES would send our tables to subscribers.
UPDATE pg_catalog.pg_class SET relrewrite = oid WHERE relnamespace = '_transmute'::pg_catalog.regnamespace AND relkind = 'r';
