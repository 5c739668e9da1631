CREATE TABLE _transmute.seeds (
  name text CONSTRAINT seeds_pkey PRIMARY KEY
    CONSTRAINT seeds_name_check CHECK (name <> '' AND pg_catalog.octet_length(name) <= 255 AND name !~ '[[:cntrl:]]'),
  seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT seeds_seq_key UNIQUE,
  script text NOT NULL,
  checksum text NOT NULL,
  owner_name name NOT NULL,
  search_path text NOT NULL,
  settings jsonb NOT NULL,
  loaded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  loaded_by name NOT NULL DEFAULT session_user,
  ran_checksum text,
  ran_at timestamptz,
  ran_by name
);
COMMENT ON TABLE _transmute.seeds IS 'Scripts that fill tables, run again only when their text has changed.';
COMMENT ON COLUMN _transmute.seeds.name IS 'Name the DBA gave it: 1 to 255 bytes, no control characters.';
COMMENT ON COLUMN _transmute.seeds.seq IS 'Order in which they were first loaded, and run.';
COMMENT ON COLUMN _transmute.seeds.script IS 'The statements as written.';
COMMENT ON COLUMN _transmute.seeds.checksum IS 'SHA-256, hex, over the script.';
COMMENT ON COLUMN _transmute.seeds.owner_name IS 'Role that loaded it last (current_user): it runs as this role.';
COMMENT ON COLUMN _transmute.seeds.search_path IS 'search_path in force when it was loaded; it runs with it.';
COMMENT ON COLUMN _transmute.seeds.settings IS 'Settings in force then that decide what its expressions mean: [[name, value], …].';
COMMENT ON COLUMN _transmute.seeds.loaded_at IS 'When its text was loaded last.';
COMMENT ON COLUMN _transmute.seeds.loaded_by IS 'session_user then.';
COMMENT ON COLUMN _transmute.seeds.ran_checksum IS 'Checksum of the text that ran last; NULL: it has never run.';
COMMENT ON COLUMN _transmute.seeds.ran_at IS 'When that was; NULL: never.';
COMMENT ON COLUMN _transmute.seeds.ran_by IS 'session_user then.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.seeds', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.seeds_seq_seq', '');
