-- EXPLAIN for DDL as text: what a person reads before a change. At most 120 columns.
\set SHOW_CONTEXT never
\pset tuples_only on
\pset format unaligned
CREATE SCHEMA explain_text;
SET search_path = explain_text, public;
CREATE TABLE orders (id integer PRIMARY KEY, customer integer, status varchar(20), cents integer NOT NULL DEFAULT 0, note text);
CREATE INDEX orders_customer_idx ON orders (customer);
CREATE INDEX orders_status_idx ON orders (status varchar_pattern_ops);
CREATE VIEW open_orders AS SELECT id, cents FROM orders WHERE status <> 'done';
CREATE TABLE customers (id integer PRIMARY KEY, name text);
INSERT INTO orders SELECT i, i, 'open', i FROM generate_series(1, 500) AS i;
ANALYZE orders;
CALL flush_counters();
CALL forget_writes('orders');
CALL forget_writes('customers');
\set explain 'SELECT * FROM transmute.explain'

-- A type that is stored differently, under a view.
:explain ('ALTER TABLE orders ALTER COLUMN cents TYPE bigint', 'text');
-- The same on 200 million rows.
UPDATE pg_class SET reltuples = 200000000 WHERE oid = 'orders'::regclass;
:explain ('ALTER TABLE orders ALTER COLUMN cents TYPE bigint', 'text');
ANALYZE orders;
-- Fast paths, taken and not taken.
:explain ('ALTER TABLE orders ALTER COLUMN status TYPE varchar(40)', 'text');
:explain ('ALTER TABLE orders ALTER COLUMN note TYPE varchar', 'text');
DROP VIEW open_orders;
:explain ('ALTER TABLE orders ALTER COLUMN status TYPE varchar(10)', 'text');
:explain ('ALTER TABLE orders ALTER COLUMN note TYPE integer USING length(note)', 'text');
:explain ('ALTER TABLE orders ADD COLUMN placed date DEFAULT ''2020-01-01''', 'text');
:explain ('ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid()', 'text');
-- What is taken away, and what is only for the catalog.
:explain ('COMMENT ON TABLE orders IS ''what was bought''', 'text');
:explain ('GRANT SELECT ON orders TO pg_monitor', 'text');
:explain ('CREATE VIEW rich AS SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer', 'text');
:explain ('ALTER TABLE orders ADD CONSTRAINT cents_check CHECK (cents >= 0) NOT VALID', 'text');
:explain ('CREATE TRIGGER seen BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'text');
-- A script.
:explain ($$
  CREATE TABLE shipments (id integer PRIMARY KEY, order_id integer);
  CREATE INDEX ON shipments (order_id);
  ALTER TABLE orders ADD COLUMN shipped boolean
$$, 'text');

:explain ($$
  ALTER TABLE orders ALTER note TYPE integer USING length(note);
  ALTER TABLE orders ALTER status TYPE varchar(40) USING status || note
$$, 'text');

-- A table that becomes partitioned.
:explain ($$
  CREATE TABLE orders_new (LIKE orders INCLUDING ALL) PARTITION BY HASH (id);
  CREATE TABLE orders_0 PARTITION OF orders_new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
  CREATE TABLE orders_1 PARTITION OF orders_new FOR VALUES WITH (MODULUS 2, REMAINDER 1);
  INSERT INTO orders_new SELECT * FROM orders;
  ALTER TABLE orders RENAME TO orders_old;
  ALTER TABLE orders_new RENAME TO orders
$$, 'text');

-- For programs: one document.
SELECT jsonb_pretty(jsonb_build_object('keys', (SELECT jsonb_agg(k ORDER BY k) FROM jsonb_object_keys(d) k), 'max_risk', d -> 'max_risk',
  'plain', d #> '{statements,0,plain,locks}', 'steps', jsonb_array_length(d #> '{statements,0,steps}')))
FROM (SELECT transmute.explain('ALTER TABLE orders ALTER COLUMN cents TYPE bigint', 'json')::jsonb) AS e (d);

-- Refused.
SELECT * FROM transmute.explain('COMMENT ON TABLE orders IS NULL', 'xml');
SELECT * FROM transmute.explain('COMMENT ON TABLE orders IS NULL', NULL);
SELECT * FROM transmute.explain(NULL, 'text');

-- Which locks, and nothing else.
SELECT * FROM transmute.plain_locks('ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers; DROP INDEX orders_status_idx; CREATE SCHEMA s');
DROP SCHEMA explain_text CASCADE;
