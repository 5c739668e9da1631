//! Whether a migration may be applied: the gates, with what the settings and the call say.

use super::release;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::admission::{self, Limits, Request, UnknownWord};
use crate::model::plan::Plan;
use crate::pg::spi;
use crate::store::migration::{self, Migration};
use crate::store::{preflight, step};

/// What a caller of apply says besides the id.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Only ever lowers the limit of the setting.
    pub max_risk: Option<i32>,
    /// The name of the database, where it has to be confirmed.
    pub confirm: Option<&'a str>,
    pub dry_run: bool,
    /// What comes before it may be left out, or applied later.
    pub allow_out_of_order: bool,
}

/// On a production server every call that changes something names the database.
pub fn confirm(call: &'static str, given: Option<&str>) -> Result<()> {
    let database: String = spi::value("SELECT current_database()::text", &[])?.unwrap_or_default();
    let detail = match given {
        None if !guc::is_production() => return Ok(()),
        Some(given) if given == database => return Ok(()),
        None => "transmute.environment is a production one, and confirm is not given.".to_string(),
        Some(given) => format!("confirm is \"{given}\", this database is \"{database}\"."),
    };
    Err(Error::Unconfirmed { call, detail })
}

impl Options<'_> {
    /// Refuses what no call can mean.
    pub fn check(&self) -> Result<()> {
        match self.max_risk {
            Some(n) if !(0..=100).contains(&n) => Err(Error::InvalidArgument {
                problem: "max_risk must be between 0 and 100".into(),
                detail: format!("max_risk is {n}."),
                hint: "0 lets only safe steps pass, 100 everything that transmute.max_risk does."
                    .into(),
            }),
            _ => Ok(()),
        }
    }
}

/// An error that names the first gate which refuses; nothing is written before.
pub fn require(migration: &Migration, options: &Options<'_>) -> Result<()> {
    if let Some(why) = release::misfit(&migration.meta)? {
        return Err(Error::Refused {
            id: migration.id.clone(),
            code: "VERSION",
            detail: format!("It waits for {why}."),
            hint: "SELECT transmute.create_checkpoint(version, description) records at which release the database is."
                .into(),
        });
    }
    let steps = step::plan(&migration.id)?;
    let request = Request {
        plan: Plan {
            steps: steps.into_iter().map(|(_, step)| step).collect(),
        },
        preflight: preflight::last(&migration.id, &migration.plan_checksum)?,
        additive_before: match guc::enforce_additive_first() {
            true => migration::additive_before(&migration.id)?,
            false => Vec::new(),
        },
        database: spi::value("SELECT current_database()::text", &[])?.unwrap_or_default(),
        confirm: options.confirm.map(str::to_string),
    };
    match admission::refusal(&request, &limits(options)?) {
        None => Ok(()),
        Some(refusal) => Err(Error::Refused {
            id: migration.id.clone(),
            code: refusal.code,
            detail: refusal.detail,
            hint: refusal.hint,
        }),
    }
}

fn limits(options: &Options<'_>) -> Result<Limits> {
    let unknown = |setting: &str, UnknownWord(word): UnknownWord| Error::InvalidArgument {
        problem: format!("{setting} names something that is not known"),
        detail: format!("There is no \"{word}\"."),
        hint: "docs/risk.md lists the operations and the reasons.".into(),
    };
    let limit = guc::max_risk();
    Ok(Limits {
        risk_budget: guc::risk_budget(),
        max_risk: Some(options.max_risk.map_or(limit, |n| n.min(limit))),
        blocked_kinds: admission::list(&guc::blocked_kinds(), false)
            .map_err(|e| unknown("transmute.blocked_kinds", e))?,
        blocked_reasons: admission::list(&guc::blocked_reasons(), true)
            .map_err(|e| unknown("transmute.blocked_reasons", e))?,
        additive_first: guc::enforce_additive_first(),
        require_preflight: guc::require_preflight(),
        confirmation: guc::is_production(),
    })
}
