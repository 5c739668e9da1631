//! What a machine can lose beneath a migration: pages of the table and of our own tables, room for WAL, memory.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{process, tools, Cluster, Database, Disk, Session, StopMode};

use super::scene::{
    apply, assert_finished, assert_sound, count_in_log, create_table, reconnect, wait_rolled_back,
    wait_state, watch_for, ALTER, ID,
};

const PAGE: u64 = 8192;
const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// A page of a relation of a stopped server that is no page any more, and how it was.
struct Damage {
    file: PathBuf,
    at: u64,
    before: Vec<u8>,
}

impl Damage {
    fn on(cluster: &Cluster, file: &str, block: u64) -> Damage {
        let file = cluster.data().join(file);
        let (at, mut before) = (block * PAGE, vec![0; PAGE as usize]);
        let open = fs::File::options().read(true).write(true).open(&file);
        let open = open.expect("the relation's file");
        open.read_exact_at(&mut before, at).expect("a page of it");
        // Header and all: the server knows that without checksums.
        open.write_all_at(&vec![0xA5; PAGE as usize], at)
            .expect("a page of it");
        Damage { file, at, before }
    }

    /// As a restored backup would have it.
    fn mend(self) {
        let open = fs::File::options().write(true).open(self.file);
        let open = open.expect("the relation's file");
        open.write_all_at(&self.before, self.at)
            .expect("a page of it");
    }
}

fn file_of(session: &mut Session, relation: &str) -> String {
    session.scalar(&format!("SELECT pg_relation_filepath('{relation}')"))
}

/// F20: the copy stops at a page of the table that cannot be read, and says which.
#[test]
fn a_damaged_page_of_the_table_stops_the_copy_and_loses_nothing() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let file = file_of(&mut session, "t");
    cluster.stop(StopMode::Fast);
    let damage = Damage::on(&cluster, &file, 7);
    cluster.start();
    let mut session = reconnect(&database);
    apply(&mut session, ALTER, LONG_SOAK);
    let failed = "SELECT state, outcome, last_error_sqlstate, last_error LIKE 'invalid page in block 7 of relation%', last_error_hint LIKE '%transmute.rollback%' FROM transmute.status";
    session.wait_for("SELECT outcome FROM transmute.status", "FAILED", PATIENCE);
    assert_eq!(session.lines(failed), ["AWAITING_ACTION|FAILED|XX001|t|t"]);
    // The application reads and writes what it can, and is still followed.
    session.exec(
        "INSERT INTO t VALUES (-1, -1, 'after it'); UPDATE t SET note = 'changed' WHERE id = 1",
    );
    assert_eq!(
        session.lines("SELECT note FROM t WHERE id = 1"),
        ["changed"]
    );
    // Back is possible with the damage, forth is not.
    session.exec(&format!(
        "SELECT transmute.rollback('{ID}', 'a page is gone')"
    ));
    wait_rolled_back(&mut session);
    session.exec(&format!("SELECT * FROM transmute.apply('{ID}')"));
    session.wait_for("SELECT outcome FROM transmute.status", "FAILED", PATIENCE);
    session.exec(&format!(
        "SELECT transmute.resume('{ID}', 'without mending it')"
    ));
    session.wait_for("SELECT outcome FROM transmute.status", "FAILED", PATIENCE);
    assert_eq!(session.lines(failed), ["AWAITING_ACTION|FAILED|XX001|t|t"]);
    cluster.stop(StopMode::Fast);
    damage.mend();
    cluster.start();
    let mut session = reconnect(&database);
    session.exec(&format!(
        "SELECT transmute.resume('{ID}', 'the page is there again')"
    ));
    wait_state(&mut session, "AWAITING_FINALIZATION");
    session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'enough')"));
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE note = 'changed'), count(*) FILTER (WHERE twice = 2 * a) FROM t"),
        ["501|1|501"]
    );
    assert_finished(&mut session);
}

/// F20: with a page of our own tables gone nothing goes on, the application does, and nobody fills the log.
#[test]
fn a_damaged_page_of_our_own_tables_holds_the_migration_and_nobody_else() {
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    apply(&mut session, ALTER, LONG_SOAK);
    wait_state(&mut session, "AWAITING_FINALIZATION");
    let tables = ["migrations", "steps", "rewrites", "drivers", "audit_events"];
    let relations =
        tables.map(|table| (table, file_of(&mut session, &format!("_transmute.{table}"))));
    for (number, (table, file)) in (1..).zip(relations) {
        cluster.stop(StopMode::Fast);
        let damage = Damage::on(&cluster, &file, 0);
        cluster.start();
        let mut session = reconnect(&database);
        let error = session.error(&format!("SELECT count(*) FROM _transmute.{table}"));
        assert_eq!(error.sqlstate, "XX001", "{error}");
        let before = count_in_log(&cluster, "invalid page");
        watch_for(Duration::from_secs(2), || {
            session.exec(&format!(
                "UPDATE t SET note = '{table}' WHERE id = {number}"
            ));
        });
        let said = count_in_log(&cluster, "invalid page") - before;
        assert!(said < 100, "{table}: {said} lines in two seconds");
        cluster.stop(StopMode::Fast);
        damage.mend();
        cluster.start();
        let mut session = reconnect(&database);
        assert_eq!(
            session.lines("SELECT transmute.state('m')"),
            ["AWAITING_FINALIZATION"],
            "{table}"
        );
        // Where its own row could be written, the error stands there, and waits for a person.
        let failed = "SELECT last_error_sqlstate FROM transmute.status WHERE outcome = 'FAILED'";
        match session.lines(failed).as_slice() {
            [] => {}
            [one] if one == "XX001" => {
                session.exec(&format!("SELECT transmute.resume('{ID}', 'restored')"));
            }
            other => panic!("{table}: {other:?}"),
        }
    }
    let mut session = reconnect(&database);
    session.exec(&format!("SELECT transmute.skip_soak('{ID}', 'enough')"));
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE twice = 2 * a), string_agg(note, ' ' ORDER BY id) FILTER (WHERE id <= 5) FROM t"),
        [format!("500|500|{}", tables.join(" "))]
    );
    assert_finished(&mut session);
}

fn move_to(from: &Path, to: &Path) {
    let copy = Command::new("cp");
    tools::output_of(
        tools::as_server_user(copy)
            .arg("-a")
            .arg(from.join("."))
            .arg(to),
    );
    fs::remove_dir_all(from).expect("the old folder");
    std::os::unix::fs::symlink(to, from).expect("a link");
}

/// F8: without room for WAL the server itself goes down; with room it and the migration go on.
#[test]
fn a_disk_that_is_full_under_the_wal_costs_what_was_not_committed() {
    // No checkpoint makes room meanwhile.
    let cluster = Cluster::builder()
        .conf("max_wal_size = '4GB'")
        .conf("checkpoint_timeout = '1h'")
        .conf("transmute.retry_delay = '100ms'")
        .start();
    let Some(disk) = Disk::mount(160) else {
        eprintln!("SKIPPED: this user may not mount a tmpfs");
        return;
    };
    let database = Database::create(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 20_000);
    session.exec("ALTER TABLE t SET (fillfactor = 100)");
    cluster.stop(StopMode::Fast);
    move_to(&cluster.data().join("pg_wal"), disk.path());
    cluster.start();
    let mut session = reconnect(&database);
    session.exec("INSERT INTO t VALUES (-1, -1, 'before it')");
    let full = disk.fill();
    apply(&mut session, ALTER, "{}");
    // The copy needs more of it than is left; then whatever else writes.
    wait_until_seen("the WAL to have no room", PATIENCE, || {
        if count_in_log(&cluster, "No space left on device") > 0 {
            return Ok(());
        }
        let written = Session::try_open(database.config()).and_then(|mut other| {
            other.try_exec("CREATE TABLE IF NOT EXISTS filler (a text); INSERT INTO filler SELECT repeat(md5(i::text), 50) FROM generate_series(1, 2000) AS i; SELECT pg_switch_wal()")
        });
        Err(format!("{written:?}"))
    });
    fs::remove_file(full).expect("the file in the way");
    // It may have come back by itself, or have given up.
    let up = Session::try_open(database.config()).is_ok();
    if !up {
        cluster.restart(StopMode::Immediate);
    }
    wait_until_seen("the migration to finish", PATIENCE, || {
        let mut session = Session::try_open(database.config()).map_err(|e| e.to_string())?;
        let status = "SELECT state, waiting_for, last_error FROM transmute.status";
        let status = session.try_rows(status).map_err(|e| e.to_string())?;
        match status[0][0].as_deref() {
            Some("FINISHED") => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    });
    let mut session = reconnect(&database);
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE twice = 2 * a), count(*) FILTER (WHERE note = 'before it') FROM t"),
        ["20001|20001|1"]
    );
    assert_sound(&mut session, "t");
    drop(session);
    drop(database);
    cluster.stop(StopMode::Fast);
}

/// As the server's own user, who may do that to its processes and take it back.
fn limit_memory(pid: i32, bytes: &str) {
    let limit = Command::new("prlimit");
    tools::output_of(
        tools::as_server_user(limit)
            .args(["--pid", &pid.to_string()])
            .arg(format!("--as={bytes}:")),
    );
}

/// F13: a process that gets no memory has an ERROR of one batch, which is tried again.
#[test]
fn a_server_without_memory_is_waited_for() {
    let cluster = Cluster::builder()
        .conf("transmute.retry_delay = '1s'")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.batch(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        "INSERT INTO t SELECT i, repeat('x', i) FROM generate_series(1, 100) AS i",
        "INSERT INTO t VALUES (101, repeat('x', 300000000))",
    ]);
    let postmaster = cluster.postmaster_pid().expect("a server");
    let status = fs::read_to_string(format!("/proc/{postmaster}/status")).expect("its status");
    let used: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .and_then(|text| text.split_whitespace().next())
        .and_then(|text| text.parse().ok())
        .expect("a size");
    limit_memory(postmaster, &(used * 1024 + 200_000_000).to_string());
    apply(
        &mut session,
        "ALTER TABLE t ALTER COLUMN a TYPE int USING length(a)",
        "{}",
    );
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status",
        "53200",
        PATIENCE,
    );
    // Who needs little is not in need.
    let mut other = database.connect();
    other.exec("INSERT INTO t VALUES (102, 'xx')");
    limit_memory(postmaster, "unlimited");
    for child in process::children_of(postmaster) {
        limit_memory(child, "unlimited");
    }
    if session.lines("SELECT state FROM transmute.status") == ["AWAITING_ACTION"] {
        session.exec(&format!(
            "SELECT transmute.resume('{ID}', 'there is memory')"
        ));
    }
    wait_state(&mut session, "FINISHED");
    assert_eq!(
        session.lines("SELECT count(*), sum(a), pg_typeof(min(a)) FROM t"),
        ["102|300005052|integer"]
    );
}
