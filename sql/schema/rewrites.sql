CREATE TABLE _transmute.rewrites (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rewrites_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT rewrites_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  statement integer NOT NULL,
  relation oid NOT NULL,
  shadow oid NOT NULL,
  twin oid NOT NULL,
  key_log oid NOT NULL,
  new_schema name NOT NULL,
  old_schema name NOT NULL,
  key_index oid,
  key_columns smallint[] NOT NULL,
  shadow_key name,
  deferred_definitions jsonb NOT NULL,
  relfilenode oid NOT NULL,
  end_block bigint NOT NULL,
  rows_estimate double precision NOT NULL,
  fingerprint text NOT NULL,
  definition text NOT NULL,
  next_definition integer NOT NULL DEFAULT 0,
  deduplicated boolean NOT NULL DEFAULT false,
  drain_xid xid8,
  awaited text[],
  brought_over xid8[] NOT NULL DEFAULT '{}',
  drained_keys bigint NOT NULL DEFAULT 0,
  last_drain_at timestamptz,
  retried_at timestamptz,
  last_drain_ms double precision,
  lag bigint NOT NULL DEFAULT 0,
  check_block bigint NOT NULL DEFAULT 0,
  check_rows bigint NOT NULL DEFAULT 0,
  check_mismatches bigint NOT NULL DEFAULT 0,
  repaired_rows bigint NOT NULL DEFAULT 0,
  check_rounds integer NOT NULL DEFAULT 0,
  checked_at timestamptz,
  checked_rows bigint,
  swapped_at timestamptz,
  lock_held_ms double precision,
  capture_stamp text,
  constraints_to_validate jsonb NOT NULL DEFAULT '[]',
  reverses bigint CONSTRAINT rewrites_reverses_fkey REFERENCES _transmute.rewrites ON DELETE CASCADE,
  script text,
  kept_until timestamptz,
  definition_at_end text,
  successor jsonb,
  CONSTRAINT rewrites_migration_id_statement_key UNIQUE (migration_id, statement)
);
CREATE UNIQUE INDEX rewrites_relation_key ON _transmute.rewrites (relation) WHERE swapped_at IS NULL;
CREATE INDEX rewrites_relation_idx ON _transmute.rewrites (relation) WHERE swapped_at IS NOT NULL;
COMMENT ON TABLE _transmute.rewrites IS 'One row a table that is being rewritten: its shadow, twin and key log, and how far each stage is. The partial unique index keeps two migrations off one table.';
COMMENT ON COLUMN _transmute.rewrites.id IS 'Names the work schemas.';
COMMENT ON COLUMN _transmute.rewrites.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.rewrites.statement IS 'Number of its first statement in the script; beyond the script: added for a key that the table refers to; negative: the way back of that one.';
COMMENT ON COLUMN _transmute.rewrites.relation IS 'The table, pg_class.oid.';
COMMENT ON COLUMN _transmute.rewrites.shadow IS 'The table of the shape that it leads to.';
COMMENT ON COLUMN _transmute.rewrites.twin IS 'The empty table of the old shape that will keep the old rows.';
COMMENT ON COLUMN _transmute.rewrites.key_log IS 'The table that the capture trigger appends keys to.';
COMMENT ON COLUMN _transmute.rewrites.new_schema IS 'Schema of shadow and key log.';
COMMENT ON COLUMN _transmute.rewrites.old_schema IS 'Schema of the twin, later of the artifact.';
COMMENT ON COLUMN _transmute.rewrites.key_index IS 'Unique index of the table whose columns are the row identity; NULL: it has none.';
COMMENT ON COLUMN _transmute.rewrites.key_columns IS 'Attribute numbers of the row identity, in index order; {-1}, ctid: the table has no key.';
COMMENT ON COLUMN _transmute.rewrites.shadow_key IS 'Name of the unique index of the shadow by which rows are found.';
COMMENT ON COLUMN _transmute.rewrites.deferred_definitions IS 'Indexes and constraints of the shadow that are built after the copy: [{name, sql, constraint}], the row identity first.';
COMMENT ON COLUMN _transmute.rewrites.relfilenode IS 'File of the table that the block cursors mean; another one (VACUUM FULL, TRUNCATE) starts the copy again.';
COMMENT ON COLUMN _transmute.rewrites.end_block IS 'Heap blocks of the table when capture began; later rows are in the key log.';
COMMENT ON COLUMN _transmute.rewrites.rows_estimate IS 'pg_class.reltuples when capture began.';
COMMENT ON COLUMN _transmute.rewrites.fingerprint IS 'Fingerprint of the table''s catalog entries before anything was made; a rollback must end with the same.';
COMMENT ON COLUMN _transmute.rewrites.definition IS 'Canonical text of columns, indexes and constraints at expand; the swap refuses a table that changed since.';
COMMENT ON COLUMN _transmute.rewrites.next_definition IS 'Next entry of deferred_definitions to build.';
COMMENT ON COLUMN _transmute.rewrites.deduplicated IS 'Keys logged during the copy have been removed from the shadow.';
COMMENT ON COLUMN _transmute.rewrites.drain_xid IS 'First transaction whose snapshot sees the shadow complete; older snapshots must end before the swap.';
COMMENT ON COLUMN _transmute.rewrites.awaited IS 'Transactions, as pid@start, whose snapshot may be older than drain_xid: they must end before the swap. NULL: not looked yet.';
COMMENT ON COLUMN _transmute.rewrites.brought_over IS 'The last drains that found something, two numbers each: the drain''s transaction, the oldest transaction whose writes it brought over. A snapshot that sees a write and not its drain misses a row after the swap.';
COMMENT ON COLUMN _transmute.rewrites.drained_keys IS 'Keys brought over by drains so far.';
COMMENT ON COLUMN _transmute.rewrites.last_drain_at IS 'When the last drain committed.';
COMMENT ON COLUMN _transmute.rewrites.retried_at IS 'When refused rows were last tried again.';
COMMENT ON COLUMN _transmute.rewrites.last_drain_ms IS 'Duration of the last drain, milliseconds.';
COMMENT ON COLUMN _transmute.rewrites.lag IS 'Keys found by the last drain: what the shadow was behind.';
COMMENT ON COLUMN _transmute.rewrites.check_block IS 'Next block of the running check.';
COMMENT ON COLUMN _transmute.rewrites.check_rows IS 'Rows compared in the running check.';
COMMENT ON COLUMN _transmute.rewrites.check_mismatches IS 'Rows found different in the running check and sent to repair.';
COMMENT ON COLUMN _transmute.rewrites.repaired_rows IS 'Rows that all checks of this shadow found different and sent to repair.';
COMMENT ON COLUMN _transmute.rewrites.check_rounds IS 'Checks begun.';
COMMENT ON COLUMN _transmute.rewrites.checked_at IS 'When a check last ended without a difference; NULL: not yet.';
COMMENT ON COLUMN _transmute.rewrites.checked_rows IS 'Rows that check compared.';
COMMENT ON COLUMN _transmute.rewrites.swapped_at IS 'When the files were swapped; NULL before.';
COMMENT ON COLUMN _transmute.rewrites.lock_held_ms IS 'How long ACCESS EXCLUSIVE was held by the swap up to its commit, milliseconds.';
COMMENT ON COLUMN _transmute.rewrites.capture_stamp IS 'Who last wrote the catalog rows of the capture triggers: another text, and somebody has switched them off for a time.';
COMMENT ON COLUMN _transmute.rewrites.reverses IS 'The rewrite whose old rows this one keeps current, so that it can be undone; NULL: it is none of these.';
COMMENT ON COLUMN _transmute.rewrites.script IS 'The statements that lead back to the old shape; NULL: those of the swap step.';
COMMENT ON COLUMN _transmute.rewrites.kept_until IS 'The old rows are kept current until then; NULL: this is no way back.';
COMMENT ON COLUMN _transmute.rewrites.definition_at_end IS 'definition when the migration had finished; NULL: no way back, or it has not finished.';
COMMENT ON COLUMN _transmute.rewrites.successor IS 'The shadow is a table of the script''s own, which takes the table''s place by its name: {columns: [{into, from}]}; NULL: the shadow is ours, and its files are swapped. After the swap relation is that table, twin the one with the old rows.';
COMMENT ON COLUMN _transmute.rewrites.constraints_to_validate IS 'Foreign keys made NOT VALID by the swap: [{table, name}], validated next.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.rewrites', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.rewrites_id_seq', '');
