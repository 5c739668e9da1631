CREATE TABLE _transmute.rules (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rules_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT rules_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  step integer NOT NULL,
  relation oid NOT NULL,
  target text NOT NULL,
  rule jsonb NOT NULL,
  end_block bigint NOT NULL,
  rows_estimate double precision NOT NULL,
  fingerprint text NOT NULL,
  passes integer NOT NULL DEFAULT 1,
  checks integer NOT NULL DEFAULT 0,
  rows_checked bigint NOT NULL DEFAULT 0,
  rows_repaired bigint NOT NULL DEFAULT 0,
  retried_at timestamptz,
  checked_at timestamptz,
  ended_at timestamptz,
  reverses bigint CONSTRAINT rules_reverses_fkey REFERENCES _transmute.rules ON DELETE CASCADE,
  CONSTRAINT rules_migration_id_step_key UNIQUE (migration_id, step)
);
CREATE UNIQUE INDEX rules_relation_key ON _transmute.rules (relation) WHERE ended_at IS NULL;
COMMENT ON TABLE _transmute.rules IS 'One row a table whose old and new columns are kept equal, and how far its rows are filled. The partial unique index keeps two migrations off one table.';
COMMENT ON COLUMN _transmute.rules.id IS 'Names the trigger.';
COMMENT ON COLUMN _transmute.rules.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.rules.step IS 'The step that made it.';
COMMENT ON COLUMN _transmute.rules.relation IS 'The table, pg_class.oid.';
COMMENT ON COLUMN _transmute.rules.target IS 'The table by name, qualified and quoted: what the other steps of the rule say.';
COMMENT ON COLUMN _transmute.rules.rule IS 'The rule: mechanism (rule: the server''s generated columns, or trigger), columns and their expressions both ways.';
COMMENT ON COLUMN _transmute.rules.end_block IS 'Heap blocks of the table when the running pass began; rows that are written later are right.';
COMMENT ON COLUMN _transmute.rules.rows_estimate IS 'pg_class.reltuples when the rule was made.';
COMMENT ON COLUMN _transmute.rules.fingerprint IS 'Fingerprint of the table''s catalog entries before anything was made; a rollback must end with the same.';
COMMENT ON COLUMN _transmute.rules.passes IS 'Passes over the table that were begun.';
COMMENT ON COLUMN _transmute.rules.checks IS 'Checks of every row that have ended.';
COMMENT ON COLUMN _transmute.rules.rows_checked IS 'Rows that the last check looked at.';
COMMENT ON COLUMN _transmute.rules.rows_repaired IS 'Rows that checks found different, and filled.';
COMMENT ON COLUMN _transmute.rules.retried_at IS 'When rows that were set aside were last tried again.';
COMMENT ON COLUMN _transmute.rules.checked_at IS 'When a check last ended without a difference; NULL: not yet.';
COMMENT ON COLUMN _transmute.rules.ended_at IS 'When the rule was taken away at the end; NULL before.';
COMMENT ON COLUMN _transmute.rules.reverses IS 'The rule of the same table that has ended, whose old, hidden columns this one keeps equal to the new ones; NULL: it is none of these.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.rules', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.rules_id_seq', '');

CREATE TABLE _transmute.fills (
  rule_id bigint NOT NULL CONSTRAINT fills_rule_id_fkey REFERENCES _transmute.rules ON DELETE CASCADE,
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
  CONSTRAINT fills_pkey PRIMARY KEY (rule_id, lane),
  CONSTRAINT fills_blocks_check CHECK (first_block <= next_block AND next_block <= end_block)
) WITH (fillfactor = 50);
COMMENT ON TABLE _transmute.fills IS 'Cursor of the pass that fills the new columns of rows that are there, one row a lane of blocks, committed with each batch.';
COMMENT ON COLUMN _transmute.fills.rule_id IS 'The rule.';
COMMENT ON COLUMN _transmute.fills.lane IS 'Number of the lane, from 0; a process works on one lane at a time.';
COMMENT ON COLUMN _transmute.fills.first_block IS 'First heap block of the lane.';
COMMENT ON COLUMN _transmute.fills.next_block IS 'Next heap block to fill.';
COMMENT ON COLUMN _transmute.fills.end_block IS 'Block behind the last one of the lane.';
COMMENT ON COLUMN _transmute.fills.rows_done IS 'Rows that were filled.';
COMMENT ON COLUMN _transmute.fills.batches IS 'Batches committed.';
COMMENT ON COLUMN _transmute.fills.batch_blocks IS 'Blocks of the next batch, sized to transmute.batch_target_ms.';
COMMENT ON COLUMN _transmute.fills.last_blocks IS 'Blocks of the last batch; NULL: none yet.';
COMMENT ON COLUMN _transmute.fills.last_ms IS 'Duration of the last batch, milliseconds; NULL: none yet.';
COMMENT ON COLUMN _transmute.fills.busy_ms IS 'Time spent in batches, milliseconds.';
COMMENT ON COLUMN _transmute.fills.updated_at IS 'When the last batch committed.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.fills', '');
