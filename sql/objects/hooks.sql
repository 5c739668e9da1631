-- Hooks after an event are asked for in the transaction of the event, by a trigger, and called by whoever drives, each in a
-- transaction of its own: what fails there undoes nothing.

CREATE FUNCTION _transmute.ask_hooks() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO _transmute.hook_runs (migration_id, event, function, owner_name)
  SELECT NEW.id, h.event, h.function, h.owner_name
  FROM _transmute.hooks h
  WHERE h.event = CASE
    WHEN OLD.state <> 'AWAITING_FINALIZATION' AND NEW.state = 'AWAITING_FINALIZATION' AND OLD.soak_until IS NULL THEN 'post_apply'
    WHEN OLD.state <> 'FINISHED' AND NEW.state = 'FINISHED' THEN 'post_finalize'
    WHEN NEW.state = 'UNINITIALIZED' AND OLD.rollback_reason IS NOT NULL AND NEW.rollback_reason IS NULL THEN 'post_rollback' END
  ORDER BY h.id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _transmute.ask_hooks() IS 'Trigger on migrations: asks for the hooks after apply, finalization and rollback.';
CREATE TRIGGER ask_hooks AFTER UPDATE ON _transmute.migrations
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.rollback_reason IS DISTINCT FROM NEW.rollback_reason)
  EXECUTE FUNCTION _transmute.ask_hooks();
ALTER TABLE _transmute.migrations ENABLE ALWAYS TRIGGER ask_hooks;
