//! A migration that was taken back is applied once more: by a run of its own, so that the trail has both.

use crate::engine::document;
use crate::engine::execute::owner_role;
use crate::error::{Error, Result};
use crate::model::state::State;
use crate::pg::identity::Caller;
use crate::store::migration::{self, Migration};
use crate::store::sequence;

/// Registers the run that makes a migration so again; its id. One that was not through is taken up again.
pub fn register(root: &Migration) -> Result<String> {
    let id = &root.id;
    let down = sequence::last_down(id)?
        .ok_or_else(|| Error::Bug(format!("migration \"{id}\" was taken back by nothing")))?;
    let run = fresh(id, "up", 2, &down)?;
    if migration::exists(&run)? {
        return Ok(run);
    }
    let owner = Caller {
        role: owner_role(root)?,
        session: root.session.clone(),
    };
    let meta = serde_json::to_value(&root.meta)?;
    document::register_written(&run, &document::written(id)?, &meta, &owner)?;
    migration::set_down_of(&run, &down)?;
    sequence::put(&run, id)?;
    Ok(run)
}

/// The first id of the form `root:wordN` that is free, or belongs to a run of `of` that is not through. `first` is the
/// number that is not written where it is 1.
pub fn fresh(root: &str, word: &str, first: u32, of: &str) -> Result<String> {
    for n in first.. {
        let number = if n == 1 { String::new() } else { n.to_string() };
        let id = format!("{root}:{word}{number}");
        if !migration::exists(&id)? {
            return Ok(id);
        }
        let found = migration::get(&id)?;
        if found.down_of.is_none() {
            return Err(Error::AlreadyRegistered { id });
        }
        if found.state != State::Finished && found.down_of.as_deref() == Some(of) {
            return Ok(id);
        }
    }
    Err(Error::Bug(format!(
        "no name is free for a run of \"{root}\""
    )))
}
