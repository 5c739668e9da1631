//! Processor time of a server, from /proc: it says nearly the same on a busy machine as on an idle one.

use std::fs;

use transmute_tests::Cluster;

/// USER_HZ, which is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the postmaster, its children, and those of them that have ended, have used so far.
pub fn seconds_of(cluster: &Cluster) -> f64 {
    let postmaster = cluster.postmaster_pid().expect("a running server");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids =
        processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let ticks: f64 = pids
        .filter_map(stat)
        .filter(|stat| stat.pid == postmaster || stat.parent == postmaster)
        .map(|stat| stat.ticks)
        .sum();
    ticks / TICKS_PER_SECOND
}

struct Stat {
    pid: i32,
    parent: i32,
    /// utime, stime, cutime, cstime: its own, and of children that it has waited for.
    ticks: f64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; after it comes field 3.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        pid,
        parent: field(4)? as i32,
        ticks: field(14)? + field(15)? + field(16)? + field(17)?,
    })
}
