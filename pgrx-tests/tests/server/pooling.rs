//! L9: behind a pooler each transaction of a client may run in another session of the server: no call needs more than its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use transmute_tests::tools;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{Cluster, Database, Session};

use super::scene::{
    assert_finished, assert_log_is_clean, assert_rolled_back, create_table, wait_state, ALTER, ID,
};

/// pgbouncer in transaction mode before a cluster, with two sessions of the server for all clients.
struct Pooler(Child);

impl Pooler {
    /// `None` where the machine's archive has none.
    fn start(cluster: &Cluster) -> Option<Pooler> {
        const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
        let program = tools::debian("pgbouncer", "usr/sbin/pgbouncer")?;
        let libraries: Vec<PathBuf> = ["libevent-2.1-7", "libc-ares2"]
            .iter()
            .filter_map(|package| tools::debian(package, LIBRARIES))
            .collect();
        let folder = Pooler::folder(cluster);
        fs::create_dir(&folder).expect("a folder");
        tools::give_to_server_user(&folder);
        let at = folder.display();
        let conf = format!(
            "[databases]\n* = host={} port=5432 user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {at}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nlogfile = {at}/log\npidfile = {at}/pid\n",
            cluster.dir().display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, conf).expect("a file");
        tools::give_to_server_user(&file);
        let mut command = tools::as_server_user(Command::new(program));
        let path = std::env::join_paths(libraries).expect("paths");
        command.env("LD_LIBRARY_PATH", path).arg("-q").arg(&file);
        Some(Pooler(command.spawn().expect("pgbouncer")))
    }

    fn folder(cluster: &Cluster) -> PathBuf {
        cluster.dir().join("pooler")
    }

    fn connect(folder: &Path, database: &Database<'_>) -> Session {
        let mut config = postgres::Config::new();
        config
            .host_path(folder)
            .port(6432)
            .user("postgres")
            .dbname(database.name());
        wait_until_seen("the pooler", PATIENCE, || Session::try_open(config.clone()))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_call_works_behind_a_pooler_that_changes_sessions() {
    let cluster = Cluster::builder().start();
    let Some(_pooler) = Pooler::start(&cluster) else {
        println!("skipped: no pgbouncer");
        return;
    };
    let database = Database::create(&cluster);
    let folder = Pooler::folder(&cluster);
    let mut session = database.connect();
    create_table(&mut session, 500);
    let mut clients: Vec<Session> = (0..4)
        .map(|_| Pooler::connect(&folder, &database))
        .collect();
    // The pool's other session is busy now and then: whoever comes gets whichever is free.
    let mut turn = 0;
    let mut call = |sql: &str| {
        turn += 1;
        let other = (turn + 1) % clients.len();
        clients[other].exec("BEGIN; SELECT 1");
        clients[turn % 4].exec(sql);
        clients[other].exec("COMMIT");
        clients[turn % 4].exec("UPDATE t SET note = 'pooled' WHERE id <= 10");
    };
    let meta = r#"{"pre_finalization_soak": "1 hour", "required_approvals": 1}"#;
    call(&format!(
        "SELECT transmute.register('{ID}', $${ALTER}$$, meta => '{meta}')"
    ));
    call(&format!("SELECT transmute.apply('{ID}')"));
    call(&format!(
        "CALL transmute.wait('{ID}', 'AWAITING_FINALIZATION')"
    ));
    for sql in [
        "SELECT transmute.pause('m', 'x')",
        "SELECT * FROM transmute.status",
        "SELECT transmute.resume('m', 'x')",
        "SELECT transmute.tune('m', 'x', backfill_duty => 50)",
        "SELECT transmute.emergency_stop('x')",
        "SELECT transmute.resume_all('x')",
        "SELECT transmute.rollback('m', 'x')",
        "CALL transmute.run('m')",
    ] {
        call(sql);
    }
    assert_rolled_back(&mut session);
    for sql in [
        "SELECT transmute.apply('m')",
        "CALL transmute.wait('m', 'AWAITING_FINALIZATION')",
        "SELECT transmute.approve('m', 'x')",
        "SELECT transmute.skip_soak('m', 'x')",
        "CALL transmute.wait('m')",
        "SELECT * FROM transmute.audit_verify()",
    ] {
        call(sql);
    }
    wait_state(&mut session, "FINISHED");
    assert_finished(&mut session);
    assert_eq!(
        session.lines("SELECT count(*) FILTER (WHERE note = 'pooled') FROM t"),
        ["10"]
    );
    // Nothing of a call stays in the sessions that served it.
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN
        (SELECT pid FROM pg_stat_activity WHERE application_name = 'transmute-tests')";
    assert_eq!(session.lines(left), ["0"]);
    drop(clients);
    assert_log_is_clean(&cluster);
}
