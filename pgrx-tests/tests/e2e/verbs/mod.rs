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
use transmute_tests::{Database, Session};

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

/// Nothing is left to do, and nothing has failed.
#[track_caller]
fn settle_well(session: &mut Session, what: &str) {
    settle(session);
    assert_eq!(
        session.lines("SELECT id, last_error FROM transmute.status WHERE last_error IS NOT NULL"),
        [""; 0],
        "{what}"
    );
}

/// What has been applied goes back, forth and back again: the schema each time as pg_dump wrote it `before` and `after`.
#[track_caller]
fn back_and_forth(
    database: &Database<'_>,
    session: &mut Session,
    id: &str,
    before: &str,
    after: &str,
) {
    for (call, wanted) in [("down", before), ("apply", after), ("down", before)] {
        let argument = match call {
            "down" => "reason => 'too early'",
            _ => "allow_out_of_order => true",
        };
        session.exec(&format!("SELECT transmute.{call}('{id}', {argument})"));
        let what = format!("{call} of {id}");
        settle_well(session, &what);
        assert_eq!(history::dump(database), wanted, "{what}");
    }
}

pub fn statuses(session: &mut Session) -> Vec<String> {
    session.lines("SELECT id, status FROM transmute.list")
}
