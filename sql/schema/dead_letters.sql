CREATE TABLE _transmute.dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT dead_letters_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT dead_letters_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  rewrite_id bigint,
  backfill_id bigint,
  place tid,
  rule_id bigint,
  key_values text[],
  key_text text NOT NULL,
  sqlstate text NOT NULL,
  message text NOT NULL,
  detail text,
  attempts integer NOT NULL DEFAULT 1,
  first_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  last_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  resolved_at timestamptz,
  CONSTRAINT dead_letters_origin_check CHECK (pg_catalog.num_nonnulls(rewrite_id, backfill_id, rule_id) = 1)
);
CREATE INDEX dead_letters_migration_id_idx ON _transmute.dead_letters (migration_id) WHERE resolved_at IS NULL;
CREATE UNIQUE INDEX dead_letters_open_key ON _transmute.dead_letters (rewrite_id, key_text) WHERE resolved_at IS NULL;
CREATE UNIQUE INDEX dead_letters_open_place ON _transmute.dead_letters (backfill_id, place) WHERE resolved_at IS NULL;
CREATE UNIQUE INDEX dead_letters_open_rule ON _transmute.dead_letters (rule_id, key_text) WHERE resolved_at IS NULL;
COMMENT ON TABLE _transmute.dead_letters IS 'Rows that the new shape, a data statement or a dual-write rule refuses: the rest goes on, the end of the migration waits for them.';
COMMENT ON COLUMN _transmute.dead_letters.id IS 'Number of the dead letter.';
COMMENT ON COLUMN _transmute.dead_letters.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.dead_letters.rewrite_id IS 'The rewrite; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.backfill_id IS 'The data statement that runs in batches; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.place IS 'Where the key stands in the list of the data statement; of a table without a key, where the row lay.';
COMMENT ON COLUMN _transmute.dead_letters.rule_id IS 'The dual-write rule; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.key_values IS 'Values of the key of a row that a rule refuses, in the order of its columns.';
COMMENT ON COLUMN _transmute.dead_letters.key_text IS 'Key of the row as text: (column, …)=(value, …).';
COMMENT ON COLUMN _transmute.dead_letters.sqlstate IS 'SQLSTATE of the refusal.';
COMMENT ON COLUMN _transmute.dead_letters.message IS 'Message of the refusal.';
COMMENT ON COLUMN _transmute.dead_letters.detail IS 'DETAIL of the refusal, where there is one.';
COMMENT ON COLUMN _transmute.dead_letters.attempts IS 'How often it was tried.';
COMMENT ON COLUMN _transmute.dead_letters.first_seen IS 'First refusal.';
COMMENT ON COLUMN _transmute.dead_letters.last_seen IS 'Last refusal.';
COMMENT ON COLUMN _transmute.dead_letters.resolved_at IS 'When the row was accepted or had gone; NULL: open.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.dead_letters_id_seq', '');
