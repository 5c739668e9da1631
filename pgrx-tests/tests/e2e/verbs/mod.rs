//! What a team does that keeps numbered SQL files: scripts as written, one after the other, back and forth.

mod as_written;
mod bytes;
mod calls;
mod client;
mod enum_back;
mod files;
mod hands;
mod history;
mod keys_back;
mod links_back;
mod load;
mod log;
mod one_by_one;
mod production;
mod readme;
mod seeds;
mod versions_back;
mod way_back;

use transmute_tests::wait::PATIENCE;
use transmute_tests::Session;

/// Registers a script that runs as it is written.
pub fn direct(session: &mut Session, id: &str, up: &str) {
    session.query(
        "SELECT transmute.register($1, $2, NULL, '{\"mode\": \"direct\"}')",
        &[&id, &up],
    );
}

/// Loads a text.
pub fn load(session: &mut Session, text: &str) {
    session.query("SELECT * FROM transmute.load($1)", &[&text]);
    session.notices();
}

/// Waits until nothing is left to do.
pub fn settle(session: &mut Session) {
    session.wait_for(
        "SELECT count(*) FROM transmute.status WHERE queued",
        "0",
        PATIENCE,
    );
}

pub fn statuses(session: &mut Session) -> Vec<String> {
    session.lines("SELECT id, status FROM transmute.list")
}
