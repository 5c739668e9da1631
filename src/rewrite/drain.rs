//! Step 5: bringing the shadow up to date, from the state of the table and not from a history of changes. One
//! snapshot: every key in the log is deleted from the shadow and inserted again as the table has it, so the shadow
//! equals the converted table as of that snapshot; order does not matter, and doing it twice does nothing.

use super::{halving, successor, Work};
use crate::catalog::{column, index, relation};
use crate::error::{Error, Result};
use crate::model::address;
use crate::model::ident::quote_literal;
use crate::pg::heap::{self, Snapshot};
use crate::pg::key::{self, KeyIndex, KeyLog, LoggedKey};
use crate::pg::relation::{LockMode, Table};
use crate::pg::row::RowMapper;
use crate::pg::spi::{self, NamedValue};
use crate::pg::Oid;
use crate::pg::{waitpoint, xact};
use crate::store::dead_letter::{self, Refusal};
use crate::store::rewrite;
use std::collections::HashSet;
use std::time::Instant;

/// A table of less is read anew in one drain.
const MOVED_BLOCKS: i64 = 1024;

/// Drains everything logged up to now; the number of distinct keys.
pub fn run(work: &Work) -> Result<i64> {
    work.require_shadow()?;
    follow_file(work)?;
    retry_refused(work)?;
    let started = Instant::now();
    let keys = xact::with_latest_snapshot(|snapshot| with_snapshot(work, snapshot))?;
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    // A drain of nothing leaves no trace but the first, which fixes the age of snapshots to wait for.
    if keys > 0 || work.rewrite.drain_xid.is_none() || work.rewrite.lag > 0 {
        waitpoint::reach("drain_before_commit")?;
        rewrite::set_drained(work.rewrite.id, keys, milliseconds)?;
    }
    Ok(keys)
}

/// Whether rows that are found by their address have others than this says.
pub fn has_moved(rewrite: &rewrite::Rewrite) -> Result<bool> {
    Ok(rewrite.is_by_address()
        && relation::relfilenode(rewrite.relation)?.is_some_and(|now| now != rewrite.relfilenode))
}

/// VACUUM FULL, CLUSTER and TRUNCATE give the table another file, in which rows without a key have other addresses: of a small one
/// all are taken anew. True if it had moved.
pub fn follow_file(work: &Work) -> Result<bool> {
    let rewrite = &work.rewrite;
    if !rewrite.is_by_address() {
        return Ok(false);
    }
    // The lock keeps it from moving until the end of the transaction.
    let table = Table::open(rewrite.relation, LockMode::AccessShare);
    if !has_moved(rewrite)? {
        return Ok(false);
    }
    let now = relation::relfilenode(rewrite.relation)?.unwrap_or(rewrite.relfilenode);
    if table.blocks() > MOVED_BLOCKS {
        return Err(Error::Prerequisite {
            problem: "a table without a key got another file while it was being migrated".into(),
            detail: format!(
                "VACUUM FULL, CLUSTER or TRUNCATE gave the rows of {} other addresses.",
                work.table.name
            ),
            hint: "transmute.rollback(id, reason), then apply again.".into(),
        });
    }
    super::copy::empty_shadow(work)?;
    let log = key::open_log(rewrite.key_log);
    xact::with_latest_snapshot(|snapshot| {
        work.as_owner(|| {
            let mut mapper = mapper(work)?;
            for address in heap::addresses(&mut mapper, 0, table.blocks(), snapshot)? {
                xact::check_for_interrupts();
                if heap::fetch(&mut mapper, address, snapshot) {
                    key::log_key(&log, &mut mapper, &rewrite.key_columns);
                }
            }
            Ok(())
        })
    })?;
    xact::command_counter_increment();
    rewrite::restart(rewrite.id, now, table.blocks())?;
    Ok(true)
}

/// Whether a drain would find something, or is owed for another reason; writes nothing.
pub fn is_due(rewrite: &crate::store::rewrite::Rewrite) -> Result<bool> {
    if rewrite.drain_xid.is_none() || rewrite.lag > 0 {
        return Ok(true);
    }
    let logged: Option<bool> = spi::value(
        &format!("SELECT EXISTS (SELECT FROM {})", rewrite.key_log_name()),
        &[],
    )?;
    Ok(logged == Some(true)
        || !dead_letter::open_keys(rewrite.id)?.is_empty() && rewrite::retry_is_due(rewrite.id)?)
}

/// The drain proper, in the caller's transaction and snapshot.
pub fn with_snapshot(work: &Work, snapshot: Snapshot) -> Result<i64> {
    let rewrite = &work.rewrite;
    let log = key::open_log(rewrite.key_log);
    let keys = KeyLog::read(&log, &rewrite.key_columns, snapshot)?;
    if keys.entries == 0 {
        return Ok(0);
    }
    if keys.truncated {
        super::copy::empty_shadow(work)?;
    }
    let into = successor::Into::of(work);
    let shadow_key = match into {
        Some(_) => Oid::INVALID,
        None => shadow_key_index(work)?,
    };
    let refused_before = dead_letter::refused_keys(rewrite.id)?;

    // All deletes come first: a row may take a unique value that another row gives up in the same drain.
    halving::run(
        &keys.keys,
        &mut |part| match &into {
            Some(into) => into.delete(part, snapshot).map(|_| ()),
            None => delete_part(work, shadow_key, part),
        },
        // A key that cannot be converted is not in the shadow.
        &mut |_, _| Ok(()),
    )?;
    let mut seen = HashSet::new();
    let mut refused = HashSet::new();
    halving::run(
        &keys.keys,
        &mut |part| match &into {
            Some(into) => into.bring_over(part, snapshot).map(|_| ()),
            None => insert_part(work, part, snapshot, &mut seen),
        },
        &mut |key, error| {
            let (text, row) = refuse(work, key, snapshot)?;
            let refusal = Refusal {
                migration_id: &work.migration_id,
                key: &text,
                row,
                expression: &work.expression()?,
                error: &error,
            };
            dead_letter::record(rewrite.id, &refusal)?;
            refused.insert(text);
            Ok(())
        },
    )?;
    if !refused_before.is_empty() {
        resolve(work, &keys, &refused_before, &refused)?;
    }
    keys.forget(&log);
    rewrite::note_brought_over(work.rewrite.id, keys.oldest_writer)?;
    Ok(keys.keys.len() as i64)
}

/// The table's index on the key now.
fn key_index(work: &Work) -> Result<Oid> {
    let rewrite = &work.rewrite;
    if rewrite.is_by_address() {
        return Ok(Oid::INVALID);
    }
    index::on_key(rewrite.relation, &rewrite.key_columns, rewrite.key_index)?.ok_or_else(|| {
        Error::Prerequisite {
            problem: "the table was changed while it was being migrated".into(),
            detail: format!(
                "The unique index on the key of {} is gone.",
                work.table.name
            ),
            hint: "transmute.rollback(id, reason), then apply again.".into(),
        }
    })
}

fn shadow_key_index(work: &Work) -> Result<Oid> {
    super::shadow::oid_of(&crate::model::ident::QualifiedName::new(
        work.rewrite.shadow_name().schema,
        &work.rewrite.shadow_key,
    ))
}

fn mapper(work: &Work) -> Result<RowMapper> {
    work.mapper(true)
}

fn delete_part(work: &Work, shadow_key: Oid, part: &[LoggedKey]) -> Result<()> {
    work.as_owner(|| {
        let mut mapper = mapper(work)?;
        let mut index = KeyIndex::open(&mapper, shadow_key, true, None)?;
        for key in part {
            xact::check_for_interrupts();
            if index.find_converted(&mut mapper, key) {
                heap::delete_found(&mut mapper);
            }
        }
        Ok(())
    })
}

/// `seen` are rows inserted already: two logged keys that are equal but not identical (1.0 and 1.00) mean one row.
fn insert_part(
    work: &Work,
    part: &[LoggedKey],
    snapshot: Snapshot,
    seen: &mut HashSet<heap::Tid>,
) -> Result<()> {
    let mut inserted = HashSet::new();
    // As the extension: nothing of the owner's in search_path.
    let table_key = key_index(work)?;
    work.as_owner(|| {
        let mut mapper = mapper(work)?;
        let mut index = KeyIndex::open(&mapper, table_key, false, Some(snapshot))?;
        heap::as_statement(|| {
            for key in part {
                xact::check_for_interrupts();
                if index.find_logged(&mut mapper, key) {
                    let tid = heap::current_tid(&mapper);
                    if !seen.contains(&tid) && !inserted.contains(&tid) {
                        mapper.map();
                        heap::insert_mapped(&mut mapper);
                        inserted.insert(tid);
                    }
                }
            }
            Ok(())
        })
    })?;
    // Only now: a part that failed half way is undone and tried again in pieces.
    seen.extend(inserted);
    Ok(())
}

/// Keeps the key for another try; its text, and the row.
fn refuse(
    work: &Work,
    key: &LoggedKey,
    snapshot: Snapshot,
) -> Result<(String, Option<Vec<NamedValue>>)> {
    let refused = key::open_log(super::shadow::oid_of(&work.rewrite.refused_name())?);
    // REINDEX CONCURRENTLY gives it another oid.
    let table_key = key_index(work)?;
    work.as_owner(|| {
        let mut mapper = mapper(work)?;
        key.append_to(&refused);
        let mut index = KeyIndex::open(&mapper, table_key, false, Some(snapshot))?;
        let row = index
            .find_logged(&mut mapper, key)
            .then(|| mapper.row_values());
        Ok((key.text(&mut mapper), row))
    })
}

/// Puts refused keys back into the log now and then: what refused a row may be gone (another row had its unique
/// value), though nobody wrote the row itself. Those that a person has given up stay out.
fn retry_refused(work: &Work) -> Result<()> {
    let open = dead_letter::open_keys(work.rewrite.id)?;
    if open.is_empty() || !rewrite::take_retry(work.rewrite.id)? {
        return Ok(());
    }
    log_again(work, &open)?;
    let (refused, text) = (work.rewrite.refused_name(), key_text(work)?);
    work.as_owner(|| {
        spi::execute(
            &format!("DELETE FROM {refused} r WHERE {text} OPERATOR(pg_catalog.=) ANY ($1)"),
            &[open.into()],
        )
    })?;
    Ok(())
}

/// Puts these refused keys into the log, as a write of their rows would: the next drain tries them. Whoever does it, and
/// whatever drains meanwhile: it only adds rows.
pub fn log_again(work: &Work, keys: &[String]) -> Result<usize> {
    let (log, refused) = (work.rewrite.key_log_name(), work.rewrite.refused_name());
    let text = key_text(work)?;
    // As the owner, whose tables these are: a trigger there would run with our rights otherwise.
    work.as_owner(|| {
        spi::execute(
            &format!(
                "INSERT INTO {log} SELECT DISTINCT r.* FROM {refused} r \
                 WHERE {text} OPERATOR(pg_catalog.=) ANY ($1) RETURNING 1"
            ),
            &[keys.to_vec().into()],
        )
    })
}

/// The text of a refused key, as `LoggedKey::text` writes it, in SQL.
fn key_text(work: &Work) -> Result<String> {
    let columns = column::list(work.rewrite.relation)?;
    let named = |number: i16| match number {
        address::NUMBER => Some("ctid"),
        number => {
            let column = columns.iter().find(|c| c.number == number);
            column.map(|c| c.name.as_str())
        }
    };
    let numbers = work.rewrite.key_columns.iter();
    let names: Vec<&str> = numbers.filter_map(|n| named(*n)).collect();
    let values: Vec<String> = (1..=names.len()).map(|i| format!("r.k{i}")).collect();
    Ok(format!(
        "pg_catalog.concat({}, pg_catalog.concat_ws(', ', {}), ')')",
        quote_literal(&format!("({})=(", names.join(", "))),
        values.join(", ")
    ))
}

/// Dead letters whose key went through this time are closed.
fn resolve(
    work: &Work,
    keys: &KeyLog,
    before: &HashSet<String>,
    refused: &HashSet<String>,
) -> Result<()> {
    let texts = work.as_owner(|| {
        let mut mapper = mapper(work)?;
        Ok(keys
            .keys
            .iter()
            .map(|k| k.text(&mut mapper))
            .collect::<Vec<_>>())
    })?;
    let closed: Vec<String> = texts
        .into_iter()
        .filter(|t| before.contains(t) && !refused.contains(t))
        .collect();
    dead_letter::resolve(work.rewrite.id, &closed)
}
