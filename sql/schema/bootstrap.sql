-- Two schemas of our own: transmute (what people see; made by CREATE EXTENSION from the control file) and
-- _transmute (tables and internal functions). Work schemas _transmute_N_new, _transmute_N_old and _transmute_N_views come and go
-- with the rewrites. No OR REPLACE, no IF NOT EXISTS: an object that is there already is somebody else's.
CREATE SCHEMA _transmute;
COMMENT ON SCHEMA _transmute IS 'Tables and internal functions of the extension transmute. Not for direct use: see schema transmute.';
COMMENT ON SCHEMA transmute IS 'Online schema changes: SELECT * FROM transmute.explain(ddl), transmute.register(id, ddl), transmute.apply(id), transmute.status.';
