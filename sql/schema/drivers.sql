CREATE TABLE _transmute.drivers (
  migration_id text CONSTRAINT drivers_pkey PRIMARY KEY
    CONSTRAINT drivers_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE
);
COMMENT ON TABLE _transmute.drivers IS 'One row a migration: who drives it locks the row for the transaction, so that the row of _transmute.migrations stays free for what people call.';
COMMENT ON COLUMN _transmute.drivers.migration_id IS 'The migration.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.drivers', '');
