CREATE TABLE _transmute.signals (
  seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT signals_pkey PRIMARY KEY,
  payload jsonb NOT NULL
);
COMMENT ON TABLE _transmute.signals IS 'Signals that are committed and not sent yet: whoever drives sends them with NOTIFY in a transaction of its own, since a transaction that notifies waits at its commit for others that do, and must hold no strong lock meanwhile.';
COMMENT ON COLUMN _transmute.signals.seq IS 'Number of the signal: they are sent in this order.';
COMMENT ON COLUMN _transmute.signals.payload IS 'What is sent, without seq; docs/signals.md describes it.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.signals', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.signals_seq_seq', '');
