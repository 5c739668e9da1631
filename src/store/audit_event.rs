//! `_transmute.audit_events`: appending to the chain and reading it.

use crate::error::{Error, Result};
use crate::guc;
use crate::model::audit::{self, Head, Record};
use crate::pg::spi::{self, Row};
use crate::pg::xact;

/// Advisory lock that orders appends, (class, object). Taken in a statement of its own before the head
/// is read; UNIQUE (prev_hash) stands behind it.
const LOCK: (i32, i32) = (74_617, 1);

/// Takes the place at the head of the chain until the transaction ends. The swap calls it before it asks for
/// the lock on the table, so that it never waits for another appender inside that lock.
pub fn reserve() -> Result<()> {
    spi::execute(
        "SELECT pg_advisory_xact_lock($1, $2)",
        &[LOCK.0.into(), LOCK.1.into()],
    )?;
    Ok(())
}

/// One act, before it has its place in the chain.
#[derive(Debug, Default)]
pub struct Act<'a> {
    pub migration_id: Option<&'a str>,
    pub event: &'a str,
    pub from_state: Option<String>,
    pub to_state: Option<String>,
    pub detail: Option<serde_json::Value>,
    /// Who is recorded as current_user: the caller, not the extension that acts for it.
    pub current_user: Option<&'a str>,
    /// Whose act it is, when another process writes it down.
    pub actor: Option<Actor>,
}

/// Who acted, as `context` sees it in the session itself.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Actor {
    pub session_user: String,
    pub current_user: String,
    pub application_name: String,
    pub client_addr: Option<String>,
}

/// This session; `current_user` is the caller's.
pub fn actor(current_user: &str) -> Result<Actor> {
    let record = context()?;
    Ok(Actor {
        session_user: record.session_user,
        current_user: current_user.to_string(),
        application_name: record.application_name,
        client_addr: record.client_addr,
    })
}

/// Appends `act` in the current transaction and gives the new head.
pub fn append(act: Act<'_>) -> Result<Head> {
    reserve()?;
    // The head is read with a snapshot taken after the lock, whatever the isolation level.
    let last = xact::with_latest_snapshot(|_| head_row())?;
    let (seq, prev) = match last {
        Some(head) => (head.seq, head.hash),
        None if act.event == audit::GENESIS_EVENT => (0, audit::GENESIS_PREV),
        None => {
            append_genesis()?;
            let head = xact::with_latest_snapshot(|_| head_row())?
                .ok_or_else(|| Error::Bug("the audit trail stays empty".into()))?;
            (head.seq, head.hash)
        }
    };
    let mut record = context()?;
    record.seq = seq + 1;
    record.migration_id = act.migration_id.map(str::to_string);
    record.event = act.event.to_string();
    record.from_state = act.from_state;
    record.to_state = act.to_state;
    record.detail = act.detail.map(|d| d.to_string());
    if let Some(user) = act.current_user {
        record.current_user = user.to_string();
    }
    if let Some(actor) = act.actor {
        record.session_user = actor.session_user;
        record.current_user = actor.current_user;
        record.application_name = actor.application_name;
        record.client_addr = actor.client_addr;
    }
    let hash = audit::link(&prev, &record);
    insert(&record, &prev, &hash)?;
    let head = Head {
        seq: record.seq,
        hash,
    };
    if guc::logs_json() {
        let detail: Option<serde_json::Value> = record
            .detail
            .as_deref()
            .map(serde_json::from_str)
            .transpose()?;
        crate::log::event(
            &record.event,
            serde_json::json!({
                "id": record.migration_id,
                "from_state": record.from_state,
                "to_state": record.to_state,
                "detail": detail,
                "actor": record.session_user,
                "application_name": record.application_name,
                "audit_head": head.to_string(),
            }),
            String::new,
        );
    }
    Ok(head)
}

/// The first event says which database of which system the chain belongs to.
fn append_genesis() -> Result<()> {
    let detail = spi::first(
        "SELECT current_database()::text, system_identifier::text, \
           (SELECT oid::text FROM pg_database WHERE datname = current_database()) FROM pg_control_system()",
        &[],
        |row| {
            Ok(serde_json::json!({
                "database": row.need::<String>(1)?,
                "system_identifier": row.need::<String>(2)?,
                "database_oid": row.need::<String>(3)?,
            }))
        },
    )?;
    append(Act {
        event: audit::GENESIS_EVENT,
        detail,
        ..Act::default()
    })?;
    Ok(())
}

/// Who, when and in which transaction, as the server knows it.
fn context() -> Result<Record> {
    spi::first(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
           (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text, \
           session_user::text, current_user::text, current_setting('application_name'), \
           host(inet_client_addr())",
        &[],
        |row| {
            Ok(Record {
                seq: 0,
                encoding_version: audit::ENCODING_VERSION,
                at_us: row.need(1)?,
                transaction_at_us: row.need(2)?,
                xid: row.need(3)?,
                session_user: row.need(4)?,
                current_user: row.need(5)?,
                application_name: row.get::<String>(6)?.unwrap_or_default(),
                client_addr: row.get(7)?,
                migration_id: None,
                event: String::new(),
                from_state: None,
                to_state: None,
                detail: None,
            })
        },
    )?
    .ok_or_else(|| Error::Bug("no session".into()))
}

fn insert(record: &Record, prev: &[u8; 32], hash: &[u8; 32]) -> Result<()> {
    spi::execute(
        "INSERT INTO _transmute.audit_events (seq, encoding_version, at, transaction_at, xid, session_user_name, \
           current_user_name, application_name, client_addr, migration_id, event, from_state, to_state, detail, \
           prev_hash, hash) \
         VALUES ($1, $2, to_timestamp(0) + $3 * interval '1 microsecond', \
           to_timestamp(0) + $4 * interval '1 microsecond', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
           decode($15, 'hex'), decode($16, 'hex'))",
        &[
            record.seq.into(),
            record.encoding_version.into(),
            record.at_us.into(),
            record.transaction_at_us.into(),
            record.xid.as_str().into(),
            record.session_user.as_str().into(),
            record.current_user.as_str().into(),
            record.application_name.as_str().into(),
            record.client_addr.as_deref().into(),
            record.migration_id.as_deref().into(),
            record.event.as_str().into(),
            record.from_state.as_deref().into(),
            record.to_state.as_deref().into(),
            record.detail.as_deref().into(),
            hex::encode(prev).into(),
            hex::encode(hash).into(),
        ],
    )?;
    Ok(())
}

fn bytes(digits: &str) -> Result<[u8; 32]> {
    hex::decode(digits)
        .ok()
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| Error::Corrupted {
            problem: "a hash of the audit trail has the wrong length".into(),
            detail: format!("Found {digits}."),
            hint: "Somebody has written to the table past its guards: compare with a trail that was exported.".into(),
        })
}

fn head_row() -> Result<Option<Head>> {
    let row = spi::first_row_in_active_snapshot(
        c"SELECT seq, encode(hash, 'hex') FROM _transmute.audit_events ORDER BY seq DESC LIMIT 1",
    )?;
    row.map(|columns| {
        Ok(Head {
            seq: columns[0]
                .parse()
                .map_err(|_| Error::Bug("seq is no number".into()))?,
            hash: bytes(&columns[1])?,
        })
    })
    .transpose()
}

/// The newest event of the chain.
pub fn head() -> Result<Option<Head>> {
    head_row()
}

/// The hash of one event, for a verification that starts behind it.
pub fn head_at(seq: i64) -> Result<Option<Head>> {
    spi::first(
        "SELECT seq, encode(hash, 'hex') FROM _transmute.audit_events WHERE seq = $1",
        &[seq.into()],
        |row| {
            Ok(Head {
                seq: row.need(1)?,
                hash: bytes(&row.need::<String>(2)?)?,
            })
        },
    )
}

/// One event with its place in the chain.
pub type Linked = (Record, [u8; 32], [u8; 32]);

fn linked(row: &Row<'_>) -> Result<Linked> {
    Ok((
        Record {
            seq: row.need(1)?,
            encoding_version: row.need(2)?,
            at_us: row.need(3)?,
            transaction_at_us: row.need(4)?,
            xid: row.need(5)?,
            session_user: row.need(6)?,
            current_user: row.need(7)?,
            application_name: row.need(8)?,
            client_addr: row.get(9)?,
            migration_id: row.get(10)?,
            event: row.need(11)?,
            from_state: row.get(12)?,
            to_state: row.get(13)?,
            detail: row.get(14)?,
        },
        bytes(&row.need::<String>(15)?)?,
        bytes(&row.need::<String>(16)?)?,
    ))
}

/// Up to `limit` events behind `seq`, in order.
pub fn page(seq: i64, limit: i64) -> Result<Vec<Linked>> {
    spi::query(
        "SELECT seq, encoding_version, (extract(epoch FROM at) * 1000000)::bigint, \
           (extract(epoch FROM transaction_at) * 1000000)::bigint, xid, session_user_name, current_user_name, \
           application_name, client_addr, migration_id, event, from_state, to_state, detail, \
           encode(prev_hash, 'hex'), encode(hash, 'hex') \
         FROM _transmute.audit_events WHERE seq > $1 ORDER BY seq LIMIT $2",
        &[seq.into(), limit.into()],
        linked,
    )
}

/// Where the trail began, for people, if that is not this very database: a restored dump, a copy, an upgraded cluster.
pub fn origin() -> Result<Option<String>> {
    let elsewhere = spi::first(
        "SELECT d ->> 'database', d ->> 'system_identifier' FROM _transmute.audit_events, LATERAL (SELECT detail::jsonb) g (d) \
         WHERE seq = 1 AND event = 'genesis' \
           AND (d ->> 'database', d ->> 'system_identifier') IS DISTINCT FROM \
             (current_database()::text, (SELECT system_identifier::text FROM pg_control_system()))",
        &[],
        |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?)),
    )?;
    Ok(elsewhere.map(|(database, system)| {
        format!(
            "; the trail began in database {} of system {}: this is a copy of it",
            database.unwrap_or_default(),
            system.unwrap_or_default()
        )
    }))
}
