CREATE TABLE _transmute.versions (
  version name CONSTRAINT versions_pkey PRIMARY KEY,
  owner_name name NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE TABLE _transmute.version_views (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT version_views_pkey PRIMARY KEY,
  version name NOT NULL CONSTRAINT version_views_version_fkey REFERENCES _transmute.versions ON DELETE CASCADE,
  view_name name NOT NULL,
  migration_id text NOT NULL CONSTRAINT version_views_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  relation oid NOT NULL,
  view oid NOT NULL,
  rows_view oid NOT NULL DEFAULT 0,
  columns jsonb NOT NULL,
  read_script text,
  write_script text,
  CONSTRAINT version_views_version_view_name_key UNIQUE (version, view_name)
);
CREATE INDEX version_views_relation_idx ON _transmute.version_views (relation);
CREATE INDEX version_views_view_idx ON _transmute.version_views (view);
COMMENT ON TABLE _transmute.versions IS 'Schemas that show tables as a release knows them.';
COMMENT ON COLUMN _transmute.versions.version IS 'The schema.';
COMMENT ON COLUMN _transmute.versions.owner_name IS 'Owner of the migration that made it first: members may release it.';
COMMENT ON COLUMN _transmute.versions.created_at IS 'When.';
COMMENT ON TABLE _transmute.version_views IS 'One row a table in a version: its view.';
COMMENT ON COLUMN _transmute.version_views.id IS 'Number of the view.';
COMMENT ON COLUMN _transmute.version_views.version IS 'The schema it is in.';
COMMENT ON COLUMN _transmute.version_views.view_name IS 'Its name: that of the table in this version.';
COMMENT ON COLUMN _transmute.version_views.migration_id IS 'The migration that made it.';
COMMENT ON COLUMN _transmute.version_views.relation IS 'The table, pg_class.oid.';
COMMENT ON COLUMN _transmute.version_views.view IS 'The view, pg_class.oid; 0: about to be made.';
COMMENT ON COLUMN _transmute.version_views.rows_view IS 'Where the view converts: the view through which its trigger reads and writes the table, pg_class.oid; 0: there is none.';
COMMENT ON COLUMN _transmute.version_views.columns IS 'The columns it shows, in this order for ever: [{number, name, type_name}], number is the attribute number in the table.';
COMMENT ON COLUMN _transmute.version_views.read_script IS 'Statements whose USING clauses lead from the table as it is to the view; NULL: none are needed.';
COMMENT ON COLUMN _transmute.version_views.write_script IS 'Statements whose USING clauses lead back.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.versions', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.version_views', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.version_views_id_seq', '');
