CREATE TABLE _transmute.invariants (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT invariants_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT invariants_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  name text NOT NULL,
  phase text NOT NULL
    CONSTRAINT invariants_phase_check CHECK (phase IN ('PRE_RUN', 'DURING_RUN', 'PRE_FINALIZATION', 'POST_FINALIZATION')),
  sql text NOT NULL,
  timeout interval NOT NULL,
  holds boolean,
  checked_at timestamptz,
  counts boolean NOT NULL DEFAULT false,
  took_ms double precision,
  checks bigint NOT NULL DEFAULT 0,
  failures bigint NOT NULL DEFAULT 0,
  problem text,
  counter_examples text[] NOT NULL DEFAULT '{}',
  CONSTRAINT invariants_migration_id_name_key UNIQUE (migration_id, name)
);
COMMENT ON TABLE _transmute.invariants IS 'What must hold while a migration goes on, as meta.invariants says, and what was found.';
COMMENT ON COLUMN _transmute.invariants.id IS 'Order in which they were given.';
COMMENT ON COLUMN _transmute.invariants.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.invariants.name IS 'Name the DBA gave it.';
COMMENT ON COLUMN _transmute.invariants.phase IS 'When it is looked at.';
COMMENT ON COLUMN _transmute.invariants.sql IS 'The query: one boolean column, true in every row; or counter-examples, none.';
COMMENT ON COLUMN _transmute.invariants.timeout IS 'How long the query may take.';
COMMENT ON COLUMN _transmute.invariants.holds IS 'What was found last; NULL: not looked at in this run.';
COMMENT ON COLUMN _transmute.invariants.checked_at IS 'When it was last looked at; NULL: not in this run.';
COMMENT ON COLUMN _transmute.invariants.counts IS 'False: that was before AWAITING_FINALIZATION, and is no reason to finalize.';
COMMENT ON COLUMN _transmute.invariants.took_ms IS 'How long that took, milliseconds.';
COMMENT ON COLUMN _transmute.invariants.checks IS 'How often it was looked at in this run.';
COMMENT ON COLUMN _transmute.invariants.failures IS 'How often it did not hold in this run.';
COMMENT ON COLUMN _transmute.invariants.problem IS 'Why it did not hold the last time; NULL: it did.';
COMMENT ON COLUMN _transmute.invariants.counter_examples IS 'The first rows that it found, as JSON.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.invariants', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.invariants_id_seq', '');
