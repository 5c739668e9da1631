//! A PostgreSQL cluster of a test's own: unix socket only, in a short path under /tmp, as an unprivileged user.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::process;
use crate::template;
use crate::tools::{self, Build, Tree};
use crate::wait::{wait_until, wait_until_seen, PATIENCE};
use crate::watchdog::Watchdog;
use crate::Session;

/// Only names the socket: every cluster has a directory to itself.
const PORT: u16 = 5432;

/// What every cluster is set to. fsync is off because tests kill processes, never the kernel.
const BASE_CONF: &str = "
listen_addresses = ''
log_line_prefix = '%m [%p] %b %d %a %e '
lc_messages = 'C'
timezone = 'UTC'
max_connections = 100
max_worker_processes = 32
max_prepared_transactions = 10
wal_level = logical
jit = off
";

/// Files that no disk holds, on Linux.
const MEMORY: &str = "/dev/shm";
const ROOM: u64 = 3 << 30;

fn has_room(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path)
        .is_ok_and(|fs| fs.blocks_available() * fs.fragment_size() >= ROOM)
}

/// How a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Clients are waited for.
    Smart,
    /// Clients are disconnected, the shutdown checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers.
    Immediate,
}

#[derive(Debug)]
pub struct Builder {
    build: Build,
    tree: Option<Tree>,
    conf: Vec<String>,
    preload: bool,
    fsync: bool,
    in_memory: bool,
    env: Vec<(String, String)>,
}

impl Builder {
    /// Which library: by default the one with waitpoints.
    pub fn build(mut self, build: Build) -> Self {
        self.build = build;
        self
    }

    /// Of another version than the one under test.
    pub fn tree(mut self, tree: &Tree) -> Self {
        self.tree = Some(tree.clone());
        self
    }

    /// A line of postgresql.conf, such as `wal_level = minimal`; the last one of a name counts.
    pub fn conf(mut self, line: &str) -> Self {
        self.conf.push(line.to_string());
        self
    }

    /// Leaves the extension out of shared_preload_libraries.
    pub fn without_preload(mut self) -> Self {
        self.preload = false;
        self
    }

    /// For measurements: a server that really writes.
    pub fn fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// Where the machine has such a place: for clusters of very many files, most of whose time would be the disk's.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// In the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_string(), value.to_string()));
        self
    }

    /// A started, empty cluster.
    pub fn start(self) -> Cluster {
        let tree = (self.tree.clone()).unwrap_or_else(|| Tree::under_test(self.build));
        let template = template::of(&tree);
        let cluster = Cluster::new(tree, self.in_memory, |_, data| {
            let copy = Command::new("cp");
            tools::output_of(
                tools::as_server_user(copy)
                    .args(["-a", "--reflink=auto"])
                    .args([template.as_path(), data]),
            );
        });
        cluster.append_conf(BASE_CONF);
        cluster.append_conf(if self.fsync {
            "fsync = on"
        } else {
            "fsync = off"
        });
        if self.preload {
            cluster.append_conf("shared_preload_libraries = 'transmute'");
        }
        self.finish(cluster)
    }

    /// A started cluster of the version under test with everything that `old`, which is stopped, had: by pg_upgrade.
    pub fn start_upgraded_from(self, old: &Cluster) -> Cluster {
        let cluster = self.start();
        cluster.stop(StopMode::Fast);
        for check in [Some("--check"), None] {
            let mut upgrade = cluster.tree.command("pg_upgrade");
            tools::output_of(
                upgrade
                    .current_dir(&cluster.dir)
                    .args(["--username", "postgres", "--no-sync", "--socketdir"])
                    .arg(&cluster.dir)
                    .arg("--old-bindir")
                    .arg(old.tree.bin())
                    .arg("--old-datadir")
                    .arg(old.data())
                    .arg("--new-datadir")
                    .arg(cluster.data())
                    .args(check),
            );
        }
        cluster.start();
        cluster
    }

    /// A started streaming standby of `primary`, in recovery.
    pub fn start_standby_of(self, primary: &Cluster) -> Cluster {
        let cluster = Cluster::backup(primary, self.in_memory, &["--write-recovery-conf"]);
        self.finish(cluster)
    }

    fn finish(self, mut cluster: Cluster) -> Cluster {
        cluster.env = self.env;
        cluster.append_conf(&format!(
            "unix_socket_directories = '{}'",
            cluster.dir.display()
        ));
        for line in &self.conf {
            cluster.append_conf(line);
        }
        cluster.start();
        cluster
    }
}

#[derive(Debug)]
pub struct Cluster {
    tree: Tree,
    dir: PathBuf,
    postmaster: Mutex<Option<Child>>,
    env: Vec<(String, String)>,
    _watchdog: Watchdog,
}

impl Cluster {
    pub fn builder() -> Builder {
        Builder {
            build: Build::default(),
            tree: None,
            conf: Vec::new(),
            preload: true,
            fsync: false,
            in_memory: false,
            env: Vec::new(),
        }
    }

    /// A base backup of `primary`, not started; its sockets are in its own folder.
    pub fn backup_of(primary: &Cluster, arguments: &[&str]) -> Cluster {
        Cluster::backup(primary, false, arguments)
    }

    fn backup(primary: &Cluster, in_memory: bool, arguments: &[&str]) -> Cluster {
        let cluster = Cluster::new(primary.tree.clone(), in_memory, |_, data| {
            let mut basebackup = primary.tree.command("pg_basebackup");
            primary.address(&mut basebackup);
            tools::output_of(
                basebackup
                    .args(arguments)
                    .args(["--checkpoint=fast", "--no-sync", "-D"])
                    .arg(data),
            );
        });
        cluster.append_conf(&format!(
            "unix_socket_directories = '{}'",
            cluster.dir.display()
        ));
        cluster
    }

    /// The cluster that all tests of this process share, each in a database of its own.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::builder().start())
    }

    fn new(tree: Tree, in_memory: bool, make_data: impl FnOnce(&Tree, &Path)) -> Cluster {
        // Not the system's temporary folder, whose path may be longer than a socket's may be.
        let parent = if in_memory && has_room(Path::new(MEMORY)) {
            MEMORY
        } else {
            "/tmp"
        };
        let dir = tempfile::Builder::new()
            .prefix("transmute-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .expect("a folder for a cluster")
            .keep();
        tools::give_to_server_user(&dir);
        let watchdog = Watchdog::over(&dir);
        let cluster = Cluster {
            tree,
            dir,
            postmaster: Mutex::new(None),
            env: Vec::new(),
            _watchdog: watchdog,
        };
        register(&cluster.log_path());
        if std::env::var_os("TRANSMUTE_KEEP").is_some() {
            eprintln!("--- will be kept: {}", cluster.dir.display());
            cluster.keep();
        }
        make_data(&cluster.tree, &cluster.data());
        cluster
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The folder of this cluster: data, log and socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log_tail(&self, lines: usize) -> String {
        tools::tail(&self.log_path(), lines)
    }

    pub fn log_contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).contains(text)
    }

    /// Takes effect with the next start, or with `SELECT pg_reload_conf()` if the setting allows.
    pub fn append_conf(&self, lines: &str) {
        let path = self.data().join("postgresql.conf");
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("postgresql.conf");
        writeln!(file, "{lines}").expect("postgresql.conf");
    }

    /// How a client finds this cluster.
    pub fn config(&self) -> postgres::Config {
        let mut config = postgres::Config::new();
        config
            .host_path(&self.dir)
            .port(PORT)
            .user("postgres")
            .dbname("postgres");
        config
    }

    #[track_caller]
    pub fn connect(&self) -> Session {
        Session::open(self.config())
    }

    /// Tells one of the server's client programs where this cluster is.
    pub fn address(&self, command: &mut Command) {
        command
            .env("PGHOST", &self.dir)
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", "postgres");
    }

    /// A client program of this server, as its user, addressed at database `dbname`.
    pub fn command(&self, program: &str, dbname: &str) -> Command {
        let mut command = self.tree.command(program);
        self.address(&mut command);
        command.env("PGDATABASE", dbname);
        command
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn postmaster_pid(&self) -> Option<i32> {
        self.postmaster().as_ref().map(|child| child.id() as i32)
    }

    /// Starts the server and waits until it takes connections.
    #[track_caller]
    pub fn start(&self) {
        let mut slot = self.postmaster();
        assert!(slot.is_none(), "the server is running already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("log");
        tools::give_to_server_user(&self.log_path());
        let mut command = self.tree.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            // Ctrl-C is for the test; the watchdog stops the server.
            .process_group(0);
        // Our own child, not pg_ctl's orphan: we see it die, and it leaves no zombie where nobody reaps.
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let pid = child.id();
        wait_until_seen("the server to start", PATIENCE, || {
            if let Some(status) = child.try_wait().expect("postmaster") {
                panic!("the server did not start: {status}\n{}", self.log_tail(40));
            }
            // As pg_ctl does: first line the pid, eighth the state.
            let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = file.lines().map(str::trim).collect();
            let is_ours = lines.first() == Some(&pid.to_string().as_str());
            match lines.get(7) {
                Some(&("ready" | "standby")) if is_ours => Ok(()),
                _ => Err(file),
            }
        });
        *slot = Some(child);
    }

    /// Asks the server to stop, and does not wait for that.
    #[track_caller]
    pub fn ask_to_stop(&self, mode: StopMode) {
        let signal = match mode {
            StopMode::Smart => Signal::SIGTERM,
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        let postmaster = self.postmaster_pid().expect("the server is running");
        kill(Pid::from_raw(postmaster), signal).expect("the postmaster is our child");
    }

    /// Stops the server; how long that took.
    #[track_caller]
    pub fn stop(&self, mode: StopMode) -> Duration {
        self.ask_to_stop(mode);
        let mut child = self.postmaster().take().expect("the server is running");
        let start = Instant::now();
        wait_until("the server to stop", PATIENCE, || {
            child.try_wait().expect("postmaster")
        });
        start.elapsed()
    }

    #[track_caller]
    pub fn restart(&self, mode: StopMode) {
        self.stop(mode);
        self.start();
    }

    /// SIGKILL for the postmaster and everything it started, at one instant: what a machine's failure looks like to
    /// the next start. Returns when all are gone.
    #[track_caller]
    pub fn kill9(&self) {
        let mut postmaster = self.postmaster().take().expect("the server is running");
        let pid = Pid::from_raw(postmaster.id() as i32);
        // Held still, it cannot start another child while we look.
        kill(pid, Signal::SIGSTOP).expect("the postmaster is our child");
        let children = process::children_of(pid.as_raw());
        // The children first: one that outlived the postmaster would tell its client a last word.
        for child in &children {
            // One that has just ended is as good as killed.
            let _ = kill(Pid::from_raw(*child), Signal::SIGKILL);
        }
        kill(pid, Signal::SIGKILL).expect("the postmaster is our child");
        postmaster.wait().expect("postmaster");
        wait_until_seen("killed backends to go", PATIENCE, || {
            let left: Vec<i32> = children
                .iter()
                .copied()
                .filter(|child| process::is_alive(*child))
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(left)
            }
        });
    }

    /// SIGKILL for these processes, all of them before the postmaster can answer the death of the first.
    pub fn kill9_all(&self, pids: &[i32]) {
        let postmaster = Pid::from_raw(self.postmaster_pid().expect("the server is running"));
        kill(postmaster, Signal::SIGSTOP).expect("the postmaster is our child");
        for pid in pids {
            // One that has just ended is as good as killed.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        kill(postmaster, Signal::SIGCONT).expect("the postmaster is our child");
    }

    /// Leaves the folder where it is when this cluster goes.
    pub fn keep(&self) {
        let _ = File::create(self.dir.join("keep"));
    }

    /// For a failed test: what the server said, and where the rest is.
    pub fn keep_and_explain(&self) {
        self.keep();
        eprintln!(
            "--- last lines of {}\n{}\n--- kept; look into it with\n    pgrx-tests/tools/reopen {}",
            self.log_path().display(),
            self.log_tail(60),
            self.dir.display()
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A database of this cluster may have explained already.
        if std::thread::panicking() && !self.dir.join("keep").exists() {
            self.keep_and_explain();
        }
        unregister(&self.log_path());
        if let Some(mut child) = self.postmaster().take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGQUIT);
            let _ = child.wait();
        }
        if !self.dir.join("keep").exists() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

static LIVE_LOGS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live_logs() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE_LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(log: &Path) {
    live_logs().push(log.to_path_buf());
}

fn unregister(log: &Path) {
    live_logs().retain(|other| other != log);
}

/// The ends of the logs of all clusters that this process runs.
pub(crate) fn log_tails(lines: usize) -> String {
    let logs = live_logs().clone();
    logs.iter()
        .map(|log| format!("--- {}\n{}\n", log.display(), tools::tail(log, lines)))
        .collect()
}
