-- The transition table once more, where nobody gets around it, and the audit trail against change.
CREATE FUNCTION _transmute.guard_state() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (OLD.state, NEW.state) NOT IN (
    ('UNINITIALIZED', 'INITIALIZING'), ('INITIALIZING', 'RUNNING'), ('INITIALIZING', 'ROLLING_BACK'),
    ('RUNNING', 'AWAITING_ACTION'), ('RUNNING', 'AWAITING_FINALIZATION'), ('RUNNING', 'ROLLING_BACK'),
    ('AWAITING_ACTION', 'RUNNING'), ('AWAITING_ACTION', 'ROLLING_BACK'),
    ('AWAITING_FINALIZATION', 'RUNNING'), ('AWAITING_FINALIZATION', 'AWAITING_ACTION'), ('AWAITING_FINALIZATION', 'FINISHING'), ('AWAITING_FINALIZATION', 'ROLLING_BACK'),
    ('FINISHING', 'FINISHED'), ('ROLLING_BACK', 'UNINITIALIZED')) THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = 'the state of a migration cannot change this way',
      DETAIL = pg_catalog.format('Migration "%s": %s to %s is not in the transition table.', OLD.id, OLD.state, NEW.state),
      HINT = 'Use transmute.apply, resume, approve or rollback.';
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _transmute.guard_state() IS 'Trigger: refuses every change of migrations.state that is not in the transition table.';
CREATE TRIGGER guard_state BEFORE UPDATE OF state ON _transmute.migrations
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION _transmute.guard_state();
ALTER TABLE _transmute.migrations ENABLE ALWAYS TRIGGER guard_state;

CREATE FUNCTION _transmute.guard_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
    MESSAGE = 'the audit trail cannot be changed',
    DETAIL = pg_catalog.format('%s on %I.%I was refused.', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
    HINT = 'It only grows. SELECT * FROM transmute.audit_verify() checks it.';
END
$$;
COMMENT ON FUNCTION _transmute.guard_audit() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE of the audit trail.';
CREATE TRIGGER guard_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON _transmute.audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION _transmute.guard_audit();
ALTER TABLE _transmute.audit_events ENABLE ALWAYS TRIGGER guard_audit;

CREATE FUNCTION _transmute.home() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT c.system_identifier || '/' || d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database() $$;
COMMENT ON FUNCTION _transmute.home() IS 'This database of this cluster: a copy by pg_dump, CREATE DATABASE or pg_upgrade has another one; a standby and a restored backup have the same.';

CREATE FUNCTION _transmute.relation_named(name text) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN name ~ '^([^".[:space:]]+|"([^"]|"")+")(\.([^".[:space:]]+|"([^"]|"")+"))?$' THEN to_regclass(name)::oid END $$;
COMMENT ON FUNCTION _transmute.relation_named(text) IS 'The relation of a qualified name; NULL: there is none, or the text is no name, on which to_regclass fails before 16.';

CREATE FUNCTION _transmute.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'transmute_capture';
COMMENT ON FUNCTION _transmute.capture() IS 'Trigger on tables that are being rewritten: appends the key of each changed row to the key log. Arguments: oid and name of the log, attribute numbers of the key.';

CREATE FUNCTION _transmute.dual_write() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'transmute_dual_write';
COMMENT ON FUNCTION _transmute.dual_write() IS 'Trigger on tables whose old and new columns are kept equal. Argument: the rule, as JSON.';
