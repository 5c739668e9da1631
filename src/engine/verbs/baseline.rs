//! A database that was there before its migrations: what they would do is in it already.

use crate::engine::call::{self, Applied};
use crate::engine::{admission, advance};
use crate::error::Result;
use crate::model::state::{Event, State};
use crate::pg::identity::Caller;
use crate::store::{migration, sequence, step};

/// The way of one that is declared to be done.
const WAY: [Event; 5] = [
    Event::Apply,
    Event::Expanded,
    Event::Ready,
    Event::Finalize,
    Event::Finish,
];

/// Declares a pending migration, and those before it that run one after the other, to be in the database already.
pub fn run(id: &str, reason: &str, confirm: Option<&str>, caller: &Caller) -> Result<Vec<Applied>> {
    call::require_reason(reason)?;
    admission::confirm("baseline", confirm)?;
    let mut ids = sequence::pending_before(id)?;
    ids.push(id.to_string());
    let mut done = Vec::new();
    for id in &ids {
        let found = call::owned(id, caller)?;
        if found.state != State::Uninitialized || found.queued {
            return Err(call::wrong_state(
                &found,
                "baseline",
                "Only what nobody has applied can be declared to be there already.",
            ));
        }
        call::require_whole(&found)?;
        call::record(
            &found,
            caller,
            "baseline",
            serde_json::json!({ "reason": reason }),
        )?;
        migration::set_baseline(id)?;
        step::set_all(id, "done")?;
        for event in WAY {
            let now = migration::get(id)?;
            advance::change_state(&now, event, "baseline", None)?;
        }
        done.push(Applied {
            id: id.clone(),
            state: State::Finished.to_string(),
            action: "baseline",
            detail: None,
        });
    }
    Ok(done)
}
