//! Seeds: scripts that fill tables, run again only when their text has changed.

use crate::catalog::relation;
use crate::engine::{admission, direct};
use crate::error::{Error, Result};
use crate::model::digest;
use crate::model::meta::Meta;
use crate::pg::identity::{self, Caller};
use crate::recipe;
use crate::store::audit_event::{self, Act};
use crate::store::seed::{self, Seed};

const MAX_NAME_BYTES: usize = 255;

/// Keeps a seed under a name, in the place of the text before; whether that is another text.
pub fn load(name: &str, source: &str, caller: &Caller) -> Result<bool> {
    let wrong =
        name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control);
    if wrong {
        return Err(Error::InvalidArgument {
            problem: "the name of the seed is not one".into(),
            detail: format!("A name has 1 to {MAX_NAME_BYTES} bytes and no control characters; this one has {}.", name.len()),
            hint: "Choose a short name, such as 'countries'.".into(),
        });
    }
    let meta = Meta {
        mode: Some("direct".into()),
        ..Meta::default()
    };
    recipe::make(source, caller, &meta).map_err(|error| of_seed(name, error))?;
    let checksum = digest::sha256_hex(source.as_bytes());
    if let Some(known) = seed::find(name)? {
        require_owner(&known, caller)?;
        if known.checksum == checksum {
            return Ok(false);
        }
    }
    let owner = relation::role_name(caller.role)?;
    seed::put(name, source, &checksum, &owner, &caller.session)?;
    record(name, caller, "seed loaded", &checksum)?;
    Ok(true)
}

/// What a script cannot be, said of a seed, which has no metadata.
fn of_seed(name: &str, error: Error) -> Error {
    let error = error.within(&format!("Seed \"{name}\""));
    match error.hint() {
        Some(hint) if hint.contains("meta.transaction") => error.with_hint(
            "A seed is a part of its caller's transaction: leave it out, or make a migration of it.",
        ),
        Some(hint) if hint.contains("transmute.register") => {
            error.with_hint("Give the statements that fill the tables.")
        }
        _ => error,
    }
}

/// Runs one seed, or all, unless its text ran already: name, and what was done. All in this transaction.
pub fn run(
    name: Option<&str>,
    confirm: Option<&str>,
    caller: &Caller,
) -> Result<Vec<(String, &'static str)>> {
    admission::confirm("seed", confirm)?;
    let seeds = match name {
        None => seed::all()?,
        Some(name) => vec![seed::find(name)?.ok_or_else(|| Error::UndefinedObject {
            problem: "seed does not exist".into(),
            detail: format!("No seed is named \"{name}\"."),
            hint:
                "transmute.seed_load(name, source) loads it; the view transmute.seeds lists them."
                    .into(),
        })?],
    };
    for one in &seeds {
        require_owner(one, caller)?;
    }
    let mut done = Vec::new();
    for one in seeds {
        let Some(one) = seed::lock(&one.name)? else {
            continue;
        };
        if one.ran_checksum.as_deref() == Some(one.checksum.as_str()) {
            done.push((one.name, "unchanged"));
            continue;
        }
        direct::run_script(role(&one)?, &one.session, &one.script)
            .map_err(|error| error.within(&format!("Seed \"{}\"", one.name)))?;
        seed::set_ran(&one.name)?;
        record(&one.name, caller, "seeded", &one.checksum)?;
        done.push((one.name, "run"));
    }
    Ok(done)
}

fn role(seed: &Seed) -> Result<crate::pg::Oid> {
    relation::role_oid(&seed.owner_name)?.ok_or_else(|| Error::UndefinedObject {
        problem: "the role that the seed runs as does not exist any more".into(),
        detail: format!(
            "Seed \"{}\" belongs to \"{}\", which was dropped.",
            seed.name, seed.owner_name
        ),
        hint: "Load it again as another role.".into(),
    })
}

fn require_owner(seed: &Seed, caller: &Caller) -> Result<()> {
    if identity::has_privs_of(caller.role, role(seed)?) {
        return Ok(());
    }
    Err(Error::Privilege {
        problem: "must be a member of the seed's owner".into(),
        detail: format!("Seed \"{}\" belongs to \"{}\".", seed.name, seed.owner_name),
        hint: "SET ROLE to it, or ask its owner.".into(),
    })
}

fn record(name: &str, caller: &Caller, event: &str, checksum: &str) -> Result<()> {
    let user = relation::role_name(caller.role)?;
    audit_event::append(Act {
        event,
        detail: Some(serde_json::json!({ "seed": name, "checksum": checksum })),
        current_user: Some(&user),
        ..Act::default()
    })?;
    Ok(())
}
