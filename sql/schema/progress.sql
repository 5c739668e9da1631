CREATE TABLE _transmute.progress (
  rewrite_id bigint NOT NULL CONSTRAINT progress_rewrite_id_fkey REFERENCES _transmute.rewrites ON DELETE CASCADE,
  lane integer NOT NULL,
  first_block bigint NOT NULL,
  next_block bigint NOT NULL,
  end_block bigint NOT NULL,
  rows_done bigint NOT NULL DEFAULT 0,
  batches bigint NOT NULL DEFAULT 0,
  batch_blocks integer NOT NULL DEFAULT 64,
  last_blocks integer,
  last_ms double precision,
  busy_ms double precision NOT NULL DEFAULT 0,
  updated_at timestamptz,
  CONSTRAINT progress_pkey PRIMARY KEY (rewrite_id, lane),
  CONSTRAINT progress_blocks_check CHECK (first_block <= next_block AND next_block <= end_block)
) WITH (fillfactor = 50);
COMMENT ON TABLE _transmute.progress IS 'Cursor of the copy, one row a lane of blocks, committed with each batch.';
COMMENT ON COLUMN _transmute.progress.rewrite_id IS 'The rewrite.';
COMMENT ON COLUMN _transmute.progress.lane IS 'Number of the lane, from 0; a hand works on one lane at a time.';
COMMENT ON COLUMN _transmute.progress.first_block IS 'First heap block of the lane.';
COMMENT ON COLUMN _transmute.progress.next_block IS 'Next heap block to copy.';
COMMENT ON COLUMN _transmute.progress.end_block IS 'Block behind the last one of the lane.';
COMMENT ON COLUMN _transmute.progress.rows_done IS 'Rows copied.';
COMMENT ON COLUMN _transmute.progress.batches IS 'Batches committed.';
COMMENT ON COLUMN _transmute.progress.batch_blocks IS 'Blocks of the next batch, sized to transmute.batch_target_ms.';
COMMENT ON COLUMN _transmute.progress.last_blocks IS 'Blocks of the last batch; NULL: none yet.';
COMMENT ON COLUMN _transmute.progress.last_ms IS 'Duration of the last batch, milliseconds; NULL: none yet.';
COMMENT ON COLUMN _transmute.progress.busy_ms IS 'Time spent in batches, milliseconds.';
COMMENT ON COLUMN _transmute.progress.updated_at IS 'When the last batch committed.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.progress', '');
