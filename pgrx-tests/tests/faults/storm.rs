//! What troubles a database while its migration is under way; a thread each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use transmute_tests::Session;

/// Returns when it is told to stop, or when it is over; leaves nothing behind.
pub type Storm = fn(postgres::Config, &AtomicBool);

/// How long what is held once is held: long enough for every migration here to come to where it has to wait.
const HELD: Duration = Duration::from_secs(6);
const BREATH: Duration = Duration::from_millis(30);

pub fn until(time: Duration, stop: &AtomicBool) {
    let since = Instant::now();
    while since.elapsed() < time && !stop.load(Ordering::Relaxed) {
        sleep(BREATH);
    }
}

/// F10: ACCESS EXCLUSIVE on the table for up to half a second, again and again; and a reader who stays for long.
pub fn locks(config: postgres::Config, stop: &AtomicBool) {
    let mut random = StdRng::seed_from_u64(10);
    let mut session = Session::open(config.clone());
    let mut reader = Session::open(config);
    reader.exec("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE");
    let since = Instant::now();
    let mut reads = true;
    while !stop.load(Ordering::Relaxed) {
        if reads && since.elapsed() > HELD {
            reader.exec("COMMIT");
            reads = false;
        }
        if session
            .try_exec("SET lock_timeout = '300ms'; BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            .is_ok()
        {
            sleep(Duration::from_millis(random.random_range(0..500)));
        }
        session.exec("ROLLBACK");
        sleep(Duration::from_millis(random.random_range(0..400)));
    }
}

/// F11: rows that no client owns, against the order of their keys, and then the whole table.
pub fn deadlocks(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    while !stop.load(Ordering::Relaxed) {
        for sql in [
            "BEGIN",
            "SELECT FROM t WHERE id = 90 FOR UPDATE",
            "SELECT pg_sleep(0.02)",
            "SELECT FROM t WHERE id = 10 FOR UPDATE",
            "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE",
            "COMMIT",
        ] {
            if let Err(error) = session.try_exec(sql) {
                assert_eq!(error.sqlstate, "40P01", "{error}");
                session.exec("ROLLBACK");
                break;
            }
        }
        sleep(BREATH);
    }
}

/// F13: one session takes every lock that the server can keep, and keeps them for a moment.
pub fn all_locks(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    while !stop.load(Ordering::Relaxed) {
        session.exec("BEGIN");
        let mut next = 0;
        while session
            .try_exec(&format!(
                "SAVEPOINT s; SELECT pg_advisory_xact_lock_shared(i) FROM generate_series({next}, {next} + 1000) AS i"
            ))
            .is_ok()
        {
            next += 1001;
        }
        // What was taken before the last savepoint is still held.
        sleep(Duration::from_millis(100));
        session.exec("ROLLBACK");
        sleep(Duration::from_millis(400));
    }
}

/// F15: a prepared transaction with a lock on the table, until somebody ends it.
pub fn prepared(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    let name: String = session.scalar("SELECT 'forgotten ' || current_database()");
    session.exec(&format!(
        "BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION '{name}'"
    ));
    until(HELD, stop);
    session.exec(&format!("ROLLBACK PREPARED '{name}'"));
}

/// F16: a transaction that has seen the table and sits there.
pub fn old_snapshot(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    session.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t");
    until(HELD, stop);
    session.exec("COMMIT");
}

/// F22: a synchronous standby that is not there, for a while.
pub fn no_standby(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    // The same for all databases of the server: whoever comes first, and last.
    session.exec("SET synchronous_commit = local");
    until(Duration::from_secs(1), stop);
    let _ = session.try_exec("ALTER SYSTEM SET synchronous_standby_names = 'gone'");
    session.exec("SELECT pg_reload_conf()");
    until(HELD, stop);
    while session
        .try_exec("ALTER SYSTEM RESET synchronous_standby_names")
        .is_err()
    {
        sleep(BREATH);
    }
    session.exec("SELECT pg_reload_conf()");
}

/// F20: the tables of ours are locked for a while, again and again.
pub fn our_tables(config: postgres::Config, stop: &AtomicBool) {
    let mut session = Session::open(config);
    while !stop.load(Ordering::Relaxed) {
        let locked = session.try_exec(
            "SET lock_timeout = '1s';
             BEGIN; LOCK TABLE _transmute.migrations, _transmute.steps, _transmute.drivers, _transmute.audit_events IN ACCESS EXCLUSIVE MODE",
        );
        if locked.is_ok() {
            until(Duration::from_secs(1), stop);
        }
        session.exec("ROLLBACK");
        until(Duration::from_secs(1), stop);
    }
}

/// F8: the disk of the database is full for a while, again and again.
pub fn full_disk(config: postgres::Config, stop: &AtomicBool) {
    let folder: Option<String> = Session::open(config).scalar(
        "SELECT nullif(pg_tablespace_location(dattablespace), '') FROM pg_database WHERE datname = current_database()",
    );
    let file = std::path::Path::new(&folder.expect("a tablespace")).join("filler");
    // One for all databases: who finds the file there waits.
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut filler) = std::fs::File::create_new(&file) {
            let megabyte = vec![1u8; 1 << 20];
            for size in [1 << 20, 8192] {
                while std::io::Write::write_all(&mut filler, &megabyte[..size]).is_ok() {}
            }
            until(Duration::from_millis(1500), stop);
            std::fs::remove_file(&file).expect("the filler");
        }
        until(Duration::from_millis(1500), stop);
    }
}

/// F18: everybody is put out, the database gets another name for a moment, and has its own again.
pub fn another_name(config: postgres::Config, stop: &AtomicBool) {
    let name = config.get_dbname().expect("a database").to_string();
    let mut outside = config;
    outside.dbname("postgres").application_name("renamer");
    let mut session = Session::open(outside);
    // Who is quick is in again before the name is changed.
    let mut rename = |from: &str, to: &str| {
        session.try_exec(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'"
        ))?;
        session.try_exec(&format!("ALTER DATABASE {from} RENAME TO {to}"))
    };
    let away = format!("{name}_away");
    for _ in 0..3 {
        until(Duration::from_millis(600), stop);
        let since = Instant::now();
        while rename(&name, &away).is_err() && since.elapsed() < HELD {
            sleep(BREATH);
        }
        until(Duration::from_millis(300), stop);
        while rename(&away, &name).is_err_and(|error| error.sqlstate != "3D000") {
            sleep(BREATH);
        }
    }
}
