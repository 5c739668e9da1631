CREATE TABLE _transmute.backfills (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT backfills_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT backfills_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  step integer NOT NULL,
  relation oid NOT NULL,
  target oid NOT NULL,
  work_schema name NOT NULL,
  key_columns text[] NOT NULL,
  rows_listed bigint NOT NULL,
  end_block bigint NOT NULL,
  retried_at timestamptz,
  finished_at timestamptz,
  CONSTRAINT backfills_migration_id_step_key UNIQUE (migration_id, step)
);
COMMENT ON TABLE _transmute.backfills IS 'One row a data statement that runs in batches: what it goes through, and the list of keys it has to work on.';
COMMENT ON COLUMN _transmute.backfills.id IS 'Names the work schema.';
COMMENT ON COLUMN _transmute.backfills.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.backfills.step IS 'The step of the plan.';
COMMENT ON COLUMN _transmute.backfills.relation IS 'The table whose rows it goes through, pg_class.oid.';
COMMENT ON COLUMN _transmute.backfills.target IS 'The table it writes, pg_class.oid.';
COMMENT ON COLUMN _transmute.backfills.work_schema IS 'Schema of the list of keys; gone at the end.';
COMMENT ON COLUMN _transmute.backfills.key_columns IS 'Columns that identify a row, quoted, in the order of the list.';
COMMENT ON COLUMN _transmute.backfills.rows_listed IS 'Rows that the statement meant when the list was made.';
COMMENT ON COLUMN _transmute.backfills.end_block IS 'Blocks of the list.';
COMMENT ON COLUMN _transmute.backfills.retried_at IS 'When refused rows were last tried again.';
COMMENT ON COLUMN _transmute.backfills.finished_at IS 'When every row was done; NULL before.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.backfills', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.backfills_id_seq', '');
