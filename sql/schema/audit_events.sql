CREATE TABLE _transmute.audit_events (
  seq bigint CONSTRAINT audit_events_pkey PRIMARY KEY,
  encoding_version integer NOT NULL,
  at timestamptz NOT NULL,
  transaction_at timestamptz NOT NULL,
  xid text NOT NULL,
  session_user_name text NOT NULL,
  current_user_name text NOT NULL,
  application_name text NOT NULL,
  client_addr text,
  migration_id text,
  event text NOT NULL,
  from_state text,
  to_state text,
  detail text,
  prev_hash bytea NOT NULL CONSTRAINT audit_events_prev_hash_key UNIQUE,
  hash bytea NOT NULL
);
CREATE INDEX audit_events_migration_id_idx ON _transmute.audit_events (migration_id, seq);
COMMENT ON TABLE _transmute.audit_events IS 'Hash-chained audit trail; docs/audit-format.md says byte by byte what is hashed. UNIQUE (prev_hash) makes a fork impossible.';
COMMENT ON COLUMN _transmute.audit_events.seq IS 'Position in the chain, from 1, without gaps.';
COMMENT ON COLUMN _transmute.audit_events.encoding_version IS 'Version of the hashed form.';
COMMENT ON COLUMN _transmute.audit_events.at IS 'clock_timestamp() of the act.';
COMMENT ON COLUMN _transmute.audit_events.transaction_at IS 'Start of its transaction.';
COMMENT ON COLUMN _transmute.audit_events.xid IS 'Transaction id, 64 bit, as text.';
COMMENT ON COLUMN _transmute.audit_events.session_user_name IS 'session_user: the actor.';
COMMENT ON COLUMN _transmute.audit_events.current_user_name IS 'current_user.';
COMMENT ON COLUMN _transmute.audit_events.application_name IS 'application_name of the session.';
COMMENT ON COLUMN _transmute.audit_events.client_addr IS 'Client address; NULL for a unix socket or a worker.';
COMMENT ON COLUMN _transmute.audit_events.migration_id IS 'Migration; NULL for events of the extension itself.';
COMMENT ON COLUMN _transmute.audit_events.event IS 'What happened.';
COMMENT ON COLUMN _transmute.audit_events.from_state IS 'State before, for a transition.';
COMMENT ON COLUMN _transmute.audit_events.to_state IS 'State after, for a transition.';
COMMENT ON COLUMN _transmute.audit_events.detail IS 'JSON text, hashed byte for byte.';
COMMENT ON COLUMN _transmute.audit_events.prev_hash IS 'hash of the event before; 32 zero bytes for the first.';
COMMENT ON COLUMN _transmute.audit_events.hash IS 'SHA-256 over prev_hash and this event.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.audit_events', '');
