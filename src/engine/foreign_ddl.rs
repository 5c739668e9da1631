//! DDL of people on what a migration works on: refused, unless the migration's owner says that it is meant.
//!
//! Event triggers see it in every session, also where the library is not preloaded: before the statement runs, what it
//! names; afterwards, what it has done, cascades included. What they do not see – they were disabled, or the statement was
//! allowed – is found by `untouched::require` before the next step.

use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::quote_literal;
use crate::pg::event::{Command, Moment};
use crate::pg::identity::{self, Caller};
use crate::pg::naming::OLD_NAME_OF;
use crate::pg::{extension, spi, Oid};
use std::cell::RefCell;

/// An object that a migration relies on.
struct Object {
    class: Oid,
    oid: Oid,
    /// The relation it belongs to, or the schema that it is.
    name: String,
    migration_id: String,
    state: String,
    owner_name: String,
    /// A partitioned table whose new partitions the migration takes along: none of it is copied.
    takes_partitions: bool,
}

thread_local! {
    /// As it was before the statement that runs now: afterwards names mean something else.
    static IN_FLIGHT: RefCell<Vec<Object>> = const { RefCell::new(Vec::new()) };
}

/// Looks at one event of a statement; an error refuses it.
pub fn check(command: &Command, caller: &Caller) -> Result<()> {
    match command.moment {
        Moment::Start => {
            if command.extensions.iter().any(|name| name == "transmute") {
                require_idle(command)?;
            }
            let objects = in_flight()?;
            let refused = before(command, &objects);
            let result = refused.map_or(Ok(()), |object| require(object, command, caller));
            IN_FLIGHT.replace(objects);
            result
        }
        Moment::Dropped => IN_FLIGHT.with_borrow(|objects| {
            afterwards(
                command,
                caller,
                objects,
                "SELECT classid, objid FROM pg_event_trigger_dropped_objects()",
            )
        }),
        Moment::End => IN_FLIGHT.with_borrow(|objects| {
            afterwards(
                command,
                caller,
                objects,
                include_str!("../../sql/query/commanded.sql"),
            )
        }),
    }
}

/// The first object that the statement names.
fn before<'a>(command: &Command, objects: &'a [Object]) -> Option<&'a Object> {
    objects
        .iter()
        .find(|object| command.relations.contains(&object.oid))
}

fn afterwards(command: &Command, caller: &Caller, objects: &[Object], sql: &str) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let touched: Vec<(Oid, Oid)> = spi::query(sql, &[], |row| Ok((row.need(1)?, row.need(2)?)))?;
    // Who makes tomorrow's partitions must not have to wait for a soak.
    let makes_partition = command.tag == "CREATE TABLE";
    for object in objects {
        if makes_partition && object.takes_partitions {
            continue;
        }
        if touched.contains(&(object.class, object.oid)) {
            require(object, command, caller)?;
        }
    }
    Ok(())
}

fn in_flight() -> Result<Vec<Object>> {
    let any: Option<bool> = spi::value(
        "SELECT EXISTS (SELECT FROM _transmute.migrations WHERE queued)",
        &[],
    )?;
    if any != Some(true) {
        return Ok(Vec::new());
    }
    let home: String = spi::value("SELECT _transmute.home()", &[])?.unwrap_or_default();
    spi::query(
        include_str!("../../sql/query/in_flight.sql"),
        &[home.into(), OLD_NAME_OF.into()],
        |row| {
            Ok(Object {
                class: row.need(1)?,
                oid: row.need(2)?,
                name: row.need(3)?,
                migration_id: row.need(4)?,
                state: row.need(5)?,
                owner_name: row.need(6)?,
                takes_partitions: row.need(7)?,
            })
        },
    )
}

/// DROP EXTENSION: not while anything is under way, nobody excepted; in a copy of the database, not while a trigger of ours
/// hangs on a table. Whoever could begin something meanwhile reads our table first, and waits for the end of the drop.
fn require_idle(command: &Command) -> Result<()> {
    require_none_under_way(command)?;
    // First, before a process of ours has begun with anything.
    extension::take();
    spi::execute(
        "LOCK TABLE _transmute.migrations IN ACCESS EXCLUSIVE MODE",
        &[],
    )?;
    require_none_under_way(command)
}

fn require_none_under_way(command: &Command) -> Result<()> {
    let first = spi::first(
        "SELECT id, state FROM _transmute.migrations \
         WHERE state <> 'UNINITIALIZED' AND (queued OR state <> 'FINISHED') \
           AND (home = _transmute.home() OR EXISTS (SELECT FROM pg_trigger \
             WHERE tgfoid IN ('_transmute.capture'::regproc, '_transmute.dual_write'::regproc))) \
         ORDER BY seq LIMIT 1",
        &[],
        |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
    )?;
    let Some((id, state)) = first else {
        return Ok(());
    };
    let literal = quote_literal(&id);
    let hint = match state.as_str() {
        "FINISHED" => format!("transmute.release_old({literal}, reason) lets go of the old rows."),
        _ => format!(
            "CALL transmute.wait({literal}) waits for its end, transmute.rollback({literal}, reason) takes it back."
        ),
    };
    Err(Error::InUse {
        problem: format!("migration \"{id}\" works on tables of this database"),
        detail: format!(
            "{} was refused; the migration is in state {state}.",
            command.tag
        ),
        hint,
    })
}

/// The owner of the migration may, and says so by a setting.
fn require(object: &Object, command: &Command, caller: &Caller) -> Result<()> {
    if guc::allow_ddl() {
        let may = match relation::role_oid(&object.owner_name)? {
            Some(owner) => identity::has_privs_of(caller.role, owner),
            None => identity::is_superuser(caller.role),
        };
        if may {
            return Ok(());
        }
    }
    let id = &object.migration_id;
    let literal = quote_literal(id);
    let (state, ways) = match object.state.as_str() {
        "FINISHED" => (
            "is being undone".to_string(),
            "transmute.status has outcome UNDONE at its end".to_string(),
        ),
        state => (
            format!("is in state {state}"),
            format!(
                "CALL transmute.wait({literal}) waits for its end, transmute.rollback({literal}, reason) takes it back"
            ),
        ),
    };
    Err(Error::InUse {
        problem: format!("migration \"{id}\" works on {}", object.name),
        detail: format!("{} was refused; the migration {state}.", command.tag),
        hint: format!("{ways}; its owner may SET transmute.allow_ddl = on."),
    })
}
