CREATE TABLE _transmute.approvals (
  id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT approvals_pkey PRIMARY KEY,
  migration_id text NOT NULL CONSTRAINT approvals_migration_id_fkey REFERENCES _transmute.migrations ON DELETE CASCADE,
  actor name NOT NULL DEFAULT session_user,
  reason text NOT NULL,
  plan_checksum text NOT NULL,
  approved_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  expires_at timestamptz NOT NULL,
  waived bigint[] NOT NULL DEFAULT '{}',
  revoked_at timestamptz,
  revoked_by name,
  revoke_reason text
);
CREATE INDEX approvals_migration_id_idx ON _transmute.approvals (migration_id);
COMMENT ON TABLE _transmute.approvals IS 'Approvals of finalization.';
COMMENT ON COLUMN _transmute.approvals.id IS 'Number of the approval.';
COMMENT ON COLUMN _transmute.approvals.migration_id IS 'The migration.';
COMMENT ON COLUMN _transmute.approvals.actor IS 'session_user who approved.';
COMMENT ON COLUMN _transmute.approvals.reason IS 'Why.';
COMMENT ON COLUMN _transmute.approvals.plan_checksum IS 'Plan it holds for; another plan needs another approval.';
COMMENT ON COLUMN _transmute.approvals.approved_at IS 'When.';
COMMENT ON COLUMN _transmute.approvals.expires_at IS 'Not counted from this time on.';
COMMENT ON COLUMN _transmute.approvals.waived IS 'Open dead letters that do not hold the migration back while the approval counts.';
COMMENT ON COLUMN _transmute.approvals.revoked_at IS 'When it was revoked; NULL: it was not.';
COMMENT ON COLUMN _transmute.approvals.revoked_by IS 'session_user who revoked it.';
COMMENT ON COLUMN _transmute.approvals.revoke_reason IS 'Why it was revoked.';
SELECT pg_catalog.pg_extension_config_dump('_transmute.approvals', '');
SELECT pg_catalog.pg_extension_config_dump('_transmute.approvals_id_seq', '');
