//! Releases: which one the database is at, and whether it may be called another one.

use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::release::{self, Answer, Member};
use crate::model::version::{self, Version};
use crate::pg::identity::Caller;
use crate::store::audit_event::{self, Act};
use crate::store::{checkpoint, dependency};
use std::cmp::Ordering;

/// A version that a caller gives.
fn given(text: &str) -> Result<Version> {
    version::parse(text).map_err(|error| Error::InvalidArgument {
        problem: "the version is not a semantic version".into(),
        detail: format!("version is \"{text}\": {}.", error.why),
        hint: version::HINT.into(),
    })
}

/// One of our own tables, checked when it was written.
fn stored(text: &str) -> Result<Version> {
    version::parse(text).map_err(|error| Error::Bug(format!("version \"{text}\": {}", error.why)))
}

/// The release that the database is at; `None`: none was recorded.
pub fn current() -> Result<Option<Version>> {
    checkpoint::current()?.map(|text| stored(&text)).transpose()
}

fn members(in_checkpoint: &[String]) -> Result<Vec<Member>> {
    dependency::releases()?
        .into_iter()
        .map(|m| {
            Ok(Member {
                target: m.target.map(|t| stored(&t)).transpose()?,
                in_checkpoint: in_checkpoint.contains(&m.id),
                id: m.id,
                state: m.state,
                queued: m.queued,
                taken_back: m.taken_back,
                has_down: m.has_down,
                is_down: m.is_down,
            })
        })
        .collect()
}

pub fn can_upgrade_to(version: &str) -> Result<Answer> {
    let to = given(version)?;
    Ok(release::can_upgrade(
        current()?.as_ref(),
        &to,
        &members(&[])?,
    ))
}

pub fn can_downgrade_to(version: &str) -> Result<Answer> {
    let to = given(version)?;
    let mut recorded = None;
    for (text, id) in checkpoint::all()? {
        if version::order(&stored(&text)?, &to) == Ordering::Equal {
            recorded = Some(id);
            break;
        }
    }
    let finished = match recorded {
        Some(id) => checkpoint::finished(id)?,
        None => Vec::new(),
    };
    Ok(release::can_downgrade(
        current()?.as_ref(),
        &to,
        recorded.is_some(),
        &members(&finished)?,
    ))
}

/// Records that the database is at a release now, if it may be called so.
pub fn create_checkpoint(version: &str, description: &str, caller: &Caller) -> Result<()> {
    let to = given(version)?;
    if description.trim().is_empty() {
        return Err(Error::InvalidArgument {
            problem: "a description is needed".into(),
            detail: "description is empty.".into(),
            hint: "Say in a few words what the release brings.".into(),
        });
    }
    checkpoint::lock()?;
    let before = current()?;
    let below = before
        .as_ref()
        .is_some_and(|at| version::order(&to, at) == Ordering::Less);
    let answer = match below {
        true => can_downgrade_to(version)?,
        false => can_upgrade_to(version)?,
    };
    if !answer.allowed {
        return Err(Error::Prerequisite {
            problem: "the database cannot be called that release".into(),
            detail: format!("{to}: {}.", answer.reason),
            hint: "See transmute.can_upgrade_to(version), transmute.can_downgrade_to(version)."
                .into(),
        });
    }
    checkpoint::insert(&to.to_string(), description)?;
    let user = relation::role_name(caller.role)?;
    audit_event::append(Act {
        event: "checkpoint",
        detail: Some(serde_json::json!({
            "version": to.to_string(),
            "before": before.map(|v| v.to_string()),
            "description": description,
        })),
        current_user: Some(&user),
        ..Act::default()
    })?;
    Ok(())
}

/// Why a migration does not fit the release the database is at; `None`: it does.
pub fn misfit(meta: &Meta) -> Result<Option<String>> {
    if meta.source_version.is_none() && meta.target_version.is_none() {
        return Ok(None);
    }
    let read = |text: &Option<String>| text.as_deref().map(stored).transpose();
    let (source, target) = (read(&meta.source_version)?, read(&meta.target_version)?);
    Ok(release::misfit(
        current()?.as_ref(),
        source.as_ref(),
        target.as_ref(),
    ))
}
