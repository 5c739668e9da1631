//! Steps 3 and 4: the copy by block ranges, then de-duplication and index builds.

use super::{halving, successor, Work};
use crate::catalog::column::{self, Column};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::address;
use crate::model::ident::quote_ident;
use crate::model::throttle::BatchSizer;
use crate::pg::key::{self, KeyLog};
use crate::pg::relation::{LockMode, Table};
use crate::pg::xact::End;
use crate::pg::{heap, identity, utility, waitpoint, xact};
use crate::store::dead_letter::{self, Refusal};
use crate::store::progress::{self, Done, Of};
use crate::store::rewrite;
use pgrx::PgSqlErrorCode;
use std::time::Instant;

/// 1 to 8192 blocks (64 MiB) a batch.
const MIN_BLOCKS: u32 = 1;
const MAX_BLOCKS: u32 = 8192;

/// Keys that one statement names.
const KEYS_AT_ONCE: usize = 10_000;

/// What a hand does next.
#[derive(Debug, PartialEq)]
pub enum Copied {
    /// A batch is done; it took so long, milliseconds.
    Batch(f64),
    /// Every lane is at its end.
    All,
    /// The rest is in other hands.
    Others,
}

/// Copies one batch of a free lane and moves its cursor in the same transaction.
pub fn batch(work: &Work) -> Result<Copied> {
    work.require_shadow()?;
    if restart_if_moved(work)? {
        return Ok(Copied::Batch(0.0));
    }
    let id = Of::Rewrite(work.rewrite.id);
    let Some(lane) = progress::claim(id)? else {
        return Ok(if progress::unfinished(id)? == 0 {
            Copied::All
        } else {
            Copied::Others
        });
    };
    if rewrite::get(work.rewrite.id)?.is_none_or(|r| r.shadow != work.rewrite.shadow) {
        return Ok(Copied::Others); // it was amended since this process looked: the lane is of another shadow
    }
    let started = Instant::now();
    let end = (lane.next_block + i64::from(lane.batch_blocks)).min(lane.end_block);
    let blocks: Vec<i64> = (lane.next_block..end).collect();
    let mut rows = 0;
    xact::with_latest_snapshot(|snapshot| {
        let mut refused = Vec::new();
        halving::run(
            &blocks,
            &mut |part| {
                rows += copy_range(work, part[0], part[part.len() - 1] + 1, snapshot)?;
                Ok(())
            },
            &mut |block, _| {
                refused.push(*block);
                Ok(())
            },
        )?;
        for block in refused {
            rows += copy_block_row_by_row(work, block, snapshot)?;
        }
        Ok(())
    })?;
    waitpoint::reach("copy_before_commit")?;
    let busy_ms = started.elapsed().as_secs_f64() * 1000.0;
    let sizer = BatchSizer {
        target_ms: guc::batch_target_ms(),
        min_blocks: MIN_BLOCKS,
        max_blocks: MAX_BLOCKS,
    };
    let done = Done {
        next_block: end,
        rows,
        blocks: blocks.len() as i64,
        busy_ms,
        next_size: sizer.next(lane.batch_blocks as u32, busy_ms),
    };
    progress::advance(id, lane.lane, done)?;
    Ok(Copied::Batch(busy_ms))
}

fn copy_range(work: &Work, from: i64, to: i64, snapshot: heap::Snapshot) -> Result<i64> {
    if let Some(into) = successor::Into::of(work) {
        return into.copy_range(from, to, snapshot);
    }
    work.as_owner(|| {
        let mut mapper = work.mapper(false)?;
        heap::copy_blocks(&mut mapper, from, to, snapshot)
    })
}

/// A block with a row that is refused: each row in a subtransaction of its own, failures to dead letters.
fn copy_block_row_by_row(work: &Work, block: i64, snapshot: heap::Snapshot) -> Result<i64> {
    let rewrite = &work.rewrite;
    let addresses = work.as_owner(|| {
        let mut mapper = work.mapper(false)?;
        heap::addresses(&mut mapper, block, block + 1, snapshot)
    })?;
    let mut rows = 0;
    halving::run(
        &addresses,
        &mut |part| {
            if let Some(into) = successor::Into::of(work) {
                rows += into.copy_rows(part, snapshot)?;
                return Ok(());
            }
            let copied = work.as_owner(|| {
                let mut copied = 0;
                let mut mapper = work.mapper(true)?;
                heap::as_statement(|| {
                    for tid in part {
                        if heap::fetch(&mut mapper, *tid, snapshot) {
                            mapper.map();
                            heap::insert_mapped(&mut mapper);
                            copied += 1;
                        }
                    }
                    Ok(())
                })?;
                Ok(copied)
            })?;
            rows += copied;
            Ok(())
        },
        &mut |tid, error| {
            let refused = key::open_log(super::shadow::oid_of(&rewrite.refused_name())?);
            let key = work.as_owner(|| {
                let mut mapper = work.mapper(false)?;
                Ok(heap::fetch(&mut mapper, *tid, snapshot).then(|| {
                    key::log_key(&refused, &mut mapper, &rewrite.key_columns);
                    (mapper.key_text(&rewrite.key_columns), mapper.row_values())
                }))
            })?;
            let Some((key, row)) = key else {
                return Ok(());
            };
            let refusal = Refusal {
                migration_id: &work.migration_id,
                key: &key,
                row: Some(row),
                expression: &work.expression()?,
                error: &error,
            };
            dead_letter::record(rewrite.id, &refusal)
        },
    )?;
    Ok(rows)
}

/// VACUUM FULL, CLUSTER and TRUNCATE give the table another file, in which blocks mean other rows: start again.
fn restart_if_moved(work: &Work) -> Result<bool> {
    // The lock keeps it from moving during the batch.
    let table = Table::open(work.rewrite.relation, LockMode::AccessShare);
    let now = relation::relfilenode(work.rewrite.relation)?
        .ok_or_else(|| Error::Bug("a table without a file".into()))?;
    if now == work.rewrite.relfilenode {
        return Ok(false);
    }
    empty_shadow(work)?;
    progress::delete(Of::Rewrite(work.rewrite.id))?;
    rewrite::restart(work.rewrite.id, now, table.blocks())?;
    super::expand::lanes(work.rewrite.id, table.blocks())?;
    Ok(true)
}

/// Empties the shadow; everything is copied or drained again.
pub fn empty_shadow(work: &Work) -> Result<()> {
    dead_letter::resolve_all(work.rewrite.id)?;
    let shadow = work.rewrite.shadow_name();
    if let Some(into) = successor::Into::of(work) {
        let decoded = identity::setting(c"wal_level") == "logical";
        return xact::with_latest_snapshot(|snapshot| into.empty(decoded, snapshot));
    }
    if identity::setting(c"wal_level") == "logical" {
        // A TRUNCATE would be decoded, though the shadow's rows are not.
        return delete_from_shadow(work, &format!("SELECT ctid FROM ONLY {shadow}")).map(|_| ());
    }
    work.as_owner(|| utility::run(&format!("TRUNCATE ONLY {shadow}")))
}

/// Removes from the shadow every key that was logged during the copy: such rows may have been copied twice, or in
/// an old version, or not at all; the drain brings them as they are.
pub fn deduplicate(work: &Work) -> Result<()> {
    let rewrite = &work.rewrite;
    let log = key::open_log(rewrite.key_log);
    let (touched, truncated, converted) = xact::with_latest_snapshot(|snapshot| {
        let keys = KeyLog::read(&log, &rewrite.key_columns, snapshot)?;
        if keys.truncated {
            return Ok((0, true, None));
        }
        Ok((keys.keys.len(), false, Some(keys)))
    })?;
    if truncated {
        empty_shadow(work)?;
    } else if let (true, Some(keys)) = (touched > 0, converted) {
        delete_logged(work, &keys)?;
    }
    rewrite::set_deduplicated(rewrite.id)
}

/// One hash join over the shadow, on the converted keys.
fn delete_logged(work: &Work, keys: &KeyLog) -> Result<()> {
    let rewrite = &work.rewrite;
    if let Some(into) = successor::Into::of(work) {
        return xact::with_latest_snapshot(|snapshot| {
            keys.keys
                .chunks(KEYS_AT_ONCE)
                .try_for_each(|part| into.delete(part, snapshot).map(|_| ()))
        });
    }
    let columns = column::list(rewrite.shadow)?;
    let is_key = |c: &Column, number: i16| match number {
        address::NUMBER => !c.dropped && c.name == address::COLUMN,
        number => c.number == number,
    };
    let key_columns: Vec<_> = rewrite
        .key_columns
        .iter()
        .filter_map(|n| columns.iter().find(|c| is_key(c, *n)))
        .collect();
    let staging =
        crate::model::ident::QualifiedName::new(&rewrite.new_schema, "_transmute_converted");
    let list: Vec<String> = key_columns
        .iter()
        .enumerate()
        .map(|(i, c)| format!("k{} {}", i + 1, c.type_name))
        .collect();
    work.as_owner(|| {
        utility::run(&format!(
            "CREATE UNLOGGED TABLE {staging} ({})",
            list.join(", ")
        ))
    })?;
    let staging_table = Table::open(super::shadow::oid_of(&staging)?, LockMode::RowExclusive);
    let indexes: Vec<usize> = key_columns
        .iter()
        .map(|c| (c.number - 1) as usize)
        .collect();
    halving::run(
        &keys.keys,
        &mut |part| {
            work.as_owner(|| {
                let mut mapper = work.mapper(false)?;
                for logged in part {
                    xact::check_for_interrupts();
                    key::write_converted(&staging_table, &mut mapper, logged, &indexes);
                }
                Ok(())
            })
        },
        // A key that cannot be converted is not in the shadow.
        &mut |_, _| Ok(()),
    )?;
    let mut join = Vec::new();
    for (i, column) in key_columns.iter().enumerate() {
        let operator = column::equality(column.type_oid)?;
        join.push(format!(
            "s.{} {operator} k.k{}",
            quote_ident(&column.name),
            i + 1
        ));
    }
    let sql = format!(
        "SELECT s.ctid FROM ONLY {} s JOIN (SELECT DISTINCT * FROM {staging}) k ON {}",
        rewrite.shadow_name(),
        join.join(" AND ")
    );
    delete_from_shadow(work, &sql)?;
    drop(staging_table);
    work.as_owner(|| utility::run(&format!("DROP TABLE {staging}")))
}

/// Builds the next index or constraint of the shadow; true when all are there. Plainly: nobody looks at the shadow.
pub fn build_next(work: &Work) -> Result<bool> {
    let rewrite = &work.rewrite;
    let next = rewrite.next_definition as usize;
    let Some(definition) = rewrite.deferred.get(next) else {
        sort(work)?;
        analyze(work)?;
        return Ok(true);
    };
    // As many processes as the copy may use: the application keeps the machine.
    identity::set_for_transaction(
        "max_parallel_maintenance_workers",
        &(guc::max_parallel_backfill() - 1).to_string(),
    )?;
    let built = xact::subtransaction(End::Keep, || {
        super::shadow::build(work.table.owner, definition, &rewrite.shadow_name())
    });
    match built {
        Ok(()) => {}
        Err(Error::Server(e)) if e.code == DUPLICATE && !definition.unique_columns.is_empty() => {
            return match remove_duplicates(work, &definition.unique_columns)? {
                0 => Err(Error::Server(e)),
                _ => Ok(false), // the same index again, at the next tick
            };
        }
        Err(error) => return Err(error),
    }
    waitpoint::reach("index_before_commit")?;
    rewrite::set_next_definition(rewrite.id, rewrite.next_definition + 1)?;
    Ok(false)
}

/// CLUSTER, on the shadow, whose rows nobody else has seen. The check behind it finds each by its key.
fn sort(work: &Work) -> Result<()> {
    let commands = super::commands(&work.alter)?;
    let Some(index) = super::sorted_by(&commands) else {
        return Ok(());
    };
    let shadow = work.rewrite.shadow_name();
    let sql = format!("CLUSTER {shadow} USING {}", quote_ident(index));
    work.as_owner(|| utility::run(&sql))
}

const DUPLICATE: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION;

/// Rows that a new unique index refuses: one of each group stays, the check misses the others, the drain fails to
/// insert them, and so they become dead letters with the server's own message.
fn remove_duplicates(work: &Work, columns: &[String]) -> Result<usize> {
    let shadow = work.rewrite.shadow_name();
    let (list, known) = (columns.join(", "), columns.join(" IS NOT NULL AND "));
    delete_from_shadow(
        work,
        &format!(
            "SELECT ctid FROM (SELECT ctid, row_number() OVER (PARTITION BY {list}) AS n \
             FROM ONLY {shadow} WHERE {known} IS NOT NULL) x WHERE n > 1"
        ),
    )
}

/// Deletes the rows of the shadow whose addresses `sql`, run as the owner, gives; how many.
fn delete_from_shadow(work: &Work, sql: &str) -> Result<usize> {
    let rows = work.as_owner(|| heap::tids(sql))?;
    let shadow = Table::open(work.rewrite.shadow, LockMode::RowExclusive);
    heap::delete_rows(&shadow, &rows);
    Ok(rows.len())
}

/// Statistics that the swap takes along, so that no plan changes for want of them.
pub fn analyze(work: &Work) -> Result<()> {
    work.as_owner(|| utility::run(&format!("ANALYZE {}", work.rewrite.shadow_name())))
}
