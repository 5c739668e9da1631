//! Roles that lose their rights, or go, wherever a migration is: it stops and says why, or goes on; there is a way out.

use transmute_tests::wait::PATIENCE;
use transmute_tests::Cluster;

use super::scene::{assert_log_is_clean, wait_rolled_back, wait_state, ID};
use super::stage::Held;

/// What a migration says that has lost its table.
const NOT_HIS: &str = "the migration's owner does not own the table any more";

#[test]
fn a_migration_whose_owner_loses_his_rights_or_goes_stops_in_every_stage_and_can_be_taken_back() {
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    cluster
        .connect()
        .exec("CREATE ROLE app; CREATE ROLE mig LOGIN IN ROLE app; CREATE ROLE heir");
    let chosen = [
        "queued",
        "copying",
        "checking",
        "soaking",
        "two names",
        "two columns",
        "changing rows",
        "kept",
        "rolling back",
    ];
    let mut all = Held::all_of(&cluster, 300, Some(("app", "mig")), |stage| {
        chosen.contains(&stage.name)
    });
    cluster.connect().exec("REVOKE app FROM mig");
    for held in &mut all {
        let (name, state) = (held.stage.name, held.stage.state);
        let mut session = held.connect();
        held.let_go();
        match state {
            // Whoever asked for the way back might do so then.
            "ROLLING_BACK" => {
                wait_rolled_back(&mut session);
                continue;
            }
            "UNINITIALIZED" => {
                session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'at once')"))
            }
            "FINISHED" => {
                // Old rows are followed, whoever owns the migration; nothing of its owner's runs.
                session.exec("UPDATE t SET a = a + 1 WHERE id = 1");
                session.wait_for("SELECT lag FROM transmute.artifacts", "0", PATIENCE);
                continue;
            }
            // The batch that runs had begun as somebody who might do it, and there is no other.
            "FINISHING" => {
                wait_state(&mut session, "FINISHED");
                assert_eq!(session.lines("SELECT sum(a - id) FROM t"), ["300"]);
                continue;
            }
            _ => {}
        }
        // A soak ends nothing by itself: the next step would be the swap.
        let _ = session.try_exec(&format!("SELECT transmute.approve('{ID}', 'a test')"));
        session.wait_for(
            &format!("SELECT outcome, last_error_sqlstate, last_error FROM transmute.status WHERE id = '{ID}'"),
            &format!("FAILED|42501|{NOT_HIS}"),
            PATIENCE,
        );
        assert_ne!(
            session.lines("SELECT state FROM transmute.status"),
            ["FINISHED"],
            "{name}"
        );
    }
    // Nor is anybody left whose migration it is; the table has passed to somebody else.
    cluster.connect().exec("DROP ROLE mig");
    for held in &mut all {
        let name = held.stage.name;
        if name.starts_with("two ") {
            continue; // what is taken back is a statement of the migration's owner
        }
        let mut session = held.connect();
        session.exec("GRANT CREATE ON SCHEMA public TO heir; REASSIGN OWNED BY app TO heir");
        let traces = "SELECT tgname FROM pg_trigger WHERE tgname ~ '^_transmute'";
        match held.stage.state {
            "ROLLING_BACK" | "FINISHING" => {}
            "FINISHED" => session.exec(&format!(
                "SELECT transmute.release_old('{ID}', 'its owner is gone')"
            )),
            _ => {
                session.exec(&format!(
                    "SELECT transmute.rollback('{ID}', 'its owner is gone')"
                ));
                wait_rolled_back(&mut session);
            }
        }
        session.wait_for(&format!("SELECT count(*) FROM ({traces}) x"), "0", PATIENCE);
        assert_eq!(session.lines("SELECT count(*) FROM t"), ["300"], "{name}");
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"],
            "{name}"
        );
    }
    assert_log_is_clean(&cluster);
}
