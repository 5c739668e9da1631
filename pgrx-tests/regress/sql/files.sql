-- Migration files: what is loaded, what has changed, what is wrong and where. Files come as a client sends them.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA files;
SET search_path = files, public;
CREATE FUNCTION utf8(VARIADIC texts text[]) RETURNS bytea[] LANGUAGE sql AS 'SELECT array_agg(convert_to(t, ''UTF8'')) FROM unnest(texts) AS t';

-- A text with our directives.
\set orders '-- migration: files orders\n-- id: files-01\n-- soak: 1 hour\n\n-- migrate: up\nCREATE TABLE orders (id bigint PRIMARY KEY);\n\n-- migrate: down\nDROP TABLE orders;\n'
SELECT * FROM transmute.load(:'orders', '{"mode": "direct"}');
SELECT * FROM transmute.load(:'orders', '{"mode": "direct"}');
SELECT transmute.export_sql('files-01') = :'orders' AS the_same;
SELECT * FROM transmute.load('-- migration: x
-- migrate: upp
SELECT 1');
SELECT * FROM transmute.load('-- migration: x
-- migrate: up
SELECT ''a
-- migrate: down');
SELECT * FROM transmute.load('-- migration: x
-- id: two words
-- migrate: up
SELECT 1');
SELECT * FROM transmute.load('-- migration: x
-- migrate: up
CREATE TABLE x ();
  COMMIT;');

-- Directories as other runners have them.
SELECT * FROM transmute.load_files('files/numbered', '{10_c.up.sql,9_b.up.sql,9_b.down.sql}',
  utf8('CREATE TABLE c ()', 'CREATE TABLE b ()', 'DROP TABLE b'), '{"mode": "direct"}');
SELECT * FROM transmute.load_files('files/versions', '{V1.10__c.sql,V1.9__b.sql,U1.9__b.sql}',
  utf8('CREATE TABLE c ()', 'CREATE TABLE b ()', 'DROP TABLE b'), '{"mode": "direct"}');
SELECT * FROM transmute.load_files('files/directories', '{2024-10_c/up.sql,2024-9_b/up.sql,2024-9_b/down.sql}',
  utf8('CREATE TABLE c ()', 'CREATE TABLE b ()', 'DROP TABLE b'), '{"mode": "direct"}');
SELECT transmute.export_sql('9_b');

-- What has changed, and what has gone.
SELECT file, id, what, detail FROM transmute.load_files('files/numbered', '{10_c.up.sql,11_d.up.sql}',
  utf8('CREATE TABLE c (id int)', 'CREATE TABLE d ()'), '{"mode": "direct"}');
SELECT id, result, file, line, detail FROM transmute.verify_files('files/numbered', '{10_c.up.sql,12_e.up.sql}',
  utf8('CREATE TABLE c (id int)', 'CREATE TABLE e ()'));
SELECT id, result, file, line, detail FROM transmute.verify_checksums('{"10_c": "CREATE TABLE c (i int)", "files-zz": ""}')
WHERE id IN ('10_c', '11_d', 'files-zz');

-- What is not loaded.
SELECT transmute.load_files('files/x', '{README.md}', utf8(''));
SELECT transmute.load_files('files/x', '{a.sql,1_b.up.sql}', utf8('', ''));
SELECT transmute.load_files('files/x', '{1_b.up.sql,01_c.up.sql}', utf8('', ''));
SELECT transmute.load_files('files/x', '{R__views.sql}', utf8(''));
SELECT transmute.load_files('files/x', '{1_b.up.sql}', '{"\\x53454c454354202720ff27"}');
SELECT transmute.load_files('files/x', '{1_b.up.sql}', utf8('SELECT 1;
  BEGIN;'));
SELECT transmute.load_files('files/x', '{1_b.up.sql}', utf8('-- migrate: up
SELECT 1'));
SELECT transmute.load_files('files/x', '{1_b.up.sql,2_c.up.sql}', utf8('CREATE TABLE b ()', 'CREATE TABEL c ()'), '{"mode": "direct"}');
SELECT transmute.load_dir('migrations');
CREATE ROLE files_nobody IN ROLE transmute_operator;
SET ROLE files_nobody;
SELECT transmute.load_dir('/migrations');
RESET ROLE;
DROP ROLE files_nobody;
-- The database has all of them already.
SELECT id, action FROM transmute.baseline('11_d', 'they are only looked at here');
SELECT id, name, status, mode FROM transmute.list WHERE id ~ '^(files|9_b|1[0-9]_|V1|2024)';
DROP SCHEMA files CASCADE;
