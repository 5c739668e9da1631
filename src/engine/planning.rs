//! The plan of a migration: made when it is registered, and anew before it starts where what it depends on has changed the
//! catalog since.

use super::admission::{self, Options};
use super::execute::owner_role;
use super::{derive, objects, usage};
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::pg::identity::Caller;
use crate::pg::xact::{self, End};
use crate::recipe::{self, Planned, Script};
use crate::store::audit_event::{self, Act};
use crate::store::dependency;
use crate::store::migration::{self, Migration};
use crate::store::object::{self, Object};
use crate::store::{sequence, step};

/// Errors that say only that something is not there yet, still there, or being worked on: what it depends on changes that.
const PASSING: [&str; 12] = [
    "42P01", "42703", "42704", "42883", "42P06", "3F000", "42P07", "42701", "42710", "55006",
    "42809", "2BP01",
];

/// A planned script.
pub struct Plan {
    pub steps: Vec<Planned>,
    objects: Vec<Object>,
    /// SHA-256 over the steps.
    pub checksum: String,
}

/// Plans a script for `caller`, with its way back; nothing is written.
pub fn make(script: &str, down: Option<&str>, caller: &Caller, meta: &Meta) -> Result<Plan> {
    of_script(
        script,
        recipe::with_way_back(script, down, caller, meta)?,
        caller,
    )
}

/// The plan of a script whose recipes were chosen already.
pub fn of_script(script: &str, made: Script, caller: &Caller) -> Result<Plan> {
    let objects = objects::of(script, &made, caller)?;
    Ok(Plan {
        checksum: recipe::plan_of(&made.steps).checksum(),
        steps: made.steps,
        objects,
    })
}

/// As `make`; `None`, with a warning, where it depends on something that has not finished and may change what is wrong.
pub fn make_or_wait(
    id: &str,
    script: &str,
    down: Option<&str>,
    caller: &Caller,
    meta: &Meta,
) -> Result<Option<Plan>> {
    now_or_later(id, meta, || make(script, down, caller, meta))
}

/// The same for a plan that is made in another way.
pub fn now_or_later(
    id: &str,
    meta: &Meta,
    make: impl FnOnce() -> Result<Plan>,
) -> Result<Option<Plan>> {
    if !dependency::has_unfinished(&meta.depends_on)? {
        return make().map(Some);
    }
    match xact::subtransaction(End::Keep, make) {
        Ok(plan) => Ok(Some(plan)),
        Err(error) if PASSING.contains(&error.sqlstate_text().as_str()) => {
            crate::log::warning(&format!(
                "migration \"{id}\" is planned when what it depends on has finished: {error}"
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes down a plan in the place of the one before.
pub fn store(id: &str, plan: &Plan) -> Result<()> {
    step::delete_all(id)?;
    object::delete_all(id)?;
    for object in &plan.objects {
        object::insert(id, object)?;
    }
    for planned in &plan.steps {
        step::insert(id, planned.statement, &planned.step)?;
    }
    migration::set_plan(id, &plan.checksum)
}

/// Whether what takes a migration back is derived.
fn is_derived(root: &str) -> Result<bool> {
    Ok(migration::way_back(root)?.is_none_or(|down| down.trim().is_empty()))
}

/// Before the start: plans anew what was planned before its dependencies had finished; whether it did. The gates are asked again
/// where that gives another plan, and approvals of the plan before do not count for it.
pub fn renew(migration: &Migration) -> Result<bool> {
    let stale =
        dependency::plan_is_stale(&migration.id)? || sequence::plan_is_stale(&migration.id)?;
    if !stale {
        return Ok(false);
    }
    let owner = Caller {
        role: owner_role(migration)?,
        session: migration.session.clone(),
    };
    let plan = match &migration.down_of {
        Some(root) if is_derived(root)? => {
            let derived = derive::of(&sequence::run_in_force(root)?, &migration.owner_name)?;
            if derived.planned.is_none() {
                return Ok(false); // what was kept is what it is
            }
            derived.plan(&owner, &migration.meta)?
        }
        _ => {
            let script = migration::script(&migration.id)?;
            let down = migration::way_back(&migration.id)?;
            make(&script, down.as_deref(), &owner, &migration.meta)?
        }
    };
    if migration.meta.soak_until_unused.is_some() {
        usage::check(&plan.steps)?;
    }
    store(&migration.id, &plan)?;
    if plan.checksum == migration.plan_checksum {
        return Ok(true);
    }
    let renewed = migration::get(&migration.id)?;
    let database = crate::pg::spi::value::<String>("SELECT current_database()::text", &[])?;
    let options = Options {
        max_risk: migration.max_risk,
        // It was asked for when the migration was applied.
        confirm: database.as_deref(),
        dry_run: false,
        allow_out_of_order: true,
    };
    admission::require(&renewed, &options)?;
    audit_event::append(Act {
        migration_id: Some(&migration.id),
        event: "planned anew",
        detail: Some(serde_json::json!({
            "plan_checksum": plan.checksum,
            "before": migration.plan_checksum,
        })),
        ..Act::default()
    })?;
    Ok(true)
}

/// For calls that mean the plan: there is one.
pub fn require_plan(migration: &Migration) -> Result<()> {
    if !migration.plan_checksum.is_empty() {
        return Ok(());
    }
    Err(Error::Prerequisite {
        problem: "the migration is not planned yet".into(),
        detail: format!(
            "Migration \"{}\" builds on what it depends on, and is planned when that has finished.",
            migration.id
        ),
        hint: "SELECT * FROM transmute.dependencies(id) shows what it depends on.".into(),
    })
}
