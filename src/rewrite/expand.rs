//! Step 1 of the protocol: shadow, twin, key log and capture, in one transaction.

use super::{capture, probe, shadow};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::address;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::relation::{LockMode, Table};
use crate::pg::Oid;
use crate::pg::{spi, utility, waitpoint};
use crate::rewrite::lock;
use crate::store::migration::Migration;
use crate::store::{progress, rewrite};

/// Name of the sentinel in the shadow's schema.
pub const SENTINEL: &str = "_transmute_alive";
/// Lanes of the copy hold at least this many blocks (8 MiB), so that small tables are one lane.
const MIN_LANE_BLOCKS: i64 = 1024;
/// First batch: 64 blocks, half a MiB; the batch sizer takes it from there.
const FIRST_BATCH_BLOCKS: i32 = 64;

/// Makes everything, and asks for the lock on the table last: it is held for the two triggers only.
pub fn run(migration: &Migration, statement: i32, alter: &str, table: Oid) -> Result<()> {
    let table = relation::get(table)?;
    super::require_free(&table, &migration.id)?;
    let outcome = probe::run(&table, alter, &migration.session)?;
    probe::require_supported(&table)?;
    let key = outcome.key.ok_or_else(|| Error::Bug("no key".into()))?;

    let id = free_id()?;
    let (new_schema, old_schema) = create_schemas(id, &table)?;
    let fingerprint = relation::fingerprint(table.oid)?;
    let definition = relation::definition(table.oid)?;

    let shadow_oid = shadow::create_like(&table, &new_schema)?;
    let shadow_name = QualifiedName::new(&new_schema, &table.name.name);
    shadow::alter(&table, alter, &shadow_name, &[], &migration.session)?;
    let mut deferred = shadow::defer_indexes(table.owner, shadow_oid, &shadow_name, &key.name)?;
    if key.is_address() {
        deferred.insert(0, shadow::add_address(table.owner, &shadow_name)?);
    }
    if deferred.first().is_none_or(|d| d.name != key.name) {
        return Err(Error::Bug(format!(
            "index {} is not among the shadow's",
            key.name
        )));
    }
    let twin_oid = shadow::create_like(&table, &old_schema)?;
    let logs = create_key_logs(id, &table, &new_schema, &key.columns)?;
    if relation::get(shadow_oid)?.persistence != table.persistence {
        make_sentinel(&table, &new_schema)?;
    }
    hide_from_decoding(&[shadow_oid, logs.keys, logs.refused], table.oid)?;
    waitpoint::reach("expand_before_lock")?;

    lock_unchanged(&table, &definition)?;
    shadow::copy_missing_values(table.oid, twin_oid)?;
    capture::on(id, &table, logs.keys, &logs.name, &key.columns)?;

    let end_block = Table::open(table.oid, LockMode::AccessShare).blocks();
    let relfilenode = relation::relfilenode(table.oid)?.unwrap_or(table.relfilenode);
    rewrite::insert(rewrite::New {
        id,
        migration_id: &migration.id,
        statement,
        relation: table.oid,
        shadow: shadow_oid,
        twin: twin_oid,
        key_log: logs.keys,
        new_schema: &new_schema,
        old_schema: &old_schema,
        key_index: key.index,
        key_columns: &key.columns,
        shadow_key: &key.name,
        deferred: &deferred,
        relfilenode,
        end_block,
        rows_estimate: table.rows,
        fingerprint: &fingerprint,
        definition: &definition,
        reverses: None,
    })?;
    rewrite::set_capture_stamp(id, &capture::stamp(id, table.oid)?)?;
    lanes(id, end_block)
}

/// A schema for our work, of the role that owns what it is about.
pub fn create_schema(name: &str, owner_name: &str) -> Result<()> {
    spi::execute(
        &format!(
            "CREATE SCHEMA {} AUTHORIZATION {}",
            quote_ident(name),
            quote_ident(owner_name)
        ),
        &[],
    )?;
    Ok(())
}

/// The schemas of the new shape and of the old rows.
pub(super) fn create_schemas(id: i64, table: &Relation) -> Result<(String, String)> {
    let schemas = (
        format!("_transmute_{id}_new"),
        format!("_transmute_{id}_old"),
    );
    create_schema(&schemas.0, &table.owner_name)?;
    create_schema(&schemas.1, &table.owner_name)?;
    Ok(schemas)
}

/// Takes the lock under which the capture begins: the table has to be what it was when everything was made for it.
pub(super) fn lock_unchanged(table: &Relation, definition: &str) -> Result<()> {
    lock::acquire(
        &[table.oid],
        LockMode::ShareRowExclusive,
        &table.name.to_string(),
    )?;
    if relation::definition(table.oid)? != definition {
        return Err(Error::Prerequisite {
            problem: "the table changed while its shadow was made".into(),
            detail: format!(
                "Columns, indexes or constraints of {} are not what they were.",
                table.name
            ),
            hint: "transmute.resume(id, reason) tries again.".into(),
        });
    }
    Ok(())
}

/// The next number whose work schemas do not exist: artifacts of an extension that was dropped may be left.
pub fn free_id() -> Result<i64> {
    loop {
        let id = rewrite::next_id()?;
        let taken: Option<bool> = spi::value(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname ~ $1)",
            &[format!("^_transmute_{id}_(new|old|views)$").into()],
        )?;
        if taken != Some(true) {
            return Ok(id);
        }
    }
}

/// Cuts the table into lanes: a few for each hand, so that none waits for the last one long.
pub fn lanes(id: i64, end_block: i64) -> Result<()> {
    let wanted = i64::from(guc::max_parallel_backfill()) * 4;
    let lanes = wanted.min(end_block / MIN_LANE_BLOCKS).max(1);
    progress::insert(
        progress::Of::Rewrite(id),
        end_block,
        lanes,
        FIRST_BATCH_BLOCKS,
    )
}

/// Tables of keys: of rows that the application changes, and of rows that are refused.
pub(super) struct KeyLogs {
    /// Name of the first.
    pub name: String,
    pub keys: Oid,
    pub refused: Oid,
}

pub(super) fn create_key_logs(
    id: i64,
    table: &Relation,
    schema: &str,
    key: &[i16],
) -> Result<KeyLogs> {
    let name = format!("_transmute_{id}_keys");
    let refused = format!("_transmute_{id}_refused");
    Ok(KeyLogs {
        keys: create_key_log(table, schema, &name, key)?,
        refused: create_key_log(table, schema, &refused, key)?,
        name,
    })
}

fn create_key_log(table: &Relation, schema: &str, name: &str, key: &[i16]) -> Result<Oid> {
    let columns = crate::catalog::column::list(table.oid)?;
    let mut list = Vec::new();
    for (i, number) in key.iter().enumerate() {
        if *number == address::NUMBER {
            list.push(format!("k{} tid", i + 1));
            continue;
        }
        let column = columns
            .iter()
            .find(|c| c.number == *number)
            .ok_or_else(|| Error::Bug("a key column is gone".into()))?;
        let collation = match column.collation.as_str() {
            "" => String::new(),
            collation => format!(" COLLATE {collation}"),
        };
        list.push(format!("k{} {}{collation}", i + 1, column.type_name));
    }
    let unlogged = if table.persistence == 'u' {
        "UNLOGGED "
    } else {
        ""
    };
    let qualified = QualifiedName::new(schema, name);
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!(
            "CREATE {unlogged}TABLE {qualified} ({})",
            list.join(", ")
        ))?;
        utility::run(&format!("ALTER TABLE {qualified} REPLICA IDENTITY FULL"))
    })?;
    shadow::oid_of(&qualified)
}

/// SET LOGGED, SET UNLOGGED: a crash empties one of table and shadow and not the other. An unlogged table with one row
/// tells afterwards that it happened.
fn make_sentinel(table: &Relation, schema: &str) -> Result<()> {
    let name = QualifiedName::new(schema, SENTINEL);
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!("CREATE UNLOGGED TABLE {name} (alive boolean)"))?;
        spi::execute(&format!("INSERT INTO {name} VALUES (true)"), &[]).map(|_| ())
    })
}

/// Rows of the shadow and the logs are not decoded as changes of their own (pg_class.relrewrite, as for the transient
/// table of a plain rewrite).
pub(crate) fn hide_from_decoding(tables: &[Oid], of: Oid) -> Result<()> {
    spi::execute(
        "UPDATE pg_class SET relrewrite = $2 WHERE oid = ANY ($1)",
        &[tables.to_vec().into(), of.into()],
    )?;
    crate::pg::xact::command_counter_increment();
    Ok(())
}
