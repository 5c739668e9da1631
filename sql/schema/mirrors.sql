CREATE TABLE _transmute.mirrors (
  migration_id text NOT NULL CONSTRAINT mirrors_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  matview oid NOT NULL,
  mirror oid NOT NULL,
  relfilenode oid NOT NULL,
  writes bigint NOT NULL,
  definition text NOT NULL,
  built_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  build_ms double precision NOT NULL,
  CONSTRAINT mirrors_pkey PRIMARY KEY (migration_id, matview)
);
COMMENT ON TABLE _transmute.mirrors IS 'New contents of materialized views, made from the shadow before the swap puts them in place.';
COMMENT ON COLUMN _transmute.mirrors.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.mirrors.matview IS 'The materialized view, pg_class.oid.';
COMMENT ON COLUMN _transmute.mirrors.mirror IS 'The materialized view in the work schema that has the new contents.';
COMMENT ON COLUMN _transmute.mirrors.relfilenode IS 'File of the materialized view when they were made; another one: it was refreshed since.';
COMMENT ON COLUMN _transmute.mirrors.writes IS 'Rows written to the materialized view until then, by its counters; more: it was refreshed concurrently since.';
COMMENT ON COLUMN _transmute.mirrors.definition IS 'SHA-256 of the SQL that makes the views and materialized views of the migration; another one: they were changed since.';
COMMENT ON COLUMN _transmute.mirrors.built_at IS 'When they were made: what they show is as of then.';
COMMENT ON COLUMN _transmute.mirrors.build_ms IS 'How long all of the migration''s took, milliseconds.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.mirrors', '');
