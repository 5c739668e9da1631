CREATE TABLE _transmute.outside (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT outside_id_key UNIQUE,
  migration_id text NOT NULL,
  step integer NOT NULL,
  found boolean NOT NULL,
  succeeded boolean NOT NULL DEFAULT false,
  purpose text CONSTRAINT outside_purpose_check CHECK (purpose IN ('run', 'clean', 'revert')),
  sql text,
  role_name name,
  lock_timeout_ms integer NOT NULL DEFAULT 0,
  intended_at timestamptz,
  asked_at timestamptz,
  pid integer,
  backend_start timestamptz,
  ended_at timestamptz,
  error jsonb,
  failure jsonb,
  CONSTRAINT outside_pkey PRIMARY KEY (migration_id, step),
  CONSTRAINT outside_step_fkey FOREIGN KEY (migration_id, step) REFERENCES _transmute.steps ON DELETE CASCADE
);
COMMENT ON TABLE _transmute.outside IS 'Steps that cannot run in a transaction: what is intended, who runs it and how it ended. The row is committed before the statement runs.';
COMMENT ON COLUMN _transmute.outside.id IS 'Number handed to the process that runs the statement.';
COMMENT ON COLUMN _transmute.outside.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.outside.step IS 'Its step.';
COMMENT ON COLUMN _transmute.outside.found IS 'True when what the statement makes was there before it ran: it is not ours to take back.';
COMMENT ON COLUMN _transmute.outside.succeeded IS 'True once the statement has ended without an error.';
COMMENT ON COLUMN _transmute.outside.purpose IS 'run: the statement of the step; clean: removes what a failed one left; revert: takes it back. NULL: nothing is under way.';
COMMENT ON COLUMN _transmute.outside.sql IS 'The statement under way; NULL: none.';
COMMENT ON COLUMN _transmute.outside.role_name IS 'Role it runs as.';
COMMENT ON COLUMN _transmute.outside.lock_timeout_ms IS 'lock_timeout it runs under; 0: none, because nobody queues behind its locks.';
COMMENT ON COLUMN _transmute.outside.intended_at IS 'When it was decided to run the statement.';
COMMENT ON COLUMN _transmute.outside.asked_at IS 'When a process was last asked for; NULL: not yet.';
COMMENT ON COLUMN _transmute.outside.pid IS 'Process that took the statement; NULL: none yet.';
COMMENT ON COLUMN _transmute.outside.backend_start IS 'Start of that process: tells it from a later one with the same pid.';
COMMENT ON COLUMN _transmute.outside.ended_at IS 'When that process reported its end; NULL with a pid that is gone: it died.';
COMMENT ON COLUMN _transmute.outside.error IS 'Error it reported; NULL: none.';
COMMENT ON COLUMN _transmute.outside.failure IS 'Error of the step, kept while what it left behind is removed.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.outside', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.outside_id_seq', '');
