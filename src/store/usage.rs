//! `_transmute.watches` and `_transmute.uses`.

use crate::error::Result;
use crate::pg::spi;
use crate::pg::usage::{Counted, Watch, HAND_OVER_US};
use crate::pg::Oid;

/// A part of the old shape of a migration.
#[derive(Debug, Clone)]
pub struct Part {
    pub object: String,
    pub relation: Oid,
    /// 0: any use of the relation.
    pub attribute: i16,
}

/// Begins anew to count the use of these.
pub fn begin(migration_id: &str, parts: &[Part]) -> Result<()> {
    spi::execute(
        "DELETE FROM _transmute.watches WHERE migration_id = $1",
        &[migration_id.into()],
    )?;
    for part in parts {
        spi::execute(
            "INSERT INTO _transmute.watches (migration_id, object, relation, attribute) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
            &[
                migration_id.into(),
                part.object.as_str().into(),
                part.relation.into(),
                part.attribute.into(),
            ],
        )?;
    }
    Ok(())
}

/// Migrations that soak, or wait in between for a person whom an invariant has called: their end is kept, so nothing may be missed.
const SOAKS: &str = "m.queued AND m.soak_until IS NOT NULL AND m.state IN ('RUNNING', 'AWAITING_ACTION', 'AWAITING_FINALIZATION')";

/// What is to be watched now: of migrations that soak.
pub fn watched() -> Result<Vec<Watch>> {
    spi::query(
        &format!(
            "SELECT w.id, w.relation, w.attribute FROM _transmute.migrations m \
             JOIN _transmute.watches w ON w.migration_id = m.id \
             WHERE {SOAKS} AND m.rollback_reason IS NULL ORDER BY w.id"
        ),
        &[],
        |row| {
            Ok(Watch {
                id: row.need(1)?,
                relation: row.need::<Oid>(2)?.to_u32(),
                column: row.need(3)?,
            })
        },
    )
}

/// Adds what was counted.
pub fn add(counted: &Counted) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.uses AS u (watch_id, role_name, application_name, reads, writes, first_used, last_used) \
         SELECT w.id, pg_catalog.pg_get_userbyid($2), $3, $4, $5, x.at, x.at FROM _transmute.watches w, \
           LATERAL (SELECT to_timestamp(0) + $6 * interval '1 microsecond' AS at) x WHERE w.id = $1 \
         ON CONFLICT (watch_id, role_name, application_name) DO UPDATE SET reads = u.reads + excluded.reads, \
           writes = u.writes + excluded.writes, last_used = greatest(u.last_used, excluded.last_used)",
        &[
            counted.watch.into(),
            counted.role.into(),
            counted.application.as_str().into(),
            counted.reads.into(),
            counted.writes.into(),
            counted.last_us.into(),
        ],
    )?;
    Ok(())
}

/// Adds what the triggers of migrations have told, where the executor's hook does not count.
pub fn add_written() -> Result<()> {
    let told: Option<bool> = spi::value("SELECT EXISTS (SELECT FROM _transmute.written)", &[])?;
    if told != Some(true) {
        return Ok(());
    }
    spi::execute(
        &format!("WITH told AS (DELETE FROM _transmute.written RETURNING relation, role, application_name, at) \
         INSERT INTO _transmute.uses AS u (watch_id, role_name, application_name, reads, writes, first_used, last_used) \
         SELECT w.id, pg_catalog.pg_get_userbyid(t.role), t.application_name, 0, count(*), min(t.at), max(t.at) \
         FROM told t JOIN _transmute.watches w ON w.relation IN (t.relation, pg_catalog.pg_partition_root(t.relation)) AND t.at >= w.since \
         JOIN _transmute.migrations m ON m.id = w.migration_id AND {SOAKS} \
         GROUP BY w.id, t.role, t.application_name \
         ON CONFLICT (watch_id, role_name, application_name) DO UPDATE SET writes = u.writes + excluded.writes, \
           last_used = greatest(u.last_used, excluded.last_used)"),
        &[],
    )?;
    Ok(())
}

/// For how long the old shape has to be unused, and what is known of its use.
#[derive(Debug, Clone)]
pub struct Soak {
    /// As the DBA wrote it.
    pub interval: String,
    /// When it will certainly have been unused for so long, microseconds since the Unix epoch: the last use may have been a
    /// moment behind the last known one.
    pub deadline_us: i64,
    /// Who used it last; `None`: nobody since the soak began.
    pub last: Option<String>,
}

/// `None`: the migration asks for no such soak, or somebody has ended it.
pub fn soak(migration_id: &str) -> Result<Option<Soak>> {
    spi::first(
        "SELECT m.soak_until_unused::text, \
           (extract(epoch FROM greatest(u.last_used + $2 * interval '1 microsecond', w.since, m.applied_at) + m.soak_until_unused) * 1000000)::bigint, u.who \
         FROM _transmute.migrations m \
         CROSS JOIN LATERAL (SELECT max(x.since) AS since FROM _transmute.watches x WHERE x.migration_id = m.id) w \
         LEFT JOIN LATERAL (SELECT x.last_used, format('role \"%s\", application \"%s\", of %s', x.role_name, x.application_name, y.object) AS who \
           FROM _transmute.watches y JOIN _transmute.uses x ON x.watch_id = y.id \
           WHERE y.migration_id = m.id ORDER BY x.last_used DESC LIMIT 1) u ON true \
         WHERE m.id = $1 AND m.soak_until_unused IS NOT NULL AND NOT m.usage_skipped",
        &[migration_id.into(), HAND_OVER_US.into()],
        |row| {
            Ok(Soak {
                interval: row.need(1)?,
                deadline_us: row.need(2)?,
                last: row.get(3)?,
            })
        },
    )
}
