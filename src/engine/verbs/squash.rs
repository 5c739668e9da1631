//! Several pending migrations become one.

use crate::engine::call;
use crate::engine::register::{self, Request};
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::pg::ulid;
use crate::store::migration::{self, Migration};
use crate::store::sequence;

/// Registers one migration that does what these do, in their order; they are kept as its parts. Its id.
pub fn run(name: &str, ids: &[String], caller: &Caller) -> Result<String> {
    if name.trim().is_empty() {
        return Err(wrong("the name is empty".into(), "name is empty.".into()));
    }
    if ids.len() < 2 {
        return Err(wrong(
            "there is nothing to squash".into(),
            format!(
                "ids has {} members, and one migration is made of two or more.",
                ids.len()
            ),
        ));
    }
    if let Some(twice) = ids
        .iter()
        .enumerate()
        .find(|(i, id)| ids[..*i].contains(id))
    {
        return Err(wrong(
            "a migration is named twice".into(),
            format!("ids has \"{}\" more than once.", twice.1),
        ));
    }
    let mut parts = Vec::new();
    for id in ids {
        let found = call::owned(id, caller)?;
        require_pending(&found)?;
        parts.push(found);
    }
    let ordered = sequence::in_order(ids)?;
    parts.sort_by_key(|p| ordered.iter().position(|id| *id == p.id));
    if let Some(between) = sequence::between(ids)? {
        return Err(Error::Prerequisite {
            problem: "another migration runs between them".into(),
            detail: format!(
                "Migration \"{between}\" is pending, after the first of ids and before the last."
            ),
            hint: "Squash it with them, or apply what is before it first.".into(),
        });
    }
    let meta = common_meta(name, &parts)?;
    let (up, down) = scripts(&parts)?;
    let id = ulid::new();
    let request = Request {
        id: &id,
        up: &up,
        down: down.as_deref(),
        meta: &serde_json::to_value(meta)?,
    };
    let first = parts[0].clone();
    register::run(
        request,
        &Caller {
            role: caller.role,
            session: first.session.clone(),
        },
    )?;
    if first.has_place {
        sequence::put(&id, &first.id)?;
    }
    for part in &parts {
        migration::set_squashed(&part.id, &id)?;
        call::record(
            part,
            caller,
            "squashed",
            serde_json::json!({ "into": id, "name": name }),
        )?;
    }
    Ok(id)
}

fn wrong(problem: String, detail: String) -> Error {
    Error::InvalidArgument {
        problem,
        detail,
        hint:
            "transmute.squash(name, ARRAY['first', 'second', …]) takes ids of pending migrations."
                .into(),
    }
}

fn require_pending(found: &Migration) -> Result<()> {
    call::require_whole(found)?;
    if found.state != State::Uninitialized || found.queued || found.down_of.is_some() {
        return Err(call::wrong_state(
            found,
            "squash",
            "Only pending migrations are squashed.",
        ));
    }
    if migration::down_and_phases(&found.id)?.1 {
        return Err(Error::Unsupported {
            problem: "hand-written phases and copies are not squashed".into(),
            detail: format!("Migration \"{}\" is one.", found.id),
            hint: "Leave it out of ids.".into(),
        });
    }
    Ok(())
}

/// What all of them say of themselves; what only one of them says would be lost, or mean the others too.
fn common_meta(name: &str, parts: &[Migration]) -> Result<Meta> {
    let bare = |meta: &Meta| Meta {
        name: None,
        description: None,
        depends_on: Vec::new(),
        ..meta.clone()
    };
    let common = bare(&parts[0].meta);
    if let Some(other) = parts.iter().find(|p| bare(&p.meta) != common) {
        let keys = differing(
            &serde_json::to_value(&common)?,
            &serde_json::to_value(bare(&other.meta))?,
        );
        return Err(Error::Prerequisite {
            problem: "the migrations do not have the same metadata".into(),
            detail: format!(
                "\"{}\" and \"{}\" differ in {}; only name, description and depends_on may.",
                parts[0].id,
                other.id,
                keys.join(", ")
            ),
            hint: "Squash those that run in the same way, under the same rules.".into(),
        });
    }
    let same_session = |p: &Migration| {
        p.session.search_path == parts[0].session.search_path
            && p.session.settings == parts[0].session.settings
            && p.owner_name == parts[0].owner_name
    };
    if let Some(other) = parts.iter().find(|p| !same_session(p)) {
        return Err(Error::Prerequisite {
            problem: "the migrations do not mean names and values in the same way".into(),
            detail: format!("\"{}\" and \"{}\" were registered by different roles or with different settings.", parts[0].id, other.id),
            hint: "SELECT id, owner_name FROM transmute.status shows the owners; search_path and settings are those of register.".into(),
        });
    }
    let mut depends_on: Vec<String> = Vec::new();
    for id in parts.iter().flat_map(|p| &p.meta.depends_on) {
        if !depends_on.contains(id) && !parts.iter().any(|p| p.id == *id) {
            depends_on.push(id.clone());
        }
    }
    let what: Vec<&str> = parts.iter().map(|p| p.id.as_str()).collect();
    Ok(Meta {
        name: Some(name.to_string()),
        description: Some(format!("squashed from {}", what.join(", "))),
        depends_on,
        ..common
    })
}

/// Keys that only one of two objects has, or both with other values.
fn differing(one: &serde_json::Value, other: &serde_json::Value) -> Vec<String> {
    let keys = |v: &serde_json::Value| -> Vec<String> {
        v.as_object()
            .map(|o| o.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut all = keys(one);
    all.extend(keys(other));
    all.sort();
    all.dedup();
    all.retain(|key| one.get(key) != other.get(key));
    all.into_iter().map(|key| format!("meta.{key}")).collect()
}

/// The scripts one behind the other, and the ways back the other way round where all have one.
fn scripts(parts: &[Migration]) -> Result<(String, Option<String>)> {
    // Behind a comment, or a semicolon, at the end of a text.
    const SEAM: &str = "\n;\n";
    let mut up = Vec::new();
    let mut down = Vec::new();
    for part in parts {
        up.push(migration::script(&part.id)?);
        down.extend(migration::way_back(&part.id)?);
    }
    if !down.is_empty() && down.len() < parts.len() {
        return Err(Error::Prerequisite {
            problem: "some of the migrations have a way back, and some have none".into(),
            detail: format!(
                "{} of {} were registered with down.",
                down.len(),
                parts.len()
            ),
            hint: "Squash those with and those without, each among themselves.".into(),
        });
    }
    down.reverse();
    let down = (!down.is_empty()).then(|| down.join(SEAM));
    Ok((up.join(SEAM), down))
}
