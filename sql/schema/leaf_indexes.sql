CREATE TABLE _transmute.leaf_indexes (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT leaf_indexes_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT leaf_indexes_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  target text NOT NULL,
  leaf text NOT NULL,
  name name NOT NULL,
  sql text NOT NULL,
  revert_sql text NOT NULL,
  built boolean NOT NULL DEFAULT false,
  CONSTRAINT leaf_indexes_target_leaf_key UNIQUE (migration_id, target, leaf)
);
COMMENT ON TABLE _transmute.leaf_indexes IS 'Indexes and foreign keys that a migration makes on partitions, until that of their table takes them over. The row is committed before an index is built, and with the key.';
COMMENT ON COLUMN _transmute.leaf_indexes.id IS 'Order in which they are built.';
COMMENT ON COLUMN _transmute.leaf_indexes.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.leaf_indexes.target IS 'The index of the partitioned table, or the table and its foreign key, qualified and quoted.';
COMMENT ON COLUMN _transmute.leaf_indexes.leaf IS 'The partition, qualified and quoted.';
COMMENT ON COLUMN _transmute.leaf_indexes.name IS 'Name of the index or key of the partition, as the server would choose it.';
COMMENT ON COLUMN _transmute.leaf_indexes.sql IS 'The statement that makes it.';
COMMENT ON COLUMN _transmute.leaf_indexes.revert_sql IS 'The statement that drops it.';
COMMENT ON COLUMN _transmute.leaf_indexes.built IS 'False while it is being built, or proved.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.leaf_indexes', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.leaf_indexes_id_seq', '');
