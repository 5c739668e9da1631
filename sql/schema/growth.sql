CREATE TABLE _transmute.growth (
  migration_id text NOT NULL CONSTRAINT growth_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  relation oid NOT NULL,
  bytes_before bigint NOT NULL,
  bytes bigint NOT NULL,
  vacuums integer NOT NULL DEFAULT 0,
  vacuumed_at timestamptz,
  CONSTRAINT growth_pkey PRIMARY KEY (migration_id, relation)
);
COMMENT ON TABLE _transmute.growth IS 'How large tables are whose rows are changed in place, a few at a time.';
COMMENT ON COLUMN _transmute.growth.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.growth.relation IS 'The table, pg_class.oid; partitions count as part of the partitioned one.';
COMMENT ON COLUMN _transmute.growth.bytes_before IS 'Bytes of its heap before the first batch.';
COMMENT ON COLUMN _transmute.growth.bytes IS 'Bytes of its heap when it was last looked at.';
COMMENT ON COLUMN _transmute.growth.vacuums IS 'Vacuums that the migration ran between its batches.';
COMMENT ON COLUMN _transmute.growth.vacuumed_at IS 'When the last of them ended.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.growth', '');
