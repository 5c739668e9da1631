//! `make bench`: speed as ratios within one run, side by side with the plain alternatives and with what was aimed at.
//!
//!     make bench                               # everything, about 20 minutes on two cores
//!     BENCH=rate BENCH_ROWS=10000000 make bench
//!     BENCH=capture,application make bench
//!
//! `BENCH_REPEAT` is how often each variant is measured; the median counts.

mod application;
mod callgrind;
mod capture;
mod dual_write;
mod in_place;
mod looking;
mod migration;
mod partitioned;
mod plan;
mod processor;
mod rate;
mod swap;
mod watch;
mod work;

use std::time::Instant;

use transmute_tests::{report, Build, Cluster, Tree};

/// A sentence of the requirement and what came out.
pub struct Aim {
    pub what: String,
    pub aim: String,
    pub measured: String,
    pub is_reached: bool,
}

/// One that writes the WAL of production and does nothing by itself.
pub fn quiet_cluster() -> Cluster {
    Cluster::builder()
        .build(Build::Shipped)
        .conf("wal_level = replica")
        .conf("autovacuum = off")
        .conf("shared_buffers = 512MB")
        .conf("max_wal_size = 8GB")
        .start()
}

/// Name, for `BENCH=`, and what measures, prints its table and tells what was aimed at.
type Section = (&'static str, fn() -> Vec<Aim>);

/// A measured ratio that must not exceed (or must reach) `limit`.
pub fn at_most(what: &str, measured: f64, limit: f64, unit: &str) -> Aim {
    Aim {
        what: what.into(),
        aim: format!("≤ {limit}{unit}"),
        measured: format!("{measured:.2}{unit}"),
        is_reached: measured <= limit,
    }
}

pub fn at_least(what: &str, measured: f64, limit: f64, unit: &str) -> Aim {
    Aim {
        aim: format!("≥ {limit}{unit}"),
        is_reached: measured >= limit,
        ..at_most(what, measured, limit, unit)
    }
}

/// Prints a heading and a table.
pub fn show(heading: &str, rows: &[Vec<String>]) {
    println!("\n{heading}");
    for line in report::table(rows) {
        println!("  {line}");
    }
}

pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.into_iter().map(str::to_string).collect()
}

/// How often each variant is measured.
pub fn repeat() -> usize {
    match std::env::var("BENCH_REPEAT") {
        Ok(text) => text.parse().expect("BENCH_REPEAT is a whole number"),
        Err(_) => 3,
    }
}

/// Processes that ran or wanted to in the last minute: more than processors, and times mean little.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_string()
}

fn main() {
    let chosen = std::env::var("BENCH").unwrap_or_default();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.split(',').any(|c| c.trim() == name);
    let begun = Instant::now();
    println!(
        "{}, {} processors, load {}",
        Tree::under_test(Build::Shipped).full_version(),
        std::thread::available_parallelism().map_or(0, usize::from),
        load()
    );
    let sections: [Section; 12] = [
        ("rate", rate::run),
        ("work", work::run),
        ("capture", capture::run),
        ("dual_write", dual_write::instructions),
        ("fill", dual_write::filling),
        ("in_place", in_place::run),
        ("partitioned", partitioned::run),
        ("looking", looking::run),
        ("application", application::run),
        ("swap", swap::run),
        ("plan", plan::run),
        ("watch", watch::run),
    ];
    let mut rows = vec![row(["", "aim", "measured", ""])];
    for (name, run) in sections {
        if is_chosen(name) {
            // The harness names databases after the thread.
            let section = std::thread::Builder::new().name(format!("bench_{name}"));
            let aims = section.spawn(run).expect("a thread").join();
            for aim in aims.expect("a section of the benchmark") {
                let verdict = if aim.is_reached { "" } else { "NOT REACHED" };
                rows.push(row([&aim.what, &aim.aim, &aim.measured, verdict]));
            }
        }
    }
    show("Side by side with the aims", &rows);
    println!(
        "\n{:.0} s in all, load now {}",
        begun.elapsed().as_secs_f64(),
        load()
    );
}
