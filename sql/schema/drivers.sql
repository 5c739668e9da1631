CREATE TABLE _transmute.drivers (
  migration_id text CONSTRAINT drivers_pkey PRIMARY KEY
    CONSTRAINT drivers_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  pid integer,
  backend_start timestamptz,
  since timestamptz
);
COMMENT ON TABLE _transmute.drivers IS 'One row a migration: who drives it locks the row for the transaction, so that the row of _transmute.migrations stays free for what people call.';
COMMENT ON COLUMN _transmute.drivers.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.drivers.pid IS 'Process that drove it last; NULL: none yet. The claim is the lock, which goes with its process: this says only whose it was.';
COMMENT ON COLUMN _transmute.drivers.backend_start IS 'Start of that process: tells it from a later one with the same pid.';
COMMENT ON COLUMN _transmute.drivers.since IS 'Since when that process drives it.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.drivers', '');
