CREATE FUNCTION transmute.plan(id text)
RETURNS TABLE (step integer, phase text, kind text, target text, sql text, lock_mode text, rewrites boolean, transactional boolean,
  risk_level text, risk_score integer, reasons text[], reversible boolean, revert_sql text, estimated jsonb,
  locks text[], operations text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM _transmute.require_migration(plan.id);
  RETURN QUERY
    SELECT s.step, s.phase, s.kind, s.target, s.sql, s.detail ->> 'lock_mode', (s.detail ->> 'rewrites')::boolean,
      (s.detail ->> 'transactional')::boolean, s.detail ->> 'risk_level', (s.detail ->> 'risk_score')::integer,
      ARRAY(SELECT jsonb_array_elements_text(s.detail -> 'reasons')), (s.detail ->> 'reversible')::boolean, s.revert_sql,
      s.detail -> 'estimate',
      ARRAY(SELECT (l ->> 'mode') || ' on ' || (l ->> 'relation') FROM jsonb_array_elements(s.detail -> 'locks') l),
      ARRAY(SELECT jsonb_array_elements_text(s.detail -> 'operations'))
    FROM _transmute.steps s WHERE s.migration_id = plan.id ORDER BY s.step;
END
$$;
COMMENT ON FUNCTION transmute.plan(text) IS 'The stored plan of a migration, in order. estimated: rows, bytes, seconds.';

CREATE FUNCTION _transmute.require_migration(id text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF require_migration.id IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'id is NULL',
      DETAIL = 'Argument id must be given.', HINT = 'See \df+ transmute.* for the arguments.';
  END IF;
  IF NOT EXISTS (SELECT FROM _transmute.migrations m WHERE m.id = require_migration.id) THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'migration does not exist',
      DETAIL = format('No migration is named "%s".', require_migration.id),
      HINT = 'SELECT id, state FROM transmute.status lists the migrations.';
  END IF;
END
$$;
COMMENT ON FUNCTION _transmute.require_migration(text) IS 'Raises undefined_object unless the migration exists.';

CREATE FUNCTION transmute.rollback_plan(id text)
RETURNS TABLE (step integer, kind text, target text, action text, revert_sql text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM _transmute.require_migration(rollback_plan.id);
  RETURN QUERY
    SELECT s.step, s.kind, s.target,
      CASE WHEN m.state = 'FINISHED' AND m.undone_at IS NULL AND EXISTS (SELECT FROM _transmute.rewrites r
          WHERE r.migration_id = m.id AND r.reverses IS NOT NULL AND r.swapped_at IS NULL) THEN
          CASE WHEN s.kind IN ('rewrite_swap', 'rewrite_tree') THEN 'transmute.undo swaps the old rows back'
            WHEN s.kind LIKE 'rewrite%' OR s.revert_sql IS NULL THEN 'nothing' ELSE 'transmute.undo runs revert_sql' END
        WHEN m.state IN ('FINISHING', 'FINISHED') AND m.down IS NOT NULL THEN 'past the point of no return: transmute.down(id, reason) runs the way back that was given'
        WHEN m.state IN ('FINISHING', 'FINISHED') THEN 'cannot be taken back: past the point of no return'
        WHEN s.phase = 'contract' THEN 'nothing: it has not run'
        WHEN s.status IN ('pending', 'reverted') THEN 'nothing: it has not run'
        WHEN s.kind = 'rule_make' THEN CASE WHEN s.revert_sql IS NULL THEN 'end the rule' ELSE 'end the rule, run revert_sql' END
        WHEN s.kind LIKE 'rule%' THEN 'nothing: the values go with the columns'
        WHEN s.kind = 'rewrite_expand' THEN 'drop the capture triggers, the shadow and the twin'
        WHEN s.kind = 'rewrite_into' THEN 'drop the capture triggers and the key log'
        WHEN s.kind IN ('hand_batch', 'copy_rows') AND s.revert_sql IS NULL THEN 'nothing: no rollback was given; rows stay but for what the steps before made'
        WHEN s.kind IN ('data', 'batch') THEN 'nothing: the rows go with what the steps before made'
        WHEN s.kind LIKE 'rewrite%' THEN 'nothing: its work goes with the shadow'
        WHEN s.kind = 'outside' AND s.revert_sql IS NULL THEN 'nothing: it made nothing'
        ELSE 'run revert_sql' END,
      s.revert_sql
    FROM _transmute.steps s JOIN _transmute.migrations m ON m.id = s.migration_id
    WHERE s.migration_id = rollback_plan.id ORDER BY s.step DESC;
END
$$;
COMMENT ON FUNCTION transmute.rollback_plan(text) IS 'What transmute.rollback(id, reason) would do now, in that order.';

-- PL/pgSQL keeps the plan: applications ask often.
CREATE FUNCTION transmute.state(id text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN (SELECT r.state FROM transmute.routing r WHERE r.id = state.id); END $$;
COMMENT ON FUNCTION transmute.state(text) IS 'State of a migration, for applications. NULL: no such migration, or one of somebody else''s: see transmute.routing.';

CREATE FUNCTION transmute.is_finished(id text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN coalesce((SELECT r.state = 'FINISHED' FROM transmute.routing r WHERE r.id = is_finished.id), false); END $$;
COMMENT ON FUNCTION transmute.is_finished(text) IS 'True once a migration is FINISHED; false before, and where transmute.state is NULL.';

CREATE FUNCTION transmute.route(id text, OUT read_from text, OUT write_to text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ BEGIN SELECT r.read_from, r.write_to INTO read_from, write_to FROM transmute.routing r WHERE r.id = route.id; END $$;
COMMENT ON FUNCTION transmute.route(text) IS 'What to read and write now, as in transmute.routing, for applications. NULL: as transmute.state.';

CREATE FUNCTION _transmute.progress_line(id text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s %s%s%s%s%s%s', s.state, to_char(100 * s.progress, 'FM990.0') || ' %',
    ', ' || to_char(s.rows_per_second, 'FM999,999,990') || ' rows/s',
    ', ' || date_trunc('second', s.eta)::text || ' left',
    CASE WHEN s.lag > 0 THEN ', ' || s.lag || ' keys behind' END,
    CASE WHEN s.soak_until > clock_timestamp() AND s.state = 'AWAITING_FINALIZATION'
      THEN ', soak ends in ' || date_trunc('second', s.soak_until - clock_timestamp() + interval '1 second')::text END,
    '; waits for ' || s.waiting_for)
  FROM transmute.status s WHERE s.id = progress_line.id
$$;
COMMENT ON FUNCTION _transmute.progress_line(text) IS 'One line on where a migration stands, for NOTICEs.';

CREATE PROCEDURE transmute.wait(id text, state text DEFAULT 'FINISHED', timeout interval DEFAULT '1 hour')
LANGUAGE plpgsql AS $$
DECLARE
  give_up timestamptz;
  now_state text;
  line text;
  last_line text;
  last_notice timestamptz := '-infinity';
  failure record;
BEGIN
  -- A procedure that commits cannot have a SET clause: names and operators of the caller's are kept out for each transaction.
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  give_up := pg_catalog.clock_timestamp() + wait.timeout;
  IF wait.timeout IS NULL OR wait.timeout < interval '0' THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'timeout must be zero or more',
      DETAIL = pg_catalog.format('timeout is %s.', coalesce(wait.timeout::text, 'NULL')), HINT = 'Give an interval such as ''1 hour''.';
  END IF;
  IF wait.state IS NULL OR wait.state NOT IN ('UNINITIALIZED', 'INITIALIZING', 'RUNNING', 'AWAITING_ACTION', 'AWAITING_FINALIZATION',
      'FINISHING', 'FINISHED', 'ROLLING_BACK') THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'unknown state',
      DETAIL = pg_catalog.format('state is %s.', coalesce(wait.state, 'NULL')), HINT = 'States: UNINITIALIZED, INITIALIZING, RUNNING, AWAITING_ACTION, AWAITING_FINALIZATION, FINISHING, FINISHED, ROLLING_BACK.';
  END IF;
  PERFORM FROM transmute.plan(wait.id) LIMIT 1;
  LOOP
    SELECT s.state, s.last_error, s.last_error_sqlstate, s.last_error_hint, s.outcome, s.queued INTO failure
      FROM transmute.status s WHERE s.id = wait.id;
    now_state := failure.state;
    EXIT WHEN now_state = wait.state AND (now_state <> 'UNINITIALIZED' OR NOT failure.queued)
      OR wait.state = 'AWAITING_FINALIZATION' AND now_state IN ('FINISHING', 'FINISHED')
      OR wait.state = 'RUNNING' AND now_state IN ('AWAITING_FINALIZATION', 'FINISHING', 'FINISHED')
      OR wait.state = 'FINISHING' AND now_state = 'FINISHED';
    IF failure.outcome = 'FAILED' THEN
      RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = 'the migration needs a person',
        DETAIL = pg_catalog.format('Migration "%s", %s: %s (%s).', wait.id, now_state, failure.last_error, failure.last_error_sqlstate),
        HINT = coalesce(failure.last_error_hint, 'See transmute.status.');
    END IF;
    IF now_state = 'UNINITIALIZED' AND NOT failure.queued THEN
      RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'the migration is not running',
        DETAIL = pg_catalog.format('Migration "%s" is %s.', wait.id, failure.outcome), HINT = 'SELECT * FROM transmute.apply(id) starts it.';
    END IF;
    IF pg_catalog.clock_timestamp() >= give_up THEN
      RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'the migration did not get there in time',
        DETAIL = pg_catalog.format('Migration "%s" is in state %s after %s.', wait.id, now_state, wait.timeout),
        HINT = 'It goes on; CALL transmute.wait again, or look at transmute.status.';
    END IF;
    line := transmute.progress_line(wait.id);
    IF line IS DISTINCT FROM last_line AND pg_catalog.clock_timestamp() > last_notice + interval '1 second' THEN
      RAISE NOTICE '%', line;
      last_line := line;
      last_notice := pg_catalog.clock_timestamp();
    END IF;
    -- No snapshot outlives a nap: index builds, vacuum and the swap wait for old ones.
    COMMIT;
    PERFORM pg_catalog.pg_sleep(0.05);
    COMMIT;
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  END LOOP;
END
$$;
COMMENT ON PROCEDURE transmute.wait(text, text, interval) IS 'Follows a migration until it is in a state (or past it) with NOTICEs about its progress; an error when it needs a person or the time is over.';

CREATE FUNCTION transmute.progress_line(id text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT _transmute.progress_line(id) $$;
COMMENT ON FUNCTION transmute.progress_line(text) IS 'Where a migration stands, in one line: state, percent, rows a second, time left, lag, what it waits for.';

CREATE FUNCTION _transmute.needs_person(id text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT m.queued AND EXISTS (SELECT FROM _transmute.stops s WHERE s.resumed_at IS NULL)
  OR m.state = 'AWAITING_ACTION' OR m.next_attempt_at = 'infinity' OR m.paused_reason IS NOT NULL
  OR m.state = 'AWAITING_FINALIZATION' AND m.waiting_for IS NOT NULL AND m.soak_until <= clock_timestamp()
    AND m.required_approvals > (SELECT count(*) FROM _transmute.approvals a WHERE a.migration_id = m.id
      AND a.revoked_at IS NULL AND a.expires_at > clock_timestamp())
  OR m.state = 'UNINITIALIZED' AND m.queued AND m.waiting_for IS NOT NULL AND EXISTS (
    SELECT FROM jsonb_array_elements_text(m.meta -> 'depends_on') AS d (id) LEFT JOIN _transmute.migrations n ON n.id = d.id
    WHERE n.id IS NULL OR n.state = 'AWAITING_ACTION' OR n.next_attempt_at = 'infinity' OR n.state <> 'FINISHED' AND NOT n.queued)
  FROM _transmute.migrations m WHERE m.id = needs_person.id $$;
COMMENT ON FUNCTION _transmute.needs_person(text) IS 'True when a migration goes on only after somebody has acted.';
