CREATE TABLE _transmute.stops (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT stops_pkey PRIMARY KEY,
  reason text NOT NULL,
  stopped_by name NOT NULL DEFAULT session_user,
  stopped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  resumed_by name,
  resumed_at timestamptz,
  resume_reason text
);
CREATE UNIQUE INDEX stops_one_key ON _transmute.stops ((true)) WHERE resumed_at IS NULL;
COMMENT ON TABLE _transmute.stops IS 'One row an emergency stop. While one is open no migration of this database takes a step; the index allows one open at a time.';
COMMENT ON COLUMN _transmute.stops.id IS 'Number of the stop.';
COMMENT ON COLUMN _transmute.stops.reason IS 'Why everything was stopped.';
COMMENT ON COLUMN _transmute.stops.stopped_by IS 'session_user of emergency_stop.';
COMMENT ON COLUMN _transmute.stops.stopped_at IS 'When.';
COMMENT ON COLUMN _transmute.stops.resumed_by IS 'session_user of resume_all; NULL: it is open.';
COMMENT ON COLUMN _transmute.stops.resumed_at IS 'When it ended; NULL: it is open.';
COMMENT ON COLUMN _transmute.stops.resume_reason IS 'Why it ended; NULL: it is open.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.stops', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.stops_id_seq', '');
