//! Instructions of a statement, counted by valgrind in a single-user server: the same on every machine and every day.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use transmute_tests::{tools, Cluster};

/// Why nothing can be counted here; `None`: valgrind is there.
pub fn missing() -> Option<String> {
    let found = Command::new("valgrind").arg("--version").output();
    match found {
        Ok(output) if output.status.success() => None,
        _ => Some("no valgrind on this machine (Debian: apt-get install valgrind)".into()),
    }
}

/// A stopped cluster whose copies are run one statement at a time.
pub struct Counter<'c> {
    cluster: &'c Cluster,
    copy: PathBuf,
}

impl<'c> Counter<'c> {
    pub fn new(cluster: &'c Cluster) -> Counter<'c> {
        assert!(
            cluster.postmaster_pid().is_none(),
            "the server must be stopped"
        );
        Counter {
            cluster,
            copy: cluster.dir().join("copy"),
        }
    }

    /// Instructions that a server spends on `sql` in `database`, with its start and stop. Every count begins with the
    /// same data.
    pub fn instructions(&self, database: &str, sql: &str) -> f64 {
        let _ = fs::remove_dir_all(&self.copy);
        tools::output_of(
            tools::as_server_user(Command::new("cp"))
                .args(["-a", "--reflink=auto"])
                .args([&self.cluster.data(), &self.copy]),
        );
        let libraries = tools::output_of(
            Command::new(self.cluster.tree().program("pg_config")).arg("--libdir"),
        );
        let mut command = tools::as_server_user(Command::new("valgrind"));
        command
            .env("LD_LIBRARY_PATH", libraries.trim())
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(self.cluster.tree().program("postgres"))
            .arg("--single")
            // Statements end with a semicolon and an empty line.
            .arg("-j")
            .arg("-D")
            .arg(&self.copy)
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{sql};\n").expect("the server reads its statements");
        drop(stdin);
        let output = child.wait_with_output().expect("valgrind");
        let text = String::from_utf8_lossy(&output.stderr);
        let is_fine = output.status.success() && !text.contains("ERROR:");
        collected(&text)
            .filter(|_| is_fine)
            .unwrap_or_else(|| panic!("{command:?}: {}\n{text}", output.status))
    }

    /// Instructions a row: the difference of two counts of rows, so that start, planning and stop fall out.
    pub fn per_row(
        &self,
        database: &str,
        statement: impl Fn(u32) -> String,
        few: u32,
        many: u32,
    ) -> f64 {
        let less = self.instructions(database, &statement(few));
        let more = self.instructions(database, &statement(many));
        (more - less) / f64::from(many - few)
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all::<&Path>(&self.copy);
    }
}

/// `==123== Collected : 43373055`
fn collected(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
