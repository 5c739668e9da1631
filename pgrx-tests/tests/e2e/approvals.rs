//! Approvals: who may give them, how long they hold, what they are for.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, DbError, Session};

use crate::migration::{self, Migration};

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

/// A database with a table, and three people whose names nobody else's test uses.
fn people(database: &Database<'_>, names: [&str; 3]) -> Session {
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)");
    for name in names {
        session.exec(&format!(
            "DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA transmute TO {name}"
        ));
    }
    session
}

fn needing(approvals: u32) -> String {
    format!(r#"{{"required_approvals": {approvals}}}"#)
}

fn approve(database: &Database<'_>, person: &str) -> Result<(), DbError> {
    database
        .connect_as(person)
        .try_exec("SELECT transmute.approve('m', 'looks right')")
}

#[track_caller]
fn refused(database: &Database<'_>, person: &str) -> DbError {
    let error = approve(database, person).expect_err("an approval that must be refused");
    assert_eq!(error.sqlstate, "42501", "{error}");
    assert_eq!(
        error.hint.as_deref(),
        Some("Ask another person who may approve.")
    );
    error
}

/// Waits until this is all that is waited for.
#[track_caller]
fn wait_missing(migration: &mut Migration, count: u32) {
    let plural = if count == 1 { "" } else { "s" };
    migration.wait_for(
        &format!("waiting_for LIKE '{count} approval{plural} missing%'"),
        "t",
    );
}

#[test]
fn each_person_counts_once() {
    let database = Database::shared();
    people(&database, ["once_ann", "once_bob", "once_eve"]);
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &needing(2));
    wait_missing(&mut migration, 2);
    approve(&database, "once_ann").unwrap();
    approve(&database, "once_ann").unwrap();
    wait_missing(&mut migration, 1);
    assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");
    approve(&database, "once_bob").unwrap();
    migration.finish();
    assert_eq!(
        migration
            .session()
            .lines("SELECT actor FROM transmute.history WHERE event = 'approved' ORDER BY seq"),
        ["once_ann", "once_ann", "once_bob"]
    );
}

#[test]
fn an_approval_ends_with_its_time_or_when_it_is_revoked() {
    let database = Database::shared();
    let mut session = people(&database, ["ends_ann", "ends_bob", "ends_eve"]);
    let meta = r#"{"required_approvals": 1, "pre_finalization_soak": "1 hour"}"#;
    let mut migration = Migration::start(&database, "m", TO_BIGINT, meta);
    migration.wait_in("AWAITING_FINALIZATION");

    migration.call("approve", "'for a moment', ttl => '1 s'");
    migration.wait_for("approvals", "1");
    migration.wait_for("approvals", "0");
    migration.call("skip_soak", "'only the approval counts now'");
    wait_missing(&mut migration, 1);
    assert_eq!(migration.status("state"), "AWAITING_FINALIZATION");

    // Held back by a pause, so that it can be taken back before it has an effect.
    migration.call("pause", "'to look again'");
    approve(&database, "ends_ann").unwrap();
    approve(&database, "ends_bob").unwrap();
    assert_eq!(migration.status("approvals"), "2");
    assert_eq!(
        session.lines("SELECT transmute.revoke_approval('m', 'I was wrong')"),
        ["2"]
    );
    assert_eq!(
        session.lines("SELECT transmute.revoke_approval('m', 'nothing left')"),
        ["0"]
    );
    migration.call("resume", "'looked'");
    wait_missing(&mut migration, 1);
    assert_eq!(
        session.lines("SELECT actor, reason, revoke_reason FROM transmute.approvals ORDER BY 1"),
        [
            "ends_ann|looks right|I was wrong",
            "ends_bob|looks right|I was wrong",
            "postgres|for a moment|∅"
        ]
    );
    approve(&database, "ends_eve").unwrap();
    migration.finish();
}

#[test]
fn an_approval_is_for_one_plan() {
    let database = Database::shared();
    let mut session = people(&database, ["plan_ann", "plan_bob", "plan_eve"]);
    let mut migration = Migration::register(&database, "m", TO_BIGINT, &needing(1));
    approve(&database, "plan_ann").unwrap();
    assert_eq!(migration.status("approvals"), "1");
    // The only way to another plan under this id is by hand.
    session.exec("UPDATE _transmute.migrations SET plan_checksum = repeat('0', 64)");
    assert_eq!(migration.status("approvals"), "0");
    migration.apply();
    migration.wait_for(
        "state = 'AWAITING_FINALIZATION' AND waiting_for LIKE '1 approval missing; the approval by plan_ann is for another plan%'",
        "t",
    );
    approve(&database, "plan_bob").unwrap();
    migration.finish();
}

#[test]
fn with_four_eyes_neither_who_registered_nor_who_applied_may_approve() {
    let database = Database::shared();
    migration::set(&database, &[("four_eyes", "on")]);
    let mut session = people(&database, ["eyes_ann", "eyes_bob", "eyes_eve"]);
    session.exec("ALTER TABLE t OWNER TO eyes_ann; GRANT eyes_ann TO eyes_bob");
    database.connect_as("eyes_ann").exec(&format!(
        "SELECT transmute.register('m', '{TO_BIGINT}', meta => '{}')",
        needing(1)
    ));
    database
        .connect_as("eyes_bob")
        .exec("SELECT transmute.apply('m')");
    for person in ["eyes_ann", "eyes_bob"] {
        let error = refused(&database, person);
        assert_eq!(
            error.detail.as_deref(),
            Some(format!("\"{person}\" registered or applied migration \"m\".").as_str())
        );
    }
    // Another role does not make another person, and neither does a function of somebody else's.
    session.exec(
        "GRANT eyes_eve TO eyes_ann;
         CREATE FUNCTION wrapped() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT transmute.approve(''m'', ''wrapped'')';
         GRANT EXECUTE ON FUNCTION wrapped() TO eyes_ann",
    );
    let mut ann = database.connect_as("eyes_ann");
    ann.exec("SET ROLE eyes_eve");
    assert_eq!(
        ann.error("SELECT transmute.approve('m', 'as eve')")
            .sqlstate,
        "42501"
    );
    ann.exec("RESET ROLE");
    assert_eq!(ann.error("SELECT wrapped()").sqlstate, "42501");
    let mut migration = Watched::of(&database);
    migration.wait("waiting_for LIKE '1 approval missing%'");
    approve(&database, "eyes_eve").unwrap();
    migration.wait("state = 'FINISHED'");
}

#[test]
fn approvers_are_members_of_the_approver_role() {
    let database = Database::shared();
    migration::set(&database, &[("approver_role", "role_eve")]);
    let mut session = people(&database, ["role_ann", "role_bob", "role_eve"]);
    session.exec("GRANT role_eve TO role_bob");
    let mut migration = Migration::start(&database, "m", TO_BIGINT, &needing(1));
    wait_missing(&mut migration, 1);
    let error = refused(&database, "role_ann");
    assert_eq!(
        error.detail.as_deref(),
        Some("\"role_ann\" is not a member of transmute.approver_role.")
    );
    let mut ann = database.connect_as("role_ann");
    assert_eq!(
        ann.error("SELECT transmute.revoke_approval('m', 'not mine')")
            .sqlstate,
        "42501"
    );
    assert_eq!(
        ann.error("SET transmute.approver_role = ''").sqlstate,
        "42501"
    );
    approve(&database, "role_bob").unwrap();
    migration.finish();
}

/// Somebody else's migration `m`, looked at by a superuser.
struct Watched(Session);

impl Watched {
    fn of(database: &Database<'_>) -> Watched {
        Watched(database.connect())
    }

    #[track_caller]
    fn wait(&mut self, condition: &str) {
        let sql = format!("SELECT {condition} FROM transmute.status WHERE id = 'm'");
        self.0.wait_for(&sql, "t", PATIENCE);
    }
}
