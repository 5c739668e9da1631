//! Other extensions that work on the same tables: pg_repack, pg_cron and pg_partman, where this machine's archive has them for the
//! version under test. They wait or are refused; never wrong data.

use std::path::PathBuf;
use std::process::Command;

use transmute_tests::tools::{self, version_under_test};
use transmute_tests::wait::PATIENCE;
use transmute_tests::{invariants, Cluster, Database};

use super::ledger::Ledger;
use super::scene::{
    apply, assert_finished, assert_log_is_clean, create_table, wait_state, ALTER, ID,
};

/// The folder of a package's part, `lib` or `bin`.
fn folder(package: &str, part: &str) -> Option<PathBuf> {
    let version = version_under_test();
    tools::debian(
        &format!("postgresql-{version}-{package}"),
        &format!("usr/lib/postgresql/{version}/{part}"),
    )
}

/// `tools/setup` puts the extension files where the server looks for them.
fn is_there(package: &str) -> bool {
    let there = folder(package, "lib").is_some();
    if !there {
        println!(
            "skipped: no {package} for PostgreSQL {}",
            version_under_test()
        );
    }
    there
}

#[test]
fn pg_repack_beside_a_migration_is_refused_or_followed_and_no_row_is_lost() {
    if !is_there("repack") {
        return;
    }
    let cluster = Cluster::builder()
        .conf("transmute.batch_target_ms = 5")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    session.exec("CREATE TABLE other (id int PRIMARY KEY, a int); INSERT INTO other SELECT i, i FROM generate_series(1, 1000) AS i; CREATE EXTENSION pg_repack");
    let ledger = Ledger::start(&database);
    apply(&mut session, ALTER, r#"{"required_approvals": 1}"#);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let repack = |arguments: &[&str]| {
        let program = folder("repack", "bin")
            .expect("its program")
            .join("pg_repack");
        let mut command = tools::as_server_user(Command::new(program));
        cluster.address(&mut command);
        command
            .env("LD_LIBRARY_PATH", cluster.tree().bin().join("../lib"))
            .args([
                "--dbname",
                database.name(),
                "--no-kill-backend",
                "--wait-timeout",
                "5",
            ])
            .args(arguments);
        let output = tools::run(&mut command);
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    // It makes a trigger on the table, or exchanges its indexes: that is DDL, and the guard names the migration.
    for arguments in [
        &["--table", "public.t"][..],
        &["--table", "public.t", "--only-indexes"],
    ] {
        let said = repack(arguments);
        assert!(
            said.contains(&format!("migration \"{ID}\" works on")),
            "{said}"
        );
    }
    // A table of which nothing is migrated is its own business.
    let said = repack(&["--table", "public.other"]);
    assert!(!said.contains("ERROR"), "{said}");
    ledger.wait_for_more(50);
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    assert_finished(&mut session);
    // It is over.
    let said = repack(&["--table", "public.t"]);
    assert!(!said.contains("ERROR"), "{said}");
    ledger.stop_and_compare(&mut session);
    assert_eq!(
        session.lines("SELECT tgname FROM pg_trigger WHERE tgname ~ 'repack|transmute'"),
        [""; 0]
    );
    session.exec("DROP EXTENSION pg_repack");
    invariants::check(&mut session);
}

#[test]
fn pg_cron_and_pg_partman_beside_a_migration_go_on_and_so_does_it() {
    if !is_there("cron") || !is_there("partman") {
        return;
    }
    let cluster = Cluster::builder()
        .conf("shared_preload_libraries = 'transmute, pg_cron'")
        .conf("cron.use_background_workers = on")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 2_000);
    session.exec(
        "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
         CREATE TABLE parts (id int NOT NULL, at timestamptz NOT NULL, n int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         SELECT partman.create_parent(p_parent_table => 'public.parts', p_control => 'at', p_type => 'native', p_interval => 'daily');
         INSERT INTO parts SELECT i, now(), i FROM generate_series(1, 500) AS i;
         CREATE TABLE ticks (at timestamptz DEFAULT clock_timestamp())",
    );
    // Jobs live in one database of the cluster, and run in others.
    let mut jobs = cluster.connect();
    jobs.exec("CREATE EXTENSION pg_cron");
    for (name, command) in [
        (
            "writes",
            "UPDATE t SET note = 'by a job' WHERE id <= 10; INSERT INTO ticks DEFAULT VALUES",
        ),
        ("maintains", "CALL partman.run_maintenance_proc()"),
    ] {
        jobs.exec(&format!(
            "SELECT cron.schedule('{name}', '* * * * *', $${command}$$);
             UPDATE cron.job SET database = '{}' WHERE jobname = '{name}'",
            database.name()
        ));
    }
    // Both tables; what partman has to make is due at any moment.
    apply(
        &mut session,
        &format!("{ALTER}; ALTER TABLE parts ALTER COLUMN n TYPE bigint"),
        r#"{"required_approvals": 1}"#,
    );
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.exec(
        "UPDATE partman.part_config SET premake = premake + 3 WHERE parent_table = 'public.parts'",
    );
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'parts'::regclass";
    let before: i64 = session.scalar(partitions);
    // New partitions of a table that is copied are refused by name; partman tells, and does it later.
    let refused = session.error("CALL partman.run_maintenance_proc()");
    assert!(
        refused.sqlstate == "55006" || refused.message.contains("works on"),
        "{refused}"
    );
    assert_eq!(session.scalar::<i64>(partitions), before);
    session.exec(&format!("SELECT transmute.approve('{ID}', 'seen')"));
    wait_state(&mut session, "FINISHED");
    session.exec("CALL partman.run_maintenance_proc()");
    assert!(session.scalar::<i64>(partitions) > before);
    session.wait_for("SELECT count(*) > 0 FROM ticks", "t", 3 * PATIENCE);
    assert_eq!(
        session.lines("SELECT count(*), pg_typeof(max(n)) FROM parts"),
        ["500|bigint"]
    );
    assert_eq!(
        session.lines("SELECT count(*), pg_typeof(max(a)) FROM t"),
        ["2000|bigint"]
    );
    jobs.exec("SELECT cron.unschedule(jobid) FROM cron.job");
    invariants::check(&mut session);
    assert_log_is_clean(&cluster);
}
