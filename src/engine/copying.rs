//! A copy in key order: one batch a transaction, with its cursor in it; rows that are refused stand aside.

use super::data;
use super::execute::owner_role;
use super::finalize::{self, Of};
use super::tick::Next;
use super::work::Worked;
use crate::backfill::keyset::{Copy, Range};
use crate::backfill::{batch, pace};
use crate::error::{Error, Result};
use crate::model::amount::count;
use crate::pg::xact::{self, End};
use crate::pg::{dml, identity, waitpoint, Oid};
use crate::rewrite::halving;
use crate::store::dead_letter::{self, Refusal};
use crate::store::hand_batch::{self, Position};
use crate::store::migration::{self, Migration};
use crate::store::step::Step;
use std::time::{Duration, Instant};

/// How often rows that were refused are tried again while somebody mends them.
const RETRY_SECONDS: f64 = 5.0;
const RETRY_LOOK: Duration = Duration::from_millis(500);

struct Copying<'a> {
    migration: &'a Migration,
    step: &'a Step,
    copy: Copy,
    owner: Oid,
}

/// One batch, or, at the end, what was refused.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    let copying = Copying {
        migration,
        step,
        copy: serde_json::from_value(migration::phases(&migration.id)?)?,
        owner: owner_role(migration)?,
    };
    batch::give_way()?;
    if let Some(wait) = data::hold(migration, Oid::INVALID)? {
        return Ok(wait);
    }
    let position = hand_batch::position(&migration.id, step.step)?;
    match position.at_end {
        true => copying.finish(&position),
        false => copying.batch(&position),
    }
}

impl Copying<'_> {
    fn as_owner<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        identity::as_role(self.owner, &self.migration.session, f)
    }

    fn batch(&self, position: &Position) -> Result<Worked> {
        let (started, wal_before) = (Instant::now(), dml::wal_written());
        let after = position.key.as_deref();
        if after.is_none() && self.as_owner(|| self.copy.without_key())? {
            return Err(Error::Prerequisite {
                problem: "rows of the source have no key".into(),
                detail: "A column of the key is NULL: in its order nobody comes by them.".into(),
                hint: "Give them a key, or leave them out of the source by a query; then transmute.resume(id, reason).".into(),
            });
        }
        let to = self.as_owner(|| self.copy.boundary(after, self.copy.batch_size))?;
        let range = Range {
            after,
            to: to.as_deref(),
        };
        let rows = match self.piece(|copy| copy.write(range)) {
            Ok(rows) => rows,
            Err(error) if halving::is_data_error(&error) => self.row_by_row(range)?,
            Err(error) => return Err(error),
        };
        let busy_ms = started.elapsed().as_secs_f64() * 1000.0;
        let (id, number) = (&self.migration.id, self.step.step);
        hand_batch::advance(id, number, rows, busy_ms, to.is_none())?;
        if let Some(key) = &to {
            hand_batch::set_position(id, number, key)?;
        }
        waitpoint::reach("copy_rows_before_commit")?;
        let wal = dml::wal_written().saturating_sub(wal_before);
        Ok(data::after_batch(pace::rest(id, busy_ms, wal)))
    }

    /// A part in a subtransaction of its own.
    fn piece(&self, write: impl FnOnce(&Copy) -> Result<i64>) -> Result<i64> {
        xact::subtransaction(End::Keep, || self.as_owner(|| write(&self.copy)))
    }

    /// A range with a row that is refused: its keys in halves, those that fail alone to dead letters.
    fn row_by_row(&self, range: Range<'_>) -> Result<i64> {
        let keys = self.as_owner(|| self.copy.keys(range))?;
        let mut rows = 0;
        halving::run(
            &keys,
            &mut |part| {
                let (first, last) = (&part[0], &part[part.len() - 1]);
                rows += self.as_owner(|| self.copy.write_between(first, last))?;
                Ok(())
            },
            &mut |key, error| self.refuse(key, &error),
        )?;
        Ok(rows)
    }

    fn refuse(&self, key: &[String], error: &Error) -> Result<()> {
        let row = self.as_owner(|| self.copy.row(key))?;
        let refusal = Refusal {
            migration_id: &self.migration.id,
            key: &self.copy.key_text(key),
            row,
            expression: &self.step.sql,
            error,
        };
        dead_letter::record_copy(self.step.step, key, &refusal)
    }

    /// Everything was met: done when nothing is left that was refused.
    fn finish(&self, position: &Position) -> Result<Worked> {
        let (id, number) = (&self.migration.id, self.step.step);
        if position.since_retry.is_none_or(|s| s >= RETRY_SECONDS) {
            let mut rows = 0;
            for (letter, key) in dead_letter::open_copy(id, number)? {
                match self.piece(|copy| copy.write_between(&key, &key)) {
                    Ok(written) => {
                        rows += written;
                        dead_letter::resolve_id(letter)?;
                    }
                    Err(error) if halving::is_data_error(&error) => self.refuse(&key, &error)?,
                    Err(error) => return Err(error),
                }
            }
            hand_batch::set_retried(id, number, rows)?;
        }
        let open = finalize::not_waived(self.migration, Of::Copy(number))?;
        if open > 0 {
            let what = format!(
                "{} that the target refuses: mend them, see transmute.dead_letters, or \
                 transmute.discard_dead_letters(id, ids, reason) leaves them out",
                count(open, "row")
            );
            migration::set_waiting(id, Some(&what))?;
            return Ok(Worked::More(Next::Wait(RETRY_LOOK)));
        }
        finalize::leave_behind(self.migration, Of::Copy(number))?;
        waitpoint::reach("copy_rows_done_before_commit")?;
        Ok(Worked::Done)
    }
}
