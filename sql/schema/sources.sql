CREATE TABLE _transmute.sources (
  migration_id text CONSTRAINT sources_pkey PRIMARY KEY
    CONSTRAINT sources_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  source text NOT NULL,
  checksum text NOT NULL,
  directory text,
  file text,
  line integer NOT NULL CONSTRAINT sources_line_check CHECK (line > 0),
  CONSTRAINT sources_file_check CHECK (file IS NOT NULL OR directory IS NULL)
);
CREATE INDEX sources_directory_idx ON _transmute.sources (directory);
COMMENT ON TABLE _transmute.sources IS 'Texts of migrations that were loaded from files, byte for byte.';
COMMENT ON COLUMN _transmute.sources.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.sources.source IS 'Its part of the text, with its directives; files without directives have got them.';
COMMENT ON COLUMN _transmute.sources.checksum IS 'SHA-256, hex, over the text with LF at the end of each line and without a byte order mark.';
COMMENT ON COLUMN _transmute.sources.directory IS 'Where its file was when it was loaded last; NULL: it was loaded as a text.';
COMMENT ON COLUMN _transmute.sources.file IS 'The file, by its name in the directory; of two, that of the way there.';
COMMENT ON COLUMN _transmute.sources.line IS 'The line of the file, or of the text, at which it begins.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.sources', '');
