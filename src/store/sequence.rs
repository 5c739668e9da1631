//! Scripts that run one after the other: those of `_transmute.migrations` that have a place.

use crate::error::Result;
use crate::pg::spi;

/// Gives a migration the place of its registration.
pub fn append(id: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations SET place = seq WHERE id = $1",
        &[id.into()],
    )?;
    Ok(())
}

/// Gives a migration the place of another one.
pub fn put(id: &str, other: &str) -> Result<()> {
    spi::execute(
        "UPDATE _transmute.migrations m SET place = o.place FROM _transmute.migrations o WHERE m.id = $1 AND o.id = $2",
        &[id.into(), other.into()],
    )?;
    Ok(())
}

/// Gives a migration the place right before another one; whether both have one.
pub fn put_before(id: &str, other: &str) -> Result<bool> {
    let changed = spi::execute(
        "UPDATE _transmute.migrations m SET place = 0.5 * (o.place + coalesce((SELECT max(p.place) FROM _transmute.migrations p \
           WHERE p.place < o.place AND p.id <> m.id), o.place - 1)) \
         FROM _transmute.migrations o WHERE m.id = $1 AND o.id = $2 AND m.place IS NOT NULL AND o.place IS NOT NULL",
        &[id.into(), other.into()],
    )?;
    Ok(changed > 0)
}

/// The first one before this that was applied and is not through.
pub fn waits_for(id: &str) -> Result<Option<String>> {
    spi::first(
        "SELECT b.id FROM _transmute.migrations m JOIN _transmute.migrations b ON b.place < m.place AND b.queued \
           AND b.state <> 'FINISHED' WHERE m.id = $1 ORDER BY b.place LIMIT 1",
        &[id.into()],
        |row| row.need(1),
    )
}

/// One before this that has failed, and its error.
pub fn failed_before(id: &str) -> Result<Option<(String, String)>> {
    spi::first(
        "SELECT b.id, coalesce(b.last_error, '') FROM _transmute.migrations m JOIN _transmute.migrations b ON b.place < m.place \
           AND b.queued AND b.last_error IS NOT NULL AND b.next_attempt_at = 'infinity' WHERE m.id = $1 ORDER BY b.place LIMIT 1",
        &[id.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

/// One before this that nobody has applied, and one behind it that somebody has.
pub fn out_of_order(id: &str) -> Result<(Option<String>, Option<String>)> {
    let skipped = spi::first(
        "SELECT b.id FROM _transmute.migrations m JOIN _transmute.migrations b ON b.place < m.place AND b.down_of IS NULL \
           AND b.squashed_into IS NULL AND (b.state = 'UNINITIALIZED' AND NOT b.queued OR b.taken_back) \
         WHERE m.id = $1 ORDER BY b.place LIMIT 1",
        &[id.into()],
        |row| row.need(1),
    )?;
    let late = spi::first(
        "SELECT b.id FROM _transmute.migrations m JOIN _transmute.migrations b ON b.place > m.place AND b.down_of IS NULL \
           AND (b.state <> 'UNINITIALIZED' OR b.queued) AND NOT b.taken_back AND b.undone_at IS NULL \
         WHERE m.id = $1 ORDER BY b.place LIMIT 1",
        &[id.into()],
        |row| row.need(1),
    )?;
    Ok((skipped, late))
}

/// Takes those behind a migration that have not begun out of the queue; which.
pub fn unqueue_behind(id: &str) -> Result<Vec<String>> {
    spi::query_locking(
        "UPDATE _transmute.migrations b SET queued = false, waiting_for = NULL FROM _transmute.migrations m \
         WHERE m.id = $1 AND b.place > m.place AND b.queued AND b.state = 'UNINITIALIZED' RETURNING b.id",
        &[id.into()],
        |row| row.need(1),
    )
}

/// Whether all before it that were applied are through, one of them since it was planned.
pub fn plan_is_stale(id: &str) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT EXISTS (SELECT FROM _transmute.migrations b WHERE b.place < m.place AND b.finished_at > m.planned_at) \
         FROM _transmute.migrations m WHERE m.id = $1 AND m.place IS NOT NULL AND m.phases IS NULL",
        &[id.into()],
    )? == Some(true))
}

/// What was applied and not taken back, the last one first: those that wait, then those under way, then what has finished, each
/// before those that had finished when it ran, whatever their places are.
pub fn applied(most: i64) -> Result<Vec<String>> {
    spi::query(
        "SELECT m.id FROM _transmute.migrations m WHERE m.down_of IS NULL AND NOT m.taken_back AND m.undone_at IS NULL \
           AND (m.queued OR m.state <> 'UNINITIALIZED') \
         ORDER BY m.state = 'FINISHED', CASE WHEN m.state <> 'FINISHED' THEN m.place END DESC NULLS LAST, coalesce(\
           (SELECT max(r.finished_at) FROM _transmute.migrations d JOIN _transmute.migrations r ON r.down_of = d.id \
            WHERE d.down_of = m.id), m.finished_at) DESC NULLS FIRST, m.place DESC NULLS LAST, m.seq DESC LIMIT $1",
        &[most.into()],
        |row| row.need(1),
    )
}

/// The run of a migration whose work is in the database now: itself, or the last that has made it so again.
pub fn run_in_force(id: &str) -> Result<String> {
    Ok(spi::first(
        "SELECT r.id FROM _transmute.migrations d JOIN _transmute.migrations r ON r.down_of = d.id \
         WHERE d.down_of = $1 AND r.state = 'FINISHED' AND NOT r.taken_back ORDER BY r.seq DESC LIMIT 1",
        &[id.into()],
        |row| row.need(1),
    )?
    .unwrap_or_else(|| id.to_string()))
}

/// The last migration that has taken this one back.
pub fn last_down(id: &str) -> Result<Option<String>> {
    spi::first(
        "SELECT d.id FROM _transmute.migrations d WHERE d.down_of = $1 AND d.state = 'FINISHED' AND NOT d.taken_back \
         ORDER BY d.seq DESC LIMIT 1",
        &[id.into()],
        |row| row.need(1),
    )
}

/// Pending ones before this, in their order.
pub fn pending_before(id: &str) -> Result<Vec<String>> {
    spi::query(
        "SELECT b.id FROM _transmute.migrations m JOIN _transmute.migrations b ON b.place < m.place AND b.down_of IS NULL \
           AND b.squashed_into IS NULL AND b.state = 'UNINITIALIZED' AND NOT b.queued WHERE m.id = $1 ORDER BY b.place",
        &[id.into()],
        |row| row.need(1),
    )
}

/// These in the order in which they would run.
pub fn in_order(ids: &[String]) -> Result<Vec<String>> {
    spi::query(
        "SELECT id FROM _transmute.migrations WHERE id = ANY ($1) ORDER BY coalesce(place, seq)",
        &[ids.to_vec().into()],
        |row| row.need(1),
    )
}

/// A pending one between the first and the last of these that is none of them.
pub fn between(ids: &[String]) -> Result<Option<String>> {
    spi::first(
        "SELECT b.id FROM _transmute.migrations b, \
           (SELECT min(place) AS low, max(place) AS high FROM _transmute.migrations WHERE id = ANY ($1)) e \
         WHERE b.place > e.low AND b.place < e.high AND b.id <> ALL ($1) AND b.down_of IS NULL AND b.squashed_into IS NULL \
           AND (b.state <> 'FINISHED' OR b.taken_back) ORDER BY b.place LIMIT 1",
        &[ids.to_vec().into()],
        |row| row.need(1),
    )
}
