//! Rows that are changed in place leave dead ones behind: the table is vacuumed between batches, so that the next rows go
//! where the last ones lay, and no batch begins while more are dead than `transmute.max_growth` allows.

use crate::catalog::growth::{self as catalog, Part};
use crate::error::Result;
use crate::guc;
use crate::model::growth::{verdict, Rows, Vacuumed, Verdict, MIN_BYTES};
use crate::pg::{horizon, Oid};
use crate::store::growth;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often the statistics are looked at, at least.
const LOOK: Duration = Duration::from_millis(100);
/// And sooner, once this process has changed this share of what is allowed to be dead: others may change as many.
const LOOK_SHARE: f64 = 1.0 / 16.0;
/// A batch may be so much larger than the one before: its size is fitted to what that took.
const BATCH_GROWTH: f64 = 2.0;

/// What this process knows of a table.
#[derive(Clone, Copy, Default)]
struct Known {
    looked: Option<Instant>,
    /// Rows that this process changes until it looks again.
    rows_left: f64,
    /// Rows of its last batch.
    batch: f64,
    /// How often the statistics say that it was vacuumed, when this process last began to.
    vacuums: i64,
    /// The next transaction then: those before it had made the dead rows that were there.
    next: u32,
    vacuumed: Option<Done>,
}

/// A vacuum of this process.
#[derive(Clone, Copy)]
struct Done {
    at: Instant,
    /// Dead rows that were left.
    left: f64,
    skipped: bool,
    /// All of it was dead to the snapshots from this transaction on.
    before: u32,
}

thread_local! {
    static KNOWN: RefCell<HashMap<u32, Known>> = RefCell::default();
    static CAN_VACUUM: Cell<bool> = const { Cell::new(false) };
}

/// This process has a top level of its own, and vacuums when it is asked to.
pub fn this_process_vacuums() {
    CAN_VACUUM.set(true);
}

/// What comes before the next batch.
pub enum Before {
    /// A vacuum of the table.
    Vacuum,
    /// Time; why, for people.
    Wait(String),
}

/// What a look at the statistics has found.
struct Look {
    parts: Vec<Part>,
    rows: Rows,
    verdict: Verdict,
}

/// A look at `relation`; `None`: it is too early for another one, or there is no budget.
fn look(relation: Oid) -> Result<Option<Look>> {
    let Some(budget) = guc::max_growth() else {
        return Ok(None);
    };
    let known = known(relation);
    if known.rows_left > 0.0 && known.looked.is_some_and(|at| at.elapsed() < LOOK) {
        return Ok(None);
    }
    let parts = catalog::parts(relation)?;
    let rows = sum(&parts);
    let last = match known.vacuumed {
        None => None,
        Some(done) => Some(Vacuumed {
            left: done.left,
            age_ms: done.at.elapsed().as_secs_f64() * 1000.0,
            skipped: done.skipped,
            is_unseen: horizon::has_passed(relation, done.before)?,
        }),
    };
    let share = rows.live * budget * LOOK_SHARE;
    // Every hand may change as many until it looks.
    let hands = f64::from(guc::max_parallel_backfill().max(1));
    let ahead = (known.batch * BATCH_GROWTH + share) * hands;
    let verdict = match bytes(&parts) < MIN_BYTES {
        true => Verdict::Go,
        false => verdict(rows, ahead, budget, last, CAN_VACUUM.get()),
    };
    if verdict == Verdict::Go {
        remember(relation, |known| {
            known.looked = Some(Instant::now());
            known.rows_left = share;
        });
    }
    Ok(Some(Look {
        parts,
        rows,
        verdict,
    }))
}

/// What has to come before the next batch over `relation` of whoever drives the migration.
pub fn before_batch(migration_id: &str, relation: Oid) -> Result<Option<Before>> {
    let Some(look) = look(relation)? else {
        return Ok(None);
    };
    growth::note(migration_id, relation, bytes(&look.parts))?;
    Ok(match look.verdict {
        Verdict::Go => None,
        Verdict::Vacuum => Some(Before::Vacuum),
        Verdict::Wait => Some(Before::Wait(reason(relation, &look.parts, look.rows)?)),
    })
}

/// Whether a hand's next batch may begin. Whoever drives vacuums, and writes down why nothing begins.
pub fn hand_may_begin(relation: Oid) -> Result<bool> {
    Ok(look(relation)?.is_none_or(|look| look.verdict == Verdict::Go))
}

/// A batch of this process has changed rows of `relation`.
pub fn changed(relation: Oid, rows: i64) {
    remember(relation, |known| {
        known.batch = rows as f64;
        known.rows_left -= rows as f64;
    });
}

fn reason(relation: Oid, parts: &[Part], rows: Rows) -> Result<String> {
    let table = parts
        .first()
        .map(|part| part.name.as_str())
        .unwrap_or_default();
    let share = (rows.dead_share() * 100.0).round();
    let skipped = known(relation).vacuumed.is_some_and(|done| done.skipped);
    let obstacle = match (CAN_VACUUM.get(), catalog::horizon()?) {
        (true, _) if skipped => "a lock of somebody keeps vacuum from it".into(),
        (true, Some(who)) => format!("vacuum cannot remove them because of {who}"),
        (true, None) => "the next vacuum comes soon".into(),
        (false, _) => "VACUUM it, or leave it to autovacuum".into(),
    };
    Ok(format!(
        "dead rows of {table}, {share} % of it, as many as transmute.max_growth allows: {obstacle}"
    ))
}

/// The statement that vacuums what has most dead rows of a table; `None`: it is gone.
pub fn statement(relation: Oid) -> Result<Option<String>> {
    let parts = catalog::parts(relation)?;
    remember(relation, |known| {
        known.vacuums = vacuums(&parts);
        known.next = horizon::next();
    });
    // Nobody is waited for, and no exclusive lock is taken to cut the end off.
    Ok(parts
        .first()
        .map(|part| format!("VACUUM (SKIP_LOCKED, TRUNCATE off) {}", part.name)))
}

/// A vacuum has ended, well or not, or somebody's lock kept it away: what is left, and when.
pub fn vacuumed(migration_id: &str, relation: Oid) -> Result<()> {
    let parts = catalog::parts(relation)?;
    let skipped = vacuums(&parts) == known(relation).vacuums;
    remember(relation, |known| {
        known.vacuumed = Some(Done {
            at: Instant::now(),
            left: sum(&parts).dead,
            skipped,
            before: known.next,
        });
    });
    match skipped {
        true => Ok(()),
        false => growth::note_vacuum(migration_id, relation),
    }
}

fn vacuums(parts: &[Part]) -> i64 {
    parts.iter().map(|part| part.vacuums).sum()
}

fn bytes(parts: &[Part]) -> i64 {
    parts.iter().map(|part| part.bytes).sum()
}

fn sum(parts: &[Part]) -> Rows {
    parts.iter().fold(Rows::default(), |all, part| Rows {
        live: all.live + part.rows.live,
        dead: all.dead + part.rows.dead,
    })
}

fn known(relation: Oid) -> Known {
    KNOWN.with_borrow(|known| known.get(&relation.to_u32()).copied().unwrap_or_default())
}

fn remember(relation: Oid, change: impl FnOnce(&mut Known)) {
    KNOWN.with_borrow_mut(|known| change(known.entry(relation.to_u32()).or_default()));
}
