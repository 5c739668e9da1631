//! A streaming standby: what can be seen there, what it looks like after the swap, and a promotion in mid-copy.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_finished, assert_log_is_clean, create_table, rows_done, wait_state, workers,
    ALTER, ID,
};

/// Rows that take a copy of small batches and long pauses many seconds.
const MANY: i32 = 40_000;

/// The database of the same name on the standby.
pub fn config_of(standby: &Cluster, database: &Database<'_>) -> postgres::Config {
    let mut config = standby.config();
    config.dbname(database.name());
    config
}

/// Waits until the standby has replayed all that the primary has committed up to now.
pub fn catch_up(primary: &mut Session, standby: &mut Session) {
    // A commit flushes all that lies before it; the WAL writer may take seconds.
    primary.exec("SELECT pg_logical_emit_message(true, 'catch up', '')");
    let end: String = primary.scalar("SELECT pg_current_wal_flush_lsn()::text");
    standby.wait_for(
        &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"),
        "t",
        PATIENCE,
    );
}

#[test]
fn a_standby_shows_the_migration_replays_its_swap_and_refuses_to_change_it() {
    let primary = Cluster::builder().start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 1_000);
    let standby = Cluster::builder().start_standby_of(&primary);
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");

    let mut there = Session::open(config_of(&standby, &database));
    catch_up(&mut session, &mut there);
    assert_eq!(
        there.lines("SELECT id, state, outcome FROM transmute.status"),
        [format!("{ID}|AWAITING_FINALIZATION|RUNNING")]
    );
    // Whatever can be read on the primary can be read there.
    let views = "SELECT viewname FROM pg_views WHERE schemaname = 'transmute' ORDER BY viewname";
    for view in session.lines(views) {
        there.exec(&format!("SELECT * FROM transmute.{view}"));
    }
    for call in [
        format!("SELECT transmute.state('{ID}')"),
        format!("SELECT * FROM transmute.plan('{ID}')"),
        format!("SELECT * FROM transmute.rollback_plan('{ID}')"),
        "SELECT * FROM transmute.audit_verify()".to_string(),
        "SELECT transmute.audit_head()".to_string(),
    ] {
        there.exec(&call);
    }
    for call in [
        format!("SELECT transmute.approve('{ID}', 'from the wrong server')"),
        format!("SELECT transmute.rollback('{ID}', 'from the wrong server')"),
        format!("SELECT * FROM transmute.apply('{ID}')"),
        format!("SELECT transmute.register('n', $${ALTER}$$)"),
        format!("CALL transmute.run('{ID}')"),
    ] {
        assert_eq!(there.error(&call).sqlstate, "25006", "{call}");
    }
    assert_eq!(workers(&mut there, "launcher"), [0; 0]);

    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    catch_up(&mut session, &mut there);
    assert_eq!(
        there.lines("SELECT state FROM transmute.status"),
        ["FINISHED"]
    );
    assert_eq!(rows_of(&mut there), rows_of(&mut session));
    let by_index = "SET enable_seqscan = off; SELECT count(*), sum(twice) FROM t WHERE a > 0";
    assert_eq!(there.lines(by_index), session.lines(by_index));
    drop(there);
    assert_log_is_clean(&standby);
}

/// F23: who reads on a standby meets the swap as he would any ALTER; the primary waits for nobody there.
#[test]
fn queries_of_a_standby_give_way_to_the_swap_or_hold_its_replay_and_the_primary_goes_on() {
    let primary = Cluster::builder().start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let impatient = Cluster::builder()
        .conf("max_standby_streaming_delay = '100ms'")
        .start_standby_of(&primary);
    let patient = Cluster::builder()
        .conf("max_standby_streaming_delay = -1")
        .conf("hot_standby_feedback = on")
        .start_standby_of(&primary);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let mut readers = [&impatient, &patient].map(|standby| {
        let mut there = Session::open(config_of(standby, &database));
        catch_up(&mut session, &mut there);
        there.exec("BEGIN; DECLARE c CURSOR FOR SELECT a FROM t ORDER BY id");
        assert_eq!(there.lines("FETCH 1 FROM c"), ["1"]);
        there
    });
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    session.exec("INSERT INTO t (id, a) VALUES (501, 4000000000)");

    let looks = [&impatient, &patient].map(|standby| Session::open(config_of(standby, &database)));
    let [mut look, mut behind] = looks;
    catch_up(&mut session, &mut look);
    assert_eq!(look.lines("SELECT max(a) FROM t"), ["4000000000"]);
    let error = readers[0].try_exec("FETCH 1 FROM c").unwrap_err();
    assert!(
        ["40001", "57P05", "40P01", "08006", "58000"].contains(&error.sqlstate.as_str())
            || error.message.contains("closed"),
        "{error}"
    );
    // The other one reads on, in the old shape, and then the rest is replayed.
    assert_eq!(readers[1].lines("FETCH 1 FROM c"), ["2"]);
    assert_eq!(
        behind.lines("SELECT state FROM transmute.status"),
        ["AWAITING_FINALIZATION"]
    );
    readers[1].exec("COMMIT");
    catch_up(&mut session, &mut behind);
    assert_eq!(behind.lines("SELECT max(a) FROM t"), ["4000000000"]);
    drop((readers, look, behind));
    for standby in [&impatient, &patient] {
        assert_log_is_clean(standby);
    }
}

#[test]
fn a_standby_promoted_in_mid_copy_goes_on_from_the_last_committed_batch() {
    // Small batches with long pauses, and many of them: the copy takes longer than the promotion on any machine.
    let primary = Cluster::builder()
        .conf("transmute.batch_target_ms = 2")
        .conf("transmute.backfill_duty = 1")
        .start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, MANY);
    let standby = Cluster::builder()
        .conf("transmute.backfill_duty = 100")
        .start_standby_of(&primary);
    let mut there = Session::open(config_of(&standby, &database));
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, "{}");
    transmute_tests::wait_until("some batches", PATIENCE, || {
        (rows_done(&mut session) > 4_000).then_some(())
    });
    ledger.stop_and_compare(&mut session);
    catch_up(&mut session, &mut there);
    primary.kill9();

    let copied = rows_done(&mut there);
    assert!(
        (4_000..i64::from(MANY) - 1_000).contains(&copied),
        "{copied} rows copied"
    );
    // Nobody writes: what stands behind the cursors is all that is left.
    let left: i64 = there.scalar(
        "SELECT count(*) FROM t JOIN _transmute.progress p
           ON (t.ctid::text::point)[0] >= p.next_block AND (t.ctid::text::point)[0] < p.end_block",
    );
    there.exec("SELECT pg_promote()");
    let ledger = Ledger::start_on(&config_of(&standby, &database));
    assert_finished(&mut there);
    let moved = ledger.written();
    ledger.wait_for_more(20);
    ledger.stop_and_compare(&mut there);
    // What came over from the primary was not copied again.
    let copied_here = rows_done(&mut there) - copied;
    assert!(
        (1..=left + moved).contains(&copied_here),
        "{copied_here} rows copied, {left} were left and at most {moved} moved"
    );
    drop(there);
    assert_log_is_clean(&standby);
}

#[test]
fn the_copy_waits_for_a_replica_that_has_fallen_behind_and_goes_on_when_it_has_caught_up() {
    let primary = Cluster::builder()
        .conf("transmute.batch_target_ms = 2")
        .conf("transmute.backfill_duty = 1")
        .conf("transmute.max_replica_lag = 1000")
        .start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, MANY);
    let standby = Cluster::builder().start_standby_of(&primary);
    let mut there = Session::open(config_of(&standby, &database));
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, "{}");
    transmute_tests::wait_until("some batches", PATIENCE, || {
        (rows_done(&mut session) > 200).then_some(())
    });
    there.exec("SELECT pg_wal_replay_pause()");
    session.wait_for(
        &format!("SELECT waiting_for LIKE 'the replica %, more than transmute.max_replica_lag' FROM transmute.status WHERE id = '{ID}'"),
        "t",
        PATIENCE,
    );
    let copied = rows_done(&mut session);
    super::scene::watch_for(std::time::Duration::from_secs(1), || {
        assert_eq!(rows_done(&mut session), copied);
    });
    there.exec("SELECT pg_wal_replay_resume()");
    session.exec("ALTER SYSTEM SET transmute.backfill_duty = 100");
    session.exec("SELECT pg_reload_conf()");
    assert_finished(&mut session);
    ledger.stop_and_compare(&mut session);
    catch_up(&mut session, &mut there);
    assert_eq!(rows_of(&mut there), rows_of(&mut session));
    drop(there);
    assert_log_is_clean(&standby);
}
