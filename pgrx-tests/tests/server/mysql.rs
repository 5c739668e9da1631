//! Copies from and to a real MariaDB through mysql_fdw, with crashes between. Debian has the wrapper for one version of PostgreSQL;
//! for the others, and on machines without these packages, the test says on the terminal that it skips.

use std::io::Write as _;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use tempfile::TempDir;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{tools, Cluster, Database, Session};

use super::scene::{assert_log_is_clean, reconnect};

const ROWS: i64 = 3_000;

/// The files of Debian's packages.
struct Packages {
    wrapper: PathBuf,
    client: PathBuf,
    server: PathBuf,
}

impl Packages {
    fn find() -> Option<Packages> {
        let version = tools::version_under_test();
        let libraries = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
        Some(Packages {
            wrapper: tools::debian(
                &format!("postgresql-{version}-mysql-fdw"),
                &format!("usr/lib/postgresql/{version}/lib/mysql_fdw.so"),
            )?,
            client: tools::debian("libmariadb3", &format!("{libraries}/libmariadb.so.3"))?,
            server: tools::debian("mariadb-server-core", "usr/sbin/mariadbd")?,
        })
    }
}

/// A MariaDB server that nobody but the test reaches: on a socket, without accounts.
struct MariaDb {
    process: Child,
    dir: TempDir,
}

impl MariaDb {
    fn start(packages: &Packages, init: &str) -> MariaDb {
        let dir = tempfile::Builder::new()
            .prefix("transmute-mariadb-")
            .tempdir()
            .expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("data")).expect("a folder");
        fs::write(at("init.sql"), init).expect("written");
        // The wrapper asks for the client library by its old name.
        symlink(&packages.client, at("libmysqlclient.so")).expect("a link");
        for folder in [dir.path(), &at("data")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions");
            if let Some((user, group)) = tools::server_user() {
                std::os::unix::fs::chown(folder, Some(user.as_raw()), Some(group.as_raw()))
                    .expect("given away");
            }
        }
        let share = packages.server.join("../../share/mysql");
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let log = fs::File::create(at("log")).expect("a log");
        // It ends with the thread of the test, whatever becomes of that.
        let libraries: Vec<String> = ["libaio1", "libnuma1", "liburing2"]
            .iter()
            .flat_map(|package| [(package, "lib"), (package, "usr/lib")])
            .filter_map(|(package, lib)| {
                tools::debian(package, &format!("{lib}/{}-linux-gnu", env::consts::ARCH))
            })
            .map(|path| path.display().to_string())
            .collect();
        let process = tools::as_server_user(Command::new("setpriv"))
            .args(["--pdeathsig", "KILL"])
            .arg(&packages.server)
            .args(["--no-defaults", "--skip-networking", "--skip-grant-tables"])
            .args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"])
            .arg(option("datadir", &at("data")))
            .arg(option("tmpdir", &at("data")))
            .arg(option("socket", &at("socket")))
            .arg(option("pid-file", &at("data/pid")))
            .arg(option("init-file", &at("init.sql")))
            .arg(option("lc-messages-dir", &share))
            .arg(option("character-sets-dir", &share.join("charsets")))
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("setpriv");
        let server = MariaDb { process, dir };
        let socket = server.socket();
        wait_until_seen("MariaDB has its socket", PATIENCE, || {
            if socket.exists() {
                return Ok(());
            }
            let log = fs::read_to_string(server.dir.path().join("log"));
            Err(log.unwrap_or_default())
        });
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn mysql_is_source_and_target_of_copies_across_crashes() {
    let Some(packages) = Packages::find() else {
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: no mysql_fdw for PostgreSQL {} or no MariaDB here; a copy from and to it is not tested\n",
            tools::version_under_test()
        );
        return;
    };
    let far = MariaDb::start(
        &packages,
        &format!(
            "CREATE DATABASE far;\nUSE far;\n\
             CREATE TABLE numbers (id int PRIMARY KEY, name varchar(40) NOT NULL, n varchar(20));\n\
             CREATE TABLE sink (id int PRIMARY KEY, name varchar(40));\n\
             INSERT INTO numbers SELECT seq, concat('row ', seq), if(seq IN (77, 2000), 'x', seq) FROM seq_1_to_{ROWS};\n"
        ),
    );
    let cluster = Cluster::builder()
        .conf("transmute.backfill_duty = 50")
        .env("LD_LIBRARY_PATH", &far.dir.path().display().to_string())
        .env("MYSQL_UNIX_PORT", &far.socket().display().to_string())
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    // What CREATE EXTENSION would run, with the library where it was unpacked.
    let library = packages.wrapper.display();
    session.exec(&format!(
        "CREATE FUNCTION mysql_fdw_handler() RETURNS fdw_handler AS '{library}' LANGUAGE C STRICT;
         CREATE FUNCTION mysql_fdw_validator(text[], oid) RETURNS void AS '{library}' LANGUAGE C STRICT;
         CREATE FOREIGN DATA WRAPPER mysql_fdw HANDLER mysql_fdw_handler VALIDATOR mysql_fdw_validator;
         CREATE SERVER far FOREIGN DATA WRAPPER mysql_fdw OPTIONS (host 'localhost');
         CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (username 'anybody')"
    ));
    session.exec(
        "IMPORT FOREIGN SCHEMA far FROM SERVER far INTO public;
         CREATE TABLE t (id int PRIMARY KEY, name text, n int);
         SELECT transmute.register_copy('in', 'numbers', 't', '{id}', 'id, name AS title, n::int AS n',
           '[{\"rename\": {\"title\": \"name\"}}]', meta => '{\"batch_size\": 20}');
         SELECT transmute.apply('in')",
    );
    let half = |session: &mut Session, id: &str| {
        session.wait_for(
            &format!("SELECT rows_done > 300 FROM transmute.progress WHERE id = '{id}'"),
            "t",
            PATIENCE,
        );
        assert_eq!(
            session.lines(&format!(
                "SELECT state FROM transmute.status WHERE id = '{id}'"
            )),
            ["RUNNING"],
            "the crash came too late"
        );
        cluster.kill9();
        cluster.start();
        reconnect(&database)
    };
    session = half(&mut session, "in");
    // The rows that the target refuses are set aside; one is mended over there, one left out.
    session.wait_for(
        "SELECT string_agg(key || ' ' || sqlstate, ', ' ORDER BY key) FROM transmute.dead_letters WHERE status = 'open'",
        "(id)=(2000) 22P02, (id)=(77) 22P02",
        PATIENCE,
    );
    session.exec("UPDATE numbers SET n = '2000' WHERE id = 2000");
    session.wait_for("SELECT dead_letters FROM transmute.status", "1", PATIENCE);
    session.exec("SELECT transmute.discard_dead_letters('in', NULL, 'not a number')");
    session.exec("CALL transmute.wait('in', timeout => '60 s')");
    let sum = ROWS * (ROWS + 1) / 2 - 77;
    assert_eq!(
        session
            .lines("SELECT count(*), sum(n), count(*) FILTER (WHERE name = 'row ' || id) FROM t"),
        [format!("{}|{sum}|{}", ROWS - 1, ROWS - 1)]
    );
    // The other way: what was written there before the crash is skipped.
    session.exec(
        "SELECT transmute.register_copy('out', 't', 'sink', '{id}', 'id, name', meta => '{\"batch_size\": 20}');
         SELECT transmute.apply('out')",
    );
    session = half(&mut session, "out");
    session.exec("CALL transmute.wait('out', timeout => '60 s')");
    assert_eq!(
        session.lines(
            "SELECT count(*), sum(id), count(*) FILTER (WHERE name = 'row ' || id) FROM sink"
        ),
        [format!("{}|{sum}|{}", ROWS - 1, ROWS - 1)]
    );
    assert_log_is_clean(&cluster);
}
