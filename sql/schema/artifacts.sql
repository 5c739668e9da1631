CREATE TABLE _transmute.artifacts (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT artifacts_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT artifacts_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  kind text NOT NULL CONSTRAINT artifacts_kind_check CHECK (kind IN ('table', 'column')),
  source text NOT NULL,
  physical_schema name NOT NULL,
  physical_name name NOT NULL,
  physical_column name,
  row_estimate double precision NOT NULL,
  bytes bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  expires_at timestamptz NOT NULL,
  dropped_at timestamptz
);
CREATE INDEX artifacts_expires_at_idx ON _transmute.artifacts (expires_at) WHERE dropped_at IS NULL;
COMMENT ON TABLE _transmute.artifacts IS 'What migrations left behind on purpose: the old rows, until keep_artifacts is over.';
COMMENT ON COLUMN _transmute.artifacts.id IS 'Number of the artifact.';
COMMENT ON COLUMN _transmute.artifacts.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.artifacts.kind IS 'table: the rows as they were before the swap, or a dropped table. column: a dropped column.';
COMMENT ON COLUMN _transmute.artifacts.source IS 'Table or column that it was, qualified and quoted.';
COMMENT ON COLUMN _transmute.artifacts.physical_schema IS 'Schema they are in now.';
COMMENT ON COLUMN _transmute.artifacts.physical_name IS 'Table they are in now.';
COMMENT ON COLUMN _transmute.artifacts.physical_column IS 'Name that the column has now; NULL: a table.';
COMMENT ON COLUMN _transmute.artifacts.row_estimate IS 'Rows, by estimate.';
COMMENT ON COLUMN _transmute.artifacts.bytes IS 'Size with indexes and TOAST, bytes.';
COMMENT ON COLUMN _transmute.artifacts.created_at IS 'When.';
COMMENT ON COLUMN _transmute.artifacts.expires_at IS 'Dropped by the conductor after this time.';
COMMENT ON COLUMN _transmute.artifacts.dropped_at IS 'When it was dropped, or was in use again; NULL: it is kept.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.artifacts', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.artifacts_id_seq', '');
