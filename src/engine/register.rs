//! Registering a migration: parse, plan, score, store.

use super::derive::Derived;
use super::planning::{self, Plan};
use super::{down, idempotency, invariants, order, usage};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::digest::Canonical;
use crate::model::meta::{self, Meta};
use crate::model::written::{Copy, Phases};
use crate::pg::identity::Caller;
use crate::pg::spi;
use crate::pg::xact::{self, End};
use crate::recipe;
use crate::recipe::copying::Wish;
use crate::store::audit_event::{self, Act};
use crate::store::migration::{self, New};
use crate::store::version;
use crate::store::{driver, invariant, sequence};

const MAX_ID_BYTES: usize = 255;
/// Rows of a hand-written batch where meta does not say.
const BATCH_SIZE: u32 = 1000;
const MAX_BATCH_SIZE: u32 = 1_000_000;
/// Of what is stored of phases and copies: rows of a batch.
pub const BATCH_ROWS: &str = "batch_size";
/// Of what is stored of a copy: what was asked for.
pub const COPY: &str = "asked";

pub struct Request<'a> {
    pub id: &'a str,
    pub up: &'a str,
    pub down: Option<&'a str>,
    pub meta: &'a serde_json::Value,
}

/// Registers; every fault of the request is an error before anything is written.
pub fn run(request: Request<'_>, caller: &Caller) -> Result<()> {
    check_id(request.id)?;
    let meta = parse_meta(request.meta)?;
    let keep_old = kept_time(&meta)?;
    if migration::exists(request.id)? {
        return Err(Error::AlreadyRegistered {
            id: request.id.into(),
        });
    }
    order::check_new(request.id, &meta.depends_on, caller)?;
    let plan = planning::make_or_wait(request.id, request.up, request.down, caller, &meta)?;
    if let Some(script) = request.down {
        check_room_for_down(request.id)?;
        // With meta.keep_old it was proved that it leads back.
        let versioned = meta.versioned_views.is_some()
            || meta.versioned_views_before.is_some()
            || version::any()?;
        if keep_old.is_none() && !versioned {
            down::check(script, caller, &meta)?;
        }
    }
    let described = Described {
        id: request.id,
        up: request.up,
        down: request.down,
        phases: None,
        keep_old,
    };
    store(described, &meta, plan.as_ref(), caller)
}

/// Registers hand-written phases, and tries how they take being run twice.
pub fn run_phases(
    id: &str,
    written: &Phases,
    meta: &serde_json::Value,
    caller: &Caller,
) -> Result<()> {
    check_id(id)?;
    let meta = parse_meta(meta)?;
    if kept_time(&meta)?.is_some() {
        return Err(not_kept());
    }
    let batch_size = batch_size(&meta)?;
    if migration::exists(id)? {
        return Err(Error::AlreadyRegistered { id: id.into() });
    }
    order::check_new(id, &meta.depends_on, caller)?;
    let phases = recipe::Phases::make(
        &written.schema_additions,
        &written.migrate_batch,
        &written.schema_drops,
        written.rollback.as_deref(),
        caller,
        &meta,
    )?;
    let mut stored = written.to_json();
    stored[BATCH_ROWS] = batch_size.into();
    let described = Described {
        id,
        up: &phases.up,
        down: None,
        phases: Some(stored),
        keep_old: None,
    };
    let plan = planning::of_script(&phases.up, phases.script, caller)?;
    store(described, &meta, Some(&plan), caller)?;
    idempotency::check(id, &meta)
}

/// A copy.
pub fn run_copy(id: &str, written: &Copy, meta: &serde_json::Value, caller: &Caller) -> Result<()> {
    check_id(id)?;
    let meta = parse_meta(meta)?;
    if kept_time(&meta)?.is_some() {
        return Err(not_kept());
    }
    let wish = Wish {
        written,
        batch_size: batch_size(&meta)?,
        on_conflict: meta.on_conflict.as_deref(),
    };
    if migration::exists(id)? {
        return Err(Error::AlreadyRegistered { id: id.into() });
    }
    order::check_new(id, &meta.depends_on, caller)?;
    let (copy, steps) = recipe::copying::make(&wish, caller)?;
    let script = recipe::Script {
        plain: Vec::new(),
        steps,
    };
    let plan = planning::of_script("", script, caller)?;
    let mut stored = serde_json::to_value(&copy)?;
    stored[COPY] = written.to_json();
    let described = Described {
        id,
        up: "",
        down: None,
        phases: Some(stored),
        keep_old: None,
    };
    store(described, &meta, Some(&plan), caller)
}

/// The way back of a migration, as it was derived; `up` is the script that it takes back.
pub fn run_derived(
    id: &str,
    derived: &Derived,
    up: &str,
    meta: Meta,
    caller: &Caller,
) -> Result<()> {
    check_id(id)?;
    if migration::exists(id)? {
        return Err(Error::AlreadyRegistered { id: id.into() });
    }
    let plan = planning::now_or_later(id, &meta, || derived.plan(caller, &meta))?;
    let described = Described {
        id,
        up: &derived.sql,
        down: Some(up).filter(|up| !up.is_empty()),
        phases: None,
        keep_old: None,
    };
    store(described, &meta, plan.as_ref(), caller)
}

fn not_kept() -> Error {
    Error::Unsupported {
        problem: "rows that a person's own batches have written are not kept the other way round"
            .into(),
        detail: "meta.keep_old is given.".into(),
        hint: "Leave it out; rollback says how to take batches back before the end.".into(),
    }
}

fn batch_size(meta: &Meta) -> Result<i32> {
    let size = meta.batch_size.unwrap_or(BATCH_SIZE);
    if size == 0 || size > MAX_BATCH_SIZE {
        return Err(Error::InvalidArgument {
            problem: "the metadata is not valid".into(),
            detail: format!("meta.batch_size: {size} is not between 1 and {MAX_BATCH_SIZE}."),
            hint: "Give the number of rows of one transaction.".into(),
        });
    }
    Ok(size as i32)
}

/// What is registered, planned and checked.
struct Described<'a> {
    id: &'a str,
    up: &'a str,
    down: Option<&'a str>,
    phases: Option<serde_json::Value>,
    keep_old: Option<String>,
}

fn store(
    described: Described<'_>,
    meta: &Meta,
    plan: Option<&Plan>,
    caller: &Caller,
) -> Result<()> {
    let Described { id, up, down, .. } = described;
    let plan_checksum = plan.map_or(String::new(), |p| p.checksum.clone());
    let owner_name = relation::role_name(caller.role)?;
    let meta_json = serde_json::to_value(meta)?;
    let checksum = match &described.phases {
        None => checksum(up, down, &meta_json),
        // What was asked for, not what this database makes of it.
        Some(phases) => Canonical::new("transmute-phases-v1")
            .text(&phases.get(COPY).unwrap_or(phases).to_string())
            .text(&meta_json.to_string())
            .finish_hex(),
    };
    let soak = interval("meta.pre_finalization_soak", &soak_of(meta))?;
    let keep = interval(
        "meta.keep_artifacts",
        &meta
            .keep_artifacts
            .clone()
            .unwrap_or_else(guc::keep_artifacts),
    )?;
    interval("meta.pre_execution_soak", &pre_execution_soak(meta))?;
    let unused = meta.soak_until_unused.as_deref();
    let unused = unused
        .map(|text| interval("meta.soak_until_unused", text))
        .transpose()?;
    if let (true, Some(plan)) = (unused.is_some(), plan) {
        usage::check(&plan.steps)?;
    }
    let timeouts = invariants::check(&meta.invariants, up, caller)?;
    let required_approvals = meta
        .required_approvals
        .map_or_else(guc::required_approvals, |n| n as i32);
    migration::insert(New {
        id,
        up,
        down,
        phases: described.phases,
        meta: meta_json,
        checksum: &checksum,
        plan_checksum: &plan_checksum,
        owner_name: &owner_name,
        session: &caller.session,
        required_approvals,
        soak: &soak,
        soak_until_unused: unused.as_deref(),
        keep_artifacts: &keep,
        keep_old: described.keep_old.as_deref(),
    })?;
    driver::insert(id)?;
    if meta.is_direct() {
        sequence::append(id)?;
    }
    for (given, timeout) in meta.invariants.iter().zip(&timeouts) {
        invariant::insert(id, given, timeout)?;
    }
    if let Some(plan) = plan {
        planning::store(id, plan)?;
    }
    audit_event::append(Act {
        migration_id: Some(id),
        event: "registered",
        detail: Some(serde_json::json!({
            "checksum": checksum,
            "plan_checksum": plan_checksum,
            "required_approvals": required_approvals,
        })),
        current_user: Some(&owner_name),
        ..Act::default()
    })?;
    Ok(())
}

fn checksum(up: &str, down: Option<&str>, meta: &serde_json::Value) -> String {
    Canonical::new("transmute-migration-v1")
        .text(up)
        .optional(down)
        .text(&meta.to_string())
        .finish_hex()
}

/// The checksum of a registered migration with another script.
pub fn checksum_of(id: &str, up: &str) -> Result<String> {
    let meta = serde_json::to_value(&migration::get(id)?.meta)?;
    Ok(checksum(up, migration::way_back(id)?.as_deref(), &meta))
}

fn check_id(id: &str) -> Result<()> {
    let problem = if id.is_empty() {
        "the id is empty"
    } else if id.len() > MAX_ID_BYTES {
        "the id is too long"
    } else if id.chars().any(char::is_control) {
        "the id holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgument {
        problem: problem.into(),
        detail: format!(
            "An id has 1 to {MAX_ID_BYTES} bytes and no control characters; this one has {}.",
            id.len()
        ),
        hint: "Choose a short name, such as 'accounts-bigint'.".into(),
    })
}

/// The migration that takes it back has its id with something behind it.
fn check_room_for_down(id: &str) -> Result<()> {
    let most = MAX_ID_BYTES - down::SUFFIX.len();
    if id.len() <= most || id.ends_with(down::SUFFIX) {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        problem: "the id is too long".into(),
        detail: format!(
            "With down an id has at most {most} bytes, because \"{}\" is put behind it; this one has {}.",
            down::SUFFIX,
            id.len()
        ),
        hint: "Choose a short name, such as 'accounts-bigint'.".into(),
    })
}

pub(super) fn parse_meta(json: &serde_json::Value) -> Result<Meta> {
    let parsed = meta::parse(json).and_then(|meta| meta::check_routing(&meta).map(|()| meta));
    let meta = parsed.map_err(|e| Error::InvalidArgument {
        problem: "the metadata is not valid".into(),
        detail: format!("{}: {}.", e.path, e.message.trim_end_matches('.')),
        hint: e.hint,
    })?;
    for (path, text) in meta::intervals(&meta) {
        interval(&path, &text)?;
    }
    Ok(meta)
}

/// How long old rows are kept current after the swap.
fn kept_time(meta: &Meta) -> Result<Option<String>> {
    let Some(text) = &meta.keep_old else {
        return Ok(None);
    };
    let text = interval("meta.keep_old", text)?;
    let nothing: Option<bool> = spi::value(
        "SELECT $1::text::interval = interval '0'",
        &[text.as_str().into()],
    )?;
    if nothing == Some(true) {
        return Err(Error::InvalidArgument {
            problem: "the metadata is not valid".into(),
            detail: format!("meta.keep_old: is {text}, no time at all."),
            hint: "Give an interval such as '2 days', or leave it out.".into(),
        });
    }
    Ok(Some(text))
}

fn soak_of(meta: &Meta) -> String {
    meta.pre_finalization_soak
        .clone()
        .unwrap_or_else(guc::pre_finalization_soak)
}

/// The soak before the first step, as interval text.
pub fn pre_execution_soak(meta: &Meta) -> String {
    meta.pre_execution_soak
        .clone()
        .unwrap_or_else(guc::pre_execution_soak)
}

/// Checks interval text by the server's own input function; negative ones are refused.
pub fn interval(what: &str, text: &str) -> Result<String> {
    let found = xact::subtransaction(End::Keep, || {
        spi::first(
            "SELECT i < interval '0' OR NOT isfinite(i), i > interval '100 years' FROM CAST($1::text AS interval) AS i",
            &[text.into()],
            |row| Ok((row.need::<bool>(1)?, row.need::<bool>(2)?)),
        )
    })
    .map_err(|error| {
        error.or_means(|error| Error::InvalidArgument {
            problem: "an interval cannot be read".into(),
            detail: format!("{what} is \"{text}\": {error}."),
            hint: "Give an interval such as '2 hours'.".into(),
        })
    })?;
    let problem = match found {
        Some((true, _)) => "an interval is negative or infinite",
        // A deadline has to be a time that the server knows.
        Some((_, true)) => "an interval is longer than 100 years",
        _ => return Ok(text.to_string()),
    };
    Err(Error::InvalidArgument {
        problem: problem.into(),
        detail: format!("{what} is {text}."),
        hint: "Give an interval such as '2 hours'.".into(),
    })
}
