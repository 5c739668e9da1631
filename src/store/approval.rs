//! `_transmute.approvals`.

use crate::error::Result;
use crate::model::approval::Approval;
use crate::pg::spi;

/// `waived` are dead letters that it names.
pub fn insert(
    migration_id: &str,
    reason: &str,
    plan_checksum: &str,
    ttl_us: i64,
    waived: &[i64],
) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.approvals (migration_id, reason, plan_checksum, expires_at, waived) \
         VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 microsecond', $5)",
        &[
            migration_id.into(),
            reason.into(),
            plan_checksum.into(),
            ttl_us.into(),
            waived.to_vec().into(),
        ],
    )?;
    Ok(())
}

/// Revokes all that hold; how many there were.
pub fn revoke(migration_id: &str, reason: &str) -> Result<usize> {
    spi::execute(
        "UPDATE _transmute.approvals SET revoked_at = clock_timestamp(), revoked_by = session_user, revoke_reason = $2 \
         WHERE migration_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()",
        &[migration_id.into(), reason.into()],
    )
}

/// Those of which the audit trail tells: a row that was written by hand is nobody's approval.
pub fn list(migration_id: &str) -> Result<Vec<Approval>> {
    spi::query(
        "SELECT actor::text, plan_checksum, (extract(epoch FROM approved_at) * 1000000)::bigint, \
           (extract(epoch FROM expires_at) * 1000000)::bigint, revoked_at IS NOT NULL, waived \
         FROM _transmute.approvals a WHERE migration_id = $1 AND EXISTS (SELECT FROM _transmute.audit_events e \
           WHERE e.migration_id = a.migration_id AND e.event = 'approved' AND e.session_user_name = a.actor::text \
             AND e.detail::jsonb ->> 'plan_checksum' = a.plan_checksum AND e.detail::jsonb ->> 'reason' = a.reason) ORDER BY id",
        &[migration_id.into()],
        |row| {
            Ok(Approval {
                actor: row.need(1)?,
                plan_checksum: row.need(2)?,
                at_us: row.need(3)?,
                expires_us: row.need(4)?,
                revoked: row.need(5)?,
                waived: row.need(6)?,
            })
        },
    )
}
