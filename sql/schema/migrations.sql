CREATE TABLE _transmute.migrations (
  id text CONSTRAINT migrations_pkey PRIMARY KEY
    CONSTRAINT migrations_id_check CHECK (id <> '' AND pg_catalog.octet_length(id) <= 255 AND id !~ '[[:cntrl:]]'),
  seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT migrations_seq_key UNIQUE,
  up text NOT NULL,
  down text,
  down_of text CONSTRAINT migrations_down_of_fkey REFERENCES _transmute.migrations,
  taken_back boolean NOT NULL DEFAULT false,
  place numeric,
  squashed_into text CONSTRAINT migrations_squashed_into_fkey REFERENCES _transmute.migrations,
  baseline boolean NOT NULL DEFAULT false,
  meta jsonb NOT NULL DEFAULT '{}',
  checksum text NOT NULL,
  plan_checksum text NOT NULL,
  state text NOT NULL DEFAULT 'UNINITIALIZED'
    CONSTRAINT migrations_state_check CHECK (state IN ('UNINITIALIZED', 'INITIALIZING', 'RUNNING', 'AWAITING_ACTION',
      'AWAITING_FINALIZATION', 'FINISHING', 'FINISHED', 'ROLLING_BACK')),
  owner_name name NOT NULL,
  registered_by name NOT NULL DEFAULT session_user,
  applied_by name,
  search_path text NOT NULL,
  settings jsonb NOT NULL,
  phases jsonb,
  queued boolean NOT NULL DEFAULT false,
  home text,
  tuned jsonb NOT NULL DEFAULT '{}',
  planned_at timestamptz,
  max_risk integer,
  acknowledged_at timestamptz,
  acknowledged_by name,
  acknowledge_reason text,
  rollback_reason text,
  was_rolled_back boolean NOT NULL DEFAULT false,
  paused_reason text,
  current_step integer,
  attempts integer NOT NULL DEFAULT 0,
  retries bigint NOT NULL DEFAULT 0,
  next_attempt_at timestamptz,
  waiting_for text,
  waiting_signalled text,
  waiting_signalled_at timestamptz,
  last_error text,
  last_error_sqlstate text,
  last_error_hint text,
  pre_execution_until timestamptz,
  soak_until timestamptz,
  required_approvals integer NOT NULL DEFAULT 0,
  keep_artifacts interval NOT NULL,
  keep_old interval,
  kept_until timestamptz,
  undo_reason text,
  is_back boolean NOT NULL DEFAULT false,
  undone_at timestamptz,
  soak interval NOT NULL DEFAULT '0',
  soak_until_unused interval,
  usage_skipped boolean NOT NULL DEFAULT false,
  registered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  applied_at timestamptz,
  started_at timestamptz,
  resumed_at timestamptz,
  finished_at timestamptz
);
CREATE INDEX migrations_queued_idx ON _transmute.migrations (seq) WHERE queued;
CREATE INDEX migrations_down_of_idx ON _transmute.migrations (down_of) WHERE down_of IS NOT NULL;
CREATE INDEX migrations_place_idx ON _transmute.migrations (place) WHERE queued;
COMMENT ON TABLE _transmute.migrations IS 'One row a migration: its text, where it stands and what it waits for.';
COMMENT ON COLUMN _transmute.migrations.id IS 'Name the DBA gave it: 1 to 255 bytes, no control characters.';
COMMENT ON COLUMN _transmute.migrations.seq IS 'Order of registration.';
COMMENT ON COLUMN _transmute.migrations.up IS 'The DDL as written.';
COMMENT ON COLUMN _transmute.migrations.down IS 'The way back behind the point of no return as written by the DBA; NULL: none. Before that it is derived.';
COMMENT ON COLUMN _transmute.migrations.down_of IS 'The finished migration that this one takes back; NULL: none.';
COMMENT ON COLUMN _transmute.migrations.taken_back IS 'It has finished, and so has the migration that takes it back.';
COMMENT ON COLUMN _transmute.migrations.place IS 'Its place among scripts that run one after the other: the registration number of the first of its runs, or, if it was loaded behind those that it comes before, something between two others; NULL: it is none of these.';
COMMENT ON COLUMN _transmute.migrations.squashed_into IS 'The migration that it is a part of now; NULL: none.';
COMMENT ON COLUMN _transmute.migrations.baseline IS 'True: it was declared to be in the database already, and never ran.';
COMMENT ON COLUMN _transmute.migrations.meta IS 'Metadata given at register.';
COMMENT ON COLUMN _transmute.migrations.checksum IS 'SHA-256, hex, over up, down and meta.';
COMMENT ON COLUMN _transmute.migrations.plan_checksum IS 'SHA-256, hex, over the plan; approvals are bound to it. Empty: it is planned when what it depends on has finished.';
COMMENT ON COLUMN _transmute.migrations.state IS 'One of the eight states; changes only along the transition table (trigger).';
COMMENT ON COLUMN _transmute.migrations.owner_name IS 'Role that registered it (current_user): its statements run as this role or as the table''s owner, never as another.';
COMMENT ON COLUMN _transmute.migrations.registered_by IS 'session_user of register.';
COMMENT ON COLUMN _transmute.migrations.applied_by IS 'session_user of the last apply; NULL before.';
COMMENT ON COLUMN _transmute.migrations.search_path IS 'search_path in force at register; its statements run with it.';
COMMENT ON COLUMN _transmute.migrations.settings IS 'Settings in force at register that decide what its expressions mean: [[name, value], …].';
COMMENT ON COLUMN _transmute.migrations.tuned IS 'Settings that transmute.tune has changed for it: name (without transmute.) and value.';
COMMENT ON COLUMN _transmute.migrations.home IS 'The database, as _transmute.home() names it, in which it was applied or last resumed: in a copy of that nothing goes on by itself. NULL: not applied.';
COMMENT ON COLUMN _transmute.migrations.planned_at IS 'When its plan was made; NULL: not yet, it is when what it depends on has finished.';
COMMENT ON COLUMN _transmute.migrations.max_risk IS 'What the last apply was given as max_risk; NULL: nothing.';
COMMENT ON COLUMN _transmute.migrations.acknowledged_at IS 'When somebody said that the external action was done; NULL: nobody yet, since the last apply.';
COMMENT ON COLUMN _transmute.migrations.acknowledged_by IS 'session_user who said so.';
COMMENT ON COLUMN _transmute.migrations.acknowledge_reason IS 'What was said.';
COMMENT ON COLUMN _transmute.migrations.phases IS 'What a person has written instead of a script: schema_additions, migrate_batch, schema_drops, rollback, batch_size, where up is the DDL of both ends; or the parts of a copy, with what was asked for. NULL: a script.';
COMMENT ON COLUMN _transmute.migrations.queued IS 'True from apply until FINISHED or rolled back, and beyond FINISHED while old rows are kept current: a conductor drives it.';
COMMENT ON COLUMN _transmute.migrations.rollback_reason IS 'Set when a rollback was asked for; NULL otherwise.';
COMMENT ON COLUMN _transmute.migrations.was_rolled_back IS 'True after a rollback has ended, until the next apply.';
COMMENT ON COLUMN _transmute.migrations.paused_reason IS 'Set while paused; NULL: runs.';
COMMENT ON COLUMN _transmute.migrations.current_step IS 'Step being worked on; NULL between runs.';
COMMENT ON COLUMN _transmute.migrations.attempts IS 'Failed tries of the current step in a row.';
COMMENT ON COLUMN _transmute.migrations.retries IS 'Tries after an error that passes or a lock that was not to be had, in all.';
COMMENT ON COLUMN _transmute.migrations.next_attempt_at IS 'Not tried again before this time; NULL: at once.';
COMMENT ON COLUMN _transmute.migrations.waiting_for IS 'What it waits for, for people; NULL: nothing.';
COMMENT ON COLUMN _transmute.migrations.waiting_signalled IS 'waiting_for without its numbers, as it was last told by a signal in this state; NULL: it was not.';
COMMENT ON COLUMN _transmute.migrations.waiting_signalled_at IS 'When that was.';
COMMENT ON COLUMN _transmute.migrations.last_error IS 'Message of the last error; NULL after success.';
COMMENT ON COLUMN _transmute.migrations.last_error_sqlstate IS 'SQLSTATE of the last error.';
COMMENT ON COLUMN _transmute.migrations.last_error_hint IS 'Which calls are possible now.';
COMMENT ON COLUMN _transmute.migrations.pre_execution_until IS 'Starts not before this time (pre-execution soak); NULL: at once.';
COMMENT ON COLUMN _transmute.migrations.soak_until IS 'Absolute end of the soak before finalization; NULL until AWAITING_FINALIZATION, and kept where an invariant stops it in between.';
COMMENT ON COLUMN _transmute.migrations.required_approvals IS 'Distinct approvers needed before FINISHING.';
COMMENT ON COLUMN _transmute.migrations.keep_artifacts IS 'How long the old rows are kept after FINISHED.';
COMMENT ON COLUMN _transmute.migrations.keep_old IS 'How long after the swap the old rows follow the new ones, so that it can be undone; NULL: not at all.';
COMMENT ON COLUMN _transmute.migrations.kept_until IS 'It has finished and can be undone until then: old rows and hidden columns are kept; NULL: it cannot.';
COMMENT ON COLUMN _transmute.migrations.undo_reason IS 'Set when an undo was asked for; NULL otherwise.';
COMMENT ON COLUMN _transmute.migrations.is_back IS 'True once an undo has swapped the old rows in again.';
COMMENT ON COLUMN _transmute.migrations.undone_at IS 'When it was undone; NULL: it was not.';
COMMENT ON COLUMN _transmute.migrations.soak IS 'Length of the soak before finalization, fixed at register.';
COMMENT ON COLUMN _transmute.migrations.soak_until_unused IS 'How long the old shape has to be unused before finalization; NULL: that does not matter.';
COMMENT ON COLUMN _transmute.migrations.usage_skipped IS 'True: somebody has ended that soak.';
COMMENT ON COLUMN _transmute.migrations.registered_at IS 'When it was registered.';
COMMENT ON COLUMN _transmute.migrations.applied_at IS 'When apply was last called; NULL before.';
COMMENT ON COLUMN _transmute.migrations.started_at IS 'When it left UNINITIALIZED; NULL before.';
COMMENT ON COLUMN _transmute.migrations.resumed_at IS 'When it was last resumed; dead letters from before are accepted for the time being. NULL: never.';
COMMENT ON COLUMN _transmute.migrations.finished_at IS 'When it reached FINISHED or was rolled back; NULL before.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.migrations', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.migrations_seq_seq', '');
