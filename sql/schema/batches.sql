CREATE TABLE _transmute.batches (
  backfill_id bigint NOT NULL CONSTRAINT batches_backfill_id_fkey REFERENCES _transmute.backfills ON DELETE CASCADE,
  lane integer NOT NULL,
  first_block bigint NOT NULL,
  next_block bigint NOT NULL,
  end_block bigint NOT NULL,
  rows_done bigint NOT NULL DEFAULT 0,
  batches bigint NOT NULL DEFAULT 0,
  batch_blocks integer NOT NULL,
  last_blocks integer,
  last_ms double precision,
  busy_ms double precision NOT NULL DEFAULT 0,
  updated_at timestamptz,
  CONSTRAINT batches_pkey PRIMARY KEY (backfill_id, lane),
  CONSTRAINT batches_blocks_check CHECK (first_block <= next_block AND next_block <= end_block)
) WITH (fillfactor = 50);
COMMENT ON TABLE _transmute.batches IS 'Cursor of a data statement that runs in batches, one row a lane of its list of keys, committed with each batch.';
COMMENT ON COLUMN _transmute.batches.backfill_id IS 'The data statement.';
COMMENT ON COLUMN _transmute.batches.lane IS 'Number of the lane, from 0; a process works on one lane at a time.';
COMMENT ON COLUMN _transmute.batches.first_block IS 'First block of the list in the lane.';
COMMENT ON COLUMN _transmute.batches.next_block IS 'Next block of the list to work on.';
COMMENT ON COLUMN _transmute.batches.end_block IS 'Block behind the last one of the lane.';
COMMENT ON COLUMN _transmute.batches.rows_done IS 'Rows that the statement has touched.';
COMMENT ON COLUMN _transmute.batches.batches IS 'Batches committed.';
COMMENT ON COLUMN _transmute.batches.batch_blocks IS 'Blocks of the next batch, sized to transmute.batch_target_ms.';
COMMENT ON COLUMN _transmute.batches.last_blocks IS 'Blocks of the last batch; NULL: none yet.';
COMMENT ON COLUMN _transmute.batches.last_ms IS 'Duration of the last batch, milliseconds; NULL: none yet.';
COMMENT ON COLUMN _transmute.batches.busy_ms IS 'Time spent in batches, milliseconds.';
COMMENT ON COLUMN _transmute.batches.updated_at IS 'When the last batch committed.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.batches', '');
