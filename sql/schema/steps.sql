CREATE TABLE _transmute.steps (
  migration_id text NOT NULL CONSTRAINT steps_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  step integer NOT NULL,
  phase text NOT NULL CONSTRAINT steps_phase_check CHECK (phase IN ('expand', 'backfill', 'validate', 'contract')),
  kind text NOT NULL,
  statement integer NOT NULL,
  target text NOT NULL,
  sql text NOT NULL,
  revert_sql text,
  detail jsonb NOT NULL,
  status text NOT NULL DEFAULT 'pending'
    CONSTRAINT steps_status_check CHECK (status IN ('pending', 'running', 'done', 'reverted')),
  lost text[] NOT NULL DEFAULT '{}',
  facts jsonb,
  started_at timestamptz,
  finished_at timestamptz,
  CONSTRAINT steps_pkey PRIMARY KEY (migration_id, step)
);
COMMENT ON TABLE _transmute.steps IS 'The plan of each migration, one row a step, with its progress.';
COMMENT ON COLUMN _transmute.steps.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.steps.step IS 'Order of execution, from 1.';
COMMENT ON COLUMN _transmute.steps.phase IS 'expand, backfill, validate or contract.';
COMMENT ON COLUMN _transmute.steps.kind IS 'What the step does: execute, direct (a script, or a statement of one, as it was written), back (takes back what a step of a finished migration did), change (a statement whose way back is read from the catalog when it runs), data, batch, hand_batch (a batch that a person has written), copy_rows, outside (a statement that no transaction may hold), leaf_indexes (an index on every partition), leaf_attach (the index of their table, which takes those over), leaf_keys (a foreign key on every partition), leaf_keys_attach (that of their table, which takes those over), rewrite_expand, rewrite_into (the same where the rows go into a table of the script), rewrite_copy, rewrite_index, rewrite_check, rewrite_views, rewrite_swap, rewrite_tree (the statement on a partitioned table, while its partitions are swapped), rewrite_validate, alias_make, alias_drop, rename_both, rename_finish, relax_column, tighten_column (NOT NULL again, proved first), hide_column, hide_table, recover (what was hidden is there again), version_before and version_after (a view of a version), version_drop (a whole version), version_back (a view that the migration had made goes), rule_make, rule_fill, rule_check or rule_end.';
COMMENT ON COLUMN _transmute.steps.statement IS 'Number of the statement of the script it comes from, from 1; beyond the script: added to it.';
COMMENT ON COLUMN _transmute.steps.target IS 'Object it works on, qualified and quoted.';
COMMENT ON COLUMN _transmute.steps.sql IS 'The statement, or what the step does in words.';
COMMENT ON COLUMN _transmute.steps.revert_sql IS 'Statements that take it back, each COMMIT ends a transaction; for kinds change and direct they are there when it has run; NULL: nothing to take back, or the engine does it.';
COMMENT ON COLUMN _transmute.steps.detail IS 'Lock mode, risk, reasons and estimate as planned.';
COMMENT ON COLUMN _transmute.steps.status IS 'pending, running, done or reverted.';
COMMENT ON COLUMN _transmute.steps.lost IS 'What nothing takes back of what it did; known when it has run.';
COMMENT ON COLUMN _transmute.steps.facts IS 'What the catalogs said of its tables before it, until the way back has been derived from that.';
COMMENT ON COLUMN _transmute.steps.started_at IS 'First try; NULL before.';
COMMENT ON COLUMN _transmute.steps.finished_at IS 'When it was done or reverted; NULL before.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.steps', '');
