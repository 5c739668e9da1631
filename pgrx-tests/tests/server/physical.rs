//! Copies of the files: a base backup that is recovered to a point of a migration, an old primary that comes back, transactions
//! that were prepared.

use transmute_tests::tools::{give_to_server_user, output_of};
use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::ledger::{rows_of, Ledger};
use super::scene::{
    apply, assert_finished, assert_log_is_clean, create_table, reconnect, rows_done, wait_state,
    workers, ALTER, ID,
};

/// Recovers a backup to a named point, and opens it.
fn recover(backup: &Cluster, archive: &str, point: &str) {
    backup.append_conf(&format!(
        "archive_mode = off\nrestore_command = 'cp {archive}/%f \"%p\"'\nrecovery_target_name = '{point}'\nrecovery_target_action = 'promote'"
    ));
    std::fs::write(backup.data().join("recovery.signal"), "").expect("recovery.signal");
    give_to_server_user(&backup.data().join("recovery.signal"));
    backup.start();
}

#[test]
fn a_backup_recovered_to_a_point_inside_a_batch_goes_on() {
    let primary = Cluster::builder()
        .conf("archive_mode = on")
        .conf("transmute.batch_target_ms = 5")
        .start();
    let archive = primary.dir().join("archive");
    std::fs::create_dir(&archive).expect("the archive");
    give_to_server_user(&archive);
    let archive = archive.display().to_string();
    let mut postgres = primary.connect();
    postgres.exec(&format!(
        "ALTER SYSTEM SET archive_command = 'cp \"%p\" {archive}/%f'"
    ));
    postgres.exec("SELECT pg_reload_conf()");
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 1_000);
    let backups = [
        Cluster::backup_of(&primary, &[]),
        Cluster::backup_of(&primary, &[]),
    ];

    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("copy_before_commit");
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    waitpoints.wait_reached("copy_before_commit", PATIENCE);
    session.exec("INSERT INTO t VALUES (-1, 1, 'inside')");
    session.exec("SELECT pg_create_restore_point('inside')");
    let inside: String = session.scalar("SELECT transmute.audit_head()");
    drop(waitpoints);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.exec("INSERT INTO t VALUES (-2, 2, 'soaking')");
    session.exec("SELECT pg_create_restore_point('soaking')");
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    let last: String = session.scalar("SELECT transmute.audit_head()");
    let (segment, switched): (String, String) = {
        let row = session.query_one(
            "SELECT pg_walfile_name(pg_current_wal_lsn()), pg_switch_wal()::text",
            &[],
        );
        (row.get(0), row.get(1))
    };
    session.wait_for(
        &format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver -- {switched}"),
        "t",
        PATIENCE,
    );

    for (backup, (point, rows)) in backups
        .iter()
        .zip([("inside", "1001"), ("soaking", "1002")])
    {
        recover(backup, &archive, point);
        let mut config = backup.config();
        config.dbname(database.name());
        let mut there =
            transmute_tests::wait::wait_until_seen("the backup to open", PATIENCE, || {
                Session::try_open(config.clone())
            });
        there.wait_for("SELECT pg_is_in_recovery()", "f", PATIENCE);
        // It is the same database to itself: it goes on.
        wait_state(&mut there, "AWAITING_FINALIZATION");
        assert_eq!(there.lines("SELECT count(*) FROM t"), [rows], "{point}");
        let verdict = |there: &mut Session, head: &str| {
            there.lines(&format!(
                "SELECT ok, fault FROM transmute.audit_verify(expected_head => '{head}')"
            ))
        };
        assert_eq!(verdict(&mut there, &inside), ["t|∅"], "{point}");
        assert_eq!(
            verdict(&mut there, &last)[0].split('|').next(),
            Some("f"),
            "{point}: it was rewound"
        );
        there.exec(&format!("SELECT transmute.approve('{ID}', 'seen again')"));
        assert_finished(&mut there);
        drop(there);
        assert_log_is_clean(backup);
    }
}

#[test]
fn an_old_primary_that_comes_back_by_pg_rewind_follows_and_drives_nothing() {
    let primary = Cluster::builder()
        .conf("transmute.batch_target_ms = 2")
        .conf("transmute.backfill_duty = 5")
        .conf("wal_keep_size = '512MB'")
        .start();
    let database = Database::create(&primary);
    let mut session = database.connect();
    create_table(&mut session, 4_000);
    let standby = Cluster::builder().start_standby_of(&primary);
    let mut config = standby.config();
    config.dbname(database.name());
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    transmute_tests::wait_until("some batches", PATIENCE, || {
        (rows_done(&mut session) > 100).then_some(())
    });
    let mut there = Session::open(config.clone());
    there.exec("SELECT pg_promote()");
    // Fenced a moment late: what it did meanwhile is undone.
    primary.stop(StopMode::Fast);
    let ledger = Ledger::start_on(&config);
    // Before 16 pg_rewind reads the new timeline from the control file, where it is from the next checkpoint on.
    there.exec("CHECKPOINT");
    let mut rewind = primary.command("pg_rewind", "postgres");
    output_of(
        rewind
            .args(["--no-sync", "--write-recovery-conf", "-D"])
            .arg(primary.data())
            .arg(format!(
                "--source-server=host={} port=5432 user=postgres dbname=postgres",
                standby.dir().display()
            )),
    );
    primary.append_conf(&format!(
        "unix_socket_directories = '{}'",
        primary.dir().display()
    ));
    primary.start();
    wait_state(&mut there, "AWAITING_FINALIZATION");
    ledger.wait_for_more(50);
    there.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut there);
    ledger.stop_and_compare(&mut there);
    let mut old = reconnect(&database);
    let end: String = there.scalar("SELECT pg_current_wal_insert_lsn()::text");
    old.wait_for(
        &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"),
        "t",
        PATIENCE,
    );
    assert_eq!(
        old.lines("SELECT state FROM transmute.status"),
        ["FINISHED"]
    );
    assert_eq!(rows_of(&mut old), rows_of(&mut there));
    assert_eq!(workers(&mut old, "conductor"), [0; 0]);
    assert_eq!(old.lines("SELECT ok FROM transmute.audit_verify()"), ["t"]);
    drop((old, there));
    assert_log_is_clean(&standby);
    primary.stop(StopMode::Fast);
}

#[test]
fn acts_of_prepared_transactions_enter_the_trail_when_they_commit_also_after_a_restart() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    for (end, entries) in [("ROLLBACK", "0"), ("COMMIT", "1")] {
        let mut session = database.connect();
        session.exec("SELECT transmute.register('before', 'COMMENT ON SCHEMA public IS NULL') WHERE transmute.state('before') IS NULL");
        session.batch(&[
            "BEGIN",
            "SELECT transmute.register('prepared', 'COMMENT ON SCHEMA public IS NULL')",
            "PREPARE TRANSACTION 'act'",
        ]);
        drop(session);
        cluster.restart(StopMode::Immediate);
        let mut session = reconnect(&database);
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"]
        );
        // Others wait for the place in the chain, no longer than they want.
        let error = session.error("SET lock_timeout = '100ms'; SELECT transmute.register('behind', 'COMMENT ON SCHEMA public IS NULL')");
        assert_eq!(error.sqlstate, "55P03", "{error}");
        session.exec(&format!("{end} PREPARED 'act'"));
        let of = "SELECT count(*) FROM transmute.audit_events WHERE id = 'prepared' AND event = 'registered'";
        assert_eq!(session.lines(of), [entries], "{end}");
        session.exec(&format!(
            "SELECT transmute.register('after {end}', 'COMMENT ON SCHEMA public IS NULL')"
        ));
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"],
            "{end}"
        );
    }
}
