-- What is renamed has both names until the end, what is dropped is hidden first: the plans, and a session of a DBA.
\set SHOW_CONTEXT never
CREATE SCHEMA names;
SET search_path = names, public;
CREATE TABLE accounts (id integer PRIMARY KEY, owner text NOT NULL, balance integer);
CREATE TABLE ledger (id integer, account integer REFERENCES accounts);
INSERT INTO accounts SELECT i, 'owner ' || i, 10 * i FROM generate_series(1, 5) AS i;
ANALYZE accounts, ledger;
CALL flush_counters();
CALL forget_writes('accounts');
CALL forget_writes('ledger');
\set plan 'SELECT step, phase, kind, target, lock_mode, risk_level AS risk, reasons, sql FROM transmute.explain'
:plan ('ALTER TABLE accounts RENAME COLUMN owner TO holder') ORDER BY step;
:plan ('ALTER TABLE ledger RENAME TO journal; ALTER TABLE accounts SET SCHEMA public') ORDER BY step;
:plan ('ALTER TABLE accounts DROP COLUMN owner; DROP TABLE ledger') ORDER BY step;

-- Both names, one value.
SELECT transmute.register('names', 'ALTER TABLE accounts RENAME COLUMN owner TO holder; ALTER TABLE accounts DROP COLUMN balance; DROP TABLE ledger',
  meta => '{"pre_finalization_soak": "1 hour"}');
SELECT * FROM transmute.apply('names');
CALL transmute.wait('names', 'AWAITING_FINALIZATION');
UPDATE accounts SET owner = 'ann' WHERE id = 1;
UPDATE accounts SET holder = 'ben' WHERE id = 2;
SELECT owner, holder FROM accounts WHERE id < 3 ORDER BY id;
UPDATE accounts SET owner = 'ann', holder = 'ben';

-- The end: one name, and artifacts of what was dropped.
SELECT transmute.skip_soak('names', 'both applications are done');
CALL transmute.wait('names');
SELECT attname FROM pg_attribute WHERE attrelid = 'accounts'::regclass AND attnum > 0 AND attname !~ '^_transmute' ORDER BY attnum;
SELECT kind, source, regexp_replace(physical, '_transmute_\d+', '_transmute_N') AS physical FROM transmute.artifacts
WHERE id = 'names' ORDER BY artifact;

-- Refused before anything is written.
SELECT transmute.register('refused', 'ALTER TABLE accounts RENAME COLUMN owner TO id');
SELECT transmute.register('refused', 'ALTER TABLE accounts RENAME COLUMN holder TO id');
SELECT transmute.register('refused', 'ALTER TABLE accounts RENAME TO accounts');
CREATE VIEW holders AS SELECT holder FROM accounts;
SELECT transmute.register('refused', 'ALTER TABLE accounts DROP COLUMN holder CASCADE');
SELECT transmute.register('refused', 'DROP TABLE accounts CASCADE');
SELECT transmute.register('refused', 'DROP TABLE accounts', meta => '{"drop_policy": "archive"}');
DROP SCHEMA names CASCADE;
DO $$ BEGIN
  EXECUTE (SELECT format('DROP SCHEMA %s CASCADE', split_part(physical, '.', 1)) FROM transmute.artifacts WHERE id = 'names' AND kind = 'table');
END $$;
