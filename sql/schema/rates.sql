CREATE TABLE _transmute.rates (
  kind text CONSTRAINT rates_pkey PRIMARY KEY,
  rows double precision NOT NULL,
  seconds double precision NOT NULL,
  measured_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT rates_check CHECK (rows > 0 AND seconds > 0)
);
COMMENT ON TABLE _transmute.rates IS 'How fast this server did each kind of step; explain estimates with it.';
COMMENT ON COLUMN _transmute.rates.kind IS 'Kind of step, as in steps.kind.';
COMMENT ON COLUMN _transmute.rates.rows IS 'Rows of the measured steps; older ones count half with each new one.';
COMMENT ON COLUMN _transmute.rates.seconds IS 'Seconds these took, likewise.';
COMMENT ON COLUMN _transmute.rates.measured_at IS 'When the last of them ended.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.rates', '');
