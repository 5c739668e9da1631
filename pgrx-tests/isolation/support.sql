-- What the specs share: made in their database before the first of them runs.
-- Bodies are strings, so that nothing here depends on the extension, which start_over drops.

-- Stops the extension at a named point of its code: it takes this lock there, shared, and gives it back.
CREATE PROCEDURE hold(point text) LANGUAGE sql AS 'SELECT pg_advisory_lock(74616, hashtext(point))';
CREATE PROCEDURE let_go(point text) LANGUAGE sql AS 'SELECT pg_advisory_unlock(74616, hashtext(point))';

-- Where migrations stand, without process numbers and times.
CREATE FUNCTION standing() RETURNS TABLE (id text, state text, outcome text, waiting_for text) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT s.id, s.state, s.outcome,
    regexp_replace(regexp_replace(coalesce(s.waiting_for, ''), 'pid \d+', 'pid N', 'g'), 'for \d+ s', 'for N s', 'g')
  FROM transmute.status s ORDER BY s.id;
END
$$;

-- After each permutation: as if nothing had been there.
CREATE PROCEDURE start_over() LANGUAGE plpgsql AS $$
DECLARE
  leftover name;
BEGIN
  -- What is under way is thrown away, which nobody may.
  ALTER EVENT TRIGGER transmute_ddl_start DISABLE;
  ALTER EVENT TRIGGER transmute_ddl_drop DISABLE;
  ALTER EVENT TRIGGER transmute_ddl_end DISABLE;
  DROP TABLE accounts CASCADE;
  DROP EXTENSION transmute;
  FOR leftover IN SELECT nspname FROM pg_namespace WHERE nspname ~ '^_transmute_\d' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', leftover);
  END LOOP;
  CREATE EXTENSION transmute;
END
$$;

-- Steps print what they return, and void is not worth it.
CREATE PROCEDURE migrate(id text, ddl text, approvals integer DEFAULT 1) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM transmute.migrate(ddl, id, jsonb_build_object('required_approvals', approvals));
END
$$;
CREATE PROCEDURE approve(id text) LANGUAGE plpgsql AS 'BEGIN PERFORM transmute.approve(id, ''looks right''); END';
CREATE PROCEDURE pause(id text) LANGUAGE plpgsql AS 'BEGIN PERFORM transmute.pause(id, ''not now''); END';
CREATE PROCEDURE resume(id text) LANGUAGE plpgsql AS 'BEGIN PERFORM transmute.resume(id, ''now''); END';
CREATE PROCEDURE roll_back(id text) LANGUAGE plpgsql AS 'BEGIN PERFORM transmute.rollback(id, ''not at all''); END';
ALTER DATABASE golden SET client_min_messages = warning;
