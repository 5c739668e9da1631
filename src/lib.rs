// SPDX-License-Identifier: Apache-2.0
//! transmute: online schema changes for PostgreSQL, from inside the server. `src/README.md` is the map.

mod api;
mod backfill;
mod catalog;
mod dualwrite;
mod engine;
mod error;
mod guc;
mod install;
pub mod log;
pub mod model;
mod pg;
mod recipe;
mod recover;
mod rewrite;
mod store;
mod worker;

pgrx::pg_module_magic!();

/// Called by the server when the library is loaded.
#[pgrx::pg_guard]
#[allow(non_snake_case, reason = "the server looks the symbol up by name")]
pub extern "C-unwind" fn _PG_init() {
    if pg::process::binary_upgrade() {
        return;
    }
    guc::init();
    pg::old_names::install();
    dualwrite::init();
    if pg::process::preloading() {
        worker::init();
        rewrite::outdated::init();
    }
}
