//! New columns that are kept equal to the old ones, by both mechanisms: applications of both shapes write all the time, no
//! statement fails, and nothing differs.

pub mod clients;
mod direction;
mod expressions;
mod hands;
mod planning;
mod set_aside;

use clients::{create_table, Clients, Shape, ROWS};
use transmute_tests::{Database, Session};

use crate::migration::{self, assert_sound, fingerprint, Migration};

/// The second UPDATE reads what the first one has set, and sets it once more.
pub const SPLIT: &str = "ALTER TABLE users ADD COLUMN first text, ADD COLUMN last text;
    UPDATE users SET last = name;
    UPDATE users SET first = split_part(last, ' ', 1), last = split_part(last, ' ', 2);
    ALTER TABLE users DROP COLUMN name";

/// What is said of the mechanism.
const MECHANISMS: [&str; 3] = [
    r#""dual_write": "rule""#,
    r#""dual_write": "trigger""#,
    r#""reverse": {"name": "first || ' ' || last"}"#,
];

fn soaking(more: &str) -> String {
    format!(r#"{{"pre_finalization_soak": "1 hour", {more}}}"#)
}

#[track_caller]
fn assert_nothing_differs(session: &mut Session) {
    let rows = session.lines(
        "SELECT id, name, first, last FROM users WHERE name <> ''
            AND (first, last) IS DISTINCT FROM (split_part(name, ' ', 1), split_part(name, ' ', 2)) LIMIT 10",
    );
    assert!(rows.is_empty(), "{rows:#?}");
}

fn a_split_under_load(which: usize) {
    let more = MECHANISMS[which];
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "30")],
    );
    let mut session = database.connect();
    create_table(&mut session);
    let before = fingerprint(&mut session, "users");
    let old_clients = Clients::start(&database, Shape::Old, 7);
    let mut migration = Migration::start(&database, "m", SPLIT, &soaking(more));
    for round in 0..2 {
        migration.wait("AWAITING_FINALIZATION");
        assert_nothing_differs(&mut session);
        let new_clients = (which == 2).then(|| Clients::start(&database, Shape::New, 70 + round));
        for _ in 0..4 {
            old_clients.wait_for_more(100);
            if let Some(clients) = &new_clients {
                clients.wait_for_more(100);
            }
            assert_nothing_differs(&mut session);
        }
        if let Some(clients) = new_clients {
            clients.stop();
        }
        migration.roll_back();
        assert_eq!(fingerprint(&mut session, "users"), before);
        assert_eq!(
            session.lines(
                "SELECT detail::json ->> 'identical' FROM transmute.history WHERE event = 'rule undone'"
            ),
            vec!["true"; round as usize + 1]
        );
        old_clients.wait_for_more(50);
        migration.apply();
    }
    migration.wait("AWAITING_FINALIZATION");
    assert_nothing_differs(&mut session);
    old_clients.wait_for_more(100);
    old_clients.stop();
    let new_clients = (which == 2).then(|| Clients::start(&database, Shape::New, 99));
    let rows: i64 = session.scalar("SELECT count(*) FROM users");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    if let Some(clients) = new_clients {
        clients.wait_for_more(100);
        clients.stop();
    }
    assert!(rows > ROWS as i64);
    assert_eq!(session.error("SELECT name FROM users").sqlstate, "42703");
    assert_eq!(
        session.lines("SELECT attgenerated = '', atthasdef FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname IN ('first', 'last')"),
        ["t|f", "t|f"]
    );
    // What the old column said is kept with the artifact; nobody writes it any more.
    if which < 2 {
        let hidden: String = session.scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname LIKE '%\\_name' AND NOT attisdropped",
        );
        assert_eq!(
            session.lines(&format!(
                "SELECT count(*) FROM users WHERE {hidden} <> first || ' ' || last"
            )),
            ["0"]
        );
    }
    assert_sound(&mut session, "users");
    assert_eq!(
        session.lines("SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass ORDER BY 1"),
        ["tidy", "zz_noted"]
    );
}

#[test]
fn a_split_by_the_servers_rule_fails_no_statement_and_leaves_no_difference() {
    a_split_under_load(0);
}

#[test]
fn a_split_by_the_trigger_fails_no_statement_and_leaves_no_difference() {
    a_split_under_load(1);
}

#[test]
fn a_split_that_both_applications_write_fails_no_statement_and_leaves_no_difference() {
    a_split_under_load(2);
}

#[test]
fn filling_is_not_noticed_by_the_applications_triggers() {
    for more in MECHANISMS {
        let database = Database::shared();
        let mut session = database.connect();
        create_table(&mut session);
        let mut migration = Migration::start(&database, "m", SPLIT, &soaking(more));
        migration.wait("AWAITING_FINALIZATION");
        assert_nothing_differs(&mut session);
        assert_eq!(
            session.lines("SELECT DISTINCT updates FROM users"),
            ["0"],
            "{more}"
        );
        assert_eq!(
            session.lines("SELECT rows_done = rows_total, rows_checked = rows_total, checked_at IS NOT NULL FROM transmute.progress"),
            ["t|t|t"]
        );
    }
}

#[test]
fn a_table_without_a_key_is_filled_too() {
    for more in MECHANISMS {
        let database = Database::shared();
        let mut session = database.connect();
        create_table(&mut session);
        session.exec("ALTER TABLE users DROP CONSTRAINT users_pkey");
        let mut migration = Migration::start(&database, "m", SPLIT, &soaking(more));
        migration.wait("AWAITING_FINALIZATION");
        assert_nothing_differs(&mut session);
    }
}

#[test]
fn a_column_under_two_names_as_two_columns_where_that_is_asked_for() {
    for (more, two_way) in [(MECHANISMS[0], false), (MECHANISMS[1], true)] {
        let database = Database::shared();
        let mut session = database.connect();
        create_table(&mut session);
        session.exec("CREATE INDEX users_name ON users (name); CREATE VIEW named AS SELECT name FROM users; COMMENT ON COLUMN users.name IS 'a name'");
        let before = fingerprint(&mut session, "users");
        let clients = Clients::start(&database, Shape::Old, 3);
        let mut migration = Migration::start(
            &database,
            "m",
            "ALTER TABLE users RENAME COLUMN name TO full_name",
            &soaking(more),
        );
        for _ in 0..2 {
            migration.wait("AWAITING_FINALIZATION");
            clients.wait_for_more(100);
            if two_way {
                session.exec("INSERT INTO users (full_name) VALUES ('By Another'); UPDATE users SET full_name = 'Changed So' WHERE id = 5");
            }
            assert_eq!(
                session.lines("SELECT count(*) FROM users WHERE name IS DISTINCT FROM full_name"),
                ["0"]
            );
            migration.roll_back();
            assert_eq!(fingerprint(&mut session, "users"), before);
            migration.apply();
        }
        migration.wait("AWAITING_FINALIZATION");
        clients.stop();
        migration.call("skip_soak", "'enough'");
        migration.finish();
        // Everything that hangs on the column is still on it: it is the column that was there.
        let after = fingerprint(&mut session, "users");
        session.exec("ALTER TABLE users RENAME COLUMN full_name TO name");
        assert_eq!(fingerprint(&mut session, "users"), before);
        session.exec("ALTER TABLE users RENAME COLUMN name TO full_name");
        assert_eq!(fingerprint(&mut session, "users"), after);
        assert_sound(&mut session, "users");
    }
}
