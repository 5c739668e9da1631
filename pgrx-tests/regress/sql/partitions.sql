-- What a person reads of partitioned tables.
\set SHOW_CONTEXT never
CREATE SCHEMA parts;
SET search_path = parts, public;
CREATE TABLE measures (id integer, place integer NOT NULL, value integer, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM (0) TO (1000);
CREATE TABLE measures_2 PARTITION OF measures FOR VALUES FROM (1000) TO (2000);
CREATE TABLE measures_rest PARTITION OF measures DEFAULT;
CREATE TABLE fresh (id integer NOT NULL, place integer NOT NULL, value integer);
INSERT INTO measures SELECT i, i % 10, i FROM generate_series(1, 1500) AS i;
ANALYZE measures;
CALL flush_counters();
CALL forget_writes('measures_1');
CALL forget_writes('measures_2');
CALL forget_writes('measures_rest');
\set plan 'SELECT step, phase, kind, target, lock_mode, risk_level AS risk, reasons, sql FROM transmute.explain'

:plan ('CREATE INDEX ON measures (place)') ORDER BY step;
:plan ('ALTER TABLE measures ADD UNIQUE (place, id)') ORDER BY step;
:plan ('ALTER TABLE measures ALTER COLUMN value TYPE bigint') ORDER BY step;
:plan ('ALTER TABLE measures ATTACH PARTITION fresh FOR VALUES FROM (5000) TO (6000)') ORDER BY step;
:plan ('ALTER TABLE measures DETACH PARTITION measures_1') ORDER BY step;

-- What the server refuses, and what transmute does.
SELECT transmute.register('m', 'ALTER TABLE measures ALTER COLUMN id TYPE bigint');
SELECT transmute.register('m', 'ALTER TABLE measures_1 ALTER COLUMN value TYPE bigint');
SELECT transmute.register('m', 'CREATE UNIQUE INDEX ON measures (place)');
SELECT transmute.register('m', 'ALTER TABLE measures ADD COLUMN number serial');
SELECT transmute.register('m', 'ALTER TABLE measures ATTACH PARTITION fresh FOR VALUES FROM (500) TO (600)');
SELECT transmute.register('m', 'ALTER TABLE measures DETACH PARTITION fresh');
DROP SCHEMA parts CASCADE;
