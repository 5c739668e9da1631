CREATE TABLE _transmute.dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT dead_letters_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT dead_letters_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  rewrite_id bigint,
  backfill_id bigint,
  place tid,
  copy_step integer,
  copy_key text[],
  rule_id bigint,
  key_values text[],
  key_text text NOT NULL,
  row_values jsonb,
  expression text NOT NULL,
  sqlstate text NOT NULL,
  message text NOT NULL,
  detail text,
  attempts integer NOT NULL DEFAULT 1,
  status text NOT NULL DEFAULT 'open' CONSTRAINT dead_letters_status_check CHECK (status IN ('open', 'resolved', 'discarded')),
  reason text,
  first_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  last_seen timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  resolved_at timestamptz,
  CONSTRAINT dead_letters_origin_check CHECK (pg_catalog.num_nonnulls(rewrite_id, backfill_id, copy_step, rule_id) = 1),
  CONSTRAINT dead_letters_resolved_at_check CHECK ((status = 'open') = (resolved_at IS NULL))
);
CREATE UNIQUE INDEX dead_letters_refused_key ON _transmute.dead_letters (rewrite_id, key_text) WHERE status <> 'resolved';
CREATE UNIQUE INDEX dead_letters_refused_place ON _transmute.dead_letters (backfill_id, place) WHERE status <> 'resolved';
CREATE UNIQUE INDEX dead_letters_refused_copy_key ON _transmute.dead_letters (migration_id, copy_step, copy_key) WHERE status <> 'resolved';
CREATE UNIQUE INDEX dead_letters_open_rule ON _transmute.dead_letters (rule_id, key_text) WHERE status = 'open';
CREATE INDEX dead_letters_migration_id_idx ON _transmute.dead_letters (migration_id) WHERE status = 'open';
COMMENT ON TABLE _transmute.dead_letters IS 'Rows that the new shape, a data statement, a copy or a dual-write rule refuses: the rest goes on, the end of the migration waits for them.';
COMMENT ON COLUMN _transmute.dead_letters.id IS 'Number of the dead letter.';
COMMENT ON COLUMN _transmute.dead_letters.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.dead_letters.rewrite_id IS 'The rewrite; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.backfill_id IS 'The data statement that runs in batches; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.place IS 'Where the key stands in the list of the data statement; of a table without a key, where the row of a rule lay.';
COMMENT ON COLUMN _transmute.dead_letters.copy_step IS 'The step of a copy; NULL: no copy.';
COMMENT ON COLUMN _transmute.dead_letters.copy_key IS 'Key of the row of a copy, each column as text; NULL: no copy.';
COMMENT ON COLUMN _transmute.dead_letters.rule_id IS 'The dual-write rule; NULL: something else.';
COMMENT ON COLUMN _transmute.dead_letters.key_values IS 'Values of the key of a row that a rule refuses, in the order of its columns.';
COMMENT ON COLUMN _transmute.dead_letters.key_text IS 'Key of the row as text: (column, …)=(value, …).';
COMMENT ON COLUMN _transmute.dead_letters.row_values IS 'The row when it was last refused: an object of its columns, each as text, long ones cut; NULL: it was not there any more.';
COMMENT ON COLUMN _transmute.dead_letters.expression IS 'The statement that refuses the row, as it was then; cut where it is long.';
COMMENT ON COLUMN _transmute.dead_letters.sqlstate IS 'SQLSTATE of the refusal.';
COMMENT ON COLUMN _transmute.dead_letters.message IS 'Message of the refusal.';
COMMENT ON COLUMN _transmute.dead_letters.detail IS 'DETAIL of the refusal, where there is one.';
COMMENT ON COLUMN _transmute.dead_letters.attempts IS 'How often it was tried.';
COMMENT ON COLUMN _transmute.dead_letters.status IS 'open; resolved: the row was accepted, or is gone; discarded: a person went on without it.';
COMMENT ON COLUMN _transmute.dead_letters.reason IS 'Why it was discarded; NULL: it was not.';
COMMENT ON COLUMN _transmute.dead_letters.first_seen IS 'First refusal.';
COMMENT ON COLUMN _transmute.dead_letters.last_seen IS 'Last refusal.';
COMMENT ON COLUMN _transmute.dead_letters.resolved_at IS 'When it was resolved or discarded; NULL: open.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.dead_letters_id_seq', '');
