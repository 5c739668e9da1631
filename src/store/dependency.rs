//! How the migrations of `_transmute.migrations` stand to each other.

use crate::error::{Error, Result};
use crate::model::start::Standing;
use crate::model::state::State;
use crate::pg::spi;

/// A migration as a node of the graph of dependencies.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: String,
    pub state: String,
    pub depends_on: Vec<String>,
}

/// All migrations in the order in which they would run.
pub fn nodes() -> Result<Vec<Node>> {
    spi::query(
        "SELECT id, state, ARRAY(SELECT jsonb_array_elements_text(meta -> 'depends_on')) \
         FROM _transmute.migrations ORDER BY coalesce(place, seq), seq",
        &[],
        |row| {
            Ok(Node {
                id: row.need(1)?,
                state: row.need(2)?,
                depends_on: row.need(3)?,
            })
        },
    )
}

/// Whether any of these is not registered, has not finished, or was taken back.
pub fn has_unfinished(ids: &[String]) -> Result<bool> {
    Ok(standings(ids)?
        .iter()
        .any(|(_, standing)| *standing != Standing::Finished))
}

/// Whether all that it depends on has finished, some of it after it was planned.
pub fn plan_is_stale(id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT coalesce(bool_and(n.state = 'FINISHED' AND NOT n.taken_back AND n.undone_at IS NULL) \
           AND m.phases IS NULL AND (m.plan_checksum = '' OR m.planned_at < max(n.finished_at)) AND count(n.id) = count(*), false) \
         FROM _transmute.migrations m CROSS JOIN LATERAL jsonb_array_elements_text(m.meta -> 'depends_on') AS d (id) \
         LEFT JOIN _transmute.migrations n ON n.id = d.id WHERE m.id = $1 GROUP BY m.id",
        &[id.into()],
    )? == Some(true))
}

/// What the rules of releases ask of a migration.
#[derive(Debug, Clone)]
pub struct OfRelease {
    pub id: String,
    pub state: State,
    pub queued: bool,
    pub taken_back: bool,
    pub has_down: bool,
    pub is_down: bool,
    pub target: Option<String>,
}

/// All migrations, oldest first.
pub fn releases() -> Result<Vec<OfRelease>> {
    spi::query(
        "SELECT id, state, queued, taken_back OR undone_at IS NOT NULL, down IS NOT NULL, down_of IS NOT NULL, meta ->> 'target_version' \
         FROM _transmute.migrations ORDER BY seq",
        &[],
        |row| {
            let state: String = row.need(2)?;
            Ok(OfRelease {
                id: row.need(1)?,
                state: state.parse().map_err(|e| Error::Bug(format!("{e}")))?,
                queued: row.need(3)?,
                taken_back: row.need(4)?,
                has_down: row.need(5)?,
                is_down: row.need(6)?,
                target: row.get(7)?,
            })
        },
    )
}

/// Where each of these stands, in their order; one that was taken back and is applied again, where its new run stands.
pub fn standings(ids: &[String]) -> Result<Vec<(String, Standing)>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    spi::query(
        "SELECT d.id, r.state, r.queued, r.was_rolled_back, \
           r.state = 'AWAITING_ACTION' OR r.next_attempt_at IS NOT DISTINCT FROM 'infinity', \
           r.id = m.id AND (m.taken_back OR m.undone_at IS NOT NULL) \
         FROM unnest($1::text[]) WITH ORDINALITY d (id, place) LEFT JOIN _transmute.migrations m ON m.id = d.id \
         LEFT JOIN _transmute.migrations r ON r.id = coalesce((SELECT a.id FROM _transmute.migrations b JOIN _transmute.migrations a ON a.down_of = b.id \
           WHERE b.down_of = m.id AND a.queued AND a.state <> 'FINISHED' AND m.taken_back ORDER BY a.seq DESC LIMIT 1), m.id) \
         ORDER BY d.place",
        &[ids.to_vec().into()],
        |row| {
            let state: Option<String> = row.get(2)?;
            let state: Option<State> = state
                .map(|s| s.parse())
                .transpose()
                .map_err(|e| Error::Bug(format!("{e}")))?;
            let queued = row.get(3)?.unwrap_or(false);
            let rolled_back = row.get(4)?.unwrap_or(false);
            let standing = match state {
                None => Standing::Unknown,
                Some(State::Finished) if row.get(6)?.unwrap_or(false) => Standing::RolledBack,
                Some(State::Finished) => Standing::Finished,
                Some(_) if rolled_back => Standing::RolledBack,
                Some(State::Uninitialized) if !queued => Standing::NotApplied,
                Some(state) if row.get(5)?.unwrap_or(false) => Standing::NeedsPerson(state),
                Some(state) => Standing::Under(state),
            };
            Ok((row.need(1)?, standing))
        },
    )
}

/// How many are under way: those that wait for time or for people do not count.
pub fn running() -> Result<i64> {
    Ok(spi::value(
        "SELECT count(*) FROM _transmute.migrations WHERE queued \
           AND (state IN ('INITIALIZING', 'RUNNING', 'FINISHING', 'ROLLING_BACK') \
             OR state = 'AWAITING_FINALIZATION' AND waiting_for IS NULL) \
           AND paused_reason IS NULL AND next_attempt_at IS DISTINCT FROM 'infinity'",
        &[],
    )?
    .unwrap_or(0))
}

/// Migrations that depend on this one and are under way, or finished and not taken back.
pub fn live_dependents(id: &str) -> Result<Vec<String>> {
    spi::query(
        "SELECT m.id FROM _transmute.migrations m WHERE m.meta -> 'depends_on' ? $1 \
           AND (m.queued OR m.state <> 'UNINITIALIZED') AND NOT m.taken_back AND m.undone_at IS NULL \
           AND m.down_of IS NULL ORDER BY m.seq",
        &[id.into()],
        |row| row.need(1),
    )
}
