//! Questions about the server and the catalog.

use super::{join, tables, Check, Subject};
use crate::error::Result;
use crate::guc;
use crate::model::operation::Operation;
use crate::model::plan::Step;
use crate::pg::{disk, identity, slots, spi, Oid};
use crate::store::migration::Migration;
use std::collections::BTreeMap;

/// Columns a table may ever have (MaxHeapAttributeNumber), dropped ones included.
const MAX_COLUMNS: i64 = 1600;
/// Room that estimates may be wrong by.
const MARGIN: f64 = 1.2;

pub(super) fn checks(
    migration: &Migration,
    owner: Oid,
    subjects: &[Subject],
    steps: &[(i32, Step)],
) -> Result<Vec<Check>> {
    Ok(vec![
        privileges(migration, owner, subjects),
        workers()?,
        disk_space(subjects, steps)?,
        long_transactions()?,
        prepared_transactions()?,
        invalid_indexes(subjects),
        columns(subjects)?,
        slots_of_replication()?,
        publications(subjects)?,
        replica_identity(subjects)?,
    ])
}

fn privileges(migration: &Migration, owner: Oid, subjects: &[Subject]) -> Check {
    let missing: Vec<String> = tables(subjects)
        .into_iter()
        .filter(|t| !identity::has_privs_of(owner, t.owner))
        .map(|t| format!("{} belongs to \"{}\"", t.name, t.owner_name))
        .collect();
    match missing.is_empty() {
        true => Check::passed(
            "privileges",
            "The migration's owner owns every table of it.",
        ),
        false => Check::failed(
            "privileges",
            format!(
                "Not those of \"{}\": {}.",
                migration.owner_name,
                join(&missing)
            ),
            "Make the migration's owner a member of the tables' owner.",
        ),
    }
}

fn workers() -> Result<Check> {
    if !slots::preloaded() {
        return Ok(Check::failed(
            "workers",
            "shared_preload_libraries does not hold transmute: this server runs no worker of ours.",
            "CALL transmute.run() drives the migration in a session.",
        ));
    }
    let wanted = i64::from(guc::max_parallel_backfill());
    let free: i64 = spi::value(
        "SELECT current_setting('max_worker_processes')::bigint - count(*) FROM pg_stat_activity \
         WHERE backend_type NOT IN ('client backend', 'walsender', 'walreceiver', 'autovacuum launcher', \
           'autovacuum worker', 'checkpointer', 'background writer', 'walwriter', 'startup', 'archiver', 'io worker', \
           'walsummarizer', 'slotsync worker', 'standalone backend')",
        &[],
    )?
    .unwrap_or(0);
    let detail = format!("{free} of max_worker_processes are free, up to {wanted} are used.");
    Ok(match free >= wanted {
        true => Check::passed("workers", detail),
        false => Check::failed(
            "workers",
            detail,
            "Raise max_worker_processes, or lower transmute.max_parallel_backfill.",
        ),
    })
}

/// Bytes that the plan writes anew, by the folder they go to.
fn disk_space(subjects: &[Subject], steps: &[(i32, Step)]) -> Result<Check> {
    let mut needed: BTreeMap<String, i64> = BTreeMap::new();
    for subject in subjects {
        let Some(table) = &subject.table else {
            continue;
        };
        let bytes = steps
            .iter()
            .filter(|(statement, _)| *statement == subject.number)
            .map(|(_, step)| step.estimate.bytes)
            .max()
            .unwrap_or(0);
        if bytes > 0 {
            *needed.entry(table.tablespace.clone()).or_default() += bytes;
        }
    }
    let (mut details, mut enough) = (Vec::new(), true);
    for (tablespace, bytes) in needed {
        let folder: String = spi::value(
            "SELECT coalesce((SELECT nullif(pg_tablespace_location(oid), '') FROM pg_tablespace WHERE spcname = $1::name), \
             current_setting('data_directory'))",
            &[tablespace.as_str().into()],
        )?
        .unwrap_or_default();
        let free = disk::free_bytes(&folder);
        enough &= free.is_none_or(|free| free as f64 >= bytes as f64 * MARGIN);
        let pretty = |n: i64| -> Result<String> {
            Ok(spi::value("SELECT pg_size_pretty($1)", &[n.into()])?.unwrap_or_default())
        };
        details.push(match free {
            Some(free) => format!("{} needed, {} free", pretty(bytes)?, pretty(free)?),
            None => format!("{} needed, the free space is not known", pretty(bytes)?),
        });
    }
    Ok(match (details.is_empty(), enough) {
        (true, _) => Check::passed("disk_space", "Nothing is written a second time."),
        (false, true) => Check::passed("disk_space", format!("{}.", join(&details))),
        (false, false) => Check::failed(
            "disk_space",
            format!("{}.", join(&details)),
            "Make room: old and new rows are both kept until the artifact is dropped.",
        ),
    })
}

fn long_transactions() -> Result<Check> {
    let found: Vec<String> = spi::query(
        "SELECT format('pid %s (%s), for %s s', pid, application_name, \
           extract(epoch FROM clock_timestamp() - xact_start)::int) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
           AND xact_start < clock_timestamp() - interval '1 minute' ORDER BY xact_start LIMIT 3",
        &[],
        |row| row.need(1),
    )?;
    Ok(match found.is_empty() {
        true => Check::passed("long_transactions", "None is older than a minute."),
        false => Check::failed(
            "long_transactions",
            format!("{}.", join(&found)),
            "Locks and swaps wait for them: end them, or have patience.",
        ),
    })
}

fn prepared_transactions() -> Result<Check> {
    let found: Vec<String> = spi::query(
        "SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 3",
        &[],
        |row| row.need(1),
    )?;
    Ok(match found.is_empty() {
        true => Check::passed("prepared_transactions", "There is none."),
        false => Check::failed(
            "prepared_transactions",
            format!("{}.", join(&found)),
            "COMMIT PREPARED or ROLLBACK PREPARED: their locks last until then.",
        ),
    })
}

fn invalid_indexes(subjects: &[Subject]) -> Check {
    let found: Vec<String> = tables(subjects)
        .into_iter()
        .filter(|t| !t.invalid_indexes.is_empty())
        .map(|t| format!("on {}: {}", t.name, t.invalid_indexes))
        .collect();
    match found.is_empty() {
        true => Check::passed("invalid_indexes", "There is none."),
        false => Check::failed(
            "invalid_indexes",
            format!("{}.", join(&found)),
            "REINDEX INDEX CONCURRENTLY them, or drop them.",
        ),
    }
}

fn columns(subjects: &[Subject]) -> Result<Check> {
    let (mut over, mut most) = (Vec::new(), 0);
    for table in tables(subjects) {
        let used: i64 = spi::value(
            "SELECT coalesce(max(attnum), 0)::bigint FROM pg_attribute WHERE attrelid = $1",
            &[table.oid.into()],
        )?
        .unwrap_or(0);
        let added = subjects
            .iter()
            .filter(|s| s.table.as_ref().is_some_and(|t| t.oid == table.oid))
            .flat_map(|s| match &s.statement.kind {
                crate::pg::parser::Kind::AlterTable(alter) => alter.commands.clone(),
                _ => Vec::new(),
            })
            .filter(|c| {
                matches!(
                    c.action,
                    crate::pg::parser::Action::AddColumn | crate::pg::parser::Action::AlterType
                )
            })
            .count() as i64;
        most = most.max(used + added);
        if used + added > MAX_COLUMNS {
            over.push(format!(
                "{} has used {used} of {MAX_COLUMNS} columns, dropped ones included, and {added} more are wanted",
                table.name
            ));
        }
    }
    Ok(match over.is_empty() {
        true => Check::passed(
            "columns",
            format!("At most {most} of {MAX_COLUMNS} columns are used, dropped ones included."),
        ),
        false => Check::failed(
            "columns",
            format!("{}.", join(&over)),
            "Make the table anew: a dropped column never gives its place back.",
        ),
    })
}

fn slots_of_replication() -> Result<Check> {
    let slots: Vec<(String, bool)> = spi::query(
        "SELECT slot_name::text, active FROM pg_replication_slots \
         WHERE slot_type = 'physical' OR database = current_database() ORDER BY slot_name",
        &[],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )?;
    let idle: Vec<String> = slots
        .iter()
        .filter(|(_, active)| !active)
        .map(|(name, _)| name.clone())
        .collect();
    Ok(match idle.is_empty() {
        true => Check::passed(
            "replication_slots",
            match slots.len() {
                0 => "There is none.".to_string(),
                n => format!("{n}, all active."),
            },
        ),
        false => Check::failed(
            "replication_slots",
            format!("Not active: {}.", idle.join(", ")),
            "They keep all WAL that the migration writes: start their readers, or drop them.",
        ),
    })
}

fn publications(subjects: &[Subject]) -> Result<Check> {
    let (mut found, mut reshaped) = (Vec::new(), false);
    for subject in subjects {
        let Some(table) = &subject.table else {
            continue;
        };
        let names: Option<String> = spi::value(
            "SELECT string_agg(DISTINCT pubname::text, ', ') FROM pg_publication_tables \
             WHERE schemaname = $1::name AND tablename = $2::name",
            &[
                table.name.schema.as_str().into(),
                table.name.name.as_str().into(),
            ],
        )?;
        if let Some(names) = names {
            let text = format!("{} in {names}", table.name);
            if !found.contains(&text) {
                found.push(text);
            }
            reshaped |= subject.statement.subject.operations.iter().any(|o| {
                matches!(
                    o,
                    Operation::AlterType
                        | Operation::AddColumn
                        | Operation::DropColumn
                        | Operation::RenameColumn
                        | Operation::RenameTable
                        | Operation::SetSchema
                )
            });
        }
    }
    Ok(match found.is_empty() {
        true => Check::passed("publications", "No table is published."),
        false => Check {
            check: "publications",
            ok: true,
            detail: format!("{}.", join(&found)),
            hint: reshaped.then_some(
                "Subscribers need the new shape too: change them first where it adds, last where it removes.",
            ),
        },
    })
}

fn replica_identity(subjects: &[Subject]) -> Result<Check> {
    let mut found = Vec::new();
    for table in tables(subjects) {
        let missing: Option<bool> = spi::value(
            "SELECT EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname \
               WHERE t.schemaname = $2::name AND t.tablename = $3::name AND (p.pubupdate OR p.pubdelete)) \
             AND (c.relreplident = 'n' OR c.relreplident = 'd' \
               AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)) \
             FROM pg_class c WHERE c.oid = $1",
            &[
                table.oid.into(),
                table.name.schema.as_str().into(),
                table.name.name.as_str().into(),
            ],
        )?;
        if missing == Some(true) {
            found.push(table.name.to_string());
        }
    }
    Ok(match found.is_empty() {
        true => Check::passed("replica_identity", "Every published table has one."),
        false => Check::failed(
            "replica_identity",
            format!("Published without one: {}.", join(&found)),
            "Updates and deletes of it fail: ALTER TABLE … REPLICA IDENTITY, or give it a primary key.",
        ),
    })
}
