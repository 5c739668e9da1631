//! Runs one statement that no transaction may hold, as the table's owner, and ends.

use super::conductor::{complain, transaction};
use crate::engine::outside::{self, Taken};
use crate::error::Result;
use crate::pg::{activity, identity, portal, process, slots, waitpoint, Datum, Oid};
use crate::store::node;
use pgrx::prelude::*;

/// A cancel that is meant for the statement may come while its end is reported.
const REPORT_TRIES: usize = 100;

/// Entry point, by name from the server: the argument is the database's oid, the extra data the statement's number.
#[allow(unsafe_code, reason = "the server looks the symbol up by name")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn transmute_runner_main(arg: Datum) {
    process::install_signal_handlers();
    process::connect(Some(Oid::from(arg.value() as u32)));
    let Ok(id) = pgrx::bgworkers::BackgroundWorker::get_extra().parse::<i64>() else {
        process::exit(0);
    };
    activity::running("transmute: taking a statement");
    match transaction(|| outside::take(id)) {
        Ok(Some(taken)) => serve(&taken),
        Ok(None) => {}
        Err(error) => complain("runner", &error),
    }
    process::exit(0);
}

fn serve(taken: &Taken) {
    let _ = transaction(|| {
        node::announce("runner")?;
        node::works_on(Some(&taken.migration_id))
    });
    activity::running(&taken.sql);
    let result = stop_at("outside_before_statement")
        .and_then(|()| {
            identity::become_role(
                taken.role,
                taken.is_superuser,
                &taken.session,
                &taken.settings,
            )
        })
        .and_then(|()| portal::run(&taken.sql))
        .and_then(|()| stop_at("outside_after_statement"));
    for _ in 0..REPORT_TRIES {
        match transaction(|| {
            node::leave()?;
            outside::report(taken, &result)
        }) {
            Ok(()) => break,
            Err(error) => complain("runner", &error),
        }
    }
    activity::idle();
    if slots::preloaded() {
        let (conductor, _) = slots::request(activity::database().to_u32());
        process::wake(conductor);
    }
}

/// Stops here while a test holds the point.
fn stop_at(point: &str) -> Result<()> {
    if cfg!(feature = "waitpoints") {
        transaction(|| waitpoint::reach(point))?;
    }
    Ok(())
}
