//! Step 6: the proof. Every row of the table, converted, is in the shadow byte for byte; then, in one snapshot, both
//! hold the same number of rows. A row that differs is sent through the key log again and the check starts anew.
//!
//! The comparison goes by block ranges, each with its own snapshot, so that none is held for long: a row whose key is
//! in the log is left to the drain, a row that moves was written and is therefore in the log or has been drained.

use super::{drain, halving, successor, Work};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::compare::{self, Verdict};
use crate::pg::heap::{self, Snapshot, Tid};
use crate::pg::key::{self, KeyIndex, KeyLog};
use crate::pg::relation::{LockMode, Table};
use crate::pg::row::RowMapper;
use crate::pg::{waitpoint, xact};
use crate::store::{dead_letter, rewrite};
use std::collections::HashSet;
use std::time::Instant;

/// 128 blocks (1 MiB) between looks at the clock.
const STRIDE_BLOCKS: i64 = 128;
/// Differences that repair does not mend after so many rounds are not races.
const MAX_ROUNDS: i32 = 5;

/// Compares for about one batch's time; true when the whole table is proven.
pub fn batch(work: &Work) -> Result<bool> {
    work.require_shadow()?;
    let rewrite = &work.rewrite;
    if rewrite.check_rounds == 0 {
        rewrite::start_check(rewrite.id)?;
        return Ok(false);
    }
    let table = Table::open(rewrite.relation, LockMode::AccessShare);
    if drain::follow_file(work)? {
        return Ok(false);
    }
    if relation::relfilenode(rewrite.relation)? != Some(rewrite.relfilenode) {
        let now = relation::relfilenode(rewrite.relation)?.unwrap_or(rewrite.relfilenode);
        rewrite::restart(rewrite.id, now, table.blocks())?;
        return Ok(false);
    }
    let blocks = table.blocks();
    if rewrite.check_block >= blocks {
        return finish_round(work, &table);
    }
    let started = Instant::now();
    let mut next = rewrite.check_block;
    let (mut rows, mut mismatches) = (0, 0);
    while next < blocks && started.elapsed().as_secs_f64() * 1000.0 < guc::batch_target_ms() {
        let end = (next + STRIDE_BLOCKS).min(blocks);
        let (r, m) =
            xact::with_latest_snapshot(|snapshot| compare_range(work, next, end, snapshot))?;
        rows += r;
        mismatches += m;
        next = end;
    }
    waitpoint::reach("check_before_commit")?;
    rewrite::advance_check(rewrite.id, next, rows, mismatches)?;
    Ok(false)
}

fn compare_range(work: &Work, from: i64, to: i64, snapshot: Snapshot) -> Result<(i64, i64)> {
    let rewrite = &work.rewrite;
    let log = key::open_log(rewrite.key_log);
    let logged = KeyLog::read(&log, &rewrite.key_columns, snapshot)?;
    if logged.truncated {
        return Ok((0, 0)); // the table is empty now, or what it holds is in the log
    }
    let letters = dead_letter::refused_keys(rewrite.id)?;
    let pending: HashSet<String> = work.as_owner(|| {
        let mut mapper = work.mapper(false)?;
        Ok(logged.keys.iter().map(|k| k.text(&mut mapper)).collect())
    })?;
    let (rows, suspects) = match successor::Into::of(work) {
        Some(into) => into.compare(from, to)?,
        None => compare_blocks(work, from, to, snapshot)?,
    };
    let mut mismatches = 0;
    if !suspects.is_empty() {
        work.as_owner(|| {
            let mut mapper = work.mapper(false)?;
            for tid in suspects {
                if heap::fetch(&mut mapper, tid, snapshot) {
                    let text = mapper.key_text(&rewrite.key_columns);
                    if !pending.contains(&text) && !letters.contains(&text) {
                        key::log_key(&log, &mut mapper, &rewrite.key_columns);
                        mismatches += 1;
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok((rows, mismatches))
}

/// Rows of the table, converted, against those of a shadow of ours: how many, and which differ or have none.
fn compare_blocks(work: &Work, from: i64, to: i64, snapshot: Snapshot) -> Result<(i64, Vec<Tid>)> {
    let rewrite = &work.rewrite;
    let shadow_key = super::shadow::oid_of(&crate::model::ident::QualifiedName::new(
        &rewrite.new_schema,
        &rewrite.shadow_key,
    ))?;
    let blocks: Vec<i64> = (from..to).collect();
    let (mut rows, mut suspects, mut refused) = (0, Vec::new(), Vec::new());
    halving::run(
        &blocks,
        &mut |part| {
            let (compared, unequal) = work.as_owner(|| {
                let mut mapper =
                    RowMapper::new(rewrite.relation, rewrite.shadow, &work.alter, false)?;
                let mut index = KeyIndex::open(&mapper, shadow_key, true, Some(snapshot))?;
                let (first, last) = (part[0], part[part.len() - 1]);
                compare::compare_blocks(&mut mapper, &mut index, first, last + 1, snapshot)
            })?;
            rows += compared;
            suspects.extend(unequal);
            Ok(())
        },
        // A block with a row that cannot be converted: each of its rows is looked at below.
        &mut |block, _| {
            refused.push(*block);
            Ok(())
        },
    )?;
    for block in refused {
        let found = compare_row_by_row(work, block, shadow_key, snapshot)?;
        rows += found.0;
        suspects.extend(found.1);
    }
    Ok((rows, suspects))
}

/// One block, each row in a subtransaction of its own: a row that cannot be converted is a suspect; it is a dead
/// letter already, or becomes one when it is drained again.
fn compare_row_by_row(
    work: &Work,
    block: i64,
    shadow_key: crate::pg::Oid,
    snapshot: Snapshot,
) -> Result<(i64, Vec<Tid>)> {
    let rewrite = &work.rewrite;
    let addresses = work.as_owner(|| {
        let mut mapper = RowMapper::new(rewrite.relation, rewrite.shadow, &work.alter, false)?;
        heap::addresses(&mut mapper, block, block + 1, snapshot)
    })?;
    let (mut unequal, mut refused) = (Vec::new(), Vec::new());
    halving::run(
        &addresses,
        &mut |part| {
            let found = work.as_owner(|| {
                let mut mapper =
                    RowMapper::new(rewrite.relation, rewrite.shadow, &work.alter, false)?;
                let mut index = KeyIndex::open(&mapper, shadow_key, true, Some(snapshot))?;
                let mut found = Vec::new();
                for tid in part {
                    xact::check_for_interrupts();
                    if heap::fetch(&mut mapper, *tid, snapshot) {
                        mapper.map();
                        if compare::compare(&mut mapper, &mut index) != Verdict::Equal {
                            found.push(*tid);
                        }
                    }
                }
                Ok(found)
            })?;
            unequal.extend(found);
            Ok(())
        },
        &mut |tid, _| {
            refused.push(*tid);
            Ok(())
        },
    )?;
    unequal.extend(refused);
    Ok((addresses.len() as i64, unequal))
}

/// The end of a round: with differences, another one; without, the row counts in one snapshot decide.
fn finish_round(work: &Work, table: &Table) -> Result<bool> {
    let rewrite = &work.rewrite;
    let mut differ = rewrite.check_mismatches > 0;
    if !differ {
        let (in_table, in_shadow) = xact::with_latest_snapshot(|snapshot| {
            let drained = drain::with_snapshot(work, snapshot)?;
            if drained > 0 {
                rewrite::set_drained(rewrite.id, drained, 0.0)?;
            }
            let in_table = heap::count_visible(table, snapshot)?;
            xact::command_counter_increment();
            let in_shadow = xact::with_latest_snapshot(|own| match successor::Into::of(work) {
                Some(into) => into.count(),
                None => {
                    let shadow = Table::open(rewrite.shadow, LockMode::AccessShare);
                    heap::count_visible(&shadow, own)
                }
            })?;
            Ok((in_table, in_shadow))
        })?;
        let refused = dead_letter::refused_keys(rewrite.id)?.len() as i64;
        if in_table == in_shadow + refused {
            rewrite::set_checked(rewrite.id)?;
            return Ok(true);
        }
        differ = true;
        crate::log::message(format!(
            "migration \"{}\": {in_table} rows in the table, {in_shadow} in the shadow, {refused} refused",
            work.migration_id
        ));
    }
    if differ && rewrite.check_rounds >= MAX_ROUNDS {
        return Err(Error::Corrupted {
            problem: "the shadow table does not become equal to the table".into(),
            detail: format!(
                "After {MAX_ROUNDS} checks of {} rows still differ: the expression may give another result each time.",
                work.table.name
            ),
            hint: "Make the expression depend on the row alone, and amend or roll back.".into(),
        });
    }
    drain::run(work)?;
    rewrite::start_check(rewrite.id)?;
    Ok(false)
}
