-- EXPLAIN for DDL: what a DBA sees of a plan before anything is registered, and what is refused.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA explain;
SET search_path = explain, public;
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0, owner text);
INSERT INTO accounts SELECT i, 10 * i, 'owner ' || i FROM generate_series(1, 500) AS i;
ANALYZE accounts;
CALL flush_counters();
CALL forget_writes('accounts');

-- One statement, everything that is said about it.
\x on
SELECT step, phase, kind, target, lock_mode, risk_level, risk_score, reasons, estimated_rows, sql, plain_statement, plain_risk_level, plain_risk_score
FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint') ORDER BY step;
\x off

-- The same statement on a table of another size.
UPDATE pg_class SET reltuples = 50000000 WHERE oid = 'accounts'::regclass;
SELECT kind, risk_level, risk_score, estimated_rows, plain_risk_level, plain_risk_score
FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint') ORDER BY step;
ANALYZE accounts;

-- What rewrites, rewrites here too: several changes at once, a volatile default, a stored generated column.
\set plan 'SELECT step, phase, kind, target, lock_mode, risk_level AS risk, reasons FROM transmute.explain'
:plan ('ALTER TABLE accounts ALTER COLUMN balance TYPE numeric(12,2) USING balance / 100.0, ADD COLUMN token uuid DEFAULT gen_random_uuid(),
  ADD COLUMN doubled integer GENERATED ALWAYS AS (2 * id) STORED, DROP COLUMN owner') ORDER BY step;

-- Dependents are taken away and put back by the swap.
CREATE VIEW rich AS SELECT id, balance FROM accounts WHERE balance > 1000;
:plan ('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint') ORDER BY step;

-- A materialized view is filled before the swap. What the new type does not admit is said before anything is written.
CREATE MATERIALIZED VIEW totals AS SELECT owner, sum(balance) AS total FROM accounts GROUP BY owner;
:plan ('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint') ORDER BY step;
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE text');
DROP MATERIALIZED VIEW totals;
ALTER TABLE accounts ADD COLUMN doubled integer GENERATED ALWAYS AS (balance * 2) STORED;
:plan ('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint') ORDER BY step;
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE text');
ALTER TABLE accounts DROP COLUMN doubled;

-- What needs neither a rewrite nor a scan runs as it stands.
:plan ('ALTER TABLE accounts ADD COLUMN note text DEFAULT ''none''') ORDER BY step;
:plan ('ALTER TABLE accounts ALTER COLUMN owner TYPE varchar') ORDER BY step;
:plan ('ALTER TABLE accounts DROP COLUMN owner') ORDER BY step;

-- A script is ordered by phase: first what can be taken back, last what cannot.
SELECT step, phase, kind, target, reasons, sql
FROM transmute.explain($$
  COMMENT ON TABLE accounts IS 'one row an account';
  CREATE TABLE branches (id integer PRIMARY KEY);
  ALTER TABLE branches ADD COLUMN name text NOT NULL;
  ALTER TABLE accounts ADD COLUMN branch integer;
  ALTER TABLE accounts ALTER COLUMN balance TYPE bigint
$$) ORDER BY step;

-- Nothing was written by any of it.
SELECT count(*) FROM transmute.status WHERE id LIKE 'explain%';
SELECT * FROM work_objects('explain');
SELECT * FROM columns_of('accounts');

-- Refused before anything is written: not a script.
SELECT * FROM transmute.explain(NULL);
SELECT * FROM transmute.explain('-- nothing');
SELECT * FROM transmute.explain('ALTER TABL accounts');
SELECT * FROM transmute.explain('BEGIN; COMMENT ON TABLE accounts IS NULL; COMMIT');
SELECT step, phase, kind, operations, target, locks, reasons, estimated_rows, plain_statement FROM transmute.explain('UPDATE accounts SET balance = 0');

-- Not a table of ours.
CREATE TABLE heirs () INHERITS (accounts);
CREATE TEMP TABLE scratch (id integer PRIMARY KEY, value integer);
CREATE TYPE pair AS (id integer, value integer);
CREATE TABLE pairs OF pair (PRIMARY KEY (id));
CREATE TABLE bare (value integer);
SELECT * FROM transmute.explain('ALTER TABLE accunts ALTER COLUMN balance TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE bank.accounts ALTER COLUMN balance TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE heirs ALTER COLUMN balance TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE scratch ALTER COLUMN value TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE pairs ALTER COLUMN value TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE rich ALTER COLUMN balance SET DEFAULT 1');
SELECT * FROM transmute.explain('ALTER TABLE pg_class ALTER COLUMN relpages TYPE bigint');
-- Without a key, or with one that the conversion does not keep apart: rows are found by their address.
SELECT step, kind, sql, reasons FROM transmute.explain('ALTER TABLE bare ALTER COLUMN value TYPE bigint') WHERE phase = 'expand';
DROP TABLE heirs;

-- Not a change that can work: the server's own words.
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balnce TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE bigintt');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN owner TYPE bigint');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN owner TYPE bigint USING legth(owner)');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN owner TYPE bigint USING length(owner) > 1');
SELECT * FROM transmute.explain('ALTER TABLE accounts DROP COLUMN balance');

-- Constraints are added NOT VALID and proved beside the application.
SELECT step, phase, target, lock_mode, sql, plain_statement
FROM transmute.explain('ALTER TABLE accounts ADD CHECK (balance >= 0), ADD FOREIGN KEY (id) REFERENCES accounts');
-- A key that two rows may have after it.
SELECT step, kind, sql, reasons FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN id TYPE bigint USING id + balance')
  WHERE phase = 'expand';
SELECT * FROM transmute.explain('CREATE INDEX ON accounts (owner)');
SELECT * FROM transmute.explain('DROP TABLE accounts');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint, ADD FOREIGN KEY (balance) REFERENCES accounts');
SELECT * FROM transmute.explain('ALTER TABLE accounts ALTER COLUMN balance TYPE bigint; ALTER TABLE accounts ALTER COLUMN balance TYPE numeric USING length(accounts::text)');

-- Still nothing was written.
SELECT * FROM work_objects('explain');
SELECT * FROM columns_of('accounts');
DROP SCHEMA explain CASCADE;
