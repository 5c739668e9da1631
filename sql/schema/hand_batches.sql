CREATE TABLE _transmute.hand_batches (
  migration_id text NOT NULL CONSTRAINT hand_batches_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  step integer NOT NULL,
  rows_done bigint NOT NULL,
  batches bigint NOT NULL,
  busy_ms double precision NOT NULL,
  position text[],
  retried_at timestamptz,
  updated_at timestamptz NOT NULL,
  finished_at timestamptz,
  CONSTRAINT hand_batches_pkey PRIMARY KEY (migration_id, step)
) WITH (fillfactor = 50);
COMMENT ON TABLE _transmute.hand_batches IS 'How far the batches of hand-written phases and of copies are, committed with each batch.';
COMMENT ON COLUMN _transmute.hand_batches.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.hand_batches.step IS 'The step of the plan.';
COMMENT ON COLUMN _transmute.hand_batches.rows_done IS 'Rows that the batches say they have done, or a copy has written.';
COMMENT ON COLUMN _transmute.hand_batches.batches IS 'Batches committed.';
COMMENT ON COLUMN _transmute.hand_batches.busy_ms IS 'Time spent in batches, milliseconds.';
COMMENT ON COLUMN _transmute.hand_batches.position IS 'Key of the last row of a copy that was met, as text; NULL: none yet, or no copy.';
COMMENT ON COLUMN _transmute.hand_batches.retried_at IS 'When refused rows of a copy were last tried again; NULL: never, or somebody asks for it.';
COMMENT ON COLUMN _transmute.hand_batches.updated_at IS 'When the last batch committed.';
COMMENT ON COLUMN _transmute.hand_batches.finished_at IS 'When a batch said that nothing is left, or a copy met its last row; NULL before.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.hand_batches', '');
