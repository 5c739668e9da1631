CREATE TABLE _transmute.checkpoints (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT checkpoints_pkey PRIMARY KEY,
  version text NOT NULL,
  description text NOT NULL,
  actor name NOT NULL DEFAULT session_user,
  finished text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE _transmute.checkpoints IS 'Releases: the newest row says at which one the database is.';
COMMENT ON COLUMN _transmute.checkpoints.id IS 'Number of the checkpoint.';
COMMENT ON COLUMN _transmute.checkpoints.version IS 'Semantic version of the release.';
COMMENT ON COLUMN _transmute.checkpoints.description IS 'What a person said of it.';
COMMENT ON COLUMN _transmute.checkpoints.actor IS 'session_user who recorded it.';
COMMENT ON COLUMN _transmute.checkpoints.finished IS 'Ids of the migrations that had finished and were not taken back.';
COMMENT ON COLUMN _transmute.checkpoints.created_at IS 'When.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.checkpoints', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.checkpoints_id_seq', '');
