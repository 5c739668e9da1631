-- What NOTIFY transmute tells: docs/signals.md. Changes of a migration's row are noted by a trigger, in the transaction that
-- makes them, whoever makes them; what was rolled back is told by nobody.

CREATE FUNCTION _transmute.signal_payload(event text, m _transmute.migrations, facts jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  base jsonb := jsonb_build_object('version', 1, 'event', signal_payload.event, 'id', m.id, 'state', m.state, 'at', clock_timestamp());
  whole jsonb;
BEGIN
  SELECT base || coalesce(jsonb_object_agg(f.key, CASE jsonb_typeof(f.value) WHEN 'string' THEN to_jsonb(left(f.value #>> '{}', 400)) ELSE f.value END), '{}')
    INTO whole FROM jsonb_each(jsonb_strip_nulls(signal_payload.facts)) f;
  -- NOTIFY takes less than 8000 bytes.
  RETURN CASE WHEN octet_length(whole::text) <= 7900 THEN whole ELSE base || '{"truncated": true}' END;
END
$$;
COMMENT ON FUNCTION _transmute.signal_payload(text, _transmute.migrations, jsonb) IS 'A signal about a migration as it is sent, without its number; long texts are cut.';

CREATE FUNCTION _transmute.signal_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  needs_person boolean := NEW.next_attempt_at = 'infinity';
  -- Numbers in it are no news.
  words text := regexp_replace(NEW.waiting_for, '[0-9]+', '', 'g');
BEGIN
  IF NEW.state IS DISTINCT FROM OLD.state THEN
    IF NEW.state = 'INITIALIZING' THEN
      INSERT INTO _transmute.signals (payload)
        VALUES (_transmute.signal_payload('started', NEW, jsonb_build_object('applied_by', NEW.applied_by, 'owner', NEW.owner_name)));
    END IF;
    INSERT INTO _transmute.signals (payload)
      VALUES (_transmute.signal_payload('state_changed', NEW, jsonb_build_object('from', OLD.state, 'to', NEW.state, 'rolled_back', NEW.was_rolled_back)));
    IF NEW.state = 'FINISHED' THEN
      INSERT INTO _transmute.signals (payload)
        VALUES (_transmute.signal_payload('completed', NEW, jsonb_build_object('seconds', extract(epoch FROM NEW.finished_at - NEW.started_at))));
    END IF;
    NEW.waiting_signalled := NULL;
  END IF;
  IF needs_person AND OLD.next_attempt_at IS DISTINCT FROM 'infinity' THEN
    INSERT INTO _transmute.signals (payload)
      VALUES (_transmute.signal_payload('failed', NEW, jsonb_build_object('error', NEW.last_error, 'sqlstate', NEW.last_error_sqlstate,
        'hint', NEW.last_error_hint, 'waiting_for', NEW.waiting_for)));
  ELSIF NOT coalesce(needs_person, false) AND NEW.waiting_for IS DISTINCT FROM OLD.waiting_for AND words <> ''
    AND (words IS DISTINCT FROM NEW.waiting_signalled OR NEW.waiting_signalled_at < clock_timestamp() - interval '1 minute') THEN
    INSERT INTO _transmute.signals (payload)
      VALUES (_transmute.signal_payload('waiting', NEW, jsonb_build_object('waiting_for', NEW.waiting_for)));
    NEW.waiting_signalled := words;
    NEW.waiting_signalled_at := clock_timestamp();
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _transmute.signal_change() IS 'Trigger on migrations: notes started, state_changed, waiting, failed and completed.';
CREATE TRIGGER signal_change BEFORE UPDATE ON _transmute.migrations
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.waiting_for IS DISTINCT FROM NEW.waiting_for
    OR OLD.next_attempt_at IS DISTINCT FROM NEW.next_attempt_at)
  EXECUTE FUNCTION _transmute.signal_change();
ALTER TABLE _transmute.migrations ENABLE ALWAYS TRIGGER signal_change;

CREATE FUNCTION _transmute.send_signals() RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH taken AS (
    DELETE FROM _transmute.signals
    WHERE seq IN (SELECT s.seq FROM _transmute.signals s ORDER BY s.seq LIMIT 1000 FOR UPDATE SKIP LOCKED)
    RETURNING seq, payload),
  ordered AS MATERIALIZED (SELECT seq, payload FROM taken ORDER BY seq)
  SELECT count(pg_notify('transmute', (payload || jsonb_build_object('seq', seq))::text)) FROM ordered
$$;
COMMENT ON FUNCTION _transmute.send_signals() IS 'Sends what is committed and not sent yet; how many.';

CREATE FUNCTION _transmute.send_progress(id text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_notify('transmute', (_transmute.signal_payload('progress', m, jsonb_build_object('step', s.step, 'progress', s.progress,
      'rows_done', s.rows_done, 'rows_total', s.rows_total, 'rows_per_second', s.rows_per_second, 'lag', s.lag,
      'eta_seconds', extract(epoch FROM s.eta)))
    || jsonb_build_object('seq', nextval('_transmute.signals_seq_seq')))::text)
  FROM _transmute.migrations m JOIN transmute.status s ON s.id = m.id
  WHERE m.id = send_progress.id
$$;
COMMENT ON FUNCTION _transmute.send_progress(text) IS 'Tells how far a migration is, at the commit of this transaction.';
