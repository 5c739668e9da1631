//! pgbench in the background, as the application whose latency and errors count.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::tools;
use crate::wait::{wait_until, PATIENCE};
use crate::Database;

/// For a run that is ended by hand: pgbench stops in good order only when it has a time limit to cut short.
const UNTIL_STOPPED_S: u64 = 7 * 24 * 3600;

pub struct Pgbench {
    command: Command,
    dir: PathBuf,
}

impl Pgbench {
    /// Makes pgbench's own tables: 100,000 accounts for each unit of `scale`.
    #[track_caller]
    pub fn initialize(database: &Database<'_>, scale: u32) {
        tools::output_of(
            database
                .command("pgbench")
                .args(["-i", "-q", "-s", &scale.to_string()]),
        );
    }

    /// One client, as fast as it goes, the standard transaction.
    pub fn new(database: &Database<'_>) -> Pgbench {
        let dir = tempfile::Builder::new()
            .prefix("pgbench-")
            .tempdir_in(database.cluster().dir())
            .expect("a folder")
            .keep();
        tools::give_to_server_user(&dir);
        let mut command = database.command("pgbench");
        command
            .args(["--no-vacuum", "--progress=1", "--log", "--log-prefix"])
            .arg(dir.join("transactions"));
        Pgbench { command, dir }
    }

    pub fn clients(mut self, clients: u32) -> Self {
        self.command.args([
            format!("--client={clients}"),
            format!("--jobs={}", clients.min(2)),
        ]);
        self
    }

    /// Transactions per second, all clients together. Latency then counts from when a transaction was due.
    pub fn rate(mut self, tps: u32) -> Self {
        self.command.arg(format!("--rate={tps}"));
        self
    }

    /// `simple`, `extended` or `prepared`.
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.command.arg(format!("--protocol={protocol}"));
        self
    }

    pub fn define(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.command.arg(format!("--define={name}={value}"));
        self
    }

    /// A script in pgbench's language; may be given several times, then one is drawn for each transaction.
    pub fn script(mut self, text: &str) -> Self {
        let number = fs::read_dir(&self.dir).expect("our own folder").count();
        let path = self.dir.join(format!("script-{number}.sql"));
        fs::write(&path, text).expect("a script");
        self.command.arg("--file").arg(path);
        self
    }

    /// Starts it; it runs until [`Running::stop`].
    #[track_caller]
    pub fn start(self) -> Running {
        self.spawn(Duration::from_secs(UNTIL_STOPPED_S))
    }

    #[track_caller]
    pub fn run_for(self, duration: Duration) -> Report {
        let mut running = self.spawn(duration);
        let limit = duration + PATIENCE;
        wait_until("pgbench to end", limit, || {
            running.child.try_wait().expect("pgbench")
        });
        running.report()
    }

    #[track_caller]
    fn spawn(mut self, duration: Duration) -> Running {
        let stderr = self.dir.join("stderr");
        self.command
            .arg(format!("--time={}", duration.as_secs().max(1)))
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.dir.join("stdout")).expect("a file"))
            .stderr(fs::File::create(&stderr).expect("a file"));
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        Running {
            child,
            dir: self.dir,
        }
    }
}

pub struct Running {
    child: Child,
    dir: PathBuf,
}

impl Running {
    /// The last line of progress, such as `progress: 3.0 s, 300.2 tps, lat 1.1 ms stddev 0.3, 0 failed, lag 0.2 ms`.
    pub fn progress(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("stderr")).ok()?;
        text.lines()
            .rev()
            .find(|line| line.starts_with("progress:"))
            .map(str::to_string)
    }

    /// Waits for the first line of progress: clients are connected and have done something.
    #[track_caller]
    pub fn wait_running(&mut self) {
        wait_until("pgbench to make progress", PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("pgbench") {
                panic!(
                    "pgbench ended: {status}\n{}",
                    tools::tail(&self.dir.join("stderr"), 20)
                );
            }
            self.progress()
        });
    }

    /// Ends the run: transactions under way are finished and counted.
    #[track_caller]
    pub fn stop(mut self) -> Report {
        // The signal by which its own time limit reaches pgbench; any other one would cost us the log's last lines.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGALRM);
        wait_until("pgbench to end", PATIENCE, || {
            self.child.try_wait().expect("pgbench")
        });
        self.report()
    }

    fn report(&mut self) -> Report {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let mut report = Report::default();
        for entry in fs::read_dir(&self.dir).expect("our own folder").flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("transactions")
            {
                read(&entry.path())
                    .lines()
                    .for_each(|line| report.add_log_line(line));
            }
        }
        report
            .transactions
            .sort_by(|a, b| a.ended_s.total_cmp(&b.ended_s));
        let stderr = read(&self.dir.join("stderr"));
        report.errors = stderr
            .lines()
            .filter(|line| is_error(line))
            .map(str::to_string)
            .collect();
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A failed statement ends its client with `pgbench: error: client 1 script 0 aborted in command 2 query 0: ERROR: …`; at the
/// end pgbench repeats that there was one.
fn is_error(line: &str) -> bool {
    ["pgbench: error:", "pgbench: fatal:"]
        .iter()
        .any(|start| line.starts_with(start))
        && !line.contains("Run was aborted")
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transaction {
    /// Seconds since 1970.
    pub ended_s: f64,
    pub latency_ms: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they ended.
    pub transactions: Vec<Transaction>,
    /// Transactions that were given up after a serialization failure or a deadlock.
    pub failed: u64,
    /// What pgbench complained of: each line ended one client.
    pub errors: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub count: usize,
    pub tps: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Report {
    /// `client_id transaction_no time script_no time_epoch time_us [schedule_lag]`, times in microseconds.
    fn add_log_line(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| fields.get(i).and_then(|text| text.parse::<f64>().ok());
        match (number(2), number(4), number(5)) {
            (Some(latency), Some(seconds), Some(micros)) => self.transactions.push(Transaction {
                ended_s: seconds + micros / 1e6,
                latency_ms: latency / 1e3,
            }),
            // In place of the time: failed, serialization, deadlock.
            _ => self.failed += 1,
        }
    }

    /// Failed transactions and dead clients: what must be 0.
    pub fn failures(&self) -> u64 {
        self.failed + self.errors.len() as u64
    }

    pub fn stats(&self) -> Stats {
        match (self.transactions.first(), self.transactions.last()) {
            (Some(first), Some(last)) => stats(&self.transactions, last.ended_s - first.ended_s),
            _ => Stats::default(),
        }
    }

    /// What ended in a window of time.
    pub fn between(&self, from: SystemTime, to: SystemTime) -> Stats {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64())
        };
        let (from, to) = (seconds(from), seconds(to));
        let start = self.transactions.partition_point(|t| t.ended_s < from);
        let end = self.transactions.partition_point(|t| t.ended_s < to);
        stats(&self.transactions[start..end], to - from)
    }
}

fn stats(transactions: &[Transaction], seconds: f64) -> Stats {
    let mut latencies: Vec<f64> = transactions.iter().map(|t| t.latency_ms).collect();
    latencies.sort_by(f64::total_cmp);
    let Some(max_ms) = latencies.last().copied() else {
        return Stats::default();
    };
    // Nearest rank: the smallest value that at least this share does not exceed.
    let percentile =
        |share: f64| latencies[((latencies.len() as f64 * share).ceil() as usize).max(1) - 1];
    let tps = if seconds > 0.0 {
        latencies.len() as f64 / seconds
    } else {
        0.0
    };
    Stats {
        count: latencies.len(),
        tps,
        p50_ms: percentile(0.5),
        p99_ms: percentile(0.99),
        max_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_become_transactions_and_failures() {
        let mut report = Report::default();
        report.add_log_line("0 199 2241 0 1175850568 995598 120");
        report.add_log_line("0 200 failed 0 1175850569 608479 0");
        assert_eq!(
            report.transactions,
            [Transaction {
                ended_s: 1_175_850_568.995_598,
                latency_ms: 2.241
            }]
        );
        assert_eq!(report.failures(), 1);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let transactions: Vec<Transaction> = (1..=200)
            .map(|i| Transaction {
                ended_s: f64::from(i),
                latency_ms: f64::from(i),
            })
            .collect();
        let stats = stats(&transactions, 100.0);
        assert_eq!(
            (stats.p50_ms, stats.p99_ms, stats.max_ms, stats.tps),
            (100.0, 198.0, 200.0, 2.0)
        );
    }
}
