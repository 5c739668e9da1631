//! apply(dry_run => true): the statements of a plan run one after the other in a subtransaction that the caller undoes.

use super::call::Applied;
use super::work;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::waitpoint;
use crate::pg::xact::{self, End};
use crate::store::migration::Migration;
use crate::store::step::{self, Kind};
use std::time::{Duration, Instant};

/// Locks are held until the rehearsal ends, so it ends soon: ten times transmute.lock_timeout.
const HOLD_FACTOR: u32 = 10;

/// What each step did, or why it was left out. Nothing stays.
pub fn run(migration: &Migration) -> Result<Vec<Applied>> {
    let mut report = Vec::new();
    let limit = Duration::from_millis(guc::lock_timeout_ms() as u64) * HOLD_FACTOR;
    let tried = xact::subtransaction(End::Keep, || {
        let began = Instant::now();
        let mut stopped: Option<&str> = None;
        for step in step::all(&migration.id)? {
            let row = |action, detail: String| Applied {
                id: migration.id.clone(),
                state: migration.state.to_string(),
                action,
                detail: Some(format!(
                    "step {}, {}: {detail}",
                    step.step,
                    step.kind.name()
                )),
            };
            if let Some(why) = &stopped {
                report.push(row("not run", why.to_string()));
                continue;
            }
            if !can_rehearse(step.kind) {
                let why = "moves rows or cannot run in a transaction; the steps behind it need it";
                report.push(row("not run", why.into()));
                stopped = Some("needs a step before it that was not run");
                continue;
            }
            let before = Instant::now();
            match xact::subtransaction(End::Keep, || work::run(migration, &step)) {
                Ok(_) => {
                    let ms = before.elapsed().as_millis();
                    report.push(row("would run", format!("{} ({ms} ms)", step.sql)));
                }
                Err(error) => {
                    report.push(row("would fail", fault(&error)));
                    stopped = Some("a step before it fails");
                }
            }
            if began.elapsed() > limit && stopped.is_none() {
                stopped = Some("the rehearsal has held its locks long enough");
            }
        }
        waitpoint::reach("rehearsal_before_undo")
    });
    tried.map(|()| report)
}

/// What only writes the catalog, or makes something nobody knows yet.
pub(super) fn can_rehearse(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Execute
            | Kind::Change
            | Kind::Direct
            | Kind::Back
            | Kind::RewriteExpand
            | Kind::RewriteInto
    )
}

fn fault(error: &Error) -> String {
    let detail = error.detail().map(|d| format!(" {d}")).unwrap_or_default();
    format!("{error} ({}).{detail}", error.sqlstate_text())
}
