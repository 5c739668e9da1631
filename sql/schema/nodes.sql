CREATE TABLE _transmute.nodes (
  pid integer CONSTRAINT nodes_pkey PRIMARY KEY,
  role text NOT NULL CONSTRAINT nodes_role_check CHECK (role IN ('conductor', 'hand', 'runner', 'session')),
  backend_start timestamptz,
  started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  migration_id text,
  since timestamptz
);
COMMENT ON TABLE _transmute.nodes IS 'Processes that drive migrations in this database. Rows of processes that are gone are forgotten by the next one.';
COMMENT ON COLUMN _transmute.nodes.pid IS 'Process id.';
COMMENT ON COLUMN _transmute.nodes.role IS 'conductor, hand (parallel copy), runner (one statement outside of a transaction) or session (CALL transmute.run).';
COMMENT ON COLUMN _transmute.nodes.backend_start IS 'Start of the process: tells it from a later one with the same pid.';
COMMENT ON COLUMN _transmute.nodes.started_at IS 'When it announced itself.';
COMMENT ON COLUMN _transmute.nodes.migration_id IS 'Migration it works on; NULL: none.';
COMMENT ON COLUMN _transmute.nodes.since IS 'Since when it works on that migration.';
