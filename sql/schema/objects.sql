CREATE TABLE _transmute.objects (
  migration_id text NOT NULL CONSTRAINT objects_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  class text NOT NULL CONSTRAINT objects_class_check CHECK (class IN ('relation', 'type', 'schema', 'other')),
  name text NOT NULL,
  object oid,
  reads boolean NOT NULL,
  CONSTRAINT objects_pkey PRIMARY KEY (migration_id, class, name)
);
COMMENT ON TABLE _transmute.objects IS 'What each migration touches: two that touch the same object are never under way together.';
COMMENT ON COLUMN _transmute.objects.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.objects.class IS 'relation, type, schema, or other: what has no oid of these catalogs, by its name alone.';
COMMENT ON COLUMN _transmute.objects.name IS 'Its name when the migration was planned, qualified and quoted; for what the script makes, the name it will have.';
COMMENT ON COLUMN _transmute.objects.object IS 'Its oid then; NULL: the script makes it, or it has none.';
COMMENT ON COLUMN _transmute.objects.reads IS 'The migration only reads it: others may read it too.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.objects', '');
