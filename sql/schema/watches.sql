CREATE TABLE _transmute.watches (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT watches_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT watches_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  object text NOT NULL,
  relation oid NOT NULL,
  attribute smallint NOT NULL,
  since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT watches_migration_id_object_key UNIQUE (migration_id, object)
);
COMMENT ON TABLE _transmute.watches IS 'Parts of the old shape whose use is counted while a migration soaks.';
COMMENT ON COLUMN _transmute.watches.id IS 'Number of the watch.';
COMMENT ON COLUMN _transmute.watches.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.watches.object IS 'What goes at the end: a table, or a column as table.column.';
COMMENT ON COLUMN _transmute.watches.relation IS 'The table, or the view that keeps the old name.';
COMMENT ON COLUMN _transmute.watches.attribute IS 'Number of the column; 0: any use of the relation.';
COMMENT ON COLUMN _transmute.watches.since IS 'Since when uses are counted.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.watches', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.watches_id_seq', '');

CREATE TABLE _transmute.uses (
  watch_id bigint NOT NULL CONSTRAINT uses_watch_id_fkey REFERENCES _transmute.watches ON DELETE CASCADE,
  role_name text NOT NULL,
  application_name text NOT NULL,
  reads bigint NOT NULL,
  writes bigint NOT NULL,
  first_used timestamptz NOT NULL,
  last_used timestamptz NOT NULL,
  CONSTRAINT uses_pkey PRIMARY KEY (watch_id, role_name, application_name)
) WITH (fillfactor = 50);
COMMENT ON TABLE _transmute.uses IS 'Statements that used a part of an old shape, by who ran them.';
COMMENT ON COLUMN _transmute.uses.watch_id IS 'What they used.';
COMMENT ON COLUMN _transmute.uses.role_name IS 'session_user.';
COMMENT ON COLUMN _transmute.uses.application_name IS 'application_name.';
COMMENT ON COLUMN _transmute.uses.reads IS 'Statements that read it and did not write it.';
COMMENT ON COLUMN _transmute.uses.writes IS 'Statements that wrote it; where the library is not preloaded, seconds of a session in which one did.';
COMMENT ON COLUMN _transmute.uses.first_used IS 'When this was first noted.';
COMMENT ON COLUMN _transmute.uses.last_used IS 'The last of them, to the second.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.uses', '');

CREATE TABLE _transmute.written (
  relation oid NOT NULL,
  role oid NOT NULL,
  application_name text NOT NULL,
  at timestamptz NOT NULL
);
COMMENT ON TABLE _transmute.written IS 'Where the library is not preloaded: writes in the old shape as the triggers of migrations see them, at most one a second, table and session. Whoever drives adds them to the uses.';
COMMENT ON COLUMN _transmute.written.relation IS 'The table.';
COMMENT ON COLUMN _transmute.written.role IS 'session_user.';
COMMENT ON COLUMN _transmute.written.application_name IS 'application_name.';
COMMENT ON COLUMN _transmute.written.at IS 'When the statement began.';
