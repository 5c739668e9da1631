CREATE TABLE _transmute.preflights (
  migration_id text CONSTRAINT preflights_pkey PRIMARY KEY
    CONSTRAINT preflights_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  plan_checksum text NOT NULL,
  failed text[] NOT NULL,
  made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE _transmute.preflights IS 'The last preflight of each migration; transmute.require_preflight looks at it.';
COMMENT ON COLUMN _transmute.preflights.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.preflights.plan_checksum IS 'The plan it looked at.';
COMMENT ON COLUMN _transmute.preflights.failed IS 'Checks that did not pass; empty: all passed.';
COMMENT ON COLUMN _transmute.preflights.made_at IS 'When it was made.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.preflights', '');
