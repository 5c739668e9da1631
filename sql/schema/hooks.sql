CREATE TABLE _transmute.hooks (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT hooks_pkey PRIMARY KEY,
  event text NOT NULL CONSTRAINT hooks_event_check
    CHECK (event IN ('pre_apply', 'post_apply', 'pre_rollback', 'post_rollback', 'pre_finalize', 'post_finalize')),
  function text NOT NULL,
  owner_name name NOT NULL,
  registered_by name NOT NULL DEFAULT session_user,
  registered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT hooks_event_function_key UNIQUE (event, function)
);
COMMENT ON TABLE _transmute.hooks IS 'Functions that are called at events of every migration.';
COMMENT ON COLUMN _transmute.hooks.id IS 'Order in which the hooks of an event are called.';
COMMENT ON COLUMN _transmute.hooks.event IS 'When it is called.';
COMMENT ON COLUMN _transmute.hooks.function IS 'The function, qualified, with its argument.';
COMMENT ON COLUMN _transmute.hooks.owner_name IS 'Owner of the function when it was registered: it runs as that role, or not at all.';
COMMENT ON COLUMN _transmute.hooks.registered_by IS 'session_user who registered it.';
COMMENT ON COLUMN _transmute.hooks.registered_at IS 'When.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.hooks', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.hooks_id_seq', '');

CREATE TABLE _transmute.hook_runs (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT hook_runs_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT hook_runs_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  event text NOT NULL,
  function text NOT NULL,
  owner_name name NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  took_ms double precision,
  sqlstate text,
  error text
);
CREATE INDEX hook_runs_migration_id_idx ON _transmute.hook_runs (migration_id);
CREATE INDEX hook_runs_open_idx ON _transmute.hook_runs (id) WHERE ended_at IS NULL;
COMMENT ON TABLE _transmute.hook_runs IS 'Calls of hooks after an event, and before finalization. A row without an end is still to be called.';
COMMENT ON COLUMN _transmute.hook_runs.id IS 'Order in which they were asked for.';
COMMENT ON COLUMN _transmute.hook_runs.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.hook_runs.event IS 'The event.';
COMMENT ON COLUMN _transmute.hook_runs.function IS 'The function, qualified, with its argument.';
COMMENT ON COLUMN _transmute.hook_runs.owner_name IS 'Role it runs as.';
COMMENT ON COLUMN _transmute.hook_runs.asked_at IS 'When the event happened.';
COMMENT ON COLUMN _transmute.hook_runs.ended_at IS 'When the call ended; NULL: not called yet.';
COMMENT ON COLUMN _transmute.hook_runs.took_ms IS 'How long it took, milliseconds.';
COMMENT ON COLUMN _transmute.hook_runs.sqlstate IS 'SQLSTATE of its error; NULL: none.';
COMMENT ON COLUMN _transmute.hook_runs.error IS 'Message of its error; NULL: none.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.hook_runs', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.hook_runs_id_seq', '');
