//! What /proc knows of other processes.

use std::fs;

pub fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|pid| process_stat(*pid).is_some_and(|(_, its_parent)| its_parent == parent))
        .collect()
}

/// A zombie is dead: who reaps it is no concern of ours.
pub(crate) fn is_alive(pid: i32) -> bool {
    process_stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn process_stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
